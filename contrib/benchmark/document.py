"""docs/performance.md."""

import os
import platform
import shlex
import sys
import time

from measure import output


def machine(binary):
    """What the numbers depend on."""
    with open("/proc/cpuinfo") as lines:
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()
    yield f"{os.cpu_count()} CPUs ({models[0] if models else platform.machine()}), {memory:.0f} GB of memory, Linux {platform.release().split('-')[0]}"
    yield output("containerd", "--version").strip().replace("github.com/containerd/containerd ", "")
    yield output(binary, "--version").strip() + ", a release build"
    yield f"load at the end of the run {load[0]:.1f} {load[1]:.1f} {load[2]:.1f}"


HOW = """\
Each comparison takes turns, A B A B …, in one run; a ratio is of two neighbours, and a row has the smallest, the median and the
largest of them. The median is held against the target; absolute times are medians too, and of this machine only.
ctrfs serves a containerd whose root is on a tmpfs (the 512 MB blob: on a disk), so what it is compared with is as fast as it
can be: no disk is between them.
"""


def text(report, options, binary):
    command = "contrib/bench" + "".join(" " + shlex.quote(word) for word in sys.argv[1:])
    lines = ["# Performance", "", f"Written by `{command}` on {time.strftime('%Y-%m-%d')}.", "", HOW]
    lines += [f"- {fact}" for fact in machine(binary)]
    missed = [row for _, rows, _ in report.sections for row in rows if row[5] == "**no**"]
    targets = sum(1 for _, rows, _ in report.sections for row in rows if row[5])
    lines += ["", f"{targets - len(missed)} of {targets} targets are met in this run.", ""]
    lines += report.tables()
    notes = os.path.join(os.path.dirname(__file__), "remarks.md")
    if os.path.exists(notes):
        with open(notes) as file:
            lines.append(file.read().rstrip())
    return "\n".join(lines).rstrip() + "\n"
