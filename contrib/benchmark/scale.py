"""Many at once: a hundred namespaces, a thousand changes a second, 64 readers of a containerd that takes its time."""

import contextlib
import errno
import multiprocessing
import os
import re
import statistics
import time
from datetime import datetime

import images
import rpc
import slow
from measure import duration, megabytes, shell, turns
from tree import WALK

NAMESPACES = 100
IN_EACH = 20
CHANGES = 1_000  # a second
SECONDS = 30
LABELLED = 200  # images that are changed in turn
TICK = 0.01
READERS = 64
LATE = 0.2
PROBE = "docker.io/bench/probe:1"


def percentile(numbers, share):
    return sorted(numbers)[min(int(len(numbers) * share), len(numbers) - 1)]


def percent(value):
    return f"{value:.1%}"


def bare(world):
    """A layout whose layers are not loaded: documents are enough."""
    return images.Layout(world.fresh("layout", world.disk)).small({"etc/app.conf": b"greeting = hello\n"})


def namespaces(world, report):
    """As many images and containers in a hundred namespaces, and in one."""
    report.section(f"{NAMESPACES} namespaces of {IN_EACH} images and {IN_EACH} containers")
    layout = bare(world)
    many, one = world.containerd(), world.containerd()
    names = [f"team-{n:03}" for n in range(NAMESPACES)]
    for name in names:
        images.fill(many, layout, IN_EACH, IN_EACH, name)
    images.fill(one, layout, NAMESPACES * IN_EACH, NAMESPACES * IN_EACH)
    mounts = [world.ctrfs(containerd).settle() for containerd in (many, one)]
    if (found := sorted(os.listdir(mounts[0].point / "namespaces"))) != names:
        raise RuntimeError(f"the mount shows other namespaces: {found}")
    for name in names:
        found = os.listdir(mounts[0].point / "namespaces" / name / "images/docker.io/bench")
        if len(found) != IN_EACH:
            raise RuntimeError(f"{name} shows {len(found)} images")
    walks = [lambda mount=mount: shell(WALK, P=str(mount.point)) for mount in mounts]
    first = turns(1, *walks)
    report.at_most("first walk over everything but `rootfs`, `fs` and `oci`", *first, 1.5, "as many objects in one namespace")
    report.at_most("the same again", *turns(3, *walks), 1.5, "as many objects in one namespace")
    report.value("resident memory afterwards", [mounts[0].resident()], megabytes, 150e6, "≤ 150 MB")
    held = [mount.metrics()["ctrfs_nodes"] for mount in mounts]
    report.remark(f"The kernel holds {held[0]:,.0f} nodes, of the one namespace {held[1]:,.0f}; its ctrfs has {megabytes(mounts[1].resident())}.")
    for end in (*mounts, many, one):
        end.stop()


def spawned(world, function, *words):
    """A process of its own for what must not share our interpreter; its result comes through the pipe. It ends before the mount."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=function, args=(theirs, *words), daemon=True)
    process.start()
    world.ends.callback(process.terminate)
    theirs.close()
    return process, ours


def change(result, address, target, seconds):
    """So many changes a second: labels of images in turn, and images that come and go. Says how many it made, in which time."""
    connection = rpc.Rpc(address)
    began, made = time.monotonic(), 0
    while (now := time.monotonic()) < began + seconds:
        due = int((now - began) * CHANGES) - made
        # One round is ten changes; what was asked is answered before the next begins, so that no deletion overtakes.
        for _ in range(due // 10):
            for _ in range(8):
                name, made = images.name_of(made % LABELLED), made + 1
                connection.begin("images.v1.Images/Update", rpc.label_image(name, {"change": str(made)}))
            coming = f"docker.io/bench/coming-{made}:1"
            connection.call("images.v1.Images/Create", rpc.image(coming, target))
            connection.call("images.v1.Images/Delete", rpc.delete_image(coming))
            made += 2
            connection.drain(0)
        time.sleep(TICK)
    result.send((made, time.monotonic() - began))


def follow(result, path, last):
    """Reads `events.follow` until the event that names `last`. Says how late each line came, and how often the reader was overrun."""
    lags, numbers, overruns, gaps, rest = [], [], 0, 0, b""
    fd = os.open(path, os.O_RDONLY)
    result.send("ready")
    while True:
        try:
            data = os.read(fd, 1 << 17)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            overruns += 1
            continue
        now = time.time()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            told = re.match(rb'\{"seq":(\d+),"timestamp":"([^"]*)"', line)
            numbers.append(int(told[1]))
            lags.append(now - datetime.fromisoformat(told[2].decode()).timestamp())
            gaps += b'"topic":"gap"' in line
            if last in line:
                missing = numbers[-1] - numbers[0] + 1 - len(numbers)
                result.send((lags, missing, overruns, gaps))
                return


def probe(ctrfs, connection, target, until):
    """How long after containerd's answer a change shows through the mount: of a label, of a name that comes, of one that goes.
    And how many did not show at the first look: the time of the others is that of the look."""
    labels = ctrfs.image(PROBE) / "labels"
    kinds = ("a label", "a new name", "a name that goes")
    lags, late = {kind: [] for kind in kinds}, dict.fromkeys(kinds, 0)

    def seen(kind, true):
        start = time.perf_counter()
        looks = 1
        while not true():
            if time.perf_counter() > start + 10:
                raise RuntimeError(f"{kind}: not seen within 10 s")
            time.sleep(0.0002)
            looks += 1
        lags[kind].append(time.perf_counter() - start)
        late[kind] += looks > 1

    count = 0
    while time.monotonic() < until:
        count += 1
        connection.call("images.v1.Images/Update", rpc.label_image(PROBE, {"probe": f"{count}."}))
        seen("a label", lambda: f"probe={count}." in labels.read_text())
        name = f"docker.io/bench/probe-{count}:1"
        path = str(ctrfs.image(name))
        os.path.exists(path)  # so that the kernel knows that it is not there
        connection.call("images.v1.Images/Create", rpc.image(name, target))
        seen("a new name", lambda: os.path.exists(path))
        connection.call("images.v1.Images/Delete", rpc.delete_image(name))
        seen("a name that goes", lambda: not os.path.exists(path))
        time.sleep(0.05)
    return lags, late


def changes(world, report):
    """What is changed all the time is seen at once, all of it, and costs little."""
    report.section(f"{CHANGES:,} changes a second for {SECONDS} s")
    containerd = world.containerd()
    targets = images.fill(containerd, bare(world), LABELLED, LABELLED)
    target = next(iter(targets.values()))
    connection = rpc.Rpc(containerd.address)
    connection.call("images.v1.Images/Create", rpc.image(PROBE, target))
    ctrfs = world.ctrfs(containerd).settle()
    shell(WALK, P=str(ctrfs.point))
    follower, told = spawned(world, follow, str(ctrfs.point / "events.follow"), b"bench/last:1")
    told.recv()
    memory, cpu, theirs = ctrfs.resident(), ctrfs.seconds(), spent(containerd.process.pid)
    changer, made = spawned(world, change, containerd.address, target, SECONDS)
    lags, again = probe(ctrfs, connection, target, time.monotonic() + SECONDS)
    count, took = made.recv()
    changer.join()
    connection.call("images.v1.Images/Create", rpc.image("docker.io/bench/last:1", target))
    late, missing, overruns, gaps = told.recv()
    follower.join()
    cpu, theirs = ctrfs.seconds() - cpu, spent(containerd.process.pid) - theirs
    count += 3 * len(lags["a label"]) + 1
    rate = count / took
    report.add("changes a second that were made", f"{rate:,.0f}", "", f"**{rate:,.0f}**", f"≥ {CHANGES * 0.95:,.0f}", rate >= CHANGES * 0.95)
    for kind, times in lags.items():
        report.value(f"from containerd's answer until {kind} shows, median", [statistics.median(times)], duration)
        report.value("the same, 99th percentile", [percentile(times, 0.99)], duration, 0.1, "≤ 100 ms")
    report.value("from an event's time until `events.follow` has it, median", [statistics.median(late)], duration)
    report.value("the same, 99th percentile", [percentile(late, 0.99)], duration, 0.1, "≤ 100 ms")
    # Numbers that it did not see, events that got no number, and the times that it was told of more.
    lost = missing + max(count - len(late), 0) + overruns + gaps
    report.value("events that its reader missed", [lost], lambda n: f"{n:,.0f}", 0, "0")
    report.at_most("CPU of ctrfs, with these readers", [cpu], [theirs], 1, "CPU of containerd")
    report.value("the same of one processor", [cpu / took], percent, 0.5, "≤ 50 %")
    report.value("resident memory before", [memory], megabytes)
    report.value("its growth", [ctrfs.resident() - memory], megabytes, 20e6, "≤ 20 MB")
    report.remark(f"{count:,} changes were made, and {len(late):,} events seen.")
    again = ", ".join(f"{number:,} of {kind}" for kind, number in again.items())
    report.remark(f"Of {len(lags['a label']):,} looks of each kind, so many came too early and were repeated: {again}.")
    connection.close()
    ctrfs.stop()
    containerd.stop()


def spent(pid):
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rsplit(") ", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def read_each(result, paths, stop):
    """Reads files that nobody read before, and says how long each took."""
    times = []
    for path in paths:
        if stop.is_set():
            break
        start = time.perf_counter()
        with open(path, "rb") as file:
            file.read()
        times.append(time.perf_counter() - start)
    result.send(times)


def readers(world, report):
    """Who asks for what is known does not wait for those who wait for containerd."""
    report.section(f"{READERS} processes read different files while containerd answers in {LATE * 1000:.0f} ms")
    containerd = world.containerd()
    names = list(images.fill(containerd, bare(world), 50, READERS * 40))
    with contextlib.ExitStack() as ends:
        address, delay = ends.enter_context(slow.before(containerd, world.fresh("slow") / "socket"))
        ctrfs = world.ctrfs(containerd, address=address).settle()
        ends.callback(ctrfs.stop)
        known = [str(ctrfs.image(name) / "digest") for name in names]
        world.measure("stat", len(known), names=known)
        containers = [entry.path for entry in os.scandir(ctrfs.default / "containers")]
        delay.value = LATE
        stop = multiprocessing.Event()
        # A spec is asked of containerd when it is read.
        paths = [f"{container}/spec.json" for container in containers]
        reading = [spawned(world, read_each, paths[n::READERS], stop) for n in range(READERS)]
        time.sleep(2 * LATE)
        stats = [world.measure("stat", 5_000, names=known) for _ in range(3)]
        lists = turns(200, lambda: os.listdir(ctrfs.point / "namespaces"), lambda: os.statvfs(ctrfs.point))
        stop.set()
        waited = [took for _, told in reading for took in told.recv()]
        for process, _ in reading:
            process.join()
        delay.value = 0
    if statistics.median(waited) < LATE:
        raise RuntimeError(f"the readers did not wait: {duration(statistics.median(waited))}")
    report.value("warm `stat` meanwhile, median", [middle for middle, _, _ in stats], duration)
    report.value("the same, 99th percentile", [high for _, high, _ in stats], duration, 1e-3, "≤ 1 ms")
    for what, times in zip(("`ls` of the namespaces", "`statfs`"), lists):
        report.value(f"{what}, 99th percentile", [percentile(times, 0.99)], duration, 1e-3, "≤ 1 ms")
    report.remark(f"Meanwhile {len(waited):,} files were read, in {duration(statistics.median(waited))} each (the median).")
    containerd.stop()


def run(world, report, options):
    namespaces(world, report)
    changes(world, report)
    readers(world, report)
