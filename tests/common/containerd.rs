//! A private containerd of a given version: own root, state and socket, gone without a trace when dropped.

use super::rpc::Rpc;
use super::{shell, teardown};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// The versions that ctrfs is tested against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1_6,
    V1_7,
    V2,
}

impl Version {
    /// Where `contrib/setup` puts what it does not install.
    pub fn cache() -> PathBuf {
        let cache = PathBuf::from(std::env::var_os("CTRFS_TEST_CACHE").unwrap_or("target/containerds".into()));
        Path::new(env!("CARGO_MANIFEST_DIR")).join(cache)
    }

    /// The directory of its binaries, if this machine has them (`contrib/setup`).
    fn bin(self) -> Option<PathBuf> {
        let cache = Version::cache();
        let places = match self {
            Version::V1_6 => vec![cache.join("1.6/usr/bin"), PathBuf::from("/usr/bin")],
            Version::V1_7 => vec![cache.join("1.7/usr/bin")],
            Version::V2 => vec![cache.join("2/usr/bin")],
        };
        places.into_iter().find(|bin| bin.join("containerd").exists())
    }

    /// True if tests of this version are to be left out: it is not here, and that was said to be right.
    pub fn is_left_out(self) -> bool {
        self.bin().is_none() && std::env::var_os("CTRFS_ALLOW_MISSING").is_some_and(|value| value == "1")
    }
}

/// A running containerd. All of its methods may be called from several tests at once.
pub struct Containerd {
    pub version: Version,
    /// Everything of it is below this directory, on tmpfs where there is room.
    pub dir: PathBuf,
    bin: PathBuf,
    apart: Option<&'static str>,
    child: Mutex<Option<Child>>,
    rpc: OnceLock<Rpc>,
    _lock: teardown::Lock,
}

impl Containerd {
    /// Starts one that answers when this returns.
    pub fn start(version: Version) -> Containerd {
        Containerd::begin(version, None, |_| String::new())
    }

    /// The same, with a snapshotter that keeps file systems in files, where this version has it.
    pub fn start_with_blocks(version: Version) -> Containerd {
        Containerd::begin(version, None, |dir| {
            let script = "truncate -s 16M \"$F\" && mkfs.ext4 -q \"$F\"";
            let file = dir.join("scratch");
            assert_eq!(shell::sh(script, &[("F", file.to_str().unwrap())], 20).code, Some(0), "no mkfs.ext4 here");
            let dir = dir.display();
            let plugin = "[plugins.\"io.containerd.snapshotter.v1.blockfile\"]";
            format!(
                "{plugin}\n  root_path = \"{dir}/blockfile\"\n  scratch_file = \"{dir}/scratch\"\n  fs_type = \"ext4\""
            )
        })
    }

    /// The same, with its root on a file system of a mount namespace of its own.
    pub fn start_apart(version: Version) -> Containerd {
        Containerd::begin(version, Some("mkdir -p $1 && mount -t tmpfs tmpfs $1"), |_| String::new())
    }

    /// The same, where cgroups are those of version 2 alone.
    pub fn start_unified(version: Version) -> Containerd {
        Containerd::begin(version, Some("mount -t cgroup2 none /sys/fs/cgroup"), |_| String::new())
    }

    fn begin(version: Version, apart: Option<&'static str>, more: fn(&Path) -> String) -> Containerd {
        assert_eq!(unsafe { libc::geteuid() }, 0, "these tests need root: containerd and FUSE do");
        assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
        teardown::sweep_once();
        let bin = version.bin().unwrap_or_else(|| panic!("no containerd {version:?} here: run contrib/setup"));
        let (dir, lock) = teardown::new_directory();
        let containerd =
            Containerd { version, bin, dir, apart, child: Mutex::new(None), rpc: OnceLock::new(), _lock: lock };
        let config = format!("{}\n{}", config(&containerd.dir), more(&containerd.dir));
        std::fs::write(containerd.dir.join("config.toml"), config).unwrap();
        containerd.spawn();
        containerd
    }

    /// The one of this version that all tests of this process share.
    pub fn shared(version: Version) -> Arc<Containerd> {
        static SHARED: [Mutex<Option<Arc<Containerd>>>; 3] = [const { Mutex::new(None) }; 3];
        static AT_EXIT: std::sync::Once = std::sync::Once::new();
        extern "C" fn end_all() {
            for slot in &SHARED {
                // A test that panicked while it started one leaves a poisoned, empty slot.
                drop(slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
            }
        }
        AT_EXIT.call_once(|| assert_eq!(unsafe { libc::atexit(end_all) }, 0));
        let mut slot = SHARED[version as usize].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        slot.get_or_insert_with(|| Arc::new(Containerd::start(version))).clone()
    }

    /// The path of its socket.
    pub fn address(&self) -> String {
        self.dir.join("containerd.sock").to_str().unwrap().to_owned()
    }

    /// gRPC, for what `ctr` cannot say.
    pub fn rpc(&self) -> &Rpc {
        self.rpc.get_or_init(|| Rpc::new(&self.address()))
    }

    /// Runs the `ctr` of this version in a namespace.
    pub fn try_ctr(&self, namespace: &str, args: &[&str]) -> shell::Shell {
        let mut command = Command::new(self.bin.join("ctr"));
        command.args(["--address", &self.address(), "--namespace", namespace]).args(args).env("PATH", self.path());
        shell::run(&mut command, 60)
    }

    /// The same of a line as a shell splits it.
    pub fn try_ctr_line(&self, namespace: &str, line: &str) -> shell::Shell {
        let ctr = self.bin.join("ctr");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{} --address {} --namespace {namespace} {line}", ctr.display(), self.address()));
        shell::run(command.env("PATH", self.path()), 60)
    }

    /// The same for a command that must succeed: what it prints.
    #[track_caller]
    pub fn ctr(&self, namespace: &str, args: &[&str]) -> String {
        let done = self.try_ctr(namespace, args);
        assert_eq!(done.code, Some(0), "ctr {args:?}: {}", done.err);
        done.out
    }

    /// Whether it has a CRIU that goes with this kernel.
    pub fn has_criu(&self) -> bool {
        shell::sh("criu check", &[("PATH", &self.path())], 20).code == Some(0)
    }

    /// A namespace that nobody else uses: cgroups and runc's directories are named after it, for all containerds of a host.
    pub fn new_namespace(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        let name = format!("t{}-{}-{since:x}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        teardown::remember_namespace(&self.dir, &name);
        name
    }

    /// The process's number; None while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.lock().unwrap().as_ref().map(Child::id)
    }

    /// SIGTERM: the socket goes, containers live on.
    pub fn stop(&self) {
        self.end(libc::SIGTERM);
    }

    /// SIGKILL: the socket stays and refuses.
    pub fn kill(&self) {
        self.end(libc::SIGKILL);
    }

    /// SIGSTOP: calls hang. [`Containerd::thaw`] ends it.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Starts it again after [`Containerd::stop`] or [`Containerd::kill`], with what it had.
    pub fn restart(&self) {
        self.spawn();
    }

    fn path(&self) -> String {
        // A CRIU that goes with this kernel, where the system has none that does.
        let criu = Version::cache().join("criu/bin");
        format!("{}:{}:{}", self.bin.display(), criu.display(), std::env::var("PATH").unwrap_or_default())
    }

    fn spawn(&self) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "it runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let binary = self.bin.join("containerd");
        let mut command = Command::new(if self.apart.is_some() { Path::new("unshare") } else { &binary });
        if let Some(first) = self.apart {
            let script = format!("{first} && shift && exec \"$@\"");
            command.args(["-m", "--propagation", "private", "sh", "-c", &script, "sh"]);
            command.arg(self.dir.join("root")).arg(&binary);
        }
        let spawned = command
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .env("PATH", self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        *child = Some(spawned.expect("cannot start containerd"));
        drop(child);
        let ready = || super::rpc::answers(&self.address());
        let what = format!("{:?} answers; its log is {}", self.version, self.dir.join("log").display());
        shell::eventually(&what, Duration::from_secs(20), ready);
    }

    fn signal(&self, signal: i32) {
        let pid = self.pid().expect("containerd does not run");
        assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
    }

    fn end(&self, signal: i32) {
        let mut child = self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(mut child) = child.take() {
            unsafe { libc::kill(child.id() as i32, signal) };
            let _ = child.wait();
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Killed rather than stopped: what follows removes everything it could want to write.
        self.end(libc::SIGKILL);
        teardown::remove(&self.dir);
    }
}

fn config(dir: &Path) -> String {
    let dir = dir.display();
    let mut config = Vec::new();
    writeln!(
        config,
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
temp = "{dir}/temp"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.grpc.v1.sandbox-controllers",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{dir}/containerd.sock"
[ttrpc]
  address = "{dir}/containerd.sock.ttrpc"
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "100ms""#
    )
    .unwrap();
    String::from_utf8(config).unwrap()
}
