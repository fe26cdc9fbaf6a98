//! Builds an index while the archive passes, in bounded memory.

use super::file::{self, Unnamed};
use super::format::{self, Header, SECTIONS};
use super::rows::Writer;
use super::{Index, file::Backing};
use crate::error::{Kind, Result};
use crate::fail;
use crate::layers::Entry;
use crate::layers::decode::spill::Spill;
use crate::layers::decode::{Decoded, Digest, crc32};
use std::io::Write;
use std::path::Path;

/// Takes the entries of one layer in archive order.
pub struct Builder {
    rows: Writer,
    limit: u64,
}

impl Builder {
    /// A builder that takes at most `limit` entries and overflows to files without names in `scratch`.
    pub fn new(scratch: Option<&Path>, limit: u64) -> Builder {
        Builder { rows: Writer::new(scratch), limit: limit.min(u32::MAX.into()) }
    }

    /// The next entry.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        if self.rows.count >= self.limit {
            return fail!(Corrupt, "the layer has more than the {} entries that ctrfs allows", self.limit);
        }
        self.rows.push(entry)
    }

    /// The index of the blob `digest` of `size` bytes: in a file below `root` that is still to be named, or, where that
    /// cannot be written, in memory.
    pub fn finish(
        self,
        root: Option<&Path>,
        digest: &Digest,
        size: u64,
        decoded: Decoded,
        parser: u32,
    ) -> Result<(Index, Option<Unnamed>)> {
        let (table, windows, gap) = decoded.marks.finish(size, decoded.uncompressed)?;
        let mut checkpoints = Spill::new(None);
        for checkpoint in &table {
            checkpoints.push(&format::write_checkpoint(checkpoint))?;
        }
        let sections = [&self.rows.rows, &self.rows.names, &self.rows.extras, &checkpoints, &windows];
        let mut header = Header {
            parser,
            compression: decoded.compression,
            digest: *digest,
            size,
            diff_id: decoded.diff_id,
            uncompressed: decoded.uncompressed,
            gap,
            entries: self.rows.count,
            table: [(0, 0); SECTIONS],
        };
        for (row, section) in header.table.iter_mut().zip(sections) {
            let mut crc = Crc(0);
            section.copy_to(&mut crc)?;
            *row = (section.len(), crc.0);
        }
        let write = |to: &mut dyn Write| {
            to.write_all(&header.write())?;
            sections.iter().try_for_each(|section| section.copy_to(to))
        };
        let written = root.and_then(|root| file::write(root, digest, write).ok());
        let mapped = written.and_then(|file| Some((file.map().ok()?, file)));
        let (backing, unnamed) = match mapped {
            Some((backing, file)) => (backing, Some(file)),
            // Whatever the disk does not take is kept here, as long as it is not too much.
            None => {
                let mut bytes = Bounded(Vec::new());
                write(&mut bytes)?;
                (Backing::Memory(bytes.0), None)
            }
        };
        match Index::check(backing, digest, parser) {
            Err(error) if error.kind() == Kind::Corrupt => {
                fail!(Io, "the index of {digest} was written, but reads back otherwise: {error}")
            }
            other => Ok((other?, unnamed)),
        }
    }
}

/// Sums up what is written to it.
struct Crc(u32);

impl Write for Crc {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = crc32(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The largest index that is kept in memory.
const MEMORY: usize = 64 << 20;

/// Keeps what is written to it, up to a bound.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MEMORY {
            return Err(std::io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
