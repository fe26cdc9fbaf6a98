//! What readers keep between reads, each bounded in bytes for the whole process: decoded blocks, and decoders.

use super::super::decode::live::Live;
use lru::LruCache;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The length of a decoded block; short under a fuzzer, for its archives are.
pub(super) const BLOCK: u64 = if cfg!(fuzzing) { 1 << 10 } else { 64 << 10 };

/// Blocks by the number of the layer and their own.
type Blocks = LruCache<(u64, u64), Arc<Vec<u8>>>;

/// Decoded blocks of all layers, the last used ones.
pub struct SpanCache {
    blocks: Mutex<Blocks>,
    /// So many blocks at most.
    most: usize,
}

impl SpanCache {
    /// A cache of at most `bytes` bytes.
    pub fn new(bytes: usize) -> SpanCache {
        SpanCache { blocks: Mutex::new(LruCache::unbounded()), most: bytes / BLOCK as usize }
    }

    pub(super) fn get(&self, layer: u64, block: u64) -> Option<Arc<Vec<u8>>> {
        lock(&self.blocks).get(&(layer, block)).cloned()
    }

    /// Empties it.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        lock(&self.blocks).clear();
    }

    pub(super) fn put(&self, layer: u64, block: u64, bytes: Arc<Vec<u8>>) {
        let mut blocks = lock(&self.blocks);
        blocks.put((layer, block), bytes);
        while blocks.len() > self.most {
            blocks.pop_lru();
        }
    }
}

/// Decoders that wait for their reader to come again, the last used ones.
pub(in super::super) struct Pool {
    /// Oldest first.
    live: Mutex<Vec<(u64, Live)>>,
    bytes: usize,
}

/// More decoders than this wait for nobody.
const DECODERS: usize = 32;

impl Pool {
    /// A pool whose decoders hold at most `bytes` bytes.
    pub(in super::super) fn new(bytes: usize) -> Pool {
        Pool { live: Mutex::new(Vec::new()), bytes }
    }

    /// The decoder of `layer` that stands nearest before `place`, but not before `least`.
    pub(super) fn take(&self, layer: u64, least: u64, place: u64) -> Option<Live> {
        let mut live = lock(&self.live);
        let fits = |l: &Live| (least..=place).contains(&l.output());
        let candidates = live.iter().enumerate().filter(|(_, (id, l))| *id == layer && fits(l));
        let (nearest, _) = candidates.max_by_key(|(_, (_, l))| l.output())?;
        Some(live.remove(nearest).1)
    }

    pub(super) fn put(&self, layer: u64, decoder: Live) {
        let mut dropped = Vec::new();
        let mut live = lock(&self.live);
        live.push((layer, decoder));
        while live.len() > DECODERS || live.iter().map(|(_, l)| l.weight()).sum::<usize>() > self.bytes {
            dropped.push(live.remove(0));
        }
        // What goes is freed without the lock.
        drop(live);
    }
}

/// No state behind these locks can be half changed: a thread that died with one leaves it usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
