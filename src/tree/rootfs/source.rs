//! What root filesystems are made from: an image's layers, one layer by itself, directories on this host.

use super::blob::LayerBlob;
use super::{Built, Source};
use crate::containerd::{LayerRef, ManifestDoc, Mount, SnapshotKind};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::layers::Blob;
use crate::layers::decode::media;
use crate::layers::dir::{DirLayer, DirOptions};
use crate::layers::index::Index;
use crate::layers::merge::{Chain, ChainLayer, Layer, Options, Rootfs, TarLayer};
use crate::layers::store::Store;
use crate::tree::namespace::{Ns, links};
use crate::wait;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How far a search for a mounted descendant of a snapshot goes.
const DEEPEST: usize = 128;

/// Seconds and nanoseconds since 1970.
fn since_1970(time: Option<SystemTime>) -> (i64, u32) {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_nanos())
}

/// Building has no deadline: whoever waits for it dies when it wants to, and the next one finds it done.
fn patience() -> Result<std::time::Instant> {
    Ok(std::time::Instant::now() + Duration::from_secs(3600))
}

/// A layer, from its blob or from where it is unpacked.
enum Given {
    Tar { blob: Arc<dyn Blob>, index: Arc<Index> },
    Directory(Arc<dyn Layer>),
}

/// All layers of a manifest, merged.
pub struct Whole {
    pub ns: Ns,
    pub manifest: String,
    pub doc: Arc<ManifestDoc>,
}

impl Whole {
    fn given(&self, store: &Store) -> Result<Vec<Given>> {
        let mut blobs: Vec<Option<Arc<dyn Blob>>> = Vec::new();
        for layer in &self.doc.layers {
            let blob = LayerBlob::open(&self.ns.namespace, &layer.descriptor.digest)?;
            blobs.push(blob.map(|blob| Arc::new(blob) as Arc<dyn Blob>));
        }
        // All that have to be read are read at the same time; then each is waited for.
        for (blob, layer) in blobs.iter().zip(&self.doc.layers) {
            if let Some(blob) = blob {
                store.start(blob, &layer.descriptor.media_type)?;
            }
        }
        let mut given = Vec::new();
        for (blob, layer) in blobs.into_iter().zip(&self.doc.layers) {
            given.push(match blob {
                Some(blob) => {
                    let index = store.index(&blob, &layer.descriptor.media_type, &patience)?;
                    check_diff_id(&index, layer)?;
                    Given::Tar { blob, index }
                }
                None => Given::Directory(self.directory(layer)?),
            });
        }
        Ok(given)
    }

    /// Where a layer whose blob is not here is unpacked.
    fn directory(&self, layer: &LayerRef) -> Result<Arc<dyn Layer>> {
        let digest = &layer.descriptor.digest;
        if let Some(chain) = &layer.chain_id {
            for snapshotter in self.ns.namespace.client().snapshotters()? {
                let Some(found) = unpacked(&self.ns, &snapshotter, &chain.to_string())? else { continue };
                if let Some(path) = found.layer() {
                    let options = DirOptions { live: false, user_xattr: found.user_xattr };
                    return Ok(Arc::new(DirLayer::open(path, &digest.to_string(), options)?));
                }
            }
        }
        fail!(NotLocal, "layer {digest}: neither its blob nor a directory where it is unpacked is on this host")
    }
}

fn check_diff_id(index: &Index, layer: &LayerRef) -> Result<()> {
    let Some(wanted) = &layer.diff_id else { return Ok(()) };
    let found = index.diff_id().to_string();
    if found == wanted.to_string() {
        return Ok(());
    }
    fail!(Digest, "layer {}: the config says diff id {wanted}, its bytes have {found}", layer.descriptor.digest)
}

fn merged(store: &Store, given: Vec<Given>, build: impl FnOnce(&[ChainLayer<'_>]) -> Result<Rootfs>) -> Result<Built> {
    let mut entries = Vec::new();
    for layer in &given {
        entries.push(match layer {
            Given::Tar { index, .. } => index.entries().collect::<Result<Vec<_>>>()?,
            Given::Directory(_) => Vec::new(),
        });
    }
    let chain: Vec<ChainLayer<'_>> = given
        .iter()
        .zip(&entries)
        .map(|(layer, entries)| match layer {
            Given::Tar { blob, .. } => ChainLayer::Tar(TarLayer { digest: blob.digest(), entries }),
            Given::Directory(layer) => ChainLayer::Ready(Arc::clone(layer)),
        })
        .collect();
    let rootfs = build(&chain)?;
    let reader = |layer: &Given| match layer {
        Given::Tar { blob, index } => Some(Arc::new(store.reader(Arc::clone(blob), index))),
        Given::Directory(_) => None,
    };
    Ok(Built { rootfs, readers: given.iter().map(reader).collect() })
}

impl Source for Whole {
    fn key(&self) -> String {
        format!("image {} {}", self.ns.name(), self.manifest)
    }

    fn build(&self, store: &Store) -> Result<Built> {
        let chain = Chain { created: since_1970(self.created()), ..Chain::default() };
        merged(store, self.given(store)?, |layers| chain.build(layers))
    }

    fn created(&self) -> Option<SystemTime> {
        self.doc.image.as_ref().and_then(|image| image.created)
    }

    fn attribute(&self, layer: usize, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(layer) = self.doc.layers.get(layer) else { return Ok(None) };
        attribute(&self.ns, layer, name)
    }
}

fn attribute(ns: &Ns, layer: &LayerRef, name: &str) -> Result<Option<Vec<u8>>> {
    let text = match name {
        "user.ctrfs.layer" => layer.descriptor.digest.to_string(),
        "user.ctrfs.diff_id" => match &layer.diff_id {
            Some(diff_id) => diff_id.to_string(),
            None => return Ok(None),
        },
        "user.ctrfs.created_by" => {
            let steps = links::created_by(ns, &layer.descriptor.digest)?;
            if steps.is_empty() {
                return Ok(None);
            }
            steps.join("\n")
        }
        _ => return Ok(None),
    };
    Ok(Some(text.into_bytes()))
}

/// One layer by itself, whiteouts as its archive names them.
pub struct Alone {
    ns: Ns,
    layer: LayerRef,
}

/// One layer by itself, if its blob is here and of a type that is known.
pub fn alone(ns: &Ns, layer: LayerRef) -> Result<Option<Arc<dyn Source>>> {
    if media::promise(&layer.descriptor.media_type).is_err() || ns.namespace.blob(&layer.descriptor.digest)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Alone { ns: ns.clone(), layer })))
}

impl Source for Alone {
    fn key(&self) -> String {
        format!("layer {} {} {}", self.ns.name(), self.layer.descriptor.digest, self.layer.descriptor.media_type)
    }

    fn build(&self, store: &Store) -> Result<Built> {
        let digest = &self.layer.descriptor.digest;
        let blob = LayerBlob::open(&self.ns.namespace, digest)?;
        let blob: Arc<dyn Blob> =
            Arc::new(blob.ok_or_else(|| Error::new(Kind::NotLocal, format!("layer {digest}: not on this host")))?);
        let index = store.index(&blob, &self.layer.descriptor.media_type, &patience)?;
        let chain = Chain::default();
        merged(store, vec![Given::Tar { blob, index }], |layers| match layers {
            [ChainLayer::Tar(layer)] => chain.alone(*layer),
            _ => fail!(Io, "one layer became {}", layers.len()),
        })
    }

    fn created(&self) -> Option<SystemTime> {
        None
    }

    fn attribute(&self, _: usize, name: &str) -> Result<Option<Vec<u8>>> {
        attribute(&self.ns, &self.layer, name)
    }

    fn is_again(&self) -> bool {
        true
    }
}

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
        Ok(Built { rootfs: Rootfs::new(layers, options)?, readers })
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
