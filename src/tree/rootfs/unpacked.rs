//! Where snapshots are unpacked on this host, as mounts of containerd tell.

use super::{Built, Source};
use crate::containerd::{LayerRef, Mount, SnapshotKind};
use crate::error::Result;
use crate::fail;
use crate::layers::dir::{DirLayer, DirOptions};
use crate::layers::merge::{Layer, Options, Rootfs};
use crate::layers::store::Store;
use crate::tree::namespace::{Ns, links};
use crate::tree::text;
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
    /// When the snapshot was begun, if its directories do not tell.
    pub begun: Option<SystemTime>,
}

/// The directory of one layer.
#[derive(Clone)]
pub struct Place {
    pub path: PathBuf,
    /// overlayfs's marks in it are `user.overlay.*`.
    pub user_xattr: bool,
    /// When the snapshot was begun, if the directory does not tell.
    pub begun: Option<SystemTime>,
    /// As long as containerd knows it, nothing of the directory is removed.
    pub holder: Holder,
}

/// The snapshot that directories belong to, its own and those of the snapshots below it.
#[derive(Clone)]
pub struct Holder {
    ns: Ns,
    snapshotter: Arc<str>,
    key: Arc<str>,
}

impl Holder {
    pub fn new(ns: &Ns, snapshotter: &Arc<str>, key: &str) -> Holder {
        Holder { ns: ns.clone(), snapshotter: Arc::clone(snapshotter), key: key.into() }
    }

    /// Whether containerd still knows it: then it had not begun to remove anything of it before it was asked.
    pub fn is_known(&self) -> Result<bool> {
        self.ns.namespace.has_snapshot(&self.snapshotter, &self.key)
    }

    /// Whether it is the same as another.
    pub fn is(&self, other: &Holder) -> bool {
        (&self.snapshotter, &self.key) == (&other.snapshotter, &other.key)
    }
}

/// Where each layer of a chain, base first, is unpacked, as far as that is known and can be read.
pub type Places = Vec<Option<Place>>;

/// Where the layers of a chain are of which nothing else tells.
pub enum Found {
    /// Each in a directory of its own.
    Layers(Places),
    /// Each in a directory with all that lies below it, the topmost at least.
    Copies(Places),
}

/// Where each layer of a chain is unpacked, as mounts tell that are there.
pub fn chain(ns: &Ns, layers: &[LayerRef]) -> Result<Places> {
    let mut places: Places = vec![None; layers.len()];
    let snapshotters = ns.namespace.client().snapshotters()?;
    for number in (0..layers.len()).rev() {
        let Some(chain) = layers[number].chain_id.as_ref().filter(|_| places[number].is_none()) else { continue };
        for snapshotter in &snapshotters {
            let found = or_waits(known(ns, snapshotter, &chain.to_string()))?.ok().flatten();
            if let Some(found) = found.filter(|found| !found.merged) {
                found.give(&mut places[..=number], &Holder::new(ns, snapshotter, &chain.to_string()));
                break;
            }
        }
    }
    Ok(places)
}

/// Whether a chain can be had of which layer `missing` is in no directory of its own and in no blob: as copies, or by a
/// view. Nothing is made.
pub fn is_elsewhere(ns: &Ns, layers: &[LayerRef], missing: usize) -> Result<bool> {
    let views = ns.shared.roots.views().is_some();
    for snapshotter in ns.namespace.client().snapshotters()? {
        for (number, chain) in (0..).zip(layers).skip(missing).filter_map(|(n, l)| Some((n, l.chain_id.as_ref()?))) {
            let key = chain.to_string();
            let is_there = is_committed(ns, &snapshotter, &key)?;
            let is_top = number + 1 == layers.len();
            if is_there && (views || is_top && or_waits(known(ns, &snapshotter, &key))?.is_ok_and(|k| k.is_some())) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Where such a chain is. Where no mount tells, a view is made that does (DESIGN 5.3).
pub fn elsewhere(ns: &Ns, layers: &[LayerRef], missing: usize) -> Result<Found> {
    let Some(top) = layers.last().and_then(|layer| layer.chain_id.as_ref()).map(ToString::to_string) else {
        return fail!(NotLocal, "the layers are not on this host");
    };
    let snapshotters = ns.namespace.client().snapshotters()?;
    for snapshotter in &snapshotters {
        if or_waits(known(ns, snapshotter, &top))?.ok().flatten().is_some_and(|found| found.merged) {
            return Ok(Found::Copies(copies(ns, snapshotter, layers)?));
        }
    }
    for number in (missing..layers.len()).rev() {
        let Some(chain) = layers[number].chain_id.as_ref().map(ToString::to_string) else { continue };
        for snapshotter in &snapshotters {
            if !is_committed(ns, snapshotter, &chain)? {
                continue;
            }
            match viewed(ns, snapshotter, &chain)? {
                Some(found) if !found.merged => {
                    let mut places: Places = vec![None; layers.len()];
                    found.give(&mut places[..=number], &Holder::new(ns, snapshotter, &chain));
                    return Ok(Found::Layers(places));
                }
                Some(_) if number + 1 == layers.len() => return Ok(Found::Copies(copies(ns, snapshotter, layers)?)),
                _ => {}
            }
        }
    }
    let digest = &layers[missing].descriptor.digest;
    fail!(NotLocal, "layer {digest}: neither its blob nor a directory where it is unpacked is on this host")
}

/// The directories of a snapshotter that copies, one for each layer of a chain.
fn copies(ns: &Ns, snapshotter: &Arc<str>, layers: &[LayerRef]) -> Result<Places> {
    let place = |layer: &LayerRef| {
        let Some(chain) = layer.chain_id.as_ref().map(ToString::to_string) else { return Ok(None) };
        let found = match known(ns, snapshotter, &chain)? {
            None if is_committed(ns, snapshotter, &chain)? => viewed(ns, snapshotter, &chain)?,
            known => known,
        };
        let place = |found: Unpacked| Some((found.directories.into_iter().next()?, found.begun));
        let holder = Holder::new(ns, snapshotter, &chain);
        Ok(found.and_then(place).map(|(path, begun)| Place { path, user_xattr: false, begun, holder }))
    };
    layers.iter().map(place).collect()
}

fn is_committed(ns: &Ns, snapshotter: &Arc<str>, key: &str) -> Result<bool> {
    let record = ns.namespace.snapshot(snapshotter, key)?;
    Ok(record.is_some_and(|record| record.kind == SnapshotKind::Committed))
}

/// Where a committed snapshot is, as a view tells that is made now. The view is of what stands highest on it, so that
/// it tells of the snapshots between as well.
pub fn viewed(ns: &Ns, snapshotter: &Arc<str>, key: &str) -> Result<Option<Unpacked>> {
    let Some(views) = ns.shared.roots.views() else { return Ok(None) };
    let children = links::children(ns, snapshotter)?;
    let (mut top, mut depth): (Arc<str>, usize) = (key.into(), 0);
    while depth < DEEPEST
        && let Some(child) = children.get(&top).and_then(|children| children.first())
        && is_committed(ns, snapshotter, child)?
    {
        (top, depth) = (Arc::clone(child), depth + 1);
    }
    let found = directories(&views.of(&ns.namespace, snapshotter, &top)?);
    match found {
        Some(found) if depth == 0 || found.directories.len() > depth => found.below(ns, snapshotter, key, depth),
        // A snapshotter that copies tells of one directory only.
        _ => {
            let mounts = views.of(&ns.namespace, snapshotter, key)?;
            let found = directories(&mounts).map_or_else(|| mounted(ns, &mounts), |found| Ok(Some(found)))?;
            found.map_or(Ok(None), |found| found.below(ns, snapshotter, key, 0))
        }
    }
}

/// What is in the file system that a mount of one of our views tells of, where that is no directory: it is mounted for
/// us alone. Those of others are left alone, for a device that is mounted cannot be removed.
fn mounted(ns: &Ns, mounts: &[Mount]) -> Result<Option<Unpacked>> {
    let [mount] = mounts else { return Ok(None) };
    let directories = vec![ns.shared.roots.mounted(mount)?];
    let begun = std::fs::metadata(&mount.source).and_then(|file| file.created()).ok();
    Ok(Some(Unpacked { directories, live: false, user_xattr: false, merged: true, begun }))
}

impl Unpacked {
    /// The layers, top first; `name` names the topmost among all if it can change.
    pub fn layers(&self, name: &str) -> Result<Vec<Arc<dyn Layer>>> {
        let mut layers: Vec<Arc<dyn Layer>> = Vec::new();
        for (number, path) in self.directories.iter().enumerate() {
            let options = DirOptions { live: number == 0 && self.live, user_xattr: self.user_xattr };
            // The directory of a committed layer is the same thing in every snapshot that stands on it.
            let id = if options.live { format!("live {name}") } else { path.display().to_string() };
            layers.push(Arc::new(DirLayer::open(path, &id, options)?));
        }
        Ok(layers)
    }

    /// What the mounts of a descendant tell about the committed snapshot `key`, which begins `own` directories below.
    fn below(mut self, ns: &Ns, snapshotter: &Arc<str>, key: &str, own: usize) -> Result<Option<Unpacked>> {
        self.directories.drain(..own.min(self.directories.len()));
        if self.directories.is_empty() {
            return Ok(None);
        }
        // Below overlayfs, only a snapshot without a parent is mounted by a bind.
        let record = ns.namespace.snapshot(snapshotter, key)?;
        self.merged = self.merged && record.is_none_or(|record| !record.parent.is_empty());
        self.live = false;
        Ok(Some(self))
    }

    /// Tells each layer of the chain `places`, of which this is the topmost, its directory. Mounts that leave a layer out
    /// tell of the topmost one alone.
    /// All of them are there as long as `holder` is, the topmost.
    fn give(&self, places: &mut [Option<Place>], holder: &Holder) {
        let whole = self.directories.len() == places.len();
        for (place, path) in places.iter_mut().rev().zip(&self.directories).take(if whole { usize::MAX } else { 1 }) {
            let readable = std::fs::read_dir(path).is_ok();
            if place.is_none() && readable {
                let (path, holder) = (path.clone(), holder.clone());
                *place = Some(Place { path, user_xattr: self.user_xattr, begun: self.begun, holder });
            }
        }
    }
}

/// Where a snapshot's files are, as its mounts or those of a descendant tell: nothing is mounted, and nothing made.
/// `None` if no mount tells, or if the snapshotter keeps no directories.
pub fn known(ns: &Ns, snapshotter: &Arc<str>, key: &str) -> Result<Option<Unpacked>> {
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
            if let Some(found) = found.below(ns, snapshotter, key, own)? {
                return Ok(Some(found));
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
pub(super) fn directories(mounts: &[Mount]) -> Option<Unpacked> {
    let [mount] = mounts else { return None };
    match mount.kind.as_str() {
        "bind" | "rbind" => {
            let live = !mount.options.iter().any(|option| option == "ro");
            Some(Unpacked {
                directories: vec![PathBuf::from(&mount.source)],
                live,
                user_xattr: false,
                merged: true,
                begun: None,
            })
        }
        "overlay" => {
            let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
            let upper = option("upperdir=");
            let lower = option("lowerdir=")?;
            let directories = upper.into_iter().chain(lower.split(':')).map(PathBuf::from).collect();
            let user_xattr = mount.options.iter().any(|option| option == "userxattr");
            Some(Unpacked { directories, live: upper.is_some(), user_xattr, merged: false, begun: None })
        }
        _ => None,
    }
}

/// A snapshot as it is now, from its directories.
pub struct Live {
    /// Names it: snapshotter, key and creation.
    pub name: String,
    pub holder: Holder,
    pub found: Unpacked,
    pub created: Option<SystemTime>,
}

impl Live {
    /// Its layers, top first.
    pub fn layers(&self) -> Result<Vec<Arc<dyn Layer>>> {
        self.found.layers(&self.name)
    }
}

/// What is made of an active snapshot or of a view, if its mounts tell of directories.
pub fn live(ns: &Ns, snapshotter: &Arc<str>, key: &str) -> Result<Option<Live>> {
    let Some(record) = ns.namespace.snapshot(snapshotter, key)? else { return Ok(None) };
    if record.kind == SnapshotKind::Committed {
        return Ok(None);
    }
    let Some(found) = text::usable(known(ns, snapshotter, key))?.flatten() else { return Ok(None) };
    let name = format!("{} {snapshotter} {key} {}", ns.name(), text::nanos(record.created));
    let holder = Holder::new(ns, snapshotter, key);
    Ok(Some(Live { name, holder, found, created: record.created }))
}

impl Source for Live {
    fn key(&self) -> String {
        format!("snapshot {}", self.name)
    }

    fn build(&self, _: &Store) -> Result<Built> {
        let layers = self.layers()?;
        let readers = layers.iter().map(|_| None).collect();
        let options = Options { root_mtime: None, overlay: layers.len() > 1 };
        Ok(Built { holders: vec![self.holder.clone()], ..Built::new(Rootfs::new(layers, options)?, readers) })
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
