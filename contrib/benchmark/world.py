"""What the measurements stand on: directories on a tmpfs and on a disk, containerds of our own, mounts. All of it ends with us."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from measure import command, output, say

CONFIG = """version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.grpc.v1.sandbox-controllers",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{root}/containerd.sock"
[ttrpc]
  address = "{root}/containerd.sock.ttrpc"
"""
DEADLINE = 30


def until(what, true):
    end = time.monotonic() + DEADLINE
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {DEADLINE} s for: {what}")
        time.sleep(0.01)


class World:
    """The directories: `fast` on a tmpfs of our own, `disk` where temporary files are kept."""

    def __init__(self, binary, decompressor=None):
        self.binary, self.decompressor = binary, decompressor
        self.ends = contextlib.ExitStack()
        self.counter = 0

    def __enter__(self):
        self.disk = Path(tempfile.mkdtemp(prefix="ctrfs-bench.", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.ends.callback(shutil.rmtree, self.disk, ignore_errors=True)
        self.fast = self.disk / "fast"
        self.fast.mkdir()
        command("mount", "-t", "tmpfs", "-o", "size=4g,mode=700", "ctrfs-bench", self.fast)
        self.ends.callback(command, "umount", "-l", self.fast)
        self.loop = self.disk / "loop"
        command("gcc", "-O2", "-o", self.loop, Path(__file__).with_name("loop.c"))
        return self

    def __exit__(self, *error):
        self.ends.close()

    def fresh(self, name, on=None):
        """A new empty directory."""
        self.counter += 1
        path = (on or self.fast) / f"{name}.{self.counter}"
        path.mkdir()
        return path

    def containerd(self, on=None):
        containerd = Containerd(self.fresh("containerd", on))
        self.ends.callback(containerd.stop)
        containerd.start()
        return containerd

    def ctrfs(self, containerd, cache=None, address=None, **options):
        ctrfs = Ctrfs(self, address or containerd.address, cache or self.fresh("cache"), **options)
        self.ends.callback(ctrfs.stop)
        return ctrfs.start()

    def measure(self, *words, names=None):
        """A number that the loops print: seconds."""
        options = {"input": "".join(f"{name}\n" for name in names).encode()} if names else {}
        numbers = [float(word) / 1e9 for word in output(self.loop, *map(str, words), **options).split()]
        return numbers[0] if len(numbers) == 1 else numbers


class Containerd:
    def __init__(self, root):
        self.root = root
        self.address = str(root / "containerd.sock")
        self.content = root / "root/io.containerd.content.v1.content/blobs/sha256"
        self.process = None

    def start(self):
        config = self.root / "config.toml"
        config.write_text(CONFIG.format(root=self.root))
        with open(self.root / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["containerd", "--config", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until("containerd", self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError("containerd ended: " + (self.root / "log").read_text()[-1000:])
        return subprocess.run(self.words("version"), capture_output=True, check=False).returncode == 0

    def words(self, *words):
        return ("ctr", "--address", self.address, *map(str, words))

    def ctr(self, *words):
        return output(*self.words(*words), stderr=subprocess.PIPE)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @contextlib.contextmanager
    def mounted(self, image, point):
        """`ctr images mount`; its lease and its snapshot end with it."""
        self.mount(image, point)
        try:
            yield point
        finally:
            command(*self.words("images", "unmount", "--rm", point))

    def mount(self, image, point):
        point.mkdir(exist_ok=True)
        command(*self.words("images", "mount", image, point))

    def remove(self, image):
        """The image, and at once what was only its: blobs and snapshots."""
        command(*self.words("images", "rm", "--sync", image))


class Ctrfs:
    def __init__(self, world, address, cache, options=(), environment=()):
        self.world, self.address, self.cache, self.options = world, address, cache, options
        self.environment = os.environ | dict(environment)
        self.point, self.state = world.fresh("mnt", world.disk), world.fresh("state")
        self.pid = None

    def start(self):
        """Ready when the command comes back, as a user starts it."""
        command(*self.words(), env=self.environment)
        self.pid = json.loads(self.read(".ctrfs/status.json"))["pid"]
        return self

    def words(self):
        return (self.world.binary, "-a", self.address, "--cache-dir", str(self.cache), "--state-dir", str(self.state), *self.options, str(self.point))

    def settle(self):
        """Waits for the first connection, after which containerd is asked for nothing on its own."""
        until("connection of ctrfs", lambda: json.loads(self.read(".ctrfs/status.json"))["containerd"]["connected"])
        return self

    def stop(self):
        if not self.pid:
            return
        pid, self.pid = self.pid, None
        command("umount", "-l", self.point)
        try:
            until("end of ctrfs", lambda: not alive(pid))
        except RuntimeError as error:
            say(f"{error}; killed")
            os.kill(pid, signal.SIGKILL)
        self.point.rmdir()

    def restart(self):
        """A new process on the same cache; how long until it can be used."""
        self.stop()
        self.point.mkdir()
        start = time.perf_counter()
        command(*self.words(), env=self.environment)
        os.listdir(self.point)
        took = time.perf_counter() - start
        self.pid = json.loads(self.read(".ctrfs/status.json"))["pid"]
        return took

    @property
    def default(self):
        return self.point / "namespaces/default"

    def image(self, reference):
        return self.default / "images" / reference

    def read(self, path):
        return (self.point / path).read_text()

    def metrics(self):
        pairs = (line.rsplit(" ", 1) for line in self.read(".ctrfs/metrics").splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in pairs}

    def asked(self, action):
        """What the kernel asked while something was done, and what ctrfs asked containerd: in words."""
        before = self.metrics()
        action()
        after = self.metrics()
        found = {}
        for name, value in after.items():
            more = int(value - before.get(name, 0))
            if more > 5 and name.startswith(("ctrfs_requests_total", "ctrfs_calls_total")):
                found[name.split('"')[1]] = more
        return ", ".join(f"{name} {more:,}" for name, more in sorted(found.items(), key=lambda pair: -pair[1])) or "nothing"

    def resident(self, what="VmRSS"):
        """Bytes of memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{what}:\s+(\d+)", status, re.M)[1]) * 1024

    def seconds(self):
        """Seconds of CPU so far."""
        return self.ticks() / os.sysconf("SC_CLK_TCK")

    def ticks(self):
        words = Path(f"/proc/{self.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return int(words[11]) + int(words[12])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False
