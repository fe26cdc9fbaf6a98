//! What all readers of one layer share.

use super::super::index::Index;
use super::cache::lock;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The state of one layer.
pub(in super::super) struct Layer {
    /// Names the layer in the caches; never used twice.
    pub id: u64,
    pub index: Arc<Index>,
    decoded: AtomicU64,
    restarts: AtomicU64,
    spool: Mutex<Option<Arc<File>>>,
    /// A copy was asked for, or there is one.
    wanted: AtomicBool,
    /// From where to where decoders are running, in uncompressed bytes.
    running: Mutex<Vec<(u64, u64)>>,
    done: Condvar,
}

/// How long a read waits for another decoder at a time, and how often, before it helps itself.
const WAIT: Duration = Duration::from_millis(50);
const WAITS: u32 = 20;

impl Layer {
    pub(in super::super) fn new(index: Arc<Index>) -> Layer {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Layer {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            index,
            decoded: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            spool: Mutex::new(None),
            wanted: AtomicBool::new(false),
            running: Mutex::new(Vec::new()),
            done: Condvar::new(),
        }
    }

    /// The copy of the archive.
    pub(super) fn spool(&self) -> Option<Arc<File>> {
        lock(&self.spool).clone()
    }

    /// There is a copy now.
    pub(in super::super) fn set_spool(&self, file: File) {
        self.wanted.store(true, Ordering::Relaxed);
        *lock(&self.spool) = Some(Arc::new(file));
    }

    /// The copy is gone.
    pub(in super::super) fn drop_spool(&self) {
        *lock(&self.spool) = None;
    }

    /// Whether this is the first time that a copy is asked for.
    pub(in super::super) fn want_spool(&self) -> bool {
        !self.wanted.swap(true, Ordering::Relaxed)
    }

    /// Counts decoded bytes; gives their sum.
    pub(super) fn count(&self, decoded: u64) -> u64 {
        self.decoded.fetch_add(decoded, Ordering::Relaxed) + decoded
    }

    /// Counts a restart; gives their number.
    pub(super) fn restarted(&self) -> u64 {
        self.restarts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The right to decode from `place` to `end`. If a running decoder will stand nearer to `place` than a restart at
    /// `checkpoint`, it is waited for, and the answer is to look again. One that is stuck, for its blob comes from
    /// elsewhere, holds up nobody for long.
    pub(super) fn claim(&self, checkpoint: u64, place: u64, end: u64, waits: u32) -> Option<Turn<'_>> {
        let mut running = lock(&self.running);
        if waits < WAITS && running.iter().any(|(from, to)| *from <= place && *to > checkpoint) {
            drop(self.done.wait_timeout(running, WAIT).unwrap_or_else(PoisonError::into_inner));
            return None;
        }
        // It begins at the checkpoint or behind it, and what it passes on the way is kept.
        running.push((checkpoint, end));
        Some(Turn { layer: self, part: (checkpoint, end) })
    }
}

/// The right to decode a part; given back when dropped.
pub(super) struct Turn<'a> {
    layer: &'a Layer,
    part: (u64, u64),
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut running = lock(&self.layer.running);
        if let Some(at) = running.iter().position(|part| *part == self.part) {
            running.swap_remove(at);
        }
        drop(running);
        self.layer.done.notify_all();
    }
}
