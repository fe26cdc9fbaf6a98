"""Images out of what every machine has, as OCI layouts; and ten thousand of them."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile

import rpc
from measure import command

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
COMPRESS = {"gzip": ["gzip", "-n"], "zstd": ["zstd", "-q", "-3"], "fast": ["gzip", "-n", "-1"]}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI layout in a directory."""

    def __init__(self, path):
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.layers, self.diff_ids, self.sizes = [], [], []

    def blob(self, media_type, data):
        digest = sha256(data)
        (self.path / "blobs/sha256" / digest[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def layer(self, chunks, kind="gzip"):
        """A layer of a tar that comes in pieces."""
        plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
        path = self.path / "layer"
        with open(path, "wb") as out, subprocess.Popen(COMPRESS[kind], stdin=subprocess.PIPE, stdout=out) as compressor:
            for chunk in chunks:
                plain.update(chunk)
                size += len(chunk)
                compressor.stdin.write(chunk)
            compressor.stdin.close()
        if compressor.returncode:
            raise RuntimeError(f"{kind} failed")
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                packed.update(chunk)
        name = packed.hexdigest()
        stored = path.stat().st_size
        path.rename(self.path / "blobs/sha256" / name)
        self.layers.append({"mediaType": f"{LAYER}+{'gzip' if kind == 'fast' else kind}", "digest": "sha256:" + name, "size": stored})
        self.diff_ids.append("sha256:" + plain.hexdigest())
        self.sizes.append(size)
        return self

    def small(self, files):
        """A layer of a few files, the same bytes at every run."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                member.mode = 0o644
                member.mtime = 1700000000
                tar.addfile(member, io.BytesIO(data))
        plain = out.getvalue()
        packed = gzip.compress(plain, 6, mtime=0)
        self.layers.append(self.blob(f"{LAYER}+gzip", packed))
        self.diff_ids.append(sha256(plain))
        self.sizes.append(len(plain))
        return self

    def finish(self):
        """Writes the documents; the layout is complete."""
        config, manifest = documents(self.layers, self.diff_ids)
        self.blob(CONFIG, config)
        descriptor = self.blob(MANIFEST, manifest)
        self.digest, self.document = descriptor["digest"], manifest
        index = {"schemaVersion": 2, "manifests": [descriptor | {"annotations": {"org.opencontainers.image.ref.name": "1"}}]}
        (self.path / "index.json").write_text(json.dumps(index))
        return self

    def load(self, containerd, name):
        """Imports it as NAME:1, without unpacking."""
        script = 'tar -C "$L" -cf - . | ctr --address "$A" images import --no-unpack --base-name "$N" -'
        command("bash", "-o", "pipefail", "-c", script, env=os.environ | {"L": self.path, "A": containerd.address, "N": name})

    def stored(self, containerd):
        """The files of its layers in the content store."""
        return [containerd.content / layer["digest"][7:] for layer in self.layers]


def documents(layers, diff_ids, label="bench"):
    """Config and manifest of an image."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"], "Labels": {"name": label}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": f"step {n}"} for n in range(len(diff_ids))],
    }
    config = json.dumps(config, indent=1).encode()
    described = {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
    return config, json.dumps(manifest, indent=1).encode()


def tar_of(names):
    """The tar of some paths below /, in pieces."""
    words = ["tar", "-C", "/", "--null", "--no-recursion", "--ignore-failed-read", "--numeric-owner", "-cf", "-", "-T"]
    with tempfile.NamedTemporaryFile() as listed:
        listed.write(b"".join(os.fsencode(name) + b"\0" for name in names))
        listed.flush()
        with subprocess.Popen([*words, listed.name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tar:
            while chunk := tar.stdout.read(1 << 20):
                yield chunk


def some_of_usr(limit):
    """Names below /usr of files, links and directories, of `limit` bytes in all: as mixed as a distribution's."""
    names = ["usr"]
    for folder, share in (("bin", 0.15), ("sbin", 0.05), ("lib", 0.5), ("share", 0.3)):
        total = 0
        for path, folders, files in os.walk(f"/usr/{folder}"):
            folders.sort()
            names.append(path[1:])
            for name in sorted(files):
                size = os.lstat(f"{path}/{name}").st_size
                if size < limit // 10 and total + size <= limit * share:
                    total += size
                    names.append(f"{path}/{name}"[1:])
            if total > limit * share * 0.98:
                break
    return names


def distribution(path, kind="gzip", size=370 << 20):
    """370 MB of /usr in one layer, and a second layer with one file."""
    return Layout(path).layer(tar_of(some_of_usr(size)), kind).small({"etc/app.conf": b"greeting = hello\n"}).finish()


def many_files(path, count=30_000):
    """Small files, a hundred in each directory, of 1 to 24 KB: as many and as compressible as those of a node_modules."""

    def pieces():
        content = b""
        source = tar_of(some_of_usr(380 << 20))
        for n in range(count):
            size = 1000 + n * 7919 % 23_000
            while len(content) < size:
                content += next(source, None) or os.urandom(size)
            data, content = content[:size], content[size:]
            member = tarfile.TarInfo(f"srv/{n // 100:03}/{n:05}.txt")
            member.size, member.mtime = len(data), 1700000000
            yield member.tobuf() + data + b"\0" * (-len(data) % 512)
        yield b"\0" * 1024

    return Layout(path).layer(pieces()).small({"etc/app.conf": b"greeting = hello\n"}).finish()


def large_files(size, count):
    """The tar of files that compress as programs do."""
    for number in range(count):
        member = tarfile.TarInfo("srv/big" + (str(number) if number else ""))
        member.size, member.mtime = size, 1700000000
        yield member.tobuf()
        left = size
        while left:
            for chunk in tar_of(some_of_usr(left)):
                yield chunk[:left]
                left -= len(chunk[:left])
                if not left:
                    break
        yield b"\0" * (-size % 512)
    yield b"\0" * 1024


def huge(path):
    """2 GB in one layer."""
    return Layout(path).layer(large_files(500 << 20, 4), "fast").small({"etc/app.conf": b"greeting = hello\n"}).finish()


def one_file(path, size=500 << 20):
    """One file of 500 MB."""
    return Layout(path).layer(large_files(size, 1)).small({"etc/app.conf": b"greeting = hello\n"}).finish()


def fixed(path):
    """A small image whose bytes depend on nothing, for counting."""
    base = {f"etc/{n:03}.conf": f"number = {n}\n".encode() * 40 for n in range(100)}
    base |= {"usr/bin/big": bytes(range(256)) * 8192}
    return Layout(path).small(base).small({"srv/app": b"hello\n", "etc/000.conf": b"changed\n"}).finish()


def fill(containerd, layout, images, containers=0, namespace="default"):
    """That many images, each with a manifest and a config of its own, on the layers of `layout`; and containers of them."""
    connection = rpc.Rpc(containerd.address)
    targets = {}

    def blobs():
        for n in range(images):
            config, manifest = documents(layout.layers, layout.diff_ids, f"app {n} of {namespace}")
            targets[name_of(n)] = {"mediaType": MANIFEST, "digest": sha256(manifest), "size": len(manifest)}
            yield rpc.blob(sha256(config), config)
            yield rpc.blob(sha256(manifest), manifest)

    connection.many("content.v1.Content/Write", blobs(), namespace)
    connection.many("images.v1.Images/Create", (rpc.image(name, target) for name, target in targets.items()), namespace)
    spec = json.dumps(json.loads(containerd.ctr("oci", "spec")))
    names = list(targets) or [""]
    made = (rpc.container(f"app-{n:05}", names[n % len(names)], spec) for n in range(containers))
    connection.many("containers.v1.Containers/Create", made, namespace)
    connection.close()
    return targets


def name_of(n):
    return f"docker.io/bench/app-{n:05}:1"
