//! From change notices to the kernel's caches.
//!
//! One thread with a queue tells the kernel what to drop. A notification from a request handler or under a lock that
//! a handler needs deadlocks beyond `kill -9`, so nobody else may (`docs/architecture.md`, invariants).

use crate::containerd::{Change, Client};
use crate::mount::{Notices, Shared};
use crate::node::inode::Notice;
use fuser::{INodeNo, Notifier};
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long a writer waits for the kernel to know what he changed.
const SETTLED: Duration = Duration::from_millis(200);

/// What the thread is asked to do.
enum Order {
    /// Tell what a change makes untrue.
    Change(Change),
    /// Tell a writer that what changed so far was told; after a command also what may be untrue without a change.
    Written { command: bool, done: Sender<()> },
    /// Have the attributes of a directory asked for again: its listing is believed for less long than they were.
    Attributes(u64),
}

/// What the thread works with.
struct Teller {
    shared: Arc<Shared>,
    notifier: Notifier,
    /// The connection to the kernel.
    device: File,
    tags: fn(&Change) -> Vec<u64>,
}

/// How handlers ask the thread for something. Without the thread there is no mount, and nothing to be told.
fn notices(orders: Sender<Order>) -> Notices {
    let outdated = orders.clone();
    let settle = move |command| {
        let (done, told) = channel();
        // Whatever comes of it, the writer has waited long enough.
        drop(orders.send(Order::Written { command, done }).map(|()| told.recv_timeout(SETTLED)));
    };
    let outlived = move |ino| drop(outdated.send(Order::Attributes(ino)));
    Notices { settle: Box::new(settle), outlived: Box::new(outlived) }
}

/// Starts the thread. `tags` says which objects of the tree a change concerns.
pub fn spawn(
    client: &Client,
    shared: &Arc<Shared>,
    notifier: Notifier,
    device: File,
    tags: fn(&Change) -> Vec<u64>,
) -> std::io::Result<()> {
    let (sender, orders) = channel();
    let changes = sender.clone();
    client.on_change(move |change| drop(changes.send(Order::Change(change))));
    // Set once, here.
    let _ = shared.kernel.notices.set(notices(sender));
    let teller = Teller { shared: Arc::clone(shared), notifier, device, tags };
    std::thread::Builder::new().name("ctrfs-notify".into()).spawn(move || teller.run(&orders))?;
    Ok(())
}

/// An answer that was under way when the kernel was told may have come after: it is told once more, so late.
const AGAIN: Duration = Duration::from_millis(500);

/// What is believed for no longer than this is believed without being told.
const MOMENT: Duration = Duration::from_secs(1);

/// What is told once more: no more than what comes in that time.
#[derive(Default)]
struct Again {
    changes: HashSet<Change>,
    due: Option<Instant>,
}

impl Again {
    /// Of some of these it may have been answered that it will be told.
    fn add(&mut self, burst: &[Change]) {
        let told = |change: &&Change| matches!(change, Change::Image { .. } | Change::Presence { .. });
        self.changes.extend(burst.iter().filter(told).cloned());
        if !self.changes.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + AGAIN);
        }
    }

    fn take(&mut self) -> Vec<Change> {
        self.due = None;
        self.changes.drain().collect()
    }
}

impl Teller {
    fn run(self, orders: &Receiver<Order>) {
        let mut again = Again::default();
        loop {
            let first = match again.due.map(|due| due.saturating_duration_since(Instant::now())) {
                None => orders.recv(),
                // Also where there is always something new.
                Some(Duration::ZERO) => {
                    self.tell(&again.take());
                    continue;
                }
                Some(left) => match orders.recv_timeout(left) {
                    Err(RecvTimeoutError::Timeout) => continue,
                    first => first.map_err(|_| RecvError),
                },
            };
            let Ok(first) = first else { return };
            let (mut burst, mut waiting, mut commands) = (Vec::new(), Vec::new(), false);
            for order in std::iter::once(first).chain(orders.try_iter()) {
                match order {
                    Order::Change(change) => burst.push(change),
                    Order::Written { command, done } => {
                        commands |= command;
                        waiting.push(done);
                    }
                    Order::Attributes(ino) => self.expire_attributes(ino),
                }
            }
            // A burst is told once: a run of a container is eight events about three objects.
            self.tell(&burst);
            if commands {
                self.tell_listings();
            }
            // Who does not wait any more need not be told.
            waiting.into_iter().for_each(|done| done.send(()).unwrap_or_default());
            again.add(&burst);
            if !burst.is_empty() {
                self.shared.parked.wake();
            }
        }
    }

    /// After a command: of the directories that are believed for a moment nobody tells.
    fn tell_listings(&self) {
        self.shared.listings.changed(MOMENT).into_iter().for_each(|ino| self.expire_attributes(ino));
    }

    /// Has the attributes asked for again. A negative offset leaves the pages (`fuse_reverse_inval_inode` of
    /// fs/fuse/inode.c): those of a listing go when the mtime is another, and a kernel that loses them while it fills them
    /// keeps no listing of the directory any more (`fuse_add_dirent_to_cache` of fs/fuse/readdir.c).
    fn expire_attributes(&self, ino: u64) {
        // The kernel answers ENOENT for what it has already dropped: nothing to do.
        let _ = self.notifier.inval_inode(INodeNo(ino), -1, 0);
    }

    fn tell(&self, burst: &[Change]) {
        let table = &self.shared.table;
        let notices = match burst.contains(&Change::Everything) {
            true => table.everything(),
            false => {
                let concerned: BTreeSet<u64> = burst.iter().flat_map(self.tags).collect();
                let listed = concerned.iter().flat_map(|tag| self.shared.listings.other_members(*tag));
                listed.for_each(|ino| self.expire_attributes(ino));
                concerned.into_iter().flat_map(|tag| table.notices(tag)).collect()
            }
        };
        for notice in notices {
            let _ = match notice {
                Notice::Inode(ino) if self.shared.listings.noticed(ino) => {
                    self.expire_attributes(ino);
                    Ok(())
                }
                Notice::Inode(ino) => {
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
