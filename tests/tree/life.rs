//! The program: its arguments, how it begins and ends, bad input, and a containerd that is away.

use crate::common::{Mount, World, eventually, mount, shell::Shell, shell::run, teardown};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A directory for mount points and sockets, emptied of mounts at the end.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::Builder::new().prefix("ctrfs-life-").tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new directory in it.
    fn make(&self, name: &str) -> PathBuf {
        fs::create_dir(self.path(name)).unwrap();
        self.path(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        for point in teardown::mounts_below(self.0.path()) {
            mount::unmount(&point);
        }
    }
}

/// Runs ctrfs without `-f`.
fn ctrfs(arguments: &[&str], point: &Path) -> Shell {
    run(mount::ctrfs().args(arguments).arg(point), 15)
}

/// One clear line on stderr that contains all of these words, a non-zero exit, and nothing mounted.
#[track_caller]
fn refused(done: &Shell, point: &Path, words: &[&str]) {
    assert!(done.code.is_some_and(|code| code != 0), "{done:#?}");
    assert_eq!(done.err.trim_end().lines().count(), 1, "one line, not: {}", done.err);
    for word in words {
        assert!(done.err.contains(word), "{word:?} is missing in: {}", done.err);
    }
    assert!(!mount::is_mounted(point), "something stays mounted");
}

/// Without `-f` it goes to the background after the mount answers: `ctrfs /mnt && ls /mnt` works; `umount` ends it.
fn background(world: &World) {
    let dir = Dir::new();
    let point = dir.make("m");
    // Relative paths are those of whoever starts it, wherever the daemon stands.
    let relative = ["-a", &world.containerd.address(), "--cache-dir", "cache", "--state-dir", "state", "m"];
    let done = run(mount::ctrfs().current_dir(dir.0.path()).args(relative), 15);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(dir.path("cache").is_dir() && dir.path("state").is_dir());
    assert!(fs::read_dir(point.join("namespaces")).unwrap().count() > 0);
    let status: serde_json::Value =
        serde_json::from_slice(&fs::read(point.join(".ctrfs/status.json")).unwrap()).unwrap();
    let unmounted = crate::common::sh("umount \"$P\"", &[("P", point.to_str().unwrap())], 5);
    assert_eq!(unmounted.code, Some(0), "{unmounted:#?}");
    if let Some(pid) = status["pid"].as_i64() {
        eventually("the daemon is gone", Duration::from_secs(5), || !teardown::is_alive(pid as i32));
    }
    assert!(!mount::is_mounted(&point));
}

/// SIGTERM and SIGINT unmount and end it with success.
fn signals(world: &World) {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mount = Mount::new(&world.containerd, &[]);
        assert_eq!(mount.end(signal), Some(0), "{}", mount.said());
        assert!(!mount::is_mounted(&mount.path));
    }
}

/// It unmounts also while a reader waits and a shell stands in it.
fn ends_when_busy(world: &World) {
    let mount = Mount::new(&world.containerd, &[]);
    let follow = mount.at_path("events.follow");
    let mut reader = std::process::Command::new("cat").arg(follow).current_dir(&mount.path).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(mount.end(libc::SIGTERM), Some(0), "{}", mount.said());
    assert!(!mount::is_mounted(&mount.path));
    eventually("the reader is free", Duration::from_secs(2), || reader.try_wait().unwrap().is_some());
}

/// A mount point that is missing, a file, not empty, or already mounted is refused with one line.
fn bad_mount_points(world: &World) {
    let dir = Dir::new();
    let address = world.containerd.address();
    let arguments = ["-f", "-a", &address];
    refused(&ctrfs(&arguments, &dir.path("missing")), &dir.path("missing"), &["missing"]);
    fs::write(dir.path("file"), "").unwrap();
    refused(&ctrfs(&arguments, &dir.path("file")), &dir.path("file"), &["file", "directory"]);
    fs::write(dir.make("full").join("x"), "").unwrap();
    refused(&ctrfs(&arguments, &dir.path("full")), &dir.path("full"), &["full", "empty"]);
    assert!(dir.path("full/x").exists());

    let point = dir.make("taken");
    let done = crate::common::sh("mount -t tmpfs taken \"$P\"", &[("P", point.to_str().unwrap())], 5);
    assert_eq!(done.code, Some(0), "{done:#?}");
    refused(&ctrfs(&arguments, &point), &point, &["taken", "mounted"]);
    assert_eq!(mount::mounted(&point).unwrap().0, "tmpfs", "what is mounted there is left alone");

    let ours = Mount::new(&world.containerd, &[]);
    let second = ctrfs(&arguments, &ours.path);
    assert!(second.code.is_some_and(|code| code != 0) && second.err.contains("mounted"), "{second:#?}");
    assert!(!ours.ls("").is_empty(), "the first mount lives on");
}

/// An address that is a file, or `tcp://`, and misspelt options are refused with one line.
fn bad_arguments(world: &World) {
    let dir = Dir::new();
    let point = dir.make("m");
    fs::write(dir.path("file"), "").unwrap();
    let file = dir.path("file");
    refused(&ctrfs(&["-f", "-a", file.to_str().unwrap()], &point), &point, &["file", "socket"]);
    refused(&ctrfs(&["-f", "-a", "tcp://127.0.0.1:1"], &point), &point, &["tcp"]);
    let address = world.containerd.address();
    refused(&ctrfs(&["-f", "-a", &address, "-o", "alow_other"], &point), &point, &["alow_other"]);
    for wrong in [&["--adress", "x"][..], &["-o"], &["--cache-size", "many"], &["--timeout", "-1"]] {
        let done = ctrfs(wrong, &point);
        assert!(done.code.is_some_and(|code| code != 0) && !done.err.is_empty(), "{wrong:?}: {done:#?}");
        assert!(!mount::is_mounted(&point));
    }
    let none = run(&mut mount::ctrfs(), 5);
    assert!(none.code != Some(0) && none.err.contains("MOUNTPOINT"), "{none:#?}");
}

/// A peer that is no containerd is refused, or told in `.ctrfs/status.json`; nothing hangs.
#[test]
fn no_containerd_behind_the_socket() {
    let dir = Dir::new();
    let (point, socket) = (dir.make("m"), dir.path("socket"));
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        // Held open: a peer that hangs up at once may as well be a containerd that is just being stopped.
        let mut held = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            use std::io::Write;
            let _ = stream.write_all(b"220 mail.test ESMTP\r\n");
            held.push(stream);
        }
    });
    let done = ctrfs(&["-a", socket.to_str().unwrap(), "--cache-dir", dir.path("cache").to_str().unwrap()], &point);
    if done.code == Some(0) {
        // Slower than the 50 ms in which it would have been refused: then the status says so soon.
        let status = || fs::read_to_string(point.join(".ctrfs/status.json")).unwrap();
        let told = |status: &str| status.contains("no containerd") || status.contains("not a containerd");
        eventually("the status tells", Duration::from_secs(5), || told(&status()));
        mount::unmount(&point);
    } else {
        refused(&done, &point, &["containerd"]);
    }
}

/// It mounts although nothing listens yet, says so once, and shows the content as soon as it is there.
fn mounts_before_containerd(world: &World) {
    world.tiny();
    world.containerd.stop();
    let mount = Mount::new(&world.containerd, &[]);
    std::thread::sleep(Duration::from_millis(500));
    let lines = mount.said().lines().filter(|line| line.contains("No such file")).count();
    assert_eq!(lines, 1, "it says so once: {}", mount.said());
    assert!(mount.said().contains(&world.containerd.address()), "{}", mount.said());
    assert!(mount.ls("").contains(&"README".to_owned()));
    let started = std::time::Instant::now();
    let refused = fs::read_dir(mount.at_path("namespaces")).and_then(|mut all| all.next().transpose());
    assert!(started.elapsed() < Duration::from_secs(15), "nothing hangs: {refused:?}");
    world.containerd.restart();
    let here = format!("namespaces/{}/images/docker.io", world.namespace);
    eventually("the content is here", Duration::from_secs(5), || mount.exists(&here));
}

/// While containerd is away reads are served from memory, `.ctrfs/status.json` says since when, and afterwards all is true.
fn containerd_comes_back(world: &World) {
    let tiny = world.tiny();
    let id = world.sleeper(tiny, &[]);
    let digest = world.value(&format!("images/{tiny}/digest"));
    assert_eq!(world.ls("containers"), [id.as_str()]);
    assert!(world.exists(&format!("containers/{id}/task")));
    for away in ["killed", "stopped"] {
        if away == "killed" {
            world.containerd.kill()
        } else {
            world.containerd.stop()
        }
        eventually("its absence is noticed", Duration::from_secs(3), || {
            let status = world.mount().read(".ctrfs/status.json");
            status.contains("since") || status.contains("away")
        });
        assert_eq!(world.value(&format!("images/{tiny}/digest")), digest, "{away}");
        assert_eq!(world.ls("containers"), [id.as_str()], "{away}");
        world.containerd.restart();
        let tag = format!("docker.io/library/{away}:1");
        world.ctr(&["images", "tag", tiny, &tag]);
        eventually("what is new is here", Duration::from_secs(5), || world.exists(&format!("images/{tag}")));
        assert_eq!(world.value(&format!("containers/{id}/task/status")).to_lowercase(), "running", "{away}");
    }
}

/// A containerd that hangs costs a deadline, never a hanging process.
fn frozen(world: &World) {
    let tiny = world.tiny();
    let mount = Mount::new(&world.containerd, &["--timeout", "2"]);
    mount.ls("namespaces");
    world.containerd.freeze();
    let path = format!("namespaces/{}/images/{tiny}/check", world.namespace);
    let done = mount.sh(&format!("cat \"$M/{path}\""), 20);
    world.containerd.thaw();
    assert!(done.took < Duration::from_secs(15), "{done:#?}");
    eventually("it answers again", Duration::from_secs(5), || !mount.read(&path).is_empty());
}

/// Killed with SIGKILL in the middle of reads it leaves a dead mount, which the next one replaces.
fn killed_and_replaced(world: &World) {
    let tiny = world.tiny();
    let dir = Dir::new();
    let (point, cache) = (dir.make("m"), dir.make("d"));
    let first = Mount::at(&point, &world.containerd.address(), &cache, &[]);
    let readers = first.sh(
        "for n in 1 2 3 4; do timeout 3 bash -c 'while :; do find \"$M\" -type f -exec cat {} + ; done' > /dev/null 2>&1 & done; sleep 0.3",
        5,
    );
    assert_eq!(readers.code, Some(0));
    first.kill();
    // A directory is opened by the kernel alone, and its listing may be kept.
    let dead = fs::metadata(point.join("no such name")).unwrap_err().raw_os_error();
    assert_eq!(dead, Some(libc::ENOTCONN));
    let second = Mount::at(&point, &world.containerd.address(), &cache, &[]);
    let image = fs::symlink_metadata(second.at_path(&format!("namespaces/{}/images/{tiny}", world.namespace)));
    assert!(image.is_ok(), "{image:?}");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let stacked = table.lines().filter(|line| line.split(' ').nth(4) == point.to_str()).count();
    assert_eq!(stacked, 1, "the dead mount is gone");
    assert_eq!(second.end(libc::SIGTERM), Some(0));
    drop(first);
}

/// `--root` and `--namespace` make any directory the root of the mount.
fn root(world: &World) {
    let tiny = world.tiny();
    let namespace = Mount::new(&world.containerd, &["-n", &world.namespace]);
    assert!(namespace.ls("").contains(&"images".to_owned()));
    let image = format!("namespaces/{}/images/{tiny}", world.namespace);
    let inner = Mount::new(&world.containerd, &["--root", &image]);
    assert_eq!(inner.read("name"), format!("{tiny}\n"));
    let digest = inner.read("digest");
    assert_eq!(digest, namespace.read(&format!("images/{tiny}/digest")));
}

/// `-o ro` makes every change EROFS.
fn read_only(world: &World) {
    let mount = Mount::new(&world.containerd, &["-o", "ro"]);
    let error = fs::create_dir(mount.at_path("namespaces/new")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert!(mount::mounted(&mount.path).unwrap().1.split(',').any(|option| option == "ro"));
}

/// An ordinary user mounts with fusermount3, sees everything that the socket lets him ask for, and nobody else sees it.
fn as_an_ordinary_user(world: &World) {
    use std::os::unix::fs::{PermissionsExt, chown};
    const NOBODY: u32 = 65534;
    let tiny = world.tiny();
    let dir = Dir::new();
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(dir.0.path(), 0o755);
    // A socket that he may connect to, and a program that he may run, wherever this was built.
    let slow = crate::common::slow::Slow::before(&world.containerd.address());
    open(slow.socket.parent().unwrap(), 0o755);
    open(&slow.socket, 0o666);
    let program = dir.path("ctrfs");
    fs::copy(mount::ctrfs().get_program(), &program).unwrap();
    let (point, home) = (dir.make("m"), dir.make("home"));
    [&point, &home].iter().for_each(|path| chown(path, Some(NOBODY), Some(NOBODY)).unwrap());
    // In a mount namespace of its own, with a /dev/fuse that all may open: some hosts leave it to root.
    let script = format!(
        r#"mkdir $H/dev && mount -t tmpfs tmpfs $H/dev && mknod -m 666 $H/dev/fuse c 10 229 && mount --bind $H/dev/fuse /dev/fuse
        cd / && user='setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps=-all'
        I=$P/namespaces/{namespace}/images/{tiny}; export I
        $user {program} -a $S --cache-dir $H/cache --state-dir $H/state $P 2>/dev/null || exit 9
        $user sh -c 'cat $I/name; ls -d $I/rootfs/bin/sh; stat -c %U $I/ctl; echo label by=nobody > $I/ctl; cat $I/labels'
        cat $P/version 2>&1
        $user fusermount3 -u $P && echo unmounted; ls $P | wc -l"#,
        namespace = world.namespace,
        program = program.display(),
    );
    let variables =
        [("P", point.to_str().unwrap()), ("S", slow.socket.to_str().unwrap()), ("H", home.to_str().unwrap())];
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]).envs(variables);
    let done = run(&mut command, 40);
    let lines: Vec<&str> = done.out.lines().collect();
    let sh = format!("{}/namespaces/{}/images/{tiny}/rootfs/bin/sh", point.display(), world.namespace);
    assert_eq!(lines.first_chunk(), Some(&[tiny, &sh, "nobody", "by=nobody"]), "{done:#?}");
    let said = &lines[4..];
    assert!(said.iter().any(|line| line.contains("Permission denied")), "root sees nothing of it: {done:#?}");
    assert_eq!(said.last_chunk(), Some(&["unmounted", "0"]), "{done:#?}");
    eventually("the daemon is gone", Duration::from_secs(5), || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(|entry| fs::read_link(entry.path().join("exe")).ok()).all(|exe| exe != program)
    });
}

crate::each_version!(
    as_an_ordinary_user,
    background,
    signals,
    ends_when_busy,
    bad_mount_points,
    bad_arguments,
    killed_and_replaced,
    root,
    read_only
);
crate::each_version_alone!(mounts_before_containerd, containerd_comes_back, frozen);
