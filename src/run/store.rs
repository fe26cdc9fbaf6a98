//! Where the input and output of processes are: a directory for each, on the host's disk, for root alone. It outlives
//! ctrfs and containerd, and is never inside the mount: a shim must not wait for us.
//!
//! `<root>/<server>/<namespace>/<container>/<task>/{stdin,stdout,stderr}`, and for each further process the same in
//! `exec/<exec id>/`. `<server>` is the UUID of containerd, for two of them may have the same names.

use super::output::{BOUND_BYTES, Watch};
use crate::containerd::{Exit, Namespace, Stdio};
use crate::error::{Error, Kind, Result};
use crate::fail;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long what a container left behind is kept after it has gone.
const KEPT: Duration = Duration::from_secs(600);

/// The directory of all processes' files.
pub struct Store {
    root: PathBuf,
    /// Tells when outputs grow.
    pub watch: Watch,
}

/// The files of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    dir: PathBuf,
}

impl Store {
    /// A store in `root`. It is made, so that its name is known without links in it: a task's paths tell whose they are.
    pub fn new(root: PathBuf) -> Store {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        let root = made.and_then(|()| fs::canonicalize(&root)).unwrap_or(root);
        Store { root, watch: Watch::new(BOUND_BYTES) }
    }

    /// The directory of a namespace's containers.
    pub(super) fn namespace(&self, ns: &Namespace) -> Result<PathBuf> {
        let server = ns.client().server()?;
        Ok(self.root.join(part(&server.uuid)?).join(part(ns.name())?))
    }

    /// The directory of a container's tasks.
    pub(super) fn container(&self, ns: &Namespace, id: &str) -> Result<PathBuf> {
        Ok(self.namespace(ns)?.join(part(id)?))
    }

    /// Makes a directory that only root enters, and those above it.
    pub(super) fn make_directory(dir: &Path) -> Result<()> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|e| Error::from(e).context(dir.display()))
    }

    /// New files for a task.
    pub fn make(&self, ns: &Namespace, id: &str) -> Result<Files> {
        let container = self.container(ns, id)?;
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        Files::make(container.join(format!("task-{nanos}")))
    }

    /// The files of a task, if they are ours: its stdout tells.
    pub fn of(&self, stdout: &str) -> Option<Files> {
        let path = Path::new(stdout);
        let ours = path.starts_with(&self.root) && path.file_name().is_some_and(|name| name == "stdout");
        Some(Files { dir: path.parent().filter(|_| ours)?.to_owned() })
    }

    /// Where the further processes of a task are, whoever started it; the pid tells a task from its successor.
    pub fn execs(&self, ns: &Namespace, id: &str, stdout: &str, pid: u32) -> Result<PathBuf> {
        let task = match self.of(stdout) {
            Some(files) => files.dir,
            None => self.container(ns, id)?.join(format!("pid-{pid}")),
        };
        Ok(task.join("exec"))
    }

    /// Removes what a container that is gone has left.
    pub fn forget(&self, ns: &Namespace, id: &str) {
        if let Ok(dir) = self.container(ns, id) {
            remove(&dir);
        }
    }

    /// Removes what was left by containers that somebody else deleted, some time after they went, and returns what
    /// is there still, by container id.
    pub fn sweep(&self, ns: &Namespace) -> Result<Vec<(String, Files)>> {
        let containers = ns.containers()?;
        let mut left = Vec::new();
        for dir in subdirectories(&self.namespace(ns)?) {
            let id = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let tasks = subdirectories(&dir);
            if !containers.contains_key(id.as_str()) {
                let newest = tasks.iter().chain([&dir]).filter_map(|dir| fs::metadata(dir).ok()?.modified().ok()).max();
                let old = newest.and_then(|at| at.elapsed().ok()).is_none_or(|age| age > KEPT);
                if old {
                    remove(&dir);
                }
            } else {
                left.extend(tasks.into_iter().map(|dir| (id.clone(), Files { dir })));
            }
        }
        Ok(left)
    }
}

/// What names a server, a namespace or a container, as a component of a path.
fn part(name: &str) -> Result<&str> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return fail!(Invalid, "{name:?} cannot be a name of a server, a namespace or a container");
    }
    Ok(name)
}

fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "the files of a process stay behind");
        }
        _ => {}
    }
}

pub(super) fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> =
        entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect();
    all.sort();
    all
}

impl Files {
    /// Makes the directory and the files in it: a shim wants outputs that are there.
    pub fn make(dir: PathBuf) -> Result<Files> {
        let problem = |e: io::Error| Error::from(e).context(dir.display());
        Store::make_directory(&dir)?;
        for name in ["stdout", "stderr"] {
            let mut options = File::options();
            options.write(true).create_new(true).mode(0o600).open(dir.join(name)).map_err(problem)?;
        }
        let fifo = std::ffi::CString::new(dir.join("stdin").as_os_str().as_bytes())
            .map_err(|e| Error::caused(Kind::Invalid, "a path with a NUL in it", e))?;
        // SAFETY: the name lives until the call returns.
        if unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) } != 0 {
            return Err(problem(io::Error::last_os_error()));
        }
        Ok(Files { dir })
    }

    /// Those in a directory, if it is there.
    pub fn open(dir: PathBuf) -> Option<Files> {
        dir.join("stdout").exists().then_some(Files { dir })
    }

    /// Every process's files in the directory of a task's further processes, by exec id.
    pub fn all(execs: &Path) -> Vec<(String, Files)> {
        let name = |dir: &PathBuf| Some(dir.file_name()?.to_str()?.to_owned());
        subdirectories(execs).into_iter().filter_map(|dir| Some((name(&dir)?, Files::open(dir)?))).collect()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn stdout(&self) -> PathBuf {
        self.dir.join("stdout")
    }

    pub fn stderr(&self) -> PathBuf {
        self.dir.join("stderr")
    }

    pub fn stdin(&self) -> PathBuf {
        self.dir.join("stdin")
    }

    /// As containerd is told of them.
    pub fn stdio(&self, terminal: bool) -> Stdio {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Stdio {
            stdin: text(self.stdin()),
            stdout: text(self.stdout()),
            // A terminal has one output.
            stderr: if terminal { String::new() } else { text(self.stderr()) },
            terminal,
        }
    }

    /// Notes something of the process that ctrfs has to know when it is started again.
    pub fn note(&self, name: &str, text: &str) -> Result<()> {
        let (new, path) = (self.dir.join(format!(".{name}.new")), self.dir.join(name));
        fs::write(&new, text)?;
        Ok(fs::rename(&new, &path)?)
    }

    /// What was noted.
    pub fn noted(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }

    /// Notes how the process ended.
    pub fn note_exit(&self, exit: &Exit) -> Result<()> {
        let at = exit.at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        let note = json!({"status": exit.status, "seconds": at.as_secs(), "nanos": at.subsec_nanos()});
        self.note("exit.json", &note.to_string())
    }

    /// How it ended, if that was noted.
    pub fn exit(&self) -> Option<Exit> {
        let note: Value = serde_json::from_str(&self.noted("exit.json")?).ok()?;
        let nanos = u32::try_from(note["nanos"].as_u64()?).ok()?;
        let at = Duration::new(note["seconds"].as_u64()?, nanos.min(999_999_999));
        let at = SystemTime::UNIX_EPOCH.checked_add(at).filter(|at| *at != SystemTime::UNIX_EPOCH);
        Some(Exit { status: u32::try_from(note["status"].as_u64()?).ok()?, at })
    }

    /// Removes them all.
    pub fn remove(&self) {
        remove(&self.dir);
    }

    /// Opens the input for writing, without waiting. When its last writer closes it the process sees the end, and
    /// nobody can write any more.
    pub fn write_stdin(&self) -> Result<File> {
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        match File::options().write(true).custom_flags(flags).open(self.stdin()) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                fail!(Gone, "stdin: nobody reads it any more: its last writer has closed it, or the process has ended")
            }
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_and_an_end_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::make(dir.path().join("a/b")).unwrap();
        assert!(files.stdout().is_file() && files.stderr().is_file());
        assert_eq!(files.write_stdin().unwrap_err().kind(), Kind::Gone);
        assert_eq!(files.exit(), None);
        let exit = Exit { status: 137, at: Some(SystemTime::UNIX_EPOCH + Duration::new(9, 8)) };
        files.note_exit(&exit).unwrap();
        assert_eq!(files.exit(), Some(exit));
        assert!(Files::make(dir.path().join("a/b")).is_err(), "files are never taken over");
        let store = Store::new(dir.path().join("a"));
        assert_eq!(store.of(files.stdout().to_str().unwrap()), Some(files.clone()));
        assert_eq!(store.of("/var/log/stdout"), None);
        files.remove();
        assert!(!files.dir().exists());
    }
}
