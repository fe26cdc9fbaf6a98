//! From change notices to the kernel's caches.
//!
//! One thread with a queue tells the kernel what to drop. A notification from a request handler or under a lock that
//! a handler needs deadlocks beyond `kill -9`, so nobody else may (`docs/architecture.md`, invariants).

use crate::containerd::Change;
use crate::mount::Shared;
use crate::node::inode::Notice;
use fuser::{INodeNo, Notifier};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Starts the thread. `tags` says which objects of the tree a change concerns; `device` is the connection to the
/// kernel.
pub fn spawn(
    changes: Receiver<Change>,
    shared: Arc<Shared>,
    notifier: Notifier,
    device: File,
    tags: fn(&Change) -> Vec<u64>,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("ctrfs-notify".into()).spawn(move || {
        run(&changes, &shared, &notifier, &device, tags);
    })?;
    Ok(())
}

fn run(changes: &Receiver<Change>, shared: &Shared, notifier: &Notifier, device: &File, tags: fn(&Change) -> Vec<u64>) {
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
                Notice::Entry(parent, name) => expire(device, parent, &name),
            };
        }
        shared.parked.wake();
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
