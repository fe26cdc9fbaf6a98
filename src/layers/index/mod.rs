//! The index of a layer: its tar entries in archive order and the places to restart decoding at, in one file.
//!
//! It holds raw facts, not a tree: the same blob means different things as a base layer and above one. It is built in
//! one pass, read through a map, and believed only when every checksum and every offset is right; everything else is
//! deleted and built again.

mod build;
mod file;
mod format;
mod rows;

pub use self::build::Builder;
pub use self::file::Unnamed;
pub(super) use self::file::{remove, sweep};

use self::file::Backing;
use self::format::{Header, SECTIONS, Section};
use self::rows::Pools;
use super::Entry;
use super::decode::{Checkpoint, Compression, Digest};
use crate::error::Result;
use crate::fail;
use std::ops::Range;
use std::path::Path;

/// The longest stretch of gzip that a random read may have to pass, in bytes; behind it only a spooled copy helps.
const GZIP_STRETCH: u64 = 32 << 20;

/// What is known about one layer.
pub struct Index {
    backing: Backing,
    header: Header,
    sections: [Range<usize>; SECTIONS],
}

impl Index {
    /// Opens the index of `digest` below `root`, if there is one that can be believed; one that cannot is deleted.
    pub fn open(root: &Path, digest: &Digest, parser: u32) -> Option<Index> {
        let path = file::path(root, digest);
        let backing = Backing::map(&path).ok()?;
        match Index::check(backing, digest, parser) {
            Ok(index) => {
                file::touch(&path);
                Some(index)
            }
            Err(_) => {
                file::remove(root, digest);
                None
            }
        }
    }

    /// The index in `backing`, after everything about it was checked.
    fn check(backing: Backing, digest: &Digest, parser: u32) -> Result<Index> {
        let header = Header::read(&backing, parser)?;
        if header.digest != *digest {
            return fail!(Corrupt, "an index of another layer");
        }
        let sections = header.sections(&backing)?;
        let index = Index { backing, header, sections };
        if index.section(Section::Rows).len() as u64 != index.header.entries * rows::ROW as u64 {
            return fail!(Corrupt, "an index with another number of entries than it says");
        }
        index.check_checkpoints()?;
        Ok(index)
    }

    fn check_checkpoints(&self) -> Result<()> {
        let table = self.section(Section::Checkpoints);
        let windows = self.section(Section::Windows).len() as u64;
        let mut last = Checkpoint::default();
        for n in 0..table.len() / format::CHECKPOINT {
            let c = self.checkpoint(n);
            let inside = c.input <= self.header.size && c.output <= self.header.uncompressed && c.bits < 8;
            let ordered = c.input >= last.input && c.output >= last.output && (n > 0 || (c.input, c.output) == (0, 0));
            let window = c.window.0.checked_add(c.window.1.into()).is_some_and(|end| end <= windows);
            if !(inside && ordered && window) {
                return fail!(Corrupt, "an index with a checkpoint that cannot be");
            }
            last = c;
        }
        if table.is_empty() || !table.len().is_multiple_of(format::CHECKPOINT) {
            return fail!(Corrupt, "an index without checkpoints");
        }
        Ok(())
    }

    fn section(&self, section: Section) -> &[u8] {
        self.sections.get(section as usize).and_then(|range| self.backing.get(range.clone())).unwrap_or_default()
    }

    fn checkpoint(&self, n: usize) -> Checkpoint {
        let table = self.section(Section::Checkpoints);
        let at = n * format::CHECKPOINT;
        table.get(at..at + format::CHECKPOINT).map(format::read_checkpoint).unwrap_or_default()
    }

    /// The digest of the blob.
    pub fn digest(&self) -> &Digest {
        &self.header.digest
    }

    /// The length of the blob.
    pub fn size(&self) -> u64 {
        self.header.size
    }

    /// The SHA-256 of the uncompressed archive: what the image's `diff_ids` must say.
    pub fn diff_id(&self) -> Digest {
        Digest::Sha256(self.header.diff_id)
    }

    /// The length of the uncompressed archive.
    pub fn uncompressed(&self) -> u64 {
        self.header.uncompressed
    }

    /// The compression of the blob.
    pub fn compression(&self) -> Compression {
        self.header.compression
    }

    /// The length of the index itself.
    pub fn weight(&self) -> usize {
        self.backing.len()
    }

    /// Whether it lies in memory because no disk took it.
    pub fn in_memory(&self) -> bool {
        matches!(self.backing, Backing::Memory(_))
    }

    /// Whether random reads need a copy of the uncompressed archive: a restart would have to pass too much.
    pub fn needs_spool(&self) -> bool {
        match self.header.compression {
            Compression::Plain => false,
            Compression::Gzip => self.header.gap > GZIP_STRETCH,
            Compression::Zstd => self.header.gap > super::decode::pass::STRETCH,
        }
    }

    /// The last checkpoint from which `offset` of the uncompressed archive is reached, and its packed window.
    pub fn restart(&self, offset: u64) -> (Checkpoint, &[u8]) {
        let (mut low, mut high) = (0, self.section(Section::Checkpoints).len() / format::CHECKPOINT);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.checkpoint(middle).output <= offset {
                true => low = middle,
                false => high = middle,
            }
        }
        let checkpoint = self.checkpoint(low);
        let from = checkpoint.window.0 as usize;
        let window = self.section(Section::Windows).get(from..from + checkpoint.window.1 as usize);
        (checkpoint, window.unwrap_or_default())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.header.entries as usize
    }

    /// Whether the archive is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn pools(&self) -> Pools<'_> {
        Pools {
            rows: self.section(Section::Rows),
            names: self.section(Section::Names),
            extras: self.section(Section::Extras),
        }
    }

    /// The entry of this number, in archive order.
    pub fn entry(&self, n: usize) -> Result<Entry> {
        self.pools().entry(n)
    }

    /// All entries in archive order. Each is read from the map as it is asked for.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        let pools = self.pools();
        let mut name = Vec::new();
        (0..self.len()).map(move |n| pools.next(n, &mut name))
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index of {}: {} entries", self.header.digest, self.header.entries)
    }
}

#[cfg(test)]
mod tests;
