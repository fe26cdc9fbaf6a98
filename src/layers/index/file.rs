//! Where index files lie, how they get there whole, and how many stay.

use super::super::decode::{Digest, spill};
use crate::error::Result;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The bytes of an index.
pub(super) enum Backing {
    /// A file of the cache directory.
    Map(memmap2::Mmap),
    /// No disk took it.
    Memory(Vec<u8>),
}

impl Backing {
    pub(super) fn map(path: &Path) -> Result<Backing> {
        let file = File::open(path)?;
        // SAFETY: the file is complete and is never written again, only renamed or unlinked, which a map survives; its
        // directory is ours alone (0700).
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Backing::Map(map))
    }
}

impl Deref for Backing {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Backing::Map(map) => map,
            Backing::Memory(bytes) => bytes,
        }
    }
}

/// The file of an index below `root`.
pub(super) fn path(root: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    root.join(digest.algorithm()).join(&hex[..2]).join(&hex)
}

/// An index that is written, and can be read, but has no name yet: that costs a wait for the disk, which nobody who
/// wants to read the layer has to share.
pub struct Unnamed {
    temporary: PathBuf,
    path: PathBuf,
}

impl Unnamed {
    /// Brings the file to the disk and gives it its name: nobody ever sees a part of it under that.
    pub fn name(self) -> Result<()> {
        File::open(&self.temporary)?.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        Ok(())
    }

    pub(super) fn map(&self) -> Result<Backing> {
        Backing::map(&self.temporary)
    }
}

impl Drop for Unnamed {
    /// Without a name it is of no use; with one it lies elsewhere.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Writes the index of `digest`.
pub(super) fn write(root: &Path, digest: &Digest, fill: impl Fn(&mut dyn Write) -> Result<()>) -> Result<Unnamed> {
    let path = path(root, digest);
    let dir = path.parent().unwrap_or(root);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let temporary = dir.join(spill::temporary());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let unnamed = Unnamed { temporary, path };
    let mut buffered = BufWriter::with_capacity(256 << 10, file);
    fill(&mut buffered)?;
    buffered.flush()?;
    Ok(unnamed)
}

/// Says that the file was used now: the modification time of a file that never changes is free for that.
pub(super) fn touch(path: &Path) {
    if let Ok(file) = File::open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Deletes the index of `digest`.
pub(in super::super) fn remove(root: &Path, digest: &Digest) {
    let _ = fs::remove_file(path(root, digest));
}

/// Deletes what was used longest ago until at most `cap` bytes are left below `root`, and what a crash left behind.
/// Gives the bytes that are left.
pub(in super::super) fn sweep(root: &Path, cap: u64) -> u64 {
    let mut found = Vec::new();
    for algorithm in children(root) {
        for prefix in children(&algorithm) {
            for file in children(&prefix) {
                let Ok(metadata) = fs::symlink_metadata(&file) else { continue };
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let temporary = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"tmp."));
                match temporary {
                    // Another daemon may be writing to the same directory.
                    true if used.elapsed().is_ok_and(|age| age > Duration::from_secs(3600)) => {
                        let _ = fs::remove_file(&file);
                    }
                    true => {}
                    false => found.push((used, metadata.blocks() * 512, file)),
                }
            }
        }
    }
    found.sort();
    let mut total: u64 = found.iter().map(|(_, size, _)| size).sum();
    for (_, size, file) in found {
        if total <= cap {
            break;
        }
        if fs::remove_file(&file).is_ok() {
            total -= size;
        }
    }
    total
}

fn children(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}
