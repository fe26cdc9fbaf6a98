//! From change notices to the kernel's caches.
//!
//! One thread with a queue tells the kernel what to drop. A notification from a request handler or under a lock that
//! a handler needs deadlocks beyond `kill -9`, so nobody else may (`docs/architecture.md`, invariants).

use crate::containerd::Change;
use crate::mount::Shared;
use crate::node::inode::Notice;
use fuser::{INodeNo, Notifier};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Starts the thread. `tags` says which objects of the tree a change concerns.
pub fn spawn(
    changes: Receiver<Change>,
    shared: Arc<Shared>,
    notifier: Notifier,
    tags: fn(&Change) -> Vec<u64>,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("ctrfs-notify".into()).spawn(move || run(&changes, &shared, &notifier, tags))?;
    Ok(())
}

fn run(changes: &Receiver<Change>, shared: &Shared, notifier: &Notifier, tags: fn(&Change) -> Vec<u64>) {
    while let Ok(first) = changes.recv() {
        // A burst is told once: a run of a container is eight events about three objects.
        let mut everything = false;
        let mut concerned = BTreeSet::new();
        for change in std::iter::once(first).chain(changes.try_iter()) {
            everything |= change == Change::Everything;
            concerned.extend(tags(&change));
        }
        let notices = match everything {
            true => shared.table.everything(),
            false => concerned.into_iter().flat_map(|tag| shared.table.notices(tag)).collect(),
        };
        for notice in notices {
            // The kernel answers ENOENT for what it has already dropped: nothing to do.
            let _ = match notice {
                Notice::Inode(ino) => notifier.inval_inode(INodeNo(ino), 0, 0),
                Notice::Entry(parent, name) => notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name)),
            };
        }
        shared.parked.wake();
    }
}
