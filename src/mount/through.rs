//! Files that the kernel reads by itself: FUSE passthrough.
//!
//! The kernel wants all concurrent opens of an inode to be of one mode, and a backing file to stay registered as long
//! as it is open; what is tracked here is no more than that. It opens the backing file again with the flags of the
//! client, so only what is opened for reading may get here (`docs/architecture.md`).

use crate::node::handle::Opened;
use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// From this length on, a file is handed to the kernel: registering it costs more than reading a small one.
const WORTH_IT: u64 = 1 << 20;

/// The mode of every inode that is open with cached content.
#[derive(Default)]
pub struct Modes {
    /// Whether the kernel can do it and lets us.
    enabled: AtomicBool,
    open: Mutex<HashMap<u64, Mode>>,
}

struct Mode {
    opens: u64,
    /// The registered file, where the kernel reads by itself.
    backing: Option<Arc<BackingId>>,
}

impl Modes {
    /// The kernel agreed to passthrough.
    pub fn enable(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Mode>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers an open, in the mode that the inode has or, if it is not open, in the best one.
    pub fn answer(&self, reply: ReplyOpen, ino: u64, number: FileHandle, opened: &Opened, flags: FopenFlags) {
        let Opened::Content(content) = opened else { return reply.opened(number, flags) };
        let mut open = self.lock();
        let mode = open.entry(ino).or_insert_with(|| {
            let file = content.backing().filter(|_| content.size() >= WORTH_IT);
            let file = file.filter(|_| self.enabled.load(Ordering::Relaxed));
            let backing = file.and_then(|file| match reply.open_backing(file) {
                Ok(backing) => Some(Arc::new(backing)),
                Err(error) => {
                    // Without the privilege, or on a file system that is stacked too deep already.
                    tracing::debug!(%error, "no passthrough");
                    if error.raw_os_error() == Some(libc::EPERM) {
                        self.enabled.store(false, Ordering::Relaxed);
                    }
                    None
                }
            });
            Mode { opens: 0, backing }
        });
        mode.opens += 1;
        let backing = mode.backing.clone();
        drop(open);
        match backing {
            Some(backing) => reply.opened_passthrough(number, FopenFlags::FOPEN_NOFLUSH, &backing),
            None => reply.opened(number, flags),
        }
    }

    /// An open that was answered here has ended.
    pub fn released(&self, ino: u64, opened: &Opened) {
        if !matches!(opened, Opened::Content(_)) {
            return;
        }
        let mut open = self.lock();
        if let Some(mode) = open.get_mut(&ino) {
            mode.opens -= 1;
            if mode.opens == 0 {
                let gone = open.remove(&ino);
                drop(open);
                // Unregistering is a call of the kernel: not under the lock.
                drop(gone);
            }
        }
    }
}
