"""What does not wobble: how often the kernel asks ctrfs, and how often ctrfs asks containerd, for one operation."""

import time

import images
from measure import say, shell

# These come when the kernel finds time for them.
LATE = ("release", "releasedir", "forget")
# What can change is believed for a second: every operation finds it forgotten, on a fast machine as on a slow one.
LIFETIME = 1.1
# It may run out in the middle of an operation where the machine is busy: a hundredth of the requests and two calls more say
# nothing. What asks once for each of many things asks far more.
MORE_REQUESTS = 1.01
MORE_CALLS = 2
REFERENCE = "docker.io/bench/app:1"
# Each operation after what has to be there before; `$N` is the namespace's directory, `$I` the image's.
OPERATIONS = [
    ("ls of the images, first", 'ls -f "$N/images/docker.io/bench"'),
    ("ls of the images, again", 'ls -f "$N/images/docker.io/bench"'),
    ("ls -l of one image, first", 'ls -l "$I/"'),
    ("ls -l of one image, again", 'ls -l "$I/"'),
    ("cat manifest.json, first", 'cat "$I/manifest.json"'),
    ("cat manifest.json, again", 'cat "$I/manifest.json"'),
    ("cat size, first", 'cat "$I/size"'),
    ("cat size, again", 'cat "$I/size"'),
    ("cat images.tsv, first", 'cat "$N/images.tsv"'),
    ("cat images.tsv, again", 'cat "$N/images.tsv"'),
    ("50 documents, first", 'cat "$N"/images/docker.io/bench/app-*/config.json'),
    ("50 documents, again", 'cat "$N"/images/docker.io/bench/app-*/config.json'),
    ("ls -l containers, first", 'ls -l "$N/containers"'),
    ("ls -l containers, again", 'ls -l "$N/containers"'),
    ("cat spec.json of 50 containers", 'cat "$N"/containers/*/spec.json'),
    ("ls rootfs/, first", 'ls "$I/rootfs/"'),
    ("ls rootfs/, again", 'ls "$I/rootfs/"'),
    ("find rootfs -ls, first", 'find "$I/rootfs/" -ls'),
    ("find rootfs -ls, again", 'find "$I/rootfs/" -ls'),
    ("tar of rootfs, first", 'tar cf - -C "$I/rootfs/" . | cat'),
    ("tar of rootfs, again", 'tar cf - -C "$I/rootfs/" . | cat'),
    ("cat of a file of 2 MB, first", 'cat "$I/rootfs/usr/bin/big"'),
    ("cat of a file of 2 MB, again", 'cat "$I/rootfs/usr/bin/big"'),
    ("stat 100 times", 'for n in {1..100}; do [ -e "$I/digest" ]; done'),
    ("find of everything but rootfs, first", 'find "$N/" -name rootfs -prune -o -print'),
    ("find of everything but rootfs, again", 'find "$N/" -name rootfs -prune -o -print'),
]


def totals(ctrfs):
    """Requests and calls so far."""
    metrics = ctrfs.metrics()
    requests = sum(
        value for name, value in metrics.items()
        if name.startswith("ctrfs_requests_total") and not any(f'"{late}"' in name for late in LATE)
    )
    calls = sum(
        value for name, value in metrics.items()
        if name.startswith("ctrfs_calls_total") and "Events." not in name and "Version." not in name
    )
    return requests, calls


def count(ctrfs, operations):
    """Requests and calls of each operation, in order."""
    environment = {"N": str(ctrfs.default), "I": str(ctrfs.image(REFERENCE))}
    totals(ctrfs)
    first = totals(ctrfs)
    overhead = totals(ctrfs)[0] - first[0]  # reading the numbers is asking, too
    found = {}
    for name, script in operations:
        time.sleep(LIFETIME)
        before = totals(ctrfs)
        shell(f"( {script} ) >/dev/null", **environment)
        after = totals(ctrfs)
        found[name] = (int(after[0] - before[0] - overhead), int(after[1] - before[1]))
    return found


def prepare(world):
    containerd = world.containerd()
    layout = images.fixed(world.disk / "layout")
    layout.load(containerd, "docker.io/bench/app")
    images.fill(containerd, layout, 50, 50)
    return containerd


def read(path):
    rows = (line.split("\t") for line in path.read_text().splitlines() if line and line[0] != "#")
    return {name: (int(requests), int(calls)) for name, requests, calls in rows}


def write(path, found):
    with open(path, "w") as out:
        out.write("# Requests of the kernel and calls of containerd, at most, for one operation: contrib/bench --short --accept\n")
        out.writelines(f"{name}\t{requests}\t{calls}\n" for name, (requests, calls) in found.items())


def show(found, expected, bad):
    print(f"{'operation':40} {'requests':>20} {'calls':>16}")
    for name, numbers in found.items():
        cells = [f"{n} (at most {limit})" for n, limit in zip(numbers, expected.get(name, ("?", "?")))]
        print(f"{name:40} {cells[0]:>20} {cells[1]:>16}{'   WORSE' if name in bad else ''}")


def passed(world, containerd):
    """One pass over the operations, with a ctrfs that knows nothing yet."""
    ctrfs = world.ctrfs(containerd).settle()
    found = count(ctrfs, OPERATIONS)
    ctrfs.stop()
    return found


def both(choose, one, other):
    return {name: tuple(map(choose, one[name], other[name])) for name in one}


def worse(found, expected):
    """The operations that ask more than expected, or of which nothing is known."""
    def is_more(name, numbers):
        if name not in expected:
            return True
        requests, calls = expected[name]
        return numbers[0] > requests * MORE_REQUESTS or numbers[1] > calls + MORE_CALLS

    return [name for name, numbers in found.items() if is_more(name, numbers)]


def run(world, path, accept):
    containerd = prepare(world)
    found = passed(world, containerd)
    if accept:
        # Something that ran out of time just now may come once more.
        found = both(max, found, passed(world, containerd))
        write(path, found)
    expected = read(path)
    if worse(found, expected):
        say("more than expected; once more, in case the machine was too busy")
        found = both(min, found, passed(world, containerd))
    containerd.stop()
    bad = worse(found, expected)
    show(found, expected, bad)
    say(f"{len(bad)} operations ask more than expected" if bad else "no operation asks more than expected")
    return 1 if bad else 0
