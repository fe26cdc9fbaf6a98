//! What the objects of the tree are called in change notices.

use crate::containerd::Change;
use crate::node::stable_hash;

/// The list of namespaces.
pub fn root() -> u64 {
    stable_hash(&[b"root"])
}

/// A namespace and the collections in it.
pub fn namespace(namespace: &str) -> u64 {
    stable_hash(&[b"namespace", namespace.as_bytes()])
}

/// The part of the images that begins with `prefix`: one image, or the directory that leads to some.
pub fn image(namespace: &str, prefix: &str) -> u64 {
    stable_hash(&[b"image", namespace.as_bytes(), prefix.as_bytes()])
}

/// A container.
pub fn container(namespace: &str, id: &str) -> u64 {
    stable_hash(&[b"container", namespace.as_bytes(), id.as_bytes()])
}

/// A snapshotter's snapshots in a namespace.
pub fn snapshotter(namespace: &str, snapshotter: &str) -> u64 {
    stable_hash(&[b"snapshotter", namespace.as_bytes(), snapshotter.as_bytes()])
}

/// A snapshot, by its key in whatever snapshotter: 1.6 does not say which one it means.
pub fn snapshot(namespace: &str, key: &str) -> u64 {
    stable_hash(&[b"snapshot", namespace.as_bytes(), key.as_bytes()])
}

/// The blobs of a namespace.
pub fn blobs(namespace: &str) -> u64 {
    stable_hash(&[b"blobs", namespace.as_bytes()])
}

/// All images of a namespace: what they show depends on which blobs are here.
pub fn images(namespace: &str) -> u64 {
    stable_hash(&[b"images", namespace.as_bytes()])
}

/// The containers that an image of the namespace was made into.
pub fn users(namespace: &str) -> u64 {
    stable_hash(&[b"users", namespace.as_bytes()])
}

/// A sandbox.
pub fn sandbox(namespace: &str, id: &str) -> u64 {
    stable_hash(&[b"sandbox", namespace.as_bytes(), id.as_bytes()])
}

/// A lease.
pub fn lease(namespace: &str, id: &str) -> u64 {
    stable_hash(&[b"lease", namespace.as_bytes(), id.as_bytes()])
}

/// Content that is being written.
pub fn ingest(namespace: &str, reference: &str) -> u64 {
    stable_hash(&[b"ingest", namespace.as_bytes(), reference.as_bytes()])
}

/// The tags of everything that a change concerns.
pub fn of(change: &Change) -> Vec<u64> {
    match change {
        Change::Namespace { name } => vec![root(), namespace(name)],
        Change::Image { namespace: ns, name } => {
            let prefixes = name.match_indices('/').map(|(at, _)| image(ns, &name[..at]));
            prefixes.chain([image(ns, name), namespace(ns)]).collect()
        }
        Change::Container { namespace: ns, id } => vec![container(ns, id), users(ns), namespace(ns)],
        Change::Task { namespace: ns, id } => vec![container(ns, id), namespace(ns)],
        Change::Snapshot { namespace: ns, snapshotter: sn, key } => {
            vec![snapshot(ns, key), snapshotter(ns, sn), namespace(ns)]
        }
        Change::Content { namespace: ns, .. } => vec![blobs(ns)],
        Change::Presence { namespace: ns } => vec![images(ns)],
        Change::Sandbox { namespace: ns, id } => vec![sandbox(ns, id), namespace(ns)],
        Change::Lease { namespace: ns, id } => vec![lease(ns, id), namespace(ns)],
        Change::Ingest { namespace: ns, reference } => vec![ingest(ns, reference), namespace(ns)],
        // The kernel is told to drop everything.
        Change::Everything => Vec::new(),
    }
}
