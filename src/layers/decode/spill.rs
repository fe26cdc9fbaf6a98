//! A byte buffer that overflows to a file without a name: what grows with a layer does not grow the daemon.

use crate::error::Result;
use crate::fail;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// How much stays in memory while there is a disk to write to.
const MEMORY: usize = 1 << 20;
/// How much stays in memory where there is none.
const STRANDED: usize = 64 << 20;

/// A name for a file that is not complete, never used before: a process id alone comes again, in a container at once.
pub fn temporary() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("tmp.{}.{}.{number}", std::process::id(), now.as_nanos())
}

/// Bytes that are appended and read back.
pub struct Spill {
    /// Where the file may be made; `None` once that has failed.
    dir: Option<PathBuf>,
    file: Option<File>,
    /// So many bytes are in the file; the rest is in `tail`.
    written: u64,
    tail: Vec<u8>,
}

impl Spill {
    /// An empty buffer, whose file lies in `dir` if it ever has one.
    pub fn new(dir: Option<&Path>) -> Spill {
        Spill { dir: dir.map(Path::to_path_buf), file: None, written: 0, tail: Vec::new() }
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.tail.len() + bytes.len() > MEMORY {
            self.overflow();
        }
        if self.tail.len() + bytes.len() > STRANDED {
            return fail!(
                NoSpace,
                "the index of the layer is too large for memory, and its directory cannot be written"
            );
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }

    /// Moves what is in memory to the file. A disk that refuses is not asked again: the bytes then stay here.
    fn overflow(&mut self) {
        if self.file.is_none() {
            let Some(dir) = &self.dir else { return };
            match OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(dir) {
                Ok(file) => self.file = Some(file),
                Err(_) => return self.dir = None,
            }
        }
        let (Some(file), Some(_)) = (&self.file, &self.dir) else { return };
        match file.write_all_at(&self.tail, self.written) {
            Ok(()) => {
                self.written += self.tail.len() as u64;
                self.tail.clear();
            }
            Err(_) => self.dir = None,
        }
    }

    /// Appends the `len` bytes at `offset` to `out`.
    pub fn read(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len()) {
            return fail!(Io, "a read behind the end of a buffer");
        }
        let on_disk = self.written.saturating_sub(offset).min(len as u64) as usize;
        let start = out.len();
        out.resize(start + len, 0);
        if let (Some(file), true) = (&self.file, on_disk > 0) {
            file.read_exact_at(&mut out[start..start + on_disk], offset)?;
        }
        if on_disk < len {
            let from = (offset + on_disk as u64 - self.written) as usize;
            out[start + on_disk..].copy_from_slice(&self.tail[from..from + len - on_disk]);
        }
        Ok(())
    }

    /// Writes everything to `to`, in order.
    pub fn copy_to(&self, to: &mut dyn Write) -> Result<()> {
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < self.len() {
            let len = (self.len() - at).min(256 << 10) as usize;
            buffer.clear();
            self.read(at, len, &mut buffer)?;
            to.write_all(&buffer)?;
            at += len as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overflows_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        for place in [Some(dir.path()), None] {
            let mut spill = Spill::new(place);
            let mut all = Vec::new();
            for n in 0..300u32 {
                let part = vec![n as u8; 10_007];
                spill.push(&part).unwrap();
                all.extend_from_slice(&part);
            }
            assert_eq!(spill.file.is_some(), place.is_some());
            let mut back = Vec::new();
            spill.copy_to(&mut back).unwrap();
            assert!(back == all);
            let mut part = Vec::new();
            spill.read(1_040_000, 20_000, &mut part).unwrap();
            assert!(part == all[1_040_000..1_060_000]);
            assert!(spill.read(spill.len(), 1, &mut part).is_err());
        }
    }
}
