//! Uncompressed copies of layers whose random reads are too dear: zstd in one frame, and what is read again and again.
//!
//! A copy is used as soon as it is complete, but it has its name only after it is on the disk: what a crash leaves
//! behind is never believed. It never takes the last space of a disk.

use super::decode::pass::{STRETCH, Tee, Watch};
use super::decode::{Digest, spill};
use crate::error::Result;
use crate::fail;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// The space of a copy whose size nobody knows is taken in steps.
const STEP: u64 = 64 << 20;
/// So much passes before it is known whether a copy is needed: a stretch, and what is on its way.
const HELD: usize = (STRETCH + (1 << 20)) as usize;
/// What always stays free on the disk: this much, and a twentieth of it.
const FREE: u64 = 1 << 30;

/// The directory of the copies.
pub struct Spools {
    dir: PathBuf,
    cap: u64,
}

impl Spools {
    /// The copies in `dir`, which may take `cap` bytes together.
    pub fn new(dir: PathBuf, cap: u64) -> Spools {
        Spools { dir, cap }
    }

    fn path(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join(diff_id.hex())
    }

    /// The copy of the archive `diff_id` of `size` bytes, if there is one.
    pub fn open(&self, diff_id: &Digest, size: u64) -> Option<File> {
        let file = File::open(self.path(diff_id)).ok()?;
        if file.metadata().ok()?.len() != size {
            self.remove(diff_id);
            return None;
        }
        // The modification time of a file that never changes is free to say when it was used.
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// Deletes the copy of `diff_id`.
    pub fn remove(&self, diff_id: &Digest) {
        let _ = fs::remove_file(self.path(diff_id));
    }

    /// Begins a copy, of `size` bytes if that is known. Refused where the disk or the cap has no room.
    pub fn begin(&self, size: Option<u64>) -> Result<Writer> {
        if size.is_some_and(|size| size > self.cap) {
            return fail!(NoSpace, "a copy of {size:?} bytes is more than the {} that copies may take", self.cap);
        }
        let path = self.dir.join(spill::temporary());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut writer = Writer { path: Some(path), file, written: 0, reserved: 0, cap: self.cap };
        writer.reserve(size.unwrap_or(STEP).min(self.cap))?;
        Ok(writer)
    }

    /// Gives a finished copy its name, once it is on the disk, and deletes what was used longest ago until the cap is
    /// kept. Gives the names of what was deleted.
    pub fn settle(&self, finished: Finished) -> Result<Vec<String>> {
        let path = self.path(&finished.diff_id);
        File::open(&finished.path)?.sync_data()?;
        fs::rename(&finished.path, &path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(self.sweep(Some(&path)))
    }

    /// Keeps the cap; `newest` stays. Temporary files that are old are deleted too.
    pub fn sweep(&self, newest: Option<&Path>) -> Vec<String> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let (path, name) = (file.path(), file.file_name().to_string_lossy().into_owned());
            let Ok(metadata) = file.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if !name.starts_with("tmp.") {
                found.push((newest == Some(&path), used, metadata.blocks() * 512, path, name));
            } else if used.elapsed().is_ok_and(|age| age > Duration::from_secs(3600)) {
                // Another daemon may be writing to the same directory; an hour is more than it takes.
                let _ = fs::remove_file(&path);
            }
        }
        found.sort();
        let mut total: u64 = found.iter().map(|f| f.2).sum();
        let mut gone = Vec::new();
        for (_, _, size, path, name) in found.into_iter().filter(|f| !f.0) {
            if total > self.cap && fs::remove_file(path).is_ok() {
                total -= size;
                gone.push(name);
            }
        }
        gone
    }
}

/// A copy that is being written; what is not finished is deleted.
pub struct Writer {
    path: Option<PathBuf>,
    file: File,
    written: u64,
    reserved: u64,
    cap: u64,
}

/// A copy that is complete but may not yet be on the disk.
pub struct Finished {
    path: PathBuf,
    diff_id: Digest,
}

impl Writer {
    /// Takes the space up to `end` before it is needed: a copy that would fill the disk is given up first.
    fn reserve(&mut self, end: u64) -> Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let disk = statvfs(self.path.as_deref().unwrap_or(Path::new("/"))).map_err(std::io::Error::from)?;
        let block = disk.fragment_size();
        let free = disk.blocks_available().saturating_mul(block);
        let stays = FREE.max(disk.blocks().saturating_mul(block) / 20);
        if free.saturating_sub(end - self.reserved) < stays || end > self.cap {
            return fail!(NoSpace, "no room for an uncompressed copy of the layer");
        }
        let len = (end - self.reserved) as i64;
        match fallocate(&self.file, FallocateFlags::empty(), self.reserved as i64, len) {
            Ok(()) | Err(nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => self.reserved = end,
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        Ok(())
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.written + bytes.len() as u64;
        if end > self.reserved {
            let step = (self.reserved + STEP).min(self.cap).max(end);
            self.reserve(step)?;
        }
        self.file.write_all_at(bytes, self.written)?;
        self.written = end;
        Ok(())
    }

    /// The copy of `diff_id` is complete: it can be read, and has to be settled.
    pub fn finish(mut self, diff_id: Digest) -> Result<(File, Finished)> {
        self.file.set_len(self.written)?;
        let Some(path) = self.path.clone() else { return fail!(Io, "a copy without a path") };
        let file = File::open(&path)?;
        self.path = None;
        Ok((file, Finished { path, diff_id }))
    }
}

impl Drop for Finished {
    /// What was not settled is deleted; what was has another name by now.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// Copies an archive while it passes, if the pass finds that it is needed: that shows after the first stretch, which
/// is held back until then.
pub struct Optional<'a> {
    spools: &'a Spools,
    watch: &'a Watch,
    held: Vec<u8>,
    state: State,
}

enum State {
    Undecided,
    Writing(Writer),
    Not,
}

impl<'a> Optional<'a> {
    /// A copy that the pass which heeds `watch` decides about.
    pub fn new(spools: &'a Spools, watch: &'a Watch) -> Optional<'a> {
        Optional { spools, watch, held: Vec::new(), state: State::Undecided }
    }

    /// The copy, if there is one.
    pub fn writer(self) -> Option<Writer> {
        match self.state {
            State::Writing(writer) => Some(writer),
            State::Undecided | State::Not => None,
        }
    }

    fn decide(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.state = State::Not;
        if self.watch.unseekable.load(Ordering::Relaxed)
            && let Ok(mut writer) = self.spools.begin(None)
            && writer.write(&held).is_ok()
        {
            self.state = State::Writing(writer);
        }
    }
}

impl Tee for Optional<'_> {
    fn take(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Not => {}
            State::Writing(writer) => {
                if writer.write(bytes).is_err() {
                    self.state = State::Not;
                }
            }
            State::Undecided => {
                if self.held.capacity() == 0 {
                    self.held.reserve_exact(HELD + (1 << 20));
                }
                self.held.extend_from_slice(bytes);
                if self.held.len() > HELD {
                    self.decide();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn digest(n: u8) -> Digest {
        Digest::Sha256([n; 32])
    }

    fn copy(spools: &Spools, n: u8, size: usize) -> Result<Vec<String>> {
        let mut writer = spools.begin(None)?;
        writer.write(&vec![n; size])?;
        let (file, finished) = writer.finish(digest(n))?;
        assert_eq!(file.metadata()?.len(), size as u64);
        assert!(spools.open(&digest(n), size as u64).is_none(), "it has no name yet");
        spools.settle(finished)
    }

    #[test]
    fn a_copy_is_believed_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path().to_path_buf(), 64 << 20);
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let mut writer = spools.begin(Some(100)).unwrap();
        writer.write(b"half").unwrap();
        drop(writer);
        assert_eq!(files(), 0, "what is given up leaves nothing");
        let mut writer = spools.begin(None).unwrap();
        writer.write(b"whole").unwrap();
        drop(writer.finish(digest(1)).unwrap().1);
        assert_eq!(files(), 0, "nor does what was never settled");
        copy(&spools, 1, 1000).unwrap();
        assert!(spools.open(&digest(1), 1000).is_some());
        assert!(spools.open(&digest(1), 1001).is_none());
        assert_eq!(files(), 0, "what has another size is no copy");
    }

    #[test]
    fn the_cap_is_kept_and_the_disk_is_never_filled() {
        let dir = tempfile::tempdir().unwrap();
        let spools = Spools::new(dir.path().to_path_buf(), 10 << 20);
        assert_eq!(spools.begin(Some(11 << 20)).err().unwrap().kind(), Kind::NoSpace);
        let mut writer = spools.begin(None).unwrap();
        writer.write(&vec![0; 10 << 20]).unwrap();
        assert_eq!(writer.write(&[0]).unwrap_err().kind(), Kind::NoSpace);
        drop(writer);
        copy(&spools, 1, 4 << 20).unwrap();
        copy(&spools, 2, 4 << 20).unwrap();
        spools.open(&digest(2), 4 << 20).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(copy(&spools, 3, 4 << 20).unwrap(), [digest(2).hex()]);
        assert!(spools.open(&digest(1), 4 << 20).is_some() && spools.open(&digest(3), 4 << 20).is_some());
        let endless = Spools::new(dir.path().to_path_buf(), u64::MAX);
        assert_eq!(endless.begin(Some(1 << 60)).err().unwrap().kind(), Kind::NoSpace);
    }
}
