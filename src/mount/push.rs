//! Small files whose bytes the kernel has before it asks: they are put into its page cache with the first open.
//!
//! That is one question less for a file that is read for the first time, and two where its attributes are looked at
//! afterwards, as tar does: what the kernel reads by itself changes the access time that it knows, and a write of ours
//! does not.

use crate::node::Content;
use crate::wait;
use fuser::{INodeNo, Notifier};
use std::sync::{Mutex, OnceLock};

/// The longest file that is pushed: what the kernel would ask for in one piece.
const LARGEST: u64 = 128 << 10;

/// The way into the page cache.
#[derive(Default)]
pub struct Push {
    kernel: OnceLock<Notifier>,
    /// Held while the kernel takes the bytes. It may wait for a page that a reader holds whose question is not yet
    /// answered (`fuse_notify_store` of fs/fuse/dev.c), so only one of the threads that answer questions may be there.
    one: Mutex<()>,
}

impl Push {
    /// From now on there is somebody to push to.
    pub fn enable(&self, kernel: Notifier) {
        let _ = self.kernel.set(kernel);
    }

    /// Whether a file of this size is pushed.
    pub(super) fn takes(&self, size: u64) -> bool {
        (1..=LARGEST).contains(&size) && self.kernel.get().is_some()
    }

    /// Gives the kernel all of a file. Whatever goes wrong here, the reader asks for himself.
    pub(super) fn give(&self, ino: u64, content: &dyn Content) {
        let Some(kernel) = self.kernel.get() else { return };
        let Ok(length) = usize::try_from(content.size()) else { return };
        let Ok(_turn) = self.one.try_lock() else { return };
        match wait::never(|| content.read(0, length)) {
            Ok(bytes) if bytes.len() == length => {
                if let Err(error) = kernel.store(INodeNo(ino), 0, &bytes) {
                    tracing::debug!(%error, ino, "the kernel does not take a file");
                }
            }
            _ => {}
        }
    }
}
