//! How often the kernel asked what, for `.ctrfs/metrics`: requests per operation are what a change of speed shows in.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        /// An operation of FUSE that is counted.
        #[allow(non_camel_case_types, reason = "these are the names of FUSE's operations, as metrics show them")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Op { $($name),* }

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

operations!(
    lookup, forget, getattr, setattr, readlink, open, read, write, release, opendir, readdir, statfs, getxattr,
    listxattr, poll, changed,
);

/// One counter an operation, and two for how requests were answered.
pub struct Counters {
    operations: [AtomicU64; NAMES.len()],
    /// Requests that could not be answered from memory and went to the pool.
    pub waited: AtomicU64,
    /// Requests that were parked.
    pub parked: AtomicU64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            operations: std::array::from_fn(|_| AtomicU64::new(0)),
            waited: AtomicU64::new(0),
            parked: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts one request.
    pub fn count(&self, op: Op) {
        self.operations[op as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every operation with its count.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().zip(&self.operations).map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }
}
