//! Who refers to whom: the ways back that containerd does not keep.
//!
//! Each is made of a map of the mirror when it is first asked for, and again when the map has changed. Without it,
//! listing the children of ten thousand snapshots would compare a hundred million names.

use super::Ns;
use crate::containerd::{Digest, ImageRecord, Map};
use crate::error::Result;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From a name to the names that refer to it.
pub type Back = HashMap<Arc<str>, Vec<Arc<str>>>;

/// Made from one state of a map.
struct Made<R> {
    from: Map<R>,
    back: Arc<Back>,
}

/// The ways back by namespace (and snapshotter).
type Kept<R> = Mutex<HashMap<(Arc<str>, Arc<str>), Made<R>>>;

/// By namespace and manifest, the image through which it was met.
type Hints = HashMap<(Arc<str>, Digest), Arc<str>>;

/// The names of the images that name each manifest, in their order.
pub type Naming = HashMap<Digest, Vec<Arc<str>>>;

/// Found in one state of the images, at a time: what an index names is not in the record of its image.
struct Found {
    from: Map<Arc<ImageRecord>>,
    at: Instant,
    naming: Arc<Naming>,
}

/// How long what documents tell is believed: one may come that was not here.
const FRESH: Duration = Duration::from_secs(1);

/// All ways back.
#[derive(Default)]
pub struct Links {
    children: Kept<Arc<crate::containerd::SnapshotRecord>>,
    by_snapshot: Kept<Arc<crate::containerd::ContainerRecord>>,
    by_image: Kept<Arc<crate::containerd::ContainerRecord>>,
    /// The images that name each manifest.
    naming: Mutex<HashMap<Arc<str>, Found>>,
    /// The image through which a manifest was last met. Only a hint: it is checked before it is believed.
    named_by: Mutex<Hints>,
}

/// How many hints are kept; without one, all images are searched.
const HINTS: usize = 200_000;

fn back<R: Clone>(
    kept: &Kept<R>,
    key: (Arc<str>, Arc<str>),
    map: Map<R>,
    refers: impl Fn(&R) -> Option<Arc<str>>,
) -> Arc<Back> {
    if let Some(made) = kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
        && Arc::ptr_eq(&made.from, &map)
    {
        return Arc::clone(&made.back);
    }
    let mut back = Back::new();
    for (name, record) in map.iter() {
        if let Some(target) = refers(record) {
            back.entry(target).or_default().push(Arc::clone(name));
        }
    }
    let back = Arc::new(back);
    let made = Made { from: map, back: Arc::clone(&back) };
    kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key, made);
    back
}

/// The snapshots whose parent each snapshot is.
pub fn children(ns: &Ns, snapshotter: &Arc<str>) -> Result<Arc<Back>> {
    let snapshots = ns.namespace.snapshots(snapshotter)?;
    let key = (Arc::clone(ns.namespace.name()), Arc::clone(snapshotter));
    let parent = |s: &Arc<crate::containerd::SnapshotRecord>| (!s.parent.is_empty()).then(|| Arc::clone(&s.parent));
    Ok(back(&ns.shared.links.children, key, snapshots, parent))
}

/// The containers that write to each snapshot of a snapshotter.
pub fn writers(ns: &Ns, snapshotter: &Arc<str>) -> Result<Arc<Back>> {
    let containers = ns.namespace.containers()?;
    let key = (Arc::clone(ns.namespace.name()), Arc::clone(snapshotter));
    Ok(back(&ns.shared.links.by_snapshot, key, containers, |container| {
        (container.snapshotter == *snapshotter).then(|| Arc::clone(&container.snapshot_key))
    }))
}

/// The containers that were made from each image.
pub fn users(ns: &Ns) -> Result<Arc<Back>> {
    let containers = ns.namespace.containers()?;
    let key = (Arc::clone(ns.namespace.name()), Arc::default());
    Ok(back(&ns.shared.links.by_image, key, containers, |container| Some(Arc::clone(&container.image))))
}

/// Notes that the image `image` names these manifests.
pub fn note_manifests<'a>(ns: &Ns, image: &Arc<str>, manifests: impl Iterator<Item = &'a Digest>) {
    let mut hints = ns.shared.links.named_by.lock().unwrap_or_else(PoisonError::into_inner);
    if hints.len() > HINTS {
        hints.clear();
    }
    for digest in manifests {
        hints.insert((Arc::clone(ns.namespace.name()), digest.clone()), Arc::clone(image));
    }
}

/// The image through which the manifest was last met.
pub fn hint(ns: &Ns, manifest: &Digest) -> Option<Arc<str>> {
    let hints = ns.shared.links.named_by.lock().unwrap_or_else(PoisonError::into_inner);
    hints.get(&(Arc::clone(ns.namespace.name()), manifest.clone())).cloned()
}

/// Which images name each manifest.
pub fn naming(ns: &Ns) -> Result<Arc<Naming>> {
    let images = ns.namespace.images()?;
    let kept = &ns.shared.links.naming;
    if let Some(found) = kept.lock().unwrap_or_else(PoisonError::into_inner).get(ns.namespace.name())
        && Arc::ptr_eq(&found.from, &images)
        && found.at.elapsed() < FRESH
    {
        return Ok(Arc::clone(&found.naming));
    }
    let (mut naming, mut pairs) = (Naming::new(), 0);
    for image in images.values() {
        let Some(resolved) = crate::tree::text::usable(ns.namespace.resolve(&image.target))? else { continue };
        pairs += resolved.manifests.len();
        if pairs > HINTS {
            break;
        }
        for manifest in &resolved.manifests {
            naming.entry(manifest.descriptor.digest.clone()).or_default().push(Arc::clone(&image.name));
        }
    }
    let naming = Arc::new(naming);
    let found = Found { from: images, at: Instant::now(), naming: Arc::clone(&naming) };
    kept.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(ns.namespace.name()), found);
    Ok(naming)
}

/// The layers of an image that are unpacked to the snapshot called `chain`, if a local image has them.
pub fn chain(ns: &Ns, chain: &str) -> Result<Option<crate::tree::rootfs::Whole>> {
    let Some(chain) = Digest::parse(chain) else { return Ok(None) };
    for manifest in manifests(ns)?.values() {
        let Some(doc) = manifest.doc()? else { continue };
        if let Some(top) = doc.layers.iter().position(|layer| layer.chain_id.as_ref() == Some(&chain)) {
            let digest = &manifest.descriptor().digest;
            return Ok(Some(crate::tree::rootfs::Whole::new(ns, digest, &doc, top + 1)));
        }
    }
    Ok(None)
}

/// The build steps that local images name for a layer, each once.
pub fn created_by(ns: &Ns, layer: &Digest) -> Result<Vec<Arc<str>>> {
    let mut steps = Vec::new();
    for manifest in manifests(ns)?.values() {
        let Some(doc) = manifest.doc()? else { continue };
        for layer in doc.layers.iter().filter(|named| named.descriptor.digest == *layer) {
            if !layer.created_by.is_empty() && !steps.contains(&layer.created_by) {
                steps.push(layer.created_by.clone());
            }
        }
    }
    Ok(steps)
}

/// The names of the images that name each manifest of the namespace, with the manifest's reference.
pub fn manifests(ns: &Ns) -> Result<BTreeMap<String, super::manifest::Manifest>> {
    let mut found: BTreeMap<String, super::manifest::Manifest> = BTreeMap::new();
    for image in ns.namespace.images()?.values() {
        let Some(resolved) = crate::tree::text::usable(ns.namespace.resolve(&image.target))? else { continue };
        note_manifests(ns, &image.name, resolved.manifests.iter().map(|manifest| &manifest.descriptor.digest));
        for manifest in &resolved.manifests {
            found
                .entry(manifest.descriptor.digest.hex())
                .or_insert_with(|| super::manifest::Manifest::new(ns, manifest));
        }
    }
    Ok(found)
}
