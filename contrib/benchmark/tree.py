"""The tree and the documents in it: what issue by issue was promised of reading and listing, up to ten thousand images."""

import os
import statistics
import time

import images
import rpc
from measure import command, duration, megabytes, output, seconds, shell, spawn, turns

WALK = r'find "$P" \( -name rootfs -o -name fs -o -name oci \) -prune -o -print >/dev/null'
PRUNED = r'find "$P/images" -name manifest.json -prune -o -type d -print >/dev/null'
BENCH = "images/docker.io/bench"


def documents(world, report, containerd, ctrfs, layout):
    """One small document, by whole processes."""
    report.section("Small documents")
    path = str(ctrfs.image("docker.io/bench/base:1") / "manifest.json")
    get = containerd.words("content", "get", layout.digest)
    ours, theirs = [], []
    for _ in range(5):
        empty, cat, ctr = (statistics.median(times) for times in turns(60, *(spawn(words) for words in (("true",), ("cat", path), get))))
        ours.append(max(cat - empty, 1e-6))
        theirs.append(ctr - empty)
    report.at_least("`cat manifest.json`, less `true`", ours, theirs, 8, "`ctr content get`")
    return theirs


def many_documents(world, report, ctrfs, targets, calls):
    """Ten thousand documents by one process."""
    names = [str(ctrfs.default / "images" / name / "manifest.json") for name in targets]
    cold = world.measure("documents", len(names), names=names)
    theirs = calls[:5]
    ours = [world.measure("documents", len(names), names=names) for _ in theirs]
    report.at_least(f"{len(names):,} different `manifest.json` by one process, each for the first time", [cold] * len(theirs), theirs, 200, "`ctr content get`, less `true`")
    report.at_least("the same again", ours, theirs, 200, "`ctr content get`, less `true`")
    # One document again and again.
    ours = [world.measure("documents", 10_000, names=names[:1]) for _ in theirs]
    report.at_least("10,000 reads of one `manifest.json` by one process", ours, theirs, 1000, "`ctr content get`, less `true`")
    copy, fast = world.disk / "document", world.fast / "document"
    for path in (copy, fast):
        path.write_bytes(open(names[0], "rb").read())
    ours, disk, memory = turns(
        7,
        lambda: world.measure("documents", 20_000, names=names[:1]),
        lambda: world.measure("documents", 20_000, names=[copy]),
        lambda: world.measure("documents", 20_000, names=[fast]),
    )
    report.at_most("the same: open, read, close", ours, disk, 3.5, f"file on {kind_of(world.disk)}")
    report.at_most("the same", ours, memory, None, "file on tmpfs")
    asked = ctrfs.asked(lambda: world.measure("documents", 10_000, names=names[:1]))
    report.remark(f"10,000 of these ask ctrfs for: {asked}.")
    real = os.path.realpath(names[0])
    report.value("the same by the document's own path, without the link", [world.measure("documents", 10_000, names=[real])], duration)


def kind_of(path):
    return output("findmnt", "-n", "-o", "FSTYPE", "-T", path).strip()


def bare_list(containerd):
    """Images.List over a new connection, the answer not decoded."""
    connection = rpc.Rpc(containerd.address)
    connection.call("images.v1.Images/List")
    connection.close()


def lists(world, report, containerd, targets):
    """Listing that many images."""
    report.section(f"{len(targets):,} images, each with a manifest and a config of its own")
    ctrfs = world.ctrfs(containerd)
    starts = []
    mapped = world.disk / "listed"

    def cold():
        starts.append(ctrfs.restart())
        return seconds(lambda: shell('ls -f "$P" >"$O"', P=str(ctrfs.default / BENCH), O=str(mapped)))

    ours, bare, quiet, empty = turns(
        7, cold, lambda: bare_list(containerd), lambda: command(*containerd.words("images", "ls", "-q")),
        lambda: shell("ls -f / >/dev/null"),
    )
    if mapped.read_text().count("\n") < len(targets):
        raise RuntimeError("ls shows too few images")
    ours = [a - b for a, b in zip(ours, empty)]
    report.at_most("`ls` of the images, the first after a start, less `ls /`", ours, bare, 1.5, "bare gRPC list")
    report.at_least("the same", ours, quiet, None, "`ctr images ls -q`")
    report.value("start of ctrfs until `ls` of the mount is done", starts, duration, 0.05, "≤ 50 ms")

    def table():
        ctrfs.restart()
        ctrfs.settle()
        return seconds(lambda: command("cat", ctrfs.default / "images.tsv"))

    full = turns(1, lambda: command(*containerd.words("images", "ls")))[0]
    first = turns(5, table)[0]
    warm, _ = turns(3, lambda: command("cat", ctrfs.default / "images.tsv"), lambda: None)
    report.at_least("`cat images.tsv`, the first after a start", first, full * 5, 100, "`ctr images ls`")
    report.at_least("`cat images.tsv` again", warm, full * 3, 100, "`ctr images ls`")
    ctrfs.restart()
    ctrfs.settle()
    sizes = [str(ctrfs.default / "images" / name / "size") for name in targets]
    first = world.measure("documents", len(sizes), names=sizes) * len(sizes)
    again = [world.measure("documents", len(sizes), names=sizes) * len(sizes) for _ in range(3)]
    report.remark(f"Every `size` again asks for: {ctrfs.asked(lambda: world.measure('documents', len(sizes), names=sizes))}.")
    report.at_least("every image's `size`, for the first time", [first], full, 2, "`ctr images ls`")
    report.at_least("every image's `size` again", again, full * 3, 15, "`ctr images ls`")
    return ctrfs


def same_tree(source, target, depth):
    """Empty files, links and directories of the same names."""
    target.mkdir()
    count = 1
    with os.scandir(source) as entries:
        for entry in entries:
            name = target / entry.name
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), name)
                count += 1
            elif not entry.is_dir(follow_symlinks=False):
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
                count += 1
            elif depth > 1:
                count += same_tree(entry.path, name, depth - 1)
            else:
                name.mkdir()
                count += 1
    return count


def finds(world, report, ctrfs, containers):
    """`find` and `ls -l`, against the same tree of empty files."""
    kind = kind_of(world.disk)
    took = seconds(lambda: shell(PRUNED, P=str(ctrfs.default)))
    report.remark(f"`find images -name manifest.json -prune -o -type d -print` for the first time: {duration(took)}.")
    twin = world.fresh("twin", world.disk)
    count = same_tree(ctrfs.default / "images", twin / "images", 6)
    pruned, theirs = turns(2, *(lambda p=p: shell(PRUNED, P=str(p)) for p in (ctrfs.default, twin)))
    report.at_most("`find images -name manifest.json -prune -o -type d -print`, warm", pruned, theirs, 3, f"the same tree of empty files on {kind}")
    report.remark(f"Warm, it asks for: {ctrfs.asked(lambda: shell(PRUNED, P=str(ctrfs.default)))}.")
    deep = 'find "$P" -maxdepth 6 >/dev/null'
    ours, theirs = turns(2, *(lambda p=p: shell(deep, P=str(p / "images")) for p in (ctrfs.default, twin)))
    report.at_most(f"`find images -maxdepth 6`, {count:,} entries, warm", ours, theirs, 3, f"the same on {kind}")
    one = 'find "$P" -maxdepth 1 >/dev/null'
    ours, theirs = turns(7, *(lambda p=p: shell(one, P=str(p / BENCH)) for p in (ctrfs.default, twin)))
    report.at_most("`find` of the one directory of all of them, warm", ours, theirs, 1.5, f"the same on {kind}")
    if not containers:
        return
    same_tree(ctrfs.default / "containers", twin / "containers", 1)
    pair = (ctrfs.default / "containers", twin / "containers")
    list_them = 'ls -l "$P" >/dev/null'

    def later(path):
        time.sleep(1.2)  # beyond what the kernel believes of things that change
        return seconds(lambda: shell(list_them, P=str(path)))

    ours, theirs = turns(5, *(lambda p=p: later(p) for p in pair))
    report.at_most(f"`ls -l containers`, {containers:,} of them, warm", ours, theirs, 2.5, f"the same on {kind}")
    ours, theirs = [], []
    for _ in range(5):
        for path, times in zip(pair, (ours, theirs)):
            shell(list_them, P=str(path))
            times.append(seconds(lambda: shell(list_them, P=str(path))))
    report.at_most("the same within a second of the last one", ours, theirs, 1.3, f"the same on {kind}")


def memory(world, report, containerd, count, containers, walks):
    """What stays in memory after walks over everything."""
    ctrfs = world.ctrfs(containerd).settle()
    before = ctrfs.resident()
    sizes, times, anonymous = [], [], []
    for _ in range(walks):
        times.append(seconds(lambda: shell(WALK, P=str(ctrfs.point))))
        sizes.append(ctrfs.resident())
        anonymous.append(ctrfs.resident("RssAnon"))
    nodes = ctrfs.metrics().get("ctrfs_nodes", 0)
    what = f"resident memory after a `find` of everything but `rootfs`, `fs` and `oci` ({count:,} images, {containers:,} containers)"
    report.value(what, sizes[:1], megabytes, 150e6, "≤ 150 MB")
    report.value(f"the same after walk {walks}", sizes[-1:], megabytes, 150e6, "≤ 150 MB")
    growth = (sizes[-1] - sizes[0]) / sizes[0]
    report.add(f"growth from walk 1 to walk {walks}", f"{growth:+.1%}", "", f"**{growth:+.1%}**", "none (5 %)", growth <= 0.05)
    report.remark(
        f"Before the first walk {megabytes(before)}; the kernel held {nodes:,.0f} nodes after the last one, which is "
        f"{(sizes[-1] - before) / max(nodes, 1):.0f} bytes a node; anonymous memory {megabytes(anonymous[-1])}. "
        f"The first walk took {duration(times[0])}, the last {duration(times[-1])}."
    )
    ctrfs.stop()


def idle(world, report):
    """A daemon that has nothing to do, on ten images."""
    report.section("Idle, with ten images")
    containerd = world.containerd()
    layout = images.fixed(world.disk / "ten")
    layout.load(containerd, "docker.io/bench/base")
    images.fill(containerd, layout, 9)
    ctrfs = world.ctrfs(containerd).settle()
    shell('find "$P" -path "*/rootfs/*" -prune -o -print >/dev/null', P=str(ctrfs.point))
    time.sleep(1.5)
    report.value("resident memory after a walk", [ctrfs.resident()], megabytes, 25e6, "≤ 25 MB")
    before = ctrfs.ticks()
    time.sleep(5)
    report.value("clock ticks of CPU in 5 s", [ctrfs.ticks() - before], lambda n: f"{n:.0f}", 0, "0")
    ctrfs.stop()
    containerd.stop()


def run(world, report, options):
    idle(world, report)
    containerd = world.containerd()
    layout = images.fixed(world.disk / "base")
    layout.load(containerd, "docker.io/bench/base")
    ctrfs = world.ctrfs(containerd).settle()
    calls = documents(world, report, containerd, ctrfs, layout)
    ctrfs.stop()
    took = time.monotonic()
    targets = images.fill(containerd, layout, options.scale, options.scale)
    took = time.monotonic() - took
    ctrfs = world.ctrfs(containerd).settle()
    many_documents(world, report, ctrfs, targets, calls)
    ctrfs.stop()
    ctrfs = lists(world, report, containerd, targets)
    report.remark(f"Made over gRPC in {duration(took)}.")
    finds(world, report, ctrfs, options.scale)
    ctrfs.stop()
    memory(world, report, containerd, options.scale, options.scale, options.walks)
    containerd.stop()
