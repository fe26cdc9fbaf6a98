"""Root filesystems: an image that was never unpacked, and one that is warm, against `ctr images mount`."""

import os
import resource
import statistics
import threading

import images
from measure import command, duration, forget, megabytes, seconds, shell, turns

NAME = "docker.io/bench/layers"
# What is made, which file of it is read, how much faster than `ctr images mount` the first look is to be, and what the
# first `tar` of all of it may cost: so many bare decompressions, and so many warm `tar` of the overlay mount.
KINDS = {
    "370 MB of /usr, gzip": (images.distribution, "usr/bin/[", 5, (2.5, 1.3)),
    "370 MB of /usr, zstd": (lambda path: images.distribution(path, "zstd"), "usr/bin/[", 4, (1.6, 1.5)),
    "30,000 small files, gzip": (images.many_files, "srv/000/00050.txt", 4, (2.5, 1.3)),
    "one file of 500 MB, gzip": (images.one_file, "etc/app.conf", 2.5, (2.5, 1.3)),
}
LOOK = 'ls "$P/" >/dev/null; cat "$P/$F" >/dev/null'
TAR = 'tar cf - -C "$P/" . | cat >/dev/null'


def first_use(world, report, containerd, kind, rounds):
    """The first look into an image that nothing knows yet. Each round imports it anew and starts with an empty cache."""
    make, name, target, (decompressions, tars) = KINDS[kind]
    layout = make(world.fresh("layout", world.disk))
    point = world.fresh("overlay")
    ours, bare, theirs, whole, overlay, spent, usual = ([] for _ in range(7))
    for _ in range(rounds):
        layout.load(containerd, NAME)
        ctrfs = world.ctrfs(containerd).settle()
        rootfs = str(ctrfs.image(NAME + ":1") / "rootfs")
        ours.append(seconds(lambda: shell(LOOK, P=rootfs, F=name)))
        spent.append(ctrfs.seconds())
        before = children()
        bare.append(seconds(lambda: command(world.decompressor, *layout.stored(containerd))))
        usual.append(children() - before)
        ctrfs.stop()
        ctrfs = world.ctrfs(containerd).settle()
        rootfs = str(ctrfs.image(NAME + ":1") / "rootfs")
        whole.append(seconds(lambda: shell(TAR, P=rootfs)))
        ctrfs.stop()

        def unpacked():
            containerd.mount(NAME + ":1", point)
            shell(LOOK, P=str(point), F=name)

        theirs.append(seconds(unpacked))
        shell(TAR, P=str(point))
        overlay.append(seconds(lambda: shell(TAR, P=str(point))))
        command(*containerd.words("images", "unmount", "--rm", point))
        containerd.remove(NAME + ":1")
    what = f"first `ls rootfs/` and `cat` of a file: {kind}"
    report.at_least(what, ours, theirs, target, "`ctr images mount`, `ls`, `cat`")
    report.at_most("the same", ours, bare, 1.25, "D, bare decompression of its layers", "≤ 1.25 D")
    report.at_most("CPU for the same", spent, usual, None, "D")
    allowed = [decompressions * d + tars * o for d, o in zip(bare, overlay)]
    limit = f"{decompressions} D + {tars} O"
    report.at_most("`tar cf - rootfs | cat`, the first time, from blobs", whole, allowed, 1, f"{limit} =", f"≤ {limit}")
    report.remark(f"O, a warm `tar` of the overlay mount: {duration(statistics.median(overlay))}.")
    return layout


def children():
    """Seconds of CPU of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def index_size(cache):
    return sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file())


def restarted(world, report, ctrfs, rootfs, name, index, allowed):
    """What is left to do when the index is there."""
    (world.disk / "elsewhere").write_text("")

    def again():
        ctrfs.restart()
        ctrfs.settle()
        return seconds(lambda: shell(LOOK, P=str(rootfs), F=name))

    ours, empty = turns(7, again, lambda: shell(LOOK, P=str(world.disk), F="elsewhere"))
    times = [max(a - b, 0) for a, b in zip(ours, empty)]
    report.value("the same after a restart of ctrfs, less that of another directory", times, duration, 0.03, "≤ 30 ms")
    report.value("index on disk", [index], megabytes, allowed, f"≤ {megabytes(allowed)}: 1 % and 128 bytes an entry")


def warm(world, report, containerd, layout):
    """An image of many files in use, against an overlay mount of it."""
    layout.load(containerd, NAME)
    ctrfs = world.ctrfs(containerd).settle()
    rootfs = ctrfs.image(NAME + ":1") / "rootfs"
    entries = sum(1 + len(files) for _, _, files in os.walk(rootfs))
    restarted(world, report, ctrfs, rootfs, "usr/bin/[", index_size(ctrfs.cache / "idx"), sum(layout.sizes) / 100 + 128 * entries)
    with containerd.mounted(NAME + ":1", world.fresh("overlay")) as point:
        pair = (rootfs, point)
        for script, limit in (('find "$P/" -ls >/dev/null', 1.1), (TAR, 1.3)):
            for path in pair:
                shell(script, P=str(path))
            ours, theirs = turns(7, *(lambda p=p: shell(script, P=str(p)) for p in pair))
            what = "`find rootfs -ls`" if "find" in script else "`tar cf - rootfs | cat`"
            report.at_most(f"{what}, {entries:,} entries, warm", ours, theirs, limit, "overlay mount on tmpfs")
            report.remark(f"{what}, warm, asks ctrfs for: {ctrfs.asked(lambda: shell(script, P=str(rootfs)))}.")
    ctrfs.stop()
    containerd.remove(NAME + ":1")


def big(world, report, containerd, layout):
    """One large file in a gzip layer."""
    layout.load(containerd, NAME)
    ctrfs = world.ctrfs(containerd).settle()
    path = ctrfs.image(NAME + ":1") / "rootfs/srv/big"
    os.stat(path)
    restarted(world, report, ctrfs, path.parent.parent, "etc/app.conf", index_size(ctrfs.cache / "idx"), sum(layout.sizes) / 100 + 128 * 10)
    copy = world.disk / "big"
    command("cp", path, copy)
    times = []
    for place in (251, 97, 402, 333, 148):
        ctrfs.restart()
        ctrfs.settle()
        os.stat(path)
        forget(path, *layout.stored(containerd))

        def middle():
            with open(path, "rb", buffering=0) as file:
                file.seek(place << 20)
                file.read(4096)

        times.append(seconds(middle))
    report.value("4 KiB in the middle of a file of 500 MB in a gzip layer, page cache dropped", times, duration, 0.015, "≤ 15 ms")
    ours, theirs = turns(5, lambda: world.measure("sequential", path), lambda: world.measure("sequential", copy))
    # The first round fills the page cache.
    report.at_most("sequential read of that file, warm", ours[1:], theirs[1:], 1.05, "file on disk")
    report.remark(f"For one such warm read the kernel asks ctrfs for: {ctrfs.asked(lambda: world.measure('sequential', path))} (a few attributes are not told).")
    ctrfs.stop()
    copy.unlink()
    containerd.remove(NAME + ":1")


def memory(world, report, containerd):
    """The most that is held while a layer of 2 GB is indexed, and then read from end to end and at random."""
    report.section("Root filesystem: a layer of 2 GB, gzip")
    layout = images.huge(world.fresh("layout", world.disk))
    layout.load(containerd, NAME)
    ctrfs = world.ctrfs(containerd).settle()
    rootfs = ctrfs.image(NAME + ":1") / "rootfs"
    held, done = [], threading.Event()

    def watch():
        while not done.wait(0.02):
            held.append(ctrfs.resident("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        taken = seconds(lambda: shell(LOOK, P=str(rootfs), F="etc/app.conf"))
        indexed = max(held)
        world.measure("random", 300, rootfs / "srv/big2")
        shell(TAR, P=str(rootfs))
    finally:
        done.set()
        watcher.join()
    report.value("anonymous memory while it is indexed, at most", [indexed], megabytes, 120e6, "≤ 120 MB")
    report.value("the same while it is read at random, and all of it by `tar`", [max(held)], megabytes, 120e6, "≤ 120 MB")
    report.remark(f"Indexed in {duration(taken)}; {megabytes(sum(layout.sizes))} of tar, {megabytes(index_size(ctrfs.cache))} in the cache afterwards.")
    ctrfs.stop()
    containerd.remove(NAME + ":1")
    command("rm", "-rf", layout.path)


def run(world, report, options):
    containerd = world.containerd()
    for kind in KINDS:
        report.section(f"Root filesystem: {kind}")
        report.remark("Load before: " + " ".join(f"{load:.1f}" for load in os.getloadavg()) + ".")
        layout = first_use(world, report, containerd, kind, options.rounds)
        stored, plain = (sum(numbers) for numbers in ([layer["size"] for layer in layout.layers], layout.sizes))
        report.remark(f"{megabytes(plain)} of tar, {megabytes(stored)} stored.")
        if kind == "370 MB of /usr, gzip":
            warm(world, report, containerd, layout)
        if kind.startswith("one file"):
            big(world, report, containerd, layout)
        command("rm", "-rf", layout.path)
    memory(world, report, containerd)
    containerd.stop()
