//! The threads beside a pass: one reads the blob and hashes it, one hashes the archive, and one may store it.
//!
//! Hashing costs about as much as decoding; beside it, on another core, it costs a tenth. The channels are short and
//! the buffers go round, so that a pass holds a few megabytes whatever the layer.

use super::digest::{Digest, Hasher};
use crate::error::Result;
use crate::fail;
use crate::layers::Blob;
use sha2::{Digest as _, Sha256};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};

/// The length of the pieces that go through the channels.
pub(super) const CHUNK: usize = 256 << 10;
/// How many of them one channel holds.
pub(super) const DEPTH: usize = 4;

/// Takes the archive as it passes.
pub trait Tee: Send {
    /// The next bytes. What goes wrong is the tee's own affair: the pass goes on.
    fn take(&mut self, bytes: &[u8]);
}

/// What a pass counts and heeds.
#[derive(Debug, Default)]
pub struct Watch {
    /// Compressed bytes read so far.
    pub read: AtomicU64,
    /// Set to end the pass early.
    pub stop: AtomicBool,
    /// The pass found a stretch so long that random reads of it need a spooled copy. It is set before the bytes
    /// behind the stretch go to the tee.
    pub unseekable: AtomicBool,
}

/// Reads the whole blob, hashes it, and hands it on for as long as somebody wants it: a decoder that fails leaves, and
/// the digest still tells whether the blob or its maker is to blame.
pub(super) fn feed(
    blob: &dyn Blob,
    expected: &Digest,
    chunks: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    watch: &Watch,
) -> Result<Digest> {
    let mut hasher = Hasher::like(expected);
    let mut wanted = true;
    let mut kept = Vec::new();
    let mut at = 0;
    while at < blob.size() {
        if watch.stop.load(Ordering::Relaxed) {
            return fail!(Cancelled, "the indexing of {expected} was stopped");
        }
        let mut chunk = if kept.is_empty() { spare.try_recv().unwrap_or_default() } else { std::mem::take(&mut kept) };
        chunk.resize((blob.size() - at).min(CHUNK as u64) as usize, 0);
        blob.read_at(at, &mut chunk)?;
        hasher.update(&chunk);
        at += chunk.len() as u64;
        watch.read.store(at, Ordering::Relaxed);
        if wanted {
            wanted = chunks.send(chunk).is_ok();
        } else {
            kept = chunk;
        }
    }
    Ok(hasher.finish())
}

/// Hashes the archive, and passes the buffers on.
pub(super) fn hash(chunks: Receiver<Vec<u8>>, mut next: impl FnMut(Vec<u8>)) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for chunk in chunks {
        hasher.update(&chunk);
        next(chunk);
    }
    hasher.finalize().into()
}

/// Gives the archive to `tee`, and the buffers back.
pub(super) fn tee(chunks: Receiver<Vec<u8>>, tee: &mut dyn Tee, spare: Sender<Vec<u8>>) {
    for chunk in chunks {
        tee.take(&chunk);
        let _ = spare.send(chunk);
    }
}
