//! How far a long command is.

use super::store::Files;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// How far a command is: written by whoever carries it out, read by whoever looks. All clones are one.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    now: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
    files: OnceLock<Files>,
}

impl Default for Progress {
    fn default() -> Progress {
        let (now, done, total, files) = Default::default();
        Progress(Arc::new(Inner { began: Instant::now(), now, done, total, files }))
    }
}

impl Progress {
    /// Says what is being done now, as in `unpacking sha256:…`.
    pub fn say(&self, now: impl Into<String>) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner) = now.into();
    }

    /// Tells where the output of the process is that was started.
    pub fn started(&self, files: &Files) {
        let _ = self.0.files.set(files.clone());
    }

    /// Where the output of the process is that was started.
    pub fn files(&self) -> Option<&Files> {
        self.0.files.get()
    }

    /// That many more bytes have to be moved.
    pub fn expect(&self, bytes: u64) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// That many more bytes have been moved.
    pub fn add(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Sets both: for what is counted by somebody else.
    pub fn set(&self, done: u64, total: u64) {
        self.0.done.store(done, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// One line: what is being done, bytes of how many, bytes a second since the beginning.
    pub fn line(&self) -> String {
        let now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (done, total) = (self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed));
        if done == 0 && total == 0 {
            return now;
        }
        let rate = done as f64 / self.0.began.elapsed().as_secs_f64().max(0.001);
        format!("{now}\t{done} of {total} bytes\t{rate:.0} bytes/s")
    }
}
