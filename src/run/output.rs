//! Output of processes: plain files that a shim appends to, which nobody of us has to be there for.
//!
//! A file that grows past its bound loses its head: a hole is punched, so offsets stay, and who follows at the end
//! notices nothing. inotify tells when a file grows and when its last writer is gone.

use crate::error::{Error, Kind, Result};
use crate::fail;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

/// What is kept of an output, at most, in bytes.
pub const BOUND_BYTES: u64 = 64 << 20;

/// `F_SETSIG` of fcntl(2), which the libc crate lacks here: which signal tells that a lease is broken.
const F_SETSIG: libc::c_int = 10;

/// How long a burst of writes is let gather before anybody is told of the next.
const BURST: Duration = Duration::from_millis(1);

/// An output, open for reading.
pub struct Output {
    file: File,
}

impl Output {
    /// Opens a regular file; `None` for anything else, or nothing.
    pub fn open(path: &Path) -> Result<Option<Output>> {
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) => {
                return match error.raw_os_error() {
                    Some(libc::ENOENT | libc::ELOOP | libc::ENOTDIR | libc::ENXIO | libc::EACCES) => Ok(None),
                    _ => Err(Error::from(error).context(path.display())),
                };
            }
        };
        Ok(file.metadata()?.is_file().then_some(Output { file }))
    }

    /// Tells it from another file of the same name.
    pub fn id(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.ino() ^ meta.dev().rotate_left(32))
    }

    /// Its length, with what was cut off its head.
    pub fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }

    /// When it grew last.
    pub fn modified(&self) -> Option<SystemTime> {
        self.file.metadata().ok()?.modified().ok()
    }

    /// At most `length` bytes at `offset`; none at the end.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Where what is kept begins.
    pub fn head(&self) -> u64 {
        // SAFETY: seeks in a file that is ours; its own offset is not used.
        let at = unsafe { libc::lseek(self.file.as_raw_fd(), 0, libc::SEEK_DATA) };
        u64::try_from(at).unwrap_or(0)
    }

    /// Whether nobody has it open for writing any more: the kernel gives a read lease only then.
    pub fn is_complete(&self) -> bool {
        let fd = self.file.as_raw_fd();
        // SAFETY: fcntl on a descriptor that is ours. Should somebody open the file in between, the signal is one that is
        // ignored, and the lease is given back at once.
        unsafe {
            libc::fcntl(fd, F_SETSIG, libc::SIGURG);
            if libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0 {
                libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
                return true;
            }
        }
        let refused = io::Error::last_os_error().raw_os_error();
        // A file system without leases: then silence has to do.
        let quiet = || self.modified().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > Duration::from_secs(1));
        refused != Some(libc::EAGAIN) && quiet()
    }
}

/// Cuts the head off a file that holds more than `bound`.
fn keep_within(path: &Path, bound: u64) -> Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_file() || meta.blocks() * 512 <= bound {
        return Ok(());
    }
    let file = File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let cut = meta.len().saturating_sub(bound / 2) & !4095;
    let Ok(cut) = libc::off_t::try_from(cut) else { return fail!(Io, "{}: too long", path.display()) };
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate on a descriptor that is ours.
    if unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, cut) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

/// Tells when files grow, and keeps them within their bound.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

struct Shared {
    inotify: OnceLock<Option<OwnedFd>>,
    files: Mutex<HashMap<i32, Entry>>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    bound: u64,
}

struct Entry {
    path: PathBuf,
    /// Ours: to be kept within the bound.
    ours: bool,
    users: u32,
}

/// A file is watched as long as this is there.
pub struct Watching {
    shared: Arc<Shared>,
    number: i32,
}

impl Watch {
    /// Nothing is watched yet. An output of ours keeps at most `bound` bytes.
    pub fn new(bound: u64) -> Watch {
        let (inotify, files, wake) = Default::default();
        Watch(Arc::new(Shared { inotify, files, wake, bound }))
    }

    /// Calls `wake` from now on when any of the files has changed. Once.
    pub fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.0.wake.set(wake);
    }

    /// Has everybody who waits look again.
    pub fn wake(&self) {
        self.0.wake();
    }

    /// Watches a file; one of ours is kept within its bound.
    pub fn add(&self, path: &Path, ours: bool) -> Result<Watching> {
        let shared = &self.0;
        let inotify = shared.inotify.get_or_init(|| start(shared));
        let Some(inotify) = inotify else { return fail!(Again, "files cannot be watched: no inotify") };
        let name = std::ffi::CString::new(path.as_os_str().as_bytes())
            .map_err(|e| Error::caused(Kind::Invalid, "a path with a NUL in it", e))?;
        let mut files = shared.lock();
        // SAFETY: the descriptor lives as long as the program, the name until the call returns.
        let number = unsafe {
            libc::inotify_add_watch(inotify.as_raw_fd(), name.as_ptr(), libc::IN_MODIFY | libc::IN_CLOSE_WRITE)
        };
        if number < 0 {
            return Err(Error::from(io::Error::last_os_error()).context(format!("watching {}", path.display())));
        }
        let entry = files.entry(number).or_insert(Entry { path: path.to_owned(), ours, users: 0 });
        entry.users += 1;
        entry.ours |= ours;
        drop(files);
        Ok(Watching { shared: Arc::clone(shared), number })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut files = self.shared.lock();
        let Some(entry) = files.get_mut(&self.number) else { return };
        entry.users -= 1;
        if entry.users == 0 {
            files.remove(&self.number);
            if let Some(Some(inotify)) = self.shared.inotify.get() {
                // SAFETY: a number that was got from this inotify; if its file is gone, nothing happens.
                unsafe { libc::inotify_rm_watch(inotify.as_raw_fd(), self.number) };
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Entry>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Takes what inotify tells, for as long as the program runs.
    fn listen(&self, inotify: &File) {
        let mut buffer = [0u8; 16 << 10];
        loop {
            let read = match io::Read::read(&mut &*inotify, &mut buffer) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            self.wake();
            let mut changed: Vec<i32> = Vec::new();
            let mut rest = buffer.get(..read).unwrap_or_default();
            // struct inotify_event: wd, mask, cookie, len, name.
            while let Some((head, tail)) = rest.split_first_chunk::<16>() {
                let word = |at: usize| i32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                changed.push(word(0));
                rest = tail.get(usize::try_from(word(12)).unwrap_or(0)..).unwrap_or_default();
            }
            changed.sort_unstable();
            changed.dedup();
            let ours = |number: &i32| self.lock().get(number).filter(|e| e.ours).map(|e| e.path.clone());
            for path in changed.iter().filter_map(ours) {
                if let Err(error) = keep_within(&path, self.bound) {
                    tracing::warn!(path = %path.display(), %error, "an output is not kept within its bound");
                }
            }
            std::thread::sleep(BURST);
        }
    }
}

fn start(shared: &Arc<Shared>) -> Option<OwnedFd> {
    // SAFETY: makes a new descriptor, which is ours.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: it was just made.
    let inotify = unsafe { OwnedFd::from_raw_fd(fd) };
    let reader = File::from(inotify.try_clone().ok()?);
    let weak = Arc::clone(shared);
    let spawned = std::thread::Builder::new().name("ctrfs-outputs".into()).spawn(move || weak.listen(&reader));
    spawned.ok().map(|_| inotify)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::mpsc::channel;

    #[test]
    fn a_file_is_complete_when_its_last_writer_is_gone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = File::options().append(true).open(file.path()).unwrap();
        let path = file.into_temp_path();
        let output = Output::open(&path).unwrap().unwrap();
        assert!(!output.is_complete());
        drop(writer);
        assert!(output.is_complete());
        assert!(Output::open(Path::new("/dev/null")).unwrap().is_none());
        assert!(Output::open(Path::new("/no/such")).unwrap().is_none());
    }

    #[test]
    fn growth_is_told_and_the_head_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let mut writer = File::create(&path).unwrap();
        let watch = Watch::new(1 << 20);
        let (tell, told) = channel();
        watch.on_change(Box::new(move || tell.send(()).unwrap_or(())));
        let watching = watch.add(&path, true).unwrap();
        let chunk = vec![b'x'; 256 << 10];
        for _ in 0..10 {
            writer.write_all(&chunk).unwrap();
            told.recv_timeout(Duration::from_secs(5)).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        writer.write_all(b"end").unwrap();
        // It is cut soon after it has grown, not before.
        let disk = || std::fs::metadata(&path).unwrap().blocks() * 512;
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while disk() > 1 << 20 {
            assert!(std::time::Instant::now() < deadline, "{}", disk());
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = Output::open(&path).unwrap().unwrap();
        assert_eq!(output.size(), (2560 << 10) + 3, "offsets stay");
        assert!(output.head() > 1 << 20, "{}", output.head());
        assert_eq!(output.read(2560 << 10, 100).unwrap(), b"end");
        assert_eq!(output.read(output.head(), 1).unwrap(), b"x");
        drop(watching);
    }
}
