//! `oci/` and `oci.tar` as the tools read them that people have: in place, through the path without a colon, each with
//! storage of its own and without a network. `ctr` is in `oci.rs`, for it comes in versions.

use crate::common::compare::{Tree, now};
use crate::common::shell::{Shell, eventually, run, sh};
use crate::common::{Version, World, on, teardown};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// An image on a mount, and an empty directory.
struct Subject<'a> {
    world: &'a World,
    image: &'static str,
    /// Its directory below the mount, under the name that has no colon.
    dir: String,
    out: TempDir,
}

impl Subject<'_> {
    fn new(world: &World) -> Subject<'_> {
        let image = world.debian();
        let dir = world.path(&format!("images/{}", image.replace('/', "%2F").replace(':', "%3A")));
        let out = tempfile::tempdir_in(&world.containerd.dir).unwrap();
        Subject { world, image, dir: world.mount().at_path(&dir).to_str().unwrap().to_owned(), out }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    /// Runs a script with `$I` as the image without a colon, `$C` as the same with it, `$O` as the directory, and no network. It must succeed; what it printed.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        let script = format!("exec unshare --net -- bash -c {}", quoted(&format!("set -eo pipefail; {script}")));
        let colon = self.world.mount().at_path(&self.world.path(&format!("images/{}", self.image)));
        let (colon, out) = (colon.to_str().unwrap(), self.out.path().to_str().unwrap());
        done(sh(&script, &[("I", &self.dir), ("C", colon), ("O", out)], 60))
    }

    fn document(&self, name: &str) -> Value {
        self.world.json(&format!("images/{}/{name}", self.image))
    }

    /// The digest of the config: what docker, podman and buildah call the image's ID.
    fn id(&self) -> String {
        self.document("manifest.json")["config"]["digest"].as_str().unwrap().replace("sha256:", "")
    }

    /// What `rootfs` shows.
    fn rootfs(&self) -> Tree {
        Tree::read(Path::new(&format!("{}/rootfs", self.dir))).unwrap()
    }

    /// buildah and podman, with storage below the directory that needs no mounts.
    fn containers_storage(&self, tool: &str) -> String {
        let out = self.out.path().display();
        format!("{tool} --root {out}/{tool} --runroot {out}/{tool}-run --storage-driver vfs")
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a command printed that must succeed; it may warn.
#[track_caller]
fn done(shell: Shell) -> String {
    assert_eq!(shell.code, Some(0), "{shell:#?}");
    shell.out.trim().to_owned()
}

/// `skopeo` finds the image in the directory and in the archive, and copies it byte for byte.
fn skopeo(world: &World) {
    let subject = Subject::new(world);
    let digest = world.value(&format!("images/{}/digest", subject.image));
    assert_eq!(subject.sh("skopeo inspect --format '{{.Digest}}' oci:$I/oci"), digest);
    assert_eq!(subject.sh("cd $C; skopeo inspect --format '{{.Digest}}' oci:oci"), digest);
    for (name, from) in [("dir", "oci:$I/oci:latest"), ("archive", "oci-archive:$I/oci.tar")] {
        subject.sh(&format!("skopeo copy -q --preserve-digests {from} dir:$O/{name}"));
        subject.sh(&format!("cmp $O/{name}/manifest.json $I/manifest.json"));
        subject.sh(&format!(
            "for blob in $O/{name}/????????????????*; do cmp $blob $I/oci/blobs/sha256/${{blob##*/}}; done"
        ));
    }
    // Docker's manifest.json names layers that are compressed: skopeo takes the archive by it as docker does.
    assert_eq!(
        subject.sh("skopeo inspect --config --raw docker-archive:$I/oci.tar | sha256sum | cut -c-64"),
        subject.id()
    );
}

/// What `umoci` unpacks from the directory is what `rootfs` shows.
fn umoci(world: &World) {
    let (since, subject) = (now(), Subject::new(world));
    assert_eq!(subject.sh("umoci ls --layout $I/oci; cd $C; umoci ls --layout oci"), "latest\nlatest");
    subject.sh("umoci --log error unpack --image $I/oci:latest $O/bundle");
    Tree::read(&subject.path("bundle/rootfs")).unwrap().assert_shown(&subject.rootfs(), since);
}

/// `buildah pull` takes the directory, by its tag and without it; from beside it, for older ones make a name of the path
/// and refuse capitals and percent signs in it.
fn buildah(world: &World) {
    let (since, subject) = (now(), Subject::new(world));
    let buildah = subject.containers_storage("buildah");
    for name in ["oci:oci", "oci:oci:latest"] {
        assert_eq!(subject.sh(&format!("cd $C; {buildah} pull -q {name}")), subject.id());
    }
    let root = subject.sh(&format!("{buildah} mount $({buildah} from --pull-never {})", subject.id()));
    Tree::read(Path::new(&root)).unwrap().assert_shown(&subject.rootfs(), since);
}

/// `podman pull` takes the directory, `podman load` the archive, and its rootfs is ours.
fn podman(world: &World) {
    let (since, subject) = (now(), Subject::new(world));
    let podman = format!(
        "{} --tmpdir $O/tmp --cgroup-manager cgroupfs --events-backend none",
        subject.containers_storage("podman")
    );
    assert_eq!(subject.sh(&format!("cd $C; {podman} pull -q oci:oci:latest")), subject.id());
    let root = subject.sh(&format!("{podman} image mount {}", subject.id()));
    Tree::read(Path::new(&root)).unwrap().assert_shown(&subject.rootfs(), since);
    subject.sh(&format!("{podman} image unmount --all && {podman} rmi --force {}", subject.id()));
    assert_eq!(subject.sh(&format!("{podman} images -q")), "");
    let loaded = subject.sh(&format!("{podman} load -q -i $I/oci.tar"));
    assert_eq!(loaded, format!("Loaded image: {}", subject.image));
    assert_eq!(subject.sh(&format!("{podman} images -q --no-trunc")), format!("sha256:{}", subject.id()));
}

/// A docker daemon of its own: no network, no bridge, and its layers are plain directories.
struct Docker {
    daemon: Child,
    command: PathBuf,
    socket: PathBuf,
}

impl Docker {
    fn start(world: &World, dir: &Path, (bin, sbin): (PathBuf, PathBuf)) -> Docker {
        std::fs::write(dir.join("daemon.json"), "{}").unwrap();
        let socket = dir.join("docker.sock");
        let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let mut command = Command::new(sbin.join("dockerd"));
        for (option, value) in [
            ("--config-file", at("daemon.json")),
            ("--data-root", at("data")),
            ("--exec-root", at("exec")),
            ("--pidfile", at("pid")),
            ("--host", format!("unix://{}", at("docker.sock"))),
            ("--containerd", world.containerd.address()),
            ("--containerd-namespace", world.containerd.new_namespace()),
            ("--containerd-plugins-namespace", world.containerd.new_namespace()),
            ("--storage-driver", "vfs".into()),
            ("--bridge", "none".into()),
        ] {
            command.args([option, &value]);
        }
        command.args(["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"]);
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let daemon = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let docker = Docker { daemon: daemon.expect("dockerd"), command: bin.join("docker"), socket };
        let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        let what = format!("dockerd answers; its log is {}", dir.join("log").display());
        eventually(&what, Duration::from_secs(30), || {
            assert!(teardown::is_alive(docker.daemon.id() as i32), "dockerd ended: {}", log());
            docker.run(&["version"]).code == Some(0)
        });
        docker
    }

    fn run(&self, args: &[&str]) -> Shell {
        let mut command = Command::new(&self.command);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        command.env("DOCKER_CONFIG", self.socket.with_file_name("config")).args(args);
        run(&mut command, 60)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        unsafe { libc::kill(self.daemon.id() as i32, libc::SIGTERM) };
        let mut ended = || self.daemon.try_wait().is_ok_and(|status| status.is_some());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !ended() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Where `docker` and `dockerd` are: as `contrib/setup` looks for them. None if that was said to be right.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |name: &str| std::env::split_paths(&path).find(|dir| dir.join(name).exists());
    if let (Some(docker), Some(dockerd)) = (installed("docker"), installed("dockerd")) {
        return Some((docker, dockerd));
    }
    let usr = Version::cache().join("docker/usr");
    let here = usr.join("sbin/dockerd").exists();
    let left_out = std::env::var_os("CTRFS_ALLOW_MISSING").is_some_and(|value| value == "1");
    assert!(here || left_out, "there is no dockerd here: run contrib/setup");
    here.then(|| (usr.join("bin"), usr.join("sbin")))
}

/// `docker load` takes the archive, under its name, with its ID, its layers and its command.
fn docker(world: &World) {
    let Some(programs) = programs() else {
        return eprintln!("NOT TESTED: no dockerd here, and CTRFS_ALLOW_MISSING=1");
    };
    let subject = Subject::new(world);
    let docker = Docker::start(world, subject.out.path(), programs);
    let loaded = done(docker.run(&["load", "--quiet", "--input", &format!("{}/oci.tar", subject.dir)]));
    assert_eq!(loaded, "Loaded image: hello:latest");
    let inspected = done(docker.run(&["image", "inspect", "hello:latest"]));
    let image = &serde_json::from_str::<Value>(&inspected).unwrap()[0];
    let config = subject.document("config.json");
    assert_eq!(image["Id"], format!("sha256:{}", subject.id()));
    assert_eq!(image["RootFS"]["Layers"], config["rootfs"]["diff_ids"]);
    assert_eq!(image["Config"]["Cmd"], json!(["/usr/bin/python3", "app.py"]));
}

/// One `#[test]` of each function, on the newest containerd: none of these tools asks it anything.
macro_rules! once {
    ($($name:ident),+ $(,)?) => { mod on_v2 { $(
        #[test]
        fn $name() {
            super::on(super::Version::V2, super::World::new, super::$name);
        }
    )+ } };
}

once!(skopeo, umoci, buildah, podman, docker);
