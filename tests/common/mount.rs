//! The real binary, mounted. Always another process: a file system served by its own user deadlocks.

use super::{Containerd, shell, teardown};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// No test may use a mount for longer: it is killed then, and whoever waits in it wakes up.
const LONGEST: Duration = Duration::from_secs(240);

/// Of mounts of this process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The binary under test.
pub fn ctrfs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ctrfs"))
}

/// A mounted ctrfs. Dropped, it is unmounted and ended; if the test failed, what it said is printed.
pub struct Mount {
    /// The mount point.
    pub path: PathBuf,
    child: Arc<Mutex<Child>>,
    said: PathBuf,
}

impl Mount {
    /// Mounts a containerd, with more options if need be, and waits until the mount answers.
    #[track_caller]
    pub fn new(containerd: &Containerd, options: &[&str]) -> Mount {
        let dir = containerd.dir.join(format!("mount{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(dir.join("m")).unwrap();
        Mount::at(&dir.join("m"), &containerd.address(), &dir, options)
    }

    /// Mounts whatever listens at `address` on a directory; `dir` takes the cache and what is said on stderr.
    #[track_caller]
    pub fn at(path: &Path, address: &str, dir: &Path, options: &[&str]) -> Mount {
        Mount::start(ctrfs(), path, address, dir, options)
    }

    /// The same, of a ctrfs with some variables in its environment.
    #[track_caller]
    pub fn with_env(containerd: &Containerd, variables: &[(&str, &str)]) -> Mount {
        let dir = containerd.dir.join(format!("mount-env-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(dir.join("m")).unwrap();
        let mut command = ctrfs();
        command.envs(variables.iter().copied());
        Mount::start(command, &dir.join("m"), &containerd.address(), &dir, &[])
    }

    #[track_caller]
    fn start(mut command: Command, path: &Path, address: &str, dir: &Path, options: &[&str]) -> Mount {
        let said = dir.join("stderr");
        let stderr = fs::File::options().create(true).append(true).open(&said).unwrap();
        command.args(["-f", "-a", address, "--cache-dir"]).arg(dir.join("cache"));
        // One for all mounts of a containerd: what one ctrfs started, the next one finds.
        command.arg("--state-dir").arg(dir.parent().unwrap_or(dir).join("ctrfs-state")).args(options).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = Arc::new(Mutex::new(command.spawn().expect("cannot start ctrfs")));
        let mount = Mount { path: path.to_owned(), child, said };
        let deadline = Instant::now() + Duration::from_secs(10);
        // A dead mount may be in the way at first, which statfs finds out, for the kernel never answers it by itself; then
        // there is none for a moment.
        while !(nix::sys::statvfs::statvfs(path).is_ok() && is_mounted(path)) {
            if let Some(status) = mount.child.lock().unwrap().try_wait().unwrap() {
                panic!("ctrfs ended with {status} instead of mounting: {}", mount.said());
            }
            assert!(Instant::now() < deadline, "ctrfs does not answer after 10 s: {}", mount.said());
            std::thread::sleep(Duration::from_millis(2));
        }
        mount.watch();
        mount
    }

    /// What it wrote to stderr.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// SIGKILL, as a crash: the mount point stays and says ENOTCONN.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal and waits for the end; the exit code.
    #[track_caller]
    pub fn end(&self, signal: i32) -> Option<i32> {
        assert_eq!(unsafe { libc::kill(self.pid() as i32, signal) }, 0);
        self.ended()
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    pub fn ended(&self) -> Option<i32> {
        let mut status = None;
        shell::eventually("ctrfs ends", Duration::from_secs(5), || {
            status = self.child.lock().unwrap().try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// A path below the mount point.
    pub fn at_path(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// A whole text file.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        String::from_utf8(self.bytes(path)).unwrap_or_else(|_| panic!("{path} is no UTF-8"))
    }

    /// A whole file.
    #[track_caller]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        fs::read(self.at_path(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
    }

    /// The requests of the kernel until now, by operation.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let metrics = self.read(".ctrfs/metrics");
        let counts = metrics.lines().filter_map(|line| line.strip_prefix("ctrfs_requests_total{operation=\""));
        let split = |line: &str| line.split_once("\"} ").map(|(name, count)| (name.to_owned(), count.parse().unwrap()));
        counts.filter_map(split).collect()
    }

    /// The names in a directory, sorted.
    #[track_caller]
    pub fn ls(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at_path(path)).unwrap_or_else(|error| panic!("cannot list {path}: {error}"));
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.unwrap_or_else(|error| panic!("cannot list {path}: {error}")).file_name().into_string().unwrap()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// True if the name is there, be it a symlink that leads nowhere.
    pub fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at_path(path)).is_ok()
    }

    /// What a symlink says. It has to lead somewhere.
    #[track_caller]
    pub fn link(&self, path: &str) -> String {
        let target = fs::read_link(self.at_path(path)).unwrap_or_else(|error| panic!("no symlink {path}: {error}"));
        assert!(self.at_path(path).exists(), "{path} -> {} leads nowhere", target.display());
        target.to_str().unwrap().to_owned()
    }

    /// The errno of reading a file; panics if it can be read.
    #[track_caller]
    pub fn errno(&self, path: &str) -> i32 {
        let mut sink = Vec::new();
        match fs::File::open(self.at_path(path)).and_then(|mut file| file.read_to_end(&mut sink)) {
            Ok(_) => panic!("{path} can be read"),
            Err(error) => error.raw_os_error().unwrap(),
        }
    }

    /// An extended attribute, or the errno.
    pub fn xattr(&self, path: &str, name: &str) -> Result<String, i32> {
        let path = CString::new(self.at_path(path).as_os_str().as_bytes()).unwrap();
        let name = CString::new(name).unwrap();
        let mut value = vec![0u8; 65536];
        let size = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        if size < 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
        }
        value.truncate(size as usize);
        Ok(String::from_utf8(value).unwrap())
    }

    /// The names of the extended attributes, sorted.
    pub fn xattrs(&self, path: &str) -> Vec<String> {
        let path = CString::new(self.at_path(path).as_os_str().as_bytes()).unwrap();
        let mut names = vec![0u8; 65536];
        let size = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
        assert!(size >= 0, "{}", std::io::Error::last_os_error());
        let parts = names[..size as usize].split(|&byte| byte == 0).filter(|name| !name.is_empty());
        let mut all: Vec<String> = parts.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
        all.sort();
        all
    }

    /// Runs a script with `$M` as the mount point.
    #[track_caller]
    pub fn sh(&self, script: &str, seconds: u64) -> shell::Shell {
        shell::sh(script, &[("M", self.path.to_str().unwrap())], seconds)
    }

    /// Kills ctrfs if the test takes too long, or it would wait for ever.
    fn watch(&self) {
        let child = Arc::downgrade(&self.child);
        std::thread::spawn(move || {
            let deadline = Instant::now() + LONGEST;
            while Instant::now() < deadline {
                std::thread::sleep(Duration::from_secs(1));
                if child.strong_count() == 0 {
                    return;
                }
            }
            if let Some(child) = child.upgrade() {
                eprintln!("a mount lasted longer than {LONGEST:?}: ctrfs is killed");
                let _ = child.lock().unwrap().kill();
            }
        });
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.path);
        let mut child = self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let pid = child.id() as i32;
        if child.try_wait().is_ok_and(|status| status.is_none()) {
            unsafe { libc::kill(pid, libc::SIGTERM) };
            let deadline = Instant::now() + Duration::from_secs(2);
            while teardown::is_alive(pid) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- ctrfs on {} said:\n{}---", self.path.display(), self.said());
        }
    }
}

/// The file system type and the options of the topmost mount on a directory.
pub fn mounted(path: &Path) -> Option<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().rfind(|line| line.split(' ').nth(4).map(OsStr::new) == Some(path.as_os_str()))?;
    let (mount, source) = line.split_once(" - ")?;
    Some((source.split(' ').next()?.to_owned(), mount.split(' ').nth(5)?.to_owned()))
}

/// True if a ctrfs is mounted there.
pub fn is_mounted(path: &Path) -> bool {
    mounted(path).is_some_and(|(kind, _)| kind == "fuse.ctrfs")
}

/// Takes away whatever is mounted there.
pub fn unmount(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    while unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } == 0 {}
}
