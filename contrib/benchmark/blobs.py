"""Large blobs: read by way of the store's own file, and over gRPC where the store cannot be seen."""

import hashlib
import os
import subprocess

import rpc
from measure import command, duration, forget, output, seconds, turns
from tree import kind_of

SIZE = 512 << 20


def blob(world, containerd):
    """A blob of random bytes: its digest, and the store's own file.

    Everything is compared with that file: a copy of it has page cache of other folios, and those decide how fast it is read.
    """
    copy = world.disk / "blob"
    digest = hashlib.sha256()
    with open(copy, "wb") as out:
        for _ in range(SIZE >> 20):
            chunk = os.urandom(1 << 20)
            digest.update(chunk)
            out.write(chunk)
        os.fsync(out.fileno())
    digest = "sha256:" + digest.hexdigest()
    with open(copy, "rb") as data:
        command(*containerd.words("content", "ingest", "--expected-digest", digest, "bench"), stdin=data)
    copy.unlink()
    stored = containerd.content / digest[7:]
    with open(stored, "rb") as file:
        os.fsync(file.fileno())
    return digest, stored


def visible(world, report, containerd, digest, stored):
    own = f"the store's own file on {kind_of(world.disk)}"
    ctrfs = world.ctrfs(containerd, world.fresh("cache", world.disk)).settle()
    path = ctrfs.default / "blobs/sha256" / digest[7:]

    def cold(name):
        forget(stored, name)
        return world.measure("sequential", name)

    ours, theirs = turns(9, lambda: cold(path), lambda: cold(stored))
    report.at_most("sequential read, cold", ours, theirs, 1 / 0.95, own, "≤ 1.05× (0.95 of its speed)")
    ours, theirs = turns(21, lambda: world.measure("sequential", path), lambda: world.measure("sequential", stored))
    report.at_most("sequential read, warm", ours, theirs, 1 / 0.98, own, "≤ 1.02× (0.98 of its speed)")
    ours, theirs = turns(21, *(lambda p=p: world.measure("random", 100_000, p) for p in (path, stored)))
    report.at_most("4 KiB at random places, warm", ours, theirs, 1.1, own)
    get = containerd.words("content", "get", digest)
    ours, theirs = turns(2, lambda: command("cat", path), lambda: command(*get))
    report.at_least("`cat` of it, whole process, warm", ours, theirs, None, "`ctr content get`")
    ctrfs.stop()


def bare_stream(containerd, digest):
    """Content.Read of all of it, each piece thrown away."""
    connection = rpc.Rpc(containerd.address)
    stream = connection.begin("content.v1.Content/Read", rpc.read(digest))
    got = 0
    while stream not in connection.ended:
        connection.receive()
        got += len(connection.answers[stream])
        connection.answers[stream].clear()
    connection.close()
    if got < SIZE:
        raise RuntimeError(f"the stream ended after {got} bytes")


def hidden(world, report, containerd, digest, stored):
    """ctrfs in a mount namespace in which the store is not: all it has is gRPC."""
    cache, point = world.fresh("cache", world.disk), world.fresh("hidden", world.disk)
    # The process of the namespace lives as long as its standard input.
    script = 'mount -t tmpfs none "$STORE" && "$B" -a "$A" --cache-dir "$C" "$P" && echo ready && cat; umount "$P"'
    variables = {"STORE": containerd.root / "root", "B": world.binary, "A": containerd.address, "C": cache, "P": point}
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as keeper:
        try:
            if keeper.stdout.readline() != b"ready\n":
                raise RuntimeError("ctrfs does not start in a mount namespace of its own")
            path = point / "namespaces/default/blobs/sha256" / digest[7:]
            inside = ("nsenter", "-t", str(keeper.pid), "-m", str(world.loop), "sequential", str(path))

            def read():
                return float(output(*inside)) / 1e9

            def cold():
                drop = ("nsenter", "-t", str(keeper.pid), "-m", "dd", f"if={path}", "iflag=nocache", "count=0")
                command(*drop)
                return read()

            ours, theirs = turns(9, cold, lambda: bare_stream(containerd, digest))
            report.at_most("the store not visible: sequential read, cold", ours, theirs, 1 / 0.9, "bare gRPC stream (Python)", "≤ 1.11× (0.9 of its speed)")
            ours, theirs = turns(9, read, lambda: world.measure("sequential", stored))
            report.at_most("the store not visible: sequential read, warm", ours, theirs, 1 / 0.95, f"the store's own file on {kind_of(world.disk)}", "≤ 1.05× (0.95 of its speed)")
        finally:
            keeper.stdin.close()
            keeper.wait(30)


def run(world, report, options):
    report.section("A blob of 512 MB")
    containerd = world.containerd(world.disk)
    digest, stored = blob(world, containerd)
    visible(world, report, containerd, digest, stored)
    hidden(world, report, containerd, digest, stored)
    containerd.stop()
