//! From change notices to the kernel's caches.
//!
//! One thread with a queue tells the kernel what to drop. A notification from a request handler or under a lock that
//! a handler needs deadlocks beyond `kill -9`, so nobody else may (`docs/architecture.md`, invariants).

use crate::containerd::{Change, Client};
use crate::mount::Shared;
use crate::node::inode::Notice;
use fuser::{INodeNo, Notifier};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a writer waits for the kernel to know what he changed.
const SETTLED: Duration = Duration::from_millis(200);

/// What the thread works with.
struct Teller {
    shared: Arc<Shared>,
    notifier: Notifier,
    /// The connection to the kernel.
    device: File,
    tags: fn(&Change) -> Vec<u64>,
    /// How many changes the kernel was told of.
    told: Arc<(Mutex<u64>, Condvar)>,
}

/// Starts the thread. `tags` says which objects of the tree a change concerns.
pub fn spawn(
    client: &Client,
    shared: &Arc<Shared>,
    notifier: Notifier,
    device: File,
    tags: fn(&Change) -> Vec<u64>,
) -> std::io::Result<()> {
    let (changes, missed) = client.changes();
    let told = Arc::new((Mutex::new(missed), Condvar::new()));
    let (client, watched) = (client.clone(), Arc::clone(&told));
    // Set once, here.
    let _ = shared.settle.set(Box::new(move || {
        let (sent, (count, changed)) = (client.changes_sent(), &*watched);
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_timeout_while(count, SETTLED, |count| *count < sent));
    }));
    let teller = Teller { shared: Arc::clone(shared), notifier, device, tags, told };
    std::thread::Builder::new().name("ctrfs-notify".into()).spawn(move || teller.run(&changes))?;
    Ok(())
}

/// An answer that was under way when the kernel was told may have come after: it is told once more, so late.
const AGAIN: Duration = Duration::from_millis(500);

/// So many changes are told twice.
const MANY: usize = 1024;

impl Teller {
    fn run(&self, changes: &Receiver<Change>) {
        let mut again = Vec::new();
        loop {
            let first = match again.is_empty() {
                true => changes.recv().ok(),
                false => match changes.recv_timeout(AGAIN) {
                    Err(RecvTimeoutError::Timeout) => {
                        self.tell(&std::mem::take(&mut again));
                        continue;
                    }
                    first => first.ok(),
                },
            };
            let Some(first) = first else { return };
            // A burst is told once: a run of a container is eight events about three objects.
            let burst: Vec<Change> = std::iter::once(first).chain(changes.try_iter()).collect();
            self.tell(&burst);
            // Of these it may have been answered that it will be told.
            let told = |change: &&Change| matches!(change, Change::Image { .. } | Change::Presence { .. });
            again.extend(burst.iter().filter(told).cloned());
            again.truncate(MANY);
            *self.told.0.lock().unwrap_or_else(PoisonError::into_inner) += burst.len() as u64;
            self.told.1.notify_all();
            self.shared.parked.wake();
        }
    }

    fn tell(&self, burst: &[Change]) {
        let table = &self.shared.table;
        let notices = match burst.contains(&Change::Everything) {
            true => table.everything(),
            false => {
                let concerned: BTreeSet<u64> = burst.iter().flat_map(self.tags).collect();
                concerned.into_iter().flat_map(|tag| table.notices(tag)).collect()
            }
        };
        for notice in notices {
            // The kernel answers ENOENT for what it has already dropped: nothing to do.
            let _ = match notice {
                Notice::Inode(ino) => {
                    self.shared.listings.noticed(ino);
                    table.texts.changes(ino);
                    let told = self.notifier.inval_inode(INodeNo(ino), 0, 0);
                    table.texts.told(ino);
                    told
                }
                Notice::Entry(parent, name) => expire(&self.device, parent, &name),
            };
        }
    }
}

/// `enum fuse_notify_code` and the flag of `struct fuse_notify_inval_entry_out` (`include/uapi/linux/fuse.h`).
const FUSE_NOTIFY_INVAL_ENTRY: i32 = 3;
const FUSE_EXPIRE_ONLY: u32 = 1;

/// Has the kernel look a name up again before it believes it. fuser has only the notice that drops the name at once,
/// and with it the working directory of everybody who stands there: their getcwd(2) then fails. A kernel before 6.2
/// does not know the flag and drops it.
fn expire(mut device: &File, parent: u64, name: &[u8]) -> std::io::Result<()> {
    const HEADER: usize = 16;
    const BODY: usize = 16;
    let length = u32::try_from(HEADER + BODY + name.len() + 1).map_err(std::io::Error::other)?;
    let mut notice = Vec::with_capacity(HEADER + BODY + name.len() + 1);
    notice.extend(length.to_ne_bytes());
    notice.extend(FUSE_NOTIFY_INVAL_ENTRY.to_ne_bytes());
    notice.extend(0u64.to_ne_bytes());
    notice.extend(parent.to_ne_bytes());
    notice.extend((length - (HEADER + BODY + 1) as u32).to_ne_bytes());
    notice.extend(FUSE_EXPIRE_ONLY.to_ne_bytes());
    notice.extend(name);
    notice.push(0);
    device.write_all(&notice)
}
