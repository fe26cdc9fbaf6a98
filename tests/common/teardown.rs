//! Removing all of a containerd, also one whose test process died: processes, mounts, cgroups, runc's and the shims' files.
//!
//! A containerd's directory holds a `lock` (flock) that its test process keeps while it lives, and the `namespaces` it used.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PREFIX: &str = "ctrfs-test-";

/// Held while the owner of a directory lives.
pub struct Lock(#[allow(dead_code)] File);

/// A new directory for a containerd, and its lock.
pub fn new_directory() -> (PathBuf, Lock) {
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(base()).unwrap().keep();
    let lock = File::create(dir.join("lock.new")).unwrap();
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0);
    fs::rename(dir.join("lock.new"), dir.join("lock")).unwrap();
    (dir, Lock(lock))
}

pub fn remember_namespace(dir: &Path, namespace: &str) {
    let mut file = File::options().create(true).append(true).open(dir.join("namespaces")).unwrap();
    writeln!(file, "{namespace}").unwrap();
}

/// Removes what test processes left behind that were killed. Once a process.
pub fn sweep_once() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for entry in fs::read_dir(base()).unwrap().flatten() {
            let dir = entry.path();
            let ours = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes());
            let Some(lock) = ours.then(|| File::open(dir.join("lock")).ok()).flatten() else { continue };
            if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                eprintln!("removing what a killed test left in {}", dir.display());
                remove(&dir);
            }
        }
    });
}

/// Ends and removes everything of the containerd in `dir`.
pub fn remove(dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    // Twice: a shim that was just starting is seen by the second look.
    while !processes_of(dir).is_empty() && Instant::now() < deadline {
        for pid in processes_of(dir) {
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    unmount_below(dir);
    for namespace in fs::read_to_string(dir.join("namespaces")).unwrap_or_default().lines() {
        remove_namespace(dir, namespace);
    }
    if let Err(error) = fs::remove_dir_all(dir) {
        eprintln!("{} stays behind: {error}", dir.display());
    }
}

/// Where test directories are made: tmpfs is several times faster for containerd's database.
fn base() -> PathBuf {
    let mut room: libc::statvfs = unsafe { std::mem::zeroed() };
    let known = unsafe { libc::statvfs(c"/dev/shm".as_ptr(), &mut room) } == 0;
    if known && room.f_bavail * room.f_frsize > 1 << 30 { "/dev/shm".into() } else { std::env::temp_dir() }
}

/// The living processes of a containerd: itself, its shims, its mounts' daemons (all name its directory), and the
/// processes in its containers' cgroups.
fn processes_of(dir: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = Vec::new();
    let mut needle = dir.as_os_str().as_bytes().to_vec();
    needle.push(b'/');
    let namespaces = fs::read_to_string(dir.join("namespaces")).unwrap_or_default();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if pid == std::process::id() as i32 || !is_alive(pid) {
            continue;
        }
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let names_it = read("cmdline").windows(needle.len()).any(|part| part == needle);
        let cgroups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        if names_it || namespaces.lines().any(|namespace| cgroups.contains(&format!("/{namespace}/"))) {
            pids.push(pid);
        }
    }
    pids
}

/// True for a process that is neither gone nor a zombie.
pub fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

/// The mount points below a directory, deepest last.
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

fn unmount_below(dir: &Path) {
    for point in mounts_below(dir).iter().rev() {
        let path = std::ffi::CString::new(point.as_os_str().as_bytes()).unwrap();
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// The cgroups of a containerd namespace, in every hierarchy.
pub fn cgroups_of(namespace: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(namespace));
    all.filter(|group| group.is_dir()).collect()
}

/// What a namespace has outside of containerd's directory.
fn remove_namespace(dir: &Path, namespace: &str) {
    let deadline = Instant::now() + Duration::from_secs(2);
    for group in cgroups_of(namespace) {
        // A cgroup is busy until its last process is reaped.
        while group.exists() && Instant::now() < deadline {
            for inner in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(inner.path());
            }
            if fs::remove_dir(&group).is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    let _ = fs::remove_dir_all(Path::new("/run/containerd/runc").join(namespace));
    for socket in shim_sockets(dir, namespace) {
        let _ = fs::remove_file(socket);
    }
}

/// The sockets of a namespace's shims. Their directory is one for all containerds of a host.
pub fn shim_sockets(dir: &Path, namespace: &str) -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    let tasks = dir.join("state/io.containerd.runtime.v2.task").join(namespace);
    for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
        for file in ["address", "bootstrap.json"] {
            let text = fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let named = text.split('"').find_map(|part| part.trim().strip_prefix("unix://"));
            sockets.extend(named.filter(|socket| socket.starts_with("/run/containerd/s/")).map(PathBuf::from));
        }
    }
    sockets
}
