"""What else makes the files of an image readable: umoci, podman, ratarmount, squashfuse, skopeo; on the same image, the same tmpfs."""

import contextlib
import os
import shutil
import subprocess

import images
from layers import LOOK, NAME, TAR
from measure import command, seconds, shell, turns
from world import until

FILE = "usr/bin/["
FIND = 'find "$P/" -ls >/dev/null'


class Umoci:
    """Unpacks the layout into a directory."""

    name = "`umoci unpack`"

    def __init__(self, world, layout):
        self.layout, self.bundle = layout, world.fresh("umoci")
        self.rootfs = self.bundle / "b/rootfs"

    def begin(self):
        command("umoci", "unpack", "--image", f"{self.layout.path}:1", self.bundle / "b")

    def end(self):
        shutil.rmtree(self.bundle / "b")


class Podman:
    """Pulls the layout into a store of its own and mounts it."""

    name = "`podman pull oci:`, `podman image mount`"

    def __init__(self, world, layout):
        self.layout, self.root, self.run = layout, world.fresh("podman"), world.fresh("podman-run")

    def words(self, *words):
        return ("podman", "--root", self.root, "--runroot", self.run, "--storage-driver", "overlay", *words)

    def begin(self):
        command(*self.words("pull", "--quiet", f"oci:{self.layout.path}:1"))
        mount = subprocess.run(self.words("image", "mount", self.image()), check=True, capture_output=True, text=True)
        self.rootfs = mount.stdout.strip()

    def image(self):
        return subprocess.run(self.words("images", "--quiet", "--no-trunc"), check=True, capture_output=True, text=True).stdout.split()[0]

    def end(self):
        command(*self.words("image", "unmount", "--all"))
        command(*self.words("rmi", "--all", "--force"))


class Ratarmount:
    """Mounts the archive of the large layer; its index is made at the first mount."""

    name = "`ratarmount` of the layer"

    def __init__(self, world, layout):
        self.program = ratarmount()
        archive = layout.path / "blobs/sha256" / layout.layers[0]["digest"][7:]
        self.archive, self.index = world.fresh("ratar") / "layer.tar.gz", world.fresh("ratar-index")
        # It goes by the name, and writes its index beside the archive unless told otherwise.
        os.link(archive, self.archive) if archive.stat().st_dev == self.archive.parent.stat().st_dev else shutil.copy(archive, self.archive)
        self.rootfs = world.fresh("ratar-mount")

    def begin(self):
        command(self.program, "--index-folders", self.index, self.archive, self.rootfs)

    def end(self):
        command("fusermount3", "-u", self.rootfs)
        until("end of ratarmount", lambda: not os.path.ismount(self.rootfs))
        shutil.rmtree(self.index)
        self.index.mkdir()


class Squashfuse:
    """Turns the large layer into a squashfs and mounts that."""

    name = "`sqfstar`, `squashfuse`"

    def __init__(self, world, layout):
        self.layer = layout.path / "blobs/sha256" / layout.layers[0]["digest"][7:]
        self.image, self.rootfs = world.fresh("squash") / "image", world.fresh("squash-mount")

    def begin(self):
        shell('gzip -dc "$L" | sqfstar -quiet -no-progress -comp gzip "$I"', L=str(self.layer), I=str(self.image))
        command("squashfuse", self.image, self.rootfs)

    def end(self):
        command("fusermount3", "-u", self.rootfs)
        self.image.unlink()


def ratarmount():
    """From PyPI, in an environment of its own beside the containerds that the tests use."""
    place = os.path.abspath(os.path.join(os.environ.get("CTRFS_TEST_CACHE", "target/containerds"), "ratarmount"))
    program = os.path.join(place, "bin/ratarmount")
    if not os.path.exists(program):
        command("python3", "-m", "venv", place)
        command(os.path.join(place, "bin/pip"), "install", "--quiet", "ratarmount")
    return program


def first_look(world, report, containerd, layout, peer, rounds):
    """From an image that nothing knows yet to the bytes of a file, in turns."""
    ours, theirs = [], []
    for _ in range(rounds):
        ctrfs = world.ctrfs(containerd).settle()
        rootfs = str(ctrfs.image(NAME + ":1") / "rootfs")
        ours.append(seconds(lambda: shell(LOOK, P=rootfs, F=FILE)))
        ctrfs.stop()

        def look():
            peer.begin()
            shell(LOOK, P=str(peer.rootfs), F=FILE)

        theirs.append(seconds(look))
        peer.end()
    report.at_least("first `ls rootfs/` and `cat` of a file", ours, theirs, None, peer.name)


def warm(report, rootfs, peer):
    peer.begin()
    try:
        pair = (str(rootfs), str(peer.rootfs))
        for what, script in (("`find rootfs -ls`, warm", FIND), ("`tar cf - rootfs | cat`, warm", TAR)):
            for path in pair:
                shell(script, P=path)
            ours, theirs = turns(3, *(lambda p=p: shell(script, P=p) for p in pair))
            report.at_least(what, ours, theirs, None, peer.name)
    finally:
        peer.end()


def archive(world, report, ctrfs, layout):
    """The image as one file, for others."""
    place = world.fresh("archive")
    ours, theirs = turns(
        3,
        lambda: shell('cat "$T" >"$O"', T=str(ctrfs.image(NAME + ":1") / "oci.tar"), O=str(place / "ours")),
        lambda: command("skopeo", "copy", "--quiet", f"oci:{layout.path}:1", f"oci-archive:{place}/theirs{world.fresh('n').name}"),
    )
    report.at_least("`cat oci.tar` into a file", ours, theirs, None, "`skopeo copy oci: oci-archive:`")
    shutil.rmtree(place)


def run(world, report, options):
    report.section("What one would use instead: 370 MB of /usr, gzip")
    subprocess.run(["contrib/setup", "peers"], check=True)
    containerd = world.containerd()
    layout = images.distribution(world.fresh("layout"))
    layout.load(containerd, NAME)
    peers = []
    for kind in (Umoci, Podman, Ratarmount, Squashfuse):
        try:
            peers.append(kind(world, layout))
        except (RuntimeError, OSError) as error:
            report.remark(f"Not measured, for it cannot be had here: {kind.name} ({str(error)[-200:]}).")
    for peer in peers:
        first_look(world, report, containerd, layout, peer, options.rounds)
    with contextlib.ExitStack() as ends:
        ctrfs = world.ctrfs(containerd).settle()
        ends.callback(ctrfs.stop)
        for peer in peers:
            warm(report, ctrfs.image(NAME + ":1") / "rootfs", peer)
        archive(world, report, ctrfs, layout)
    containerd.stop()
