//! Where snapshots are unpacked on this host, as mounts of containerd tell.

use super::{Built, Source};
use crate::containerd::{LayerRef, Mount, SnapshotKind};
use crate::error::Result;
use crate::layers::dir::{DirLayer, DirOptions};
use crate::layers::merge::{Layer, Options, Rootfs};
use crate::layers::store::Store;
use crate::tree::namespace::{Ns, links};
use crate::wait;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// How far a search for a mounted descendant of a snapshot goes.
const DEEPEST: usize = 128;

/// Where a snapshot's files are on this host.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The directories that make it up, top first.
    pub directories: Vec<PathBuf>,
    /// Whether the first of them can change.
    pub live: bool,
    /// overlayfs's marks are `user.overlay.*`.
    pub user_xattr: bool,
    /// The one directory holds what lies below as well, as the native snapshotter does it.
    pub merged: bool,
}

impl Unpacked {
    /// The directory of the topmost layer alone. One that is merged is none: it does not say what its layer removed.
    pub fn layer(&self) -> Option<&PathBuf> {
        self.directories.first().filter(|_| !self.merged)
    }
}

/// The directory of one layer.
#[derive(Debug, Clone)]
pub struct Place {
    pub path: PathBuf,
    /// overlayfs's marks in it are `user.overlay.*`.
    pub user_xattr: bool,
}

/// Where each layer of a chain, base first, is unpacked, as far as that is known and can be read.
pub fn chain(ns: &Ns, layers: &[LayerRef]) -> Result<Vec<Option<Place>>> {
    let mut places: Vec<Option<Place>> = vec![None; layers.len()];
    let snapshotters = ns.namespace.client().snapshotters()?;
    for number in (0..layers.len()).rev() {
        let Some(chain) = layers[number].chain_id.as_ref().filter(|_| places[number].is_none()) else { continue };
        for snapshotter in &snapshotters {
            let found = or_waits(unpacked(ns, snapshotter, &chain.to_string()))?.ok().flatten();
            if let Some(found) = found.filter(|found| !found.merged) {
                found.give(&mut places[..=number]);
                break;
            }
        }
    }
    Ok(places)
}

impl Unpacked {
    /// Tells each layer of the chain `places`, of which this is the topmost, its directory. Mounts that leave a layer out
    /// tell of the topmost one alone.
    fn give(&self, places: &mut [Option<Place>]) {
        let whole = self.directories.len() == places.len();
        for (place, path) in places.iter_mut().rev().zip(&self.directories).take(if whole { usize::MAX } else { 1 }) {
            let readable = std::fs::read_dir(path).is_ok();
            if place.is_none() && readable {
                *place = Some(Place { path: path.clone(), user_xattr: self.user_xattr });
            }
        }
    }
}

/// Where a snapshot's files are, as its mounts or those of a descendant tell: nothing is mounted, and nothing made.
/// `None` if no mount tells, or if the snapshotter keeps no directories.
pub fn unpacked(ns: &Ns, snapshotter: &Arc<str>, key: &str) -> Result<Option<Unpacked>> {
    let Some(record) = ns.namespace.snapshot(snapshotter, key)? else { return Ok(None) };
    if record.kind != SnapshotKind::Committed {
        let mounts = ns.namespace.snapshot_mounts(snapshotter, key)?;
        return Ok(directories(&mounts));
    }
    // A committed snapshot has no mounts, but one that stands on it lists its directory, below its own.
    let children = links::children(ns, snapshotter)?;
    let mut level: Vec<Arc<str>> = vec![Arc::clone(&record.name)];
    for depth in 1..=DEEPEST {
        let next: Vec<Arc<str>> = level.iter().flat_map(|key| children.get(key).cloned().unwrap_or_default()).collect();
        for child in &next {
            let Some(user) = ns.namespace.snapshot(snapshotter, child)? else { continue };
            if user.kind == SnapshotKind::Committed {
                continue;
            }
            // It may go at any moment: then the next one is asked.
            let Ok(Some(found)) = or_waits(ns.namespace.snapshot_mounts(snapshotter, child).map(|m| directories(&m)))?
            else {
                continue;
            };
            // A view shows its parent and nothing of its own.
            let own = if user.kind == SnapshotKind::View { depth - 1 } else { depth };
            let directories: Vec<PathBuf> = found.directories.iter().skip(own).cloned().collect();
            if !directories.is_empty() {
                // Below overlayfs, only a snapshot without a parent is mounted by a bind.
                let merged = found.merged && !record.parent.is_empty();
                return Ok(Some(Unpacked { directories, live: false, merged, ..found }));
            }
        }
        if next.is_empty() {
            return Ok(None);
        }
        level = next;
    }
    Ok(None)
}

/// Passes on that a thread must not wait, and keeps every other failure.
fn or_waits<T>(result: Result<T>) -> Result<Result<T>> {
    if wait::would_wait(&result) { result.map(Ok) } else { Ok(result) }
}

/// The directories behind mounts of overlayfs or bind mounts.
fn directories(mounts: &[Mount]) -> Option<Unpacked> {
    let [mount] = mounts else { return None };
    match mount.kind.as_str() {
        "bind" | "rbind" => {
            let live = !mount.options.iter().any(|option| option == "ro");
            Some(Unpacked { directories: vec![PathBuf::from(&mount.source)], live, user_xattr: false, merged: true })
        }
        "overlay" => {
            let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
            let upper = option("upperdir=");
            let lower = option("lowerdir=")?;
            let directories = upper.into_iter().chain(lower.split(':')).map(PathBuf::from).collect();
            let user_xattr = mount.options.iter().any(|option| option == "userxattr");
            Some(Unpacked { directories, live: upper.is_some(), user_xattr, merged: false })
        }
        _ => None,
    }
}

/// A snapshot as it is now, from its directories.
pub struct Live {
    /// Names it: snapshotter, key and creation.
    pub name: String,
    pub found: Unpacked,
    pub created: Option<SystemTime>,
}

impl Live {
    /// Its layers, top first.
    pub fn layers(&self) -> Result<Vec<Arc<dyn Layer>>> {
        let mut layers: Vec<Arc<dyn Layer>> = Vec::new();
        for (number, path) in self.found.directories.iter().enumerate() {
            let options = DirOptions { live: number == 0 && self.found.live, user_xattr: self.found.user_xattr };
            // The directory of a committed layer is the same thing in every snapshot that stands on it.
            let id = if options.live { format!("live {}", self.name) } else { path.display().to_string() };
            layers.push(Arc::new(DirLayer::open(path, &id, options)?));
        }
        Ok(layers)
    }
}

impl Source for Live {
    fn key(&self) -> String {
        format!("snapshot {}", self.name)
    }

    fn build(&self, _: &Store) -> Result<Built> {
        let layers = self.layers()?;
        let readers = layers.iter().map(|_| None).collect();
        let options = Options { root_mtime: None, overlay: layers.len() > 1 };
        Ok(Built::new(Rootfs::new(layers, options)?, readers))
    }

    fn is_live(&self) -> bool {
        self.found.live
    }

    fn created(&self) -> Option<SystemTime> {
        self.created
    }

    fn attribute(&self, _: usize, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}
