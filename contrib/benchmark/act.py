"""What changes something: a line to a control file against `ctr`, whole processes both."""

import contextlib
import os
import socket
import subprocess
import urllib.error
import urllib.request

import images
from measure import command, seconds, spawn, turns
from world import until

HELLO = "docker.io/library/hello"
SLEEP = ("sleep", "100000")


class Pair:
    """The same two commands, of ctrfs and of `ctr`."""

    def __init__(self, ctrfs, containerd):
        self.ctrfs, self.containerd = ctrfs, containerd

    def ours(self, line, control="ctl"):
        """A shell that writes a line to a control file."""
        return spawn(("sh", "-c", 'echo "$1" >"$2"', "sh", line, str(self.ctrfs.default / control)))

    def theirs(self, *words):
        return spawn(self.containerd.words(*words))


def containers(report, pair, containerd, rounds):
    """Runs, and what is done to what runs."""
    ids = iter(range(1_000_000))

    def run(make):
        def one():
            name = f"c{next(ids)}"
            took = seconds(make(name))
            command(*containerd.words("tasks", "rm", "-f", name), ok=(0, 137))
            command(*containerd.words("containers", "rm", name))
            return took

        return one

    image = HELLO + ":latest"
    ours = run(lambda name: pair.ours(f"run {image} {name} {' '.join(SLEEP)}"))
    theirs = run(lambda name: pair.theirs("run", "-d", "--null-io", image, name, *SLEEP))
    ours(), theirs()  # the image is unpacked
    report.at_most("`echo 'run …' > ctl`, until the task runs", *turns(rounds, ours, theirs), 1.1, "`ctr run -d`")

    command(*containerd.words("run", "-d", "--null-io", image, "still", *SLEEP))
    control = "containers/still/ctl"
    signal = (pair.ours("kill -s CONT", control), pair.theirs("tasks", "kill", "-s", "SIGCONT", "still"))
    report.at_least("`echo 'kill -s CONT' > containers/c/ctl`", *turns(rounds * 3, *signal), 3, "`ctr tasks kill`")
    pause, resume = pair.ours("pause", control), pair.ours("resume", control)
    halt, go_on = pair.theirs("tasks", "pause", "still"), pair.theirs("tasks", "resume", "still")

    def paused(action, back):
        took = seconds(action)
        back()
        return took

    both = (lambda: paused(pause, resume), lambda: paused(halt, go_on))
    report.at_least("`echo pause > containers/c/ctl`", *turns(rounds * 3, *both), 3, "`ctr tasks pause`")
    command(*containerd.words("tasks", "rm", "-f", "still"), ok=(0, 137))
    command(*containerd.words("containers", "rm", "still"))
    tag = (pair.ours(f"images tag --force {image} {HELLO}:again"), pair.theirs("images", "tag", "--force", image, HELLO + ":again"))
    report.at_least("`echo 'images tag …' > ctl`", *turns(rounds * 3, *tag), 3, "`ctr images tag`")


@contextlib.contextmanager
def registry(world):
    """Debian's docker-registry on a free port of this machine; its address."""
    place = world.fresh("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = place / "config.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {place}}}}}\nhttp: {{addr: '{address}'}}\n")
    with open(place / "log", "wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:

        def answers():
            try:
                return urllib.request.urlopen(f"http://{address}/v2/", timeout=5).status == 200
            except (urllib.error.URLError, ConnectionError):
                return False

        until("the registry", answers)
        yield address
    finally:
        server.terminate()
        server.wait()


def transfers(world, report, pair, containerd, rounds):
    """An image of 100 MB that comes from a registry, and out of an archive: with its unpacking, as both do it."""
    layout = images.distribution(world.fresh("layout"), size=100 << 20)
    archive = world.fresh("archive") / "image.tar"
    command("tar", "-C", layout.path, "-cf", archive, ".")

    def anew(reference, action):
        def one():
            took = seconds(action)
            containerd.remove(reference)
            return took

        return one

    with registry(world) as address:
        reference = f"{address}/bench/app:1"
        command("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout.path}:1", f"docker://{reference}")
        ours = pair.ours(f"images pull --plain-http {reference}")
        theirs = pair.theirs("images", "pull", "--plain-http", reference)
        both = turns(rounds, anew(reference, ours), anew(reference, theirs))
        report.at_most("`echo 'images pull …' > ctl`, 100 MB from a registry on this machine", *both, 1.15, "`ctr images pull`")
    reference = "docker.io/bench/app:1"
    ours = pair.ours(f"images import --base-name docker.io/bench/app {archive}")
    theirs = pair.theirs("images", "import", "--base-name", "docker.io/bench/app", archive)
    both = turns(rounds, anew(reference, ours), anew(reference, theirs))
    report.at_most("`echo 'images import …' > ctl`, 100 MB", *both, 1.1, "`ctr images import`")


def run(world, report, options):
    report.section("Changing something")
    containerd = world.containerd()
    ctrfs = world.ctrfs(containerd).settle()
    demo = os.path.join(os.environ.get("CTRFS_TEST_CACHE", "target/containerds"), "demo.tar")
    command("contrib/demo-image", demo)
    command(*containerd.words("images", "import", "--base-name", HELLO, demo))
    pair = Pair(ctrfs, containerd)
    containers(report, pair, containerd, 3 + 2 * options.rounds)
    transfers(world, report, pair, containerd, 1 + 2 * options.rounds)
    ctrfs.stop()
    containerd.stop()
