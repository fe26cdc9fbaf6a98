"""Taking turns, and what comes of it."""

import os
import shutil
import statistics
import subprocess
import sys
import time


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def seconds(action):
    """How long one call takes. An action that measures itself returns its seconds."""
    start = time.perf_counter()
    own = action()
    took = time.perf_counter() - start
    return own if isinstance(own, float) else took


def turns(rounds, *actions):
    """A B … A B …: for each action, its seconds in each round."""
    took = [[] for _ in actions]
    for _ in range(rounds):
        for action, times in zip(actions, took):
            times.append(seconds(action))
    return took


def command(*words, ok=(0,), **options):
    """Runs a command and throws its output away."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | options
    done = subprocess.run(words, **options, check=False)
    if done.returncode not in ok:
        error = done.stderr.decode(errors="replace").strip() if done.stderr else ""
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}: {error[-1000:]}")


def output(*words, **options):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, **options).stdout.decode()


def shell(script, **variables):
    """A pipe, as a user types it. Values come as variables, so that names need no quoting."""
    command("bash", "-o", "pipefail", "-c", script, env=os.environ | variables)


def spawn(words):
    """An action: one run of a process, with as little around it as there can be."""
    path = shutil.which(words[0])
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]

    def run():
        pid = os.posix_spawn(path, words, os.environ, file_actions=quiet)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(f"{words} failed")

    return run


def forget(*paths):
    """Drops the page cache of files, so that the next read is a cold one."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        except OSError:
            pass  # a read-only mount need not know it
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def spread(numbers, show):
    low, high = min(numbers), max(numbers)
    middle = statistics.median(numbers)
    return f"**{show(middle)}**" if len(numbers) == 1 else f"{show(low)} – **{show(middle)}** – {show(high)}"


def duration(value):
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(value):
    return f"{value / 1e6:.1f} MB"


class Report:
    """The rows so far, each with its target."""

    def __init__(self):
        self.sections = []  # (heading, rows, remarks)
        self.ratios = {}  # (heading, row): (which is better, the numbers of all rounds)

    def section(self, heading):
        say(heading)
        self.sections.append((heading, [], []))

    def remark(self, text):
        say(text)
        self.sections[-1][2].append(text)

    def add(self, what, ours, theirs, value, target, met):
        mark = "" if met is None else "yes" if met else "**no**"
        self.sections[-1][1].append((what, ours, theirs, value, target, mark))
        say(f"{what}: {ours} against {theirs or '-'}: {value.replace('*', '')} ({target or 'no target'}{', ' if mark else ''}{mark})")

    def at_least(self, what, ours, theirs, target=None, name="", limit=None):
        """Ours is to be `target` times faster than theirs (lists of seconds, in pairs)."""
        ratios = [b / a for a, b in zip(ours, theirs)]
        self._keep(what, name, "more", ratios)
        self._ratio(what, ours, theirs, ratios, name, target, limit or (f"≥ {target}×" if target else ""), lambda r: r >= target)

    def at_most(self, what, ours, theirs, target=None, name="", limit=None):
        """Ours may take `target` times as long as theirs."""
        ratios = [a / b for a, b in zip(ours, theirs)]
        self._keep(what, name, "less", ratios)
        self._ratio(what, ours, theirs, ratios, name, target, limit or (f"≤ {target}×" if target else ""), lambda r: r <= target)

    def _keep(self, what, name, better, ratios):
        """Remembers a row under a name of its own: several are called `the same`."""
        heading, rows, _ = self.sections[-1]
        self.ratios[heading, f"{len(rows) + 1}. {what} – {name}"] = (better, ratios)

    def _ratio(self, what, ours, theirs, ratios, name, target, limit, good):
        middle = statistics.median(ratios)
        shown = f"{name} {duration(statistics.median(theirs))}".strip()
        met = good(middle) if target else None
        self.add(what, duration(statistics.median(ours)), shown, spread(ratios, number) + "×", limit, met)

    def value(self, what, numbers, show, target=None, limit=""):
        """A number that is to be at most `target`."""
        middle = statistics.median(numbers)
        self.add(what, show(middle), "", spread(numbers, show), limit, None if target is None else middle <= target)

    def tables(self):
        for heading, rows, remarks in self.sections:
            yield f"## {heading}\n"
            yield "| | ctrfs | compared with | min – **median** – max | target | met |"
            yield "|---|---|---|---|---|---|"
            for row in rows:
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
            yield ""
            yield from (f"- {remark}" for remark in remarks)
            if remarks:
                yield ""
