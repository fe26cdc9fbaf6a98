//! What root filesystems are made from: an image's layers, one layer by itself, directories on this host.

use super::blob::LayerBlob;
use super::unpacked::{self, Found, Holder, Place, Places};
use super::{Built, Source};
use crate::containerd::{Digest, LayerRef, ManifestDoc};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::layers::Blob;
use crate::layers::decode::media;
use crate::layers::index::Index;
use crate::layers::merge::{Chain, ChainLayer, Copy, Rootfs, TarLayer, UnpackedLayer};
use crate::layers::store::Store;
use crate::tree::namespace::{Ns, links};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
    Directory { digest: String, place: Place },
}

/// The layers of a manifest, or the lowest of them, merged.
pub struct Whole {
    ns: Ns,
    manifest: Digest,
    /// Those of the manifest, of which it has so many.
    layers: Arc<[LayerRef]>,
    count: usize,
    created: Option<SystemTime>,
}

impl Whole {
    /// The lowest `count` layers of a manifest.
    pub fn new(ns: &Ns, manifest: &Digest, doc: &ManifestDoc, count: usize) -> Whole {
        let created = doc.image.as_ref().and_then(|image| image.created);
        let (layers, count) = (Arc::clone(&doc.layers), count.min(doc.layers.len()));
        Whole { ns: ns.clone(), manifest: manifest.clone(), layers, count, created }
    }

    fn layers(&self) -> &[LayerRef] {
        &self.layers[..self.count]
    }

    /// Whether all of it can be had: each layer from its blob or from where it is unpacked.
    pub fn can_be_had(&self) -> Result<bool> {
        let mut missing = None;
        for (number, layer) in self.layers().iter().enumerate() {
            if self.ns.namespace.blob(&layer.descriptor.digest)?.is_none() {
                missing = Some(number);
            }
        }
        if missing.is_none() {
            return Ok(true);
        }
        let places = unpacked::chain(&self.ns, self.layers())?;
        self.missing(&places)?.map_or(Ok(true), |missing| unpacked::is_elsewhere(&self.ns, self.layers(), missing))
    }

    /// The topmost layer of which there is neither a directory nor a blob.
    fn missing(&self, places: &Places) -> Result<Option<usize>> {
        for (number, layer) in self.layers().iter().enumerate().rev().filter(|(number, _)| places[*number].is_none()) {
            if self.ns.namespace.blob(&layer.descriptor.digest)?.is_none() {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The layers, each from its directory where `places` has one, else from its blob.
    fn given(&self, store: &Store, places: Places) -> Result<Vec<Given>> {
        let mut blobs: Vec<Option<Arc<dyn Blob>>> = Vec::new();
        for (layer, place) in self.layers().iter().zip(&places) {
            let blob = match place {
                Some(_) => None,
                None => LayerBlob::open(&self.ns.namespace, &layer.descriptor.digest)?,
            };
            blobs.push(blob.map(|blob| Arc::new(blob) as Arc<dyn Blob>));
        }
        // All that have to be read are read at the same time; then each is waited for.
        for (blob, layer) in blobs.iter().zip(self.layers()) {
            if let Some(blob) = blob {
                store.start(blob, &layer.descriptor.media_type)?;
            }
        }
        let mut given = Vec::new();
        for ((blob, place), layer) in blobs.into_iter().zip(places).zip(self.layers()) {
            let digest = layer.descriptor.digest.to_string();
            given.push(match (place, blob) {
                (Some(place), _) => Given::Directory { digest, place },
                (None, Some(blob)) => {
                    let index = store.index(&blob, &layer.descriptor.media_type, &patience)?;
                    check_diff_id(&index, layer)?;
                    Given::Tar { blob, index }
                }
                (None, None) => return fail!(NotLocal, "layer {digest}: its blob is not on this host any more"),
            });
        }
        Ok(given)
    }

    /// What a snapshotter shows that copies: its topmost directory holds everything.
    fn copied(&self, places: &Places) -> Result<Built> {
        let place = |(place, layer): (&Option<Place>, &LayerRef)| {
            let digest = layer.descriptor.digest.to_string();
            place.as_ref().map(|place| Copy { digest, path: place.path.clone(), begun: place.begun })
        };
        let copies: Vec<_> = places.iter().zip(self.layers()).map(place).collect();
        let rootfs = Chain { created: since_1970(self.created), ..Chain::default() }.copies(&copies)?;
        Ok(Built { holders: holders(places), ..Built::new(rootfs, vec![None]) })
    }

    fn merged(&self, store: &Store, places: Places) -> Result<Built> {
        let chain = Chain { created: since_1970(self.created), ..Chain::default() };
        let holders = holders(&places);
        let built = merged(store, self.given(store, places)?, |layers| chain.build(layers))?;
        Ok(Built { holders, ..built })
    }
}

/// The snapshots that directories belong to, each once.
fn holders(places: &Places) -> Vec<Holder> {
    let mut holders: Vec<Holder> = Vec::new();
    for place in places.iter().flatten() {
        if !holders.iter().any(|holder| holder.is(&place.holder)) {
            holders.push(place.holder.clone());
        }
    }
    holders
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
            Given::Directory { .. } => Vec::new(),
        });
    }
    let chain: Vec<ChainLayer<'_>> = given
        .iter()
        .zip(&entries)
        .map(|(layer, entries)| match layer {
            Given::Tar { blob, .. } => ChainLayer::Tar(TarLayer { digest: blob.digest(), entries }),
            Given::Directory { digest, place: Place { path, user_xattr, begun, .. } } => {
                ChainLayer::Unpacked(UnpackedLayer { digest, path, user_xattr: *user_xattr, begun: *begun })
            }
        })
        .collect();
    let rootfs = build(&chain)?;
    let reader = |layer: &Given| match layer {
        Given::Tar { blob, index } => Some(Arc::new(store.reader(Arc::clone(blob), index))),
        Given::Directory { .. } => None,
    };
    Ok(Built::new(rootfs, given.iter().map(reader).collect()))
}

impl Source for Whole {
    fn key(&self) -> String {
        format!("image {} {} {}", self.ns.name(), self.manifest, self.count)
    }

    fn build(&self, store: &Store) -> Result<Built> {
        let mut places = unpacked::chain(&self.ns, self.layers())?;
        if let Some(missing) = self.missing(&places)? {
            match unpacked::elsewhere(&self.ns, self.layers(), missing)? {
                Found::Copies(copies) => return self.copied(&copies),
                Found::Layers(more) => {
                    places.iter_mut().zip(more).for_each(|(place, more)| *place = place.take().or(more));
                }
            }
        }
        let some = places.iter().any(Option::is_some);
        let all = places.iter().all(Option::is_some);
        match self.merged(store, places) {
            // What overlayfs refuses and the native snapshotter takes is told by the archives alone (LAYERS.md 0.2).
            Err(refusal) if some && !all && refusal.kind() == Kind::Corrupt => {
                let blobs = self.merged(store, vec![None; self.count]);
                blobs.map_err(|error| if error.kind() == Kind::NotLocal { refusal } else { error })
            }
            built => built,
        }
    }

    fn created(&self) -> Option<SystemTime> {
        self.created
    }

    fn attribute(&self, layer: usize, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(layer) = self.layers().get(layer) else { return Ok(None) };
        attribute(&self.ns, layer, name)
    }

    fn attribute_root(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.attribute(self.count.saturating_sub(1), name)
    }
}

/// What `user.ctrfs.*` tells of a file of a layer.
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
    /// The layers of the manifest, and the number of this one.
    layers: Arc<[LayerRef]>,
    number: usize,
}

/// One layer by itself, if its blob is here and of a type that is known.
pub fn alone(ns: &Ns, layers: &Arc<[LayerRef]>, number: usize) -> Result<Option<Arc<dyn Source>>> {
    let Some(layer) = layers.get(number) else { return Ok(None) };
    if media::promise(&layer.descriptor.media_type).is_err() || ns.namespace.blob(&layer.descriptor.digest)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Alone { ns: ns.clone(), layers: Arc::clone(layers), number })))
}

impl Alone {
    fn layer(&self) -> &LayerRef {
        &self.layers[self.number]
    }
}

impl Source for Alone {
    fn key(&self) -> String {
        format!("layer {} {} {}", self.ns.name(), self.layer().descriptor.digest, self.layer().descriptor.media_type)
    }

    fn build(&self, store: &Store) -> Result<Built> {
        let digest = &self.layer().descriptor.digest;
        let blob = LayerBlob::open(&self.ns.namespace, digest)?;
        let blob: Arc<dyn Blob> =
            Arc::new(blob.ok_or_else(|| Error::new(Kind::NotLocal, format!("layer {digest}: not on this host")))?);
        let index = store.index(&blob, &self.layer().descriptor.media_type, &patience)?;
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
        attribute(&self.ns, self.layer(), name)
    }

    fn attribute_root(&self, name: &str) -> Result<Option<Vec<u8>>> {
        attribute(&self.ns, self.layer(), name)
    }

    fn is_again(&self) -> bool {
        true
    }
}
