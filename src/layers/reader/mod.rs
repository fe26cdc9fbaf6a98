//! Reads the uncompressed archive of a layer at any offset, from its blob and its index.
//!
//! A plain archive is read as it is. A spooled one is read from its copy. Else a decoder that stands in front of the
//! place goes on, or a new one begins at the nearest checkpoint; what it passes on the way is kept for the neighbours.

mod cache;
mod layer;
mod member;

pub(super) use self::cache::Pool;
pub use self::cache::SpanCache;
pub(super) use self::layer::Layer;
pub use self::member::Member;

use self::cache::BLOCK;
use super::Blob;
use super::decode::Compression;
use super::decode::live::Live;
use super::index::Index;
use crate::error::{Kind, Result};
use crate::fail;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file of at least this size that is read at random is worth a copy of its archive.
const LARGE: u64 = 64 << 20;
/// So many restarts in such a file are no longer a coincidence.
const RESTARTS: u64 = 4;

/// What all readers of a process share.
pub(super) struct Shared {
    pub spans: SpanCache,
    pub pool: Pool,
    pub window_log: u32,
    /// Asks for a spooled copy of the layer.
    pub promote: Promote,
    /// Says that the index of the layer is not to be trusted.
    pub distrust: Box<dyn Fn(&Index) + Send + Sync>,
}

/// Asks for a copy of a layer whose blob this is.
pub(super) type Promote = Box<dyn Fn(&Arc<Layer>, &Arc<dyn Blob>) + Send + Sync>;

/// Reads one layer. Cheap to clone; any number of threads may read at once.
#[derive(Clone)]
pub struct Reader {
    pub(super) blob: Arc<dyn Blob>,
    pub(super) layer: Arc<Layer>,
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    /// The index that this reader goes by.
    pub fn index(&self) -> &Arc<Index> {
        &self.layer.index
    }

    /// The file that holds the uncompressed archive, if there is one on this host: for passthrough. The bytes of a
    /// plain blob are the caller's, who has the blob.
    pub fn spooled(&self) -> Option<Arc<File>> {
        self.layer.spool()
    }

    /// Fills `buf` with the bytes of the uncompressed archive at `offset`, completely.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read_of(offset, buf, 0)
    }

    /// The same for a file of `size` bytes, for the decision whether a copy of the archive is worth it.
    fn read_of(&self, offset: u64, buf: &mut [u8], size: u64) -> Result<()> {
        let index = &self.layer.index;
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > index.uncompressed()) {
            return fail!(Corrupt, "a file of the layer {} reaches behind the end of its archive", index.digest());
        }
        if index.compression() == Compression::Plain {
            return self.blob.read_at(offset, buf);
        }
        if let Some(file) = self.layer.spool() {
            match file.read_exact_at(buf, offset) {
                Ok(()) => return Ok(()),
                Err(_) => self.layer.drop_spool(),
            }
        }
        let read = self.decode(offset, buf, size);
        if read.as_ref().is_err_and(|e| e.kind() == Kind::Corrupt) {
            (self.shared.distrust)(index);
        }
        read
    }

    fn decode(&self, offset: u64, buf: &mut [u8], size: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        let (mut at, mut waits) = (offset, 0);
        while at < end {
            let block = at / BLOCK;
            if let Some(bytes) = self.shared.spans.get(self.layer.id, block) {
                at = copy(&bytes, block, offset, buf);
                continue;
            }
            let (checkpoint, _) = self.layer.index.restart(block * BLOCK);
            // A decoder on its way to this place gets there sooner than a new one.
            match self.layer.claim(checkpoint.output, block * BLOCK, end, waits) {
                None => waits += 1,
                // The block may have come between the look and the claim.
                Some(_turn) if self.shared.spans.get(self.layer.id, block).is_some() => {}
                Some(_turn) => {
                    self.run(block, offset, buf, size)?;
                    at = end;
                }
            }
        }
        Ok(())
    }

    /// Decodes from block `first` to the end of `buf`, which holds the bytes at `offset`.
    fn run(&self, first: u64, offset: u64, buf: &mut [u8], size: u64) -> Result<()> {
        let (layer, total) = (&self.layer, self.layer.index.uncompressed());
        let end = offset + buf.len() as u64;
        let mut live = self.live(first * BLOCK, size)?;
        let begun = live.output();
        while live.output() < end {
            let (block, at) = (live.output() / BLOCK, live.output());
            // Whole blocks go straight to the caller: who has them all does not ask for them again.
            let whole = if at >= offset && at % BLOCK == 0 { (end - at) / BLOCK * BLOCK } else { 0 };
            if whole > 0 {
                let from = (at - offset) as usize;
                live.read(&*self.blob, &mut buf[from..from + whole as usize])?;
                continue;
            }
            let to = ((block + 1) * BLOCK).min(total);
            let mut bytes = vec![0; (to - at) as usize];
            live.read(&*self.blob, &mut bytes)?;
            // A checkpoint stands anywhere: the block that it is in lacks its beginning, and nobody asked for it.
            if bytes.len() as u64 == to - block * BLOCK {
                let bytes = Arc::new(bytes);
                if block >= first {
                    copy(&bytes, block, offset, buf);
                }
                self.shared.spans.put(layer.id, block, bytes);
            }
        }
        let decoded = layer.count(live.output() - begun);
        if live.output() < total {
            self.shared.pool.put(layer.id, live);
        }
        if layer.index.needs_spool() || decoded > total {
            (self.shared.promote)(layer, &self.blob);
        }
        Ok(())
    }

    /// A decoder that stands at `place` or before it.
    fn live(&self, place: u64, size: u64) -> Result<Live> {
        let index = &self.layer.index;
        let (checkpoint, window) = index.restart(place);
        if let Some(live) = self.shared.pool.take(self.layer.id, checkpoint.output, place) {
            return Ok(live);
        }
        if size >= LARGE && self.layer.restarted() > RESTARTS {
            (self.shared.promote)(&self.layer, &self.blob);
        }
        Live::at(&*self.blob, index.compression(), &checkpoint, window, self.shared.window_log)
    }
}

/// Copies what `bytes`, the block of this number, has for `buf`, which holds the bytes at `offset`. Gives the offset
/// behind what was copied.
fn copy(bytes: &[u8], block: u64, offset: u64, buf: &mut [u8]) -> u64 {
    let start = block * BLOCK;
    let from = offset.max(start);
    let to = (offset + buf.len() as u64).min(start + bytes.len() as u64);
    if from < to {
        let part = &bytes[(from - start) as usize..(to - start) as usize];
        buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
    }
    to
}

#[cfg(test)]
mod tests;
