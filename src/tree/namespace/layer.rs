//! `/namespaces/<namespace>/manifests/<hex>/layers/<nn>/`: one layer of a manifest.

use super::manifest::Manifest;
use super::{blobs, snapshots};
use crate::containerd::LayerRef;
use crate::error::{Error, Kind, Result};
use crate::node::row::{graft, link, text};
use crate::node::{Dir, Object, Target};
use crate::tree::rootfs;
use crate::tree::text::{field, line, line_if};
use std::borrow::Cow;

pub static LAYER: Dir<Layer> = Dir {
    doc: "A layer of a manifest.",
    rows: &[
        text("digest", "Digest of its blob.", |layer| line(&layer.layer()?.descriptor.digest)),
        text("diff_id", "Digest of the layer uncompressed.", |layer| layer.layer()?.diff_id.map_or(Ok(None), line)),
        text("chain_id", "The snapshot of this layer upon those below is called so.", |layer| {
            layer.layer()?.chain_id.map_or(Ok(None), line)
        }),
        text("media_type", "Its media type.", |layer| line(&layer.layer()?.descriptor.media_type)),
        text("size", "Bytes of its blob.", |layer| line(layer.layer()?.descriptor.size)),
        text("created_by", "The build step that made it.", |layer| line_if(&field(&layer.layer()?.created_by))),
        link("blob", "The blob, if it is here.", |layer| {
            blobs::link(&layer.manifest.ns, &layer.layer()?.descriptor.digest)
        }),
        link("snapshot", "The snapshot that it is unpacked to.", snapshot),
        graft("fs", "This layer alone, whiteouts as its archive names them.", |layer| {
            let ns = &layer.manifest.ns;
            let doc = layer.manifest.doc()?;
            let source = doc.map_or(Ok(None), |doc| rootfs::alone(ns, &doc.layers, layer.number))?;
            Ok(source.map(|source| rootfs::graft(&ns.shared.roots, source, "fs")))
        }),
    ],
};

/// A layer, by its number from the bottom.
#[derive(Clone)]
pub struct Layer {
    manifest: Manifest,
    number: usize,
    /// Digits of its name.
    width: usize,
}

impl Layer {
    fn layer(&self) -> Result<LayerRef> {
        let layer = self.manifest.doc()?.and_then(|doc| doc.layers.get(self.number).cloned());
        layer.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no layer {}", self.number)))
    }
}

impl Object for Layer {
    fn component(&self) -> Cow<'_, str> {
        format!("{:0width$}", self.number, width = self.width).into()
    }
}

/// All layers of a manifest.
pub fn layers(manifest: &Manifest) -> Result<Vec<Layer>> {
    let Some(doc) = manifest.doc()? else { return Ok(Vec::new()) };
    // Wide enough that names sort as numbers.
    let width = doc.layers.len().saturating_sub(1).to_string().len().max(2);
    let layer = |number| Layer { manifest: manifest.clone(), number, width };
    Ok((0..doc.layers.len()).map(layer).collect())
}

/// The layer of this name.
pub fn find(manifest: &Manifest, component: &str) -> Result<Option<Layer>> {
    Ok(layers(manifest)?.into_iter().find(|layer| layer.component() == component))
}

/// The layer may be unpacked by several snapshotters; the first that has it is shown.
fn snapshot(layer: &Layer) -> Result<Option<Target>> {
    let Some(chain) = layer.layer()?.chain_id else { return Ok(None) };
    let ns = &layer.manifest.ns;
    for snapshotter in ns.namespace.client().snapshotters()? {
        let target = snapshots::link(ns, &snapshotter, &chain.to_string())?;
        if target.is_some() {
            return Ok(target);
        }
    }
    Ok(None)
}
