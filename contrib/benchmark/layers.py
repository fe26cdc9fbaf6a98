"""Root filesystems: an image that was never unpacked, and one that is warm, against `ctr images mount`."""

import os
import resource

import images
from measure import command, duration, forget, megabytes, seconds, shell, turns

NAME = "docker.io/bench/layers"
# What is made, which file of it is read, and how much faster than `ctr images mount` it is to be.
KINDS = {
    "370 MB of /usr, gzip": (images.distribution, "usr/bin/[", 5),
    "370 MB of /usr, zstd": (lambda path: images.distribution(path, "zstd"), "usr/bin/[", 4),
    "30,000 small files, gzip": (images.many_files, "srv/000/00050.txt", 4),
    "one file of 500 MB, gzip": (images.one_file, "etc/app.conf", 2.5),
}


def decompress(layout, containerd):
    """The layers, one after the other, to nowhere."""
    tool = "zstd" if layout.layers[0]["mediaType"].endswith("zstd") else "gzip"
    for path in layout.stored(containerd):
        if tool == "zstd" and path.read_bytes()[:2] == b"\x1f\x8b":
            command("gzip", "-dc", stdin=open(path, "rb"))
        else:
            command(tool, "-dc", stdin=open(path, "rb"))


def first_use(world, report, containerd, kind, rounds):
    """The first look into an image that nothing knows yet. Each round imports it anew and starts with an empty cache."""
    make, name, target = KINDS[kind]
    layout = make(world.fresh("layout", world.disk))
    ours, bare, theirs, whole, spent, usual = [], [], [], [], [], []
    point = world.fresh("overlay")
    for _ in range(rounds):
        layout.load(containerd, NAME)
        ctrfs = world.ctrfs(containerd).settle()
        rootfs = ctrfs.image(NAME + ":1") / "rootfs"
        look = 'ls "$P/" >/dev/null; cat "$P/$F" >/dev/null'
        ours.append(seconds(lambda: shell(look, P=str(rootfs), F=name)))
        spent.append(ctrfs.seconds())
        before = children()
        bare.append(seconds(lambda: decompress(layout, containerd)))
        usual.append(children() - before)
        ctrfs.stop()
        ctrfs = world.ctrfs(containerd).settle()
        whole.append(seconds(lambda: shell('tar cf - -C "$P/" . | cat >/dev/null', P=str(ctrfs.image(NAME + ":1") / "rootfs"))))
        ctrfs.stop()

        def unpacked():
            containerd.mount(NAME + ":1", point)
            shell(look, P=str(point), F=name)

        theirs.append(seconds(unpacked))
        command(*containerd.words("images", "unmount", "--rm", point))
        containerd.remove(NAME + ":1")
    report.at_least(f"first `ls rootfs/` and `cat` of a file: {kind}", ours, theirs, target, "`ctr images mount`, `ls`, `cat`")
    tool = "zstd -dc" if "zstd" in kind else "gzip -dc"
    report.at_most("the same", ours, bare, 1.25, f"`{tool}` of its layers", "≤ 1.25× of bare decompression")
    report.at_most("CPU for the same", spent, usual, None, f"`{tool}`")
    return layout, whole, bare


def children():
    """Seconds of CPU of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def index_size(cache):
    return sum(path.stat().st_blocks * 512 for path in cache.rglob("*") if path.is_file())


def restarted(world, report, ctrfs, rootfs, name, index, allowed):
    """What is left to do when the index is there."""
    look = 'ls "$P/" >/dev/null; cat "$P/$F" >/dev/null'
    (world.disk / "elsewhere").write_text("")

    def again():
        ctrfs.restart()
        ctrfs.settle()
        return seconds(lambda: shell(look, P=str(rootfs), F=name))

    ours, empty = turns(7, again, lambda: shell(look, P=str(world.disk), F="elsewhere"))
    times = [max(a - b, 0) for a, b in zip(ours, empty)]
    report.value("the same after a restart of ctrfs, less that of another directory", times, duration, 0.03, "≤ 30 ms")
    report.value("index on disk", [index], megabytes, allowed, f"≤ {megabytes(allowed)}: 1 % and 128 bytes an entry")


def warm(world, report, containerd, layout, whole, bare):
    """An image of many files in use, against an overlay mount of it."""
    layout.load(containerd, NAME)
    ctrfs = world.ctrfs(containerd).settle()
    rootfs = ctrfs.image(NAME + ":1") / "rootfs"
    entries = sum(1 + len(files) for _, _, files in os.walk(rootfs))
    restarted(world, report, ctrfs, rootfs, "usr/bin/[", index_size(ctrfs.cache), sum(layout.sizes) / 100 + 128 * entries)
    with containerd.mounted(NAME + ":1", world.fresh("overlay")) as point:
        pair = (rootfs, point)
        for script, limit in (('find "$P/" -ls >/dev/null', 1.1), ('tar cf - -C "$P/" . | cat >/dev/null', 1.3)):
            for path in pair:
                shell(script, P=str(path))
            ours, theirs = turns(7, *(lambda p=p: shell(script, P=str(p)) for p in pair))
            what = "`find rootfs -ls`" if "find" in script else "`tar cf - rootfs | cat`"
            report.at_most(f"{what}, {entries:,} entries, warm", ours, theirs, limit, "overlay mount on tmpfs")
            report.remark(f"{what}, warm, asks ctrfs for: {ctrfs.asked(lambda: shell(script, P=str(rootfs)))}.")
        overlay = min(theirs)
        allowed = [2.5 * d + 1.3 * overlay for d in bare]
        report.at_most("`tar cf - rootfs | cat`, the first time, from blobs", whole, allowed, 1, "2.5 bare decompressions and 1.3 warm `tar` of overlay:", "≤ 1×")
    ctrfs.stop()
    containerd.remove(NAME + ":1")


def big(world, report, containerd, layout):
    """One large file in a gzip layer."""
    layout.load(containerd, NAME)
    ctrfs = world.ctrfs(containerd).settle()
    path = ctrfs.image(NAME + ":1") / "rootfs/srv/big"
    os.stat(path)
    restarted(world, report, ctrfs, path.parent.parent, "etc/app.conf", index_size(ctrfs.cache), sum(layout.sizes) / 100 + 128 * 10)
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
    anonymous = ctrfs.resident("RssAnon")
    report.value("anonymous memory after reading all of it", [anonymous], megabytes, 120e6, "≤ 120 MB")
    ctrfs.stop()
    copy.unlink()
    containerd.remove(NAME + ":1")


def run(world, report, options):
    containerd = world.containerd()
    for kind in KINDS:
        report.section(f"Root filesystem: {kind}")
        layout, whole, bare = first_use(world, report, containerd, kind, options.rounds)
        stored, plain = (sum(numbers) for numbers in ([layer["size"] for layer in layout.layers], layout.sizes))
        report.remark(f"{megabytes(plain)} of tar, {megabytes(stored)} stored.")
        if kind == "370 MB of /usr, gzip":
            warm(world, report, containerd, layout, whole, bare)
        if kind.startswith("one file"):
            big(world, report, containerd, layout)
        command("rm", "-rf", layout.path)
    containerd.stop()
