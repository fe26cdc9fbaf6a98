//! `/namespaces/<namespace>/manifests/<hex>/`: the one home of a manifest that images of the namespace name.

use super::{Ns, blobs, images, layer, links};
use crate::containerd::{Descriptor, Digest, ManifestDoc, ManifestKind, ManifestRef};
use crate::error::{Error, Kind, Result};
use crate::node::row::{bytes, dir, each, graft, live_if, text, when};
use crate::node::{Dir, Each, Member, Object, Target};
use crate::tree::text::{self as write, Text, field, line, line_if, usable};
use crate::tree::{name, rootfs};
use serde_json::json;
use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

pub static MANIFESTS: Dir<Ns> = Dir {
    doc: "Every manifest that an image of this namespace names, here or not.",
    rows: &[each("<hex>", "A manifest.", &Each { list: manifests, find, member: Member::Dir(&MANIFEST) })],
};

static MANIFEST: Dir<Manifest> = Dir {
    doc: "A manifest. What needs its blob, or its config's, is absent where that is not here.",
    rows: &[
        text("descriptor.json", "The descriptor by which it is named.", |manifest| {
            write::json(&json!(manifest.descriptor()))
        }),
        text("digest", "Its digest.", |manifest| line(&manifest.descriptor().digest)),
        text("media_type", "Its media type.", |manifest| line(&manifest.descriptor().media_type)),
        text("size", "Bytes of the manifest itself.", |manifest| line(manifest.descriptor().size)),
        text("platform", "What it was built for: os/arch[/variant].", |manifest| {
            let Some(platform) = &manifest.named.platform else { return Ok(None) };
            let parts = [platform.os.as_str(), platform.architecture.as_str(), platform.variant.as_str()];
            line_if(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"))
        }),
        text("annotations", "Annotations of its descriptor, then its own, `key=value` a line.", annotations),
        dir("images", &IMAGES),
        bytes("manifest.json", "The manifest, byte for byte.", |manifest| {
            blobs::document(&manifest.ns, &manifest.descriptor().digest)
        }),
        bytes("config.json", "The config, byte for byte.", |manifest| match manifest.config()? {
            Some(config) => blobs::document(&manifest.ns, &config.digest),
            None => Ok(None),
        }),
        text("history", "A line a build step: created, what it did, and the layer it made or `empty`.", history),
        when(|manifest| Ok(manifest.doc()?.is_some()), dir("layers", &LAYERS)),
        graft("rootfs", "The merged root filesystem, as `ctr images mount` shows it.", |manifest| {
            let source = manifest.whole()?;
            Ok(source.map(|source| rootfs::graft(&manifest.ns.shared.roots, source, "rootfs")))
        }),
        graft(
            "hidden",
            "What upper layers deleted or replaced, as it still is in its layer: by layer and path.",
            |manifest| {
                let layers = manifest.doc()?.map_or(0, |doc| doc.layers.len());
                let source = if layers > 1 { manifest.whole()? } else { None };
                Ok(source.map(|source| rootfs::hidden(&manifest.ns.shared.roots, source, "hidden")))
            },
        ),
        bytes("oci.tar", "This manifest alone, as `ctr images export --platform` writes it.", |manifest| {
            images::oci::tar_of_manifest(&manifest.ns, &manifest.named)
        }),
        live_if("rootfs.error", "Why the root filesystem cannot be shown.", Manifest::rootfs_error),
        live_if("progress", "While its layers are being indexed: digest, bytes read, bytes in all.", |manifest| {
            let Some(doc) = manifest.doc()? else { return Ok(None) };
            let digests = doc.layers.iter().map(|layer| layer.descriptor.digest.to_string());
            let progress = manifest.ns.shared.roots.progress(digests);
            let line = |(digest, read, total): &(String, u64, u64)| format!("{digest}\t{read}\t{total}\n");
            let text: String = progress.iter().map(line).collect();
            Ok((!text.is_empty()).then(|| text.into_bytes()))
        }),
    ],
};

static LAYERS: Dir<Manifest> = Dir {
    doc: "Its layers, the lowest first.",
    rows: &[each(
        "<nn>",
        "A layer.",
        &Each { list: layer::layers, find: layer::find, member: Member::Dir(&layer::LAYER) },
    )],
};

static IMAGES: Dir<Manifest> = Dir {
    doc: "Links back to the images that name it, by their one-component names.",
    rows: &[each(
        "<encoded reference>",
        "An image.",
        &Each {
            list: |manifest: &Manifest| images::naming(&manifest.ns, &manifest.descriptor().digest),
            find: |manifest: &Manifest, component| {
                let images = images::naming(&manifest.ns, &manifest.descriptor().digest)?;
                Ok(images.into_iter().find(|image| image.component() == component))
            },
            member: Member::File(&images::LINK),
        },
    )],
};

/// A manifest, as an image of the namespace names it.
#[derive(Clone)]
pub struct Manifest {
    pub ns: Ns,
    named: Arc<ManifestRef>,
}

impl Manifest {
    pub fn new(ns: &Ns, named: &Arc<ManifestRef>) -> Manifest {
        Manifest { ns: ns.clone(), named: Arc::clone(named) }
    }

    /// The descriptor by which it is named.
    pub fn descriptor(&self) -> &Descriptor {
        &self.named.descriptor
    }

    /// What it says, if it is here and can be read.
    pub fn doc(&self) -> Result<Option<Arc<ManifestDoc>>> {
        usable(self.ns.namespace.manifest(&self.descriptor().digest))
    }

    /// What its root filesystem is made from, if it has one and its layers can be had here.
    fn whole(&self) -> Result<Option<Arc<dyn rootfs::Source>>> {
        let Some(doc) = self.doc()?.filter(|doc| doc.has_rootfs()) else { return Ok(None) };
        if refusal(&doc).is_some() {
            return Ok(None);
        }
        let whole = rootfs::Whole::new(&self.ns, &self.descriptor().digest, &doc, doc.layers.len());
        Ok(if whole.can_be_had()? { Some(Arc::new(whole)) } else { None })
    }

    fn rootfs_error(&self) -> Text {
        let Some(doc) = self.doc()? else { return Ok(None) };
        if doc.kind == ManifestKind::Image
            && let Some(refusal) = refusal(&doc)
        {
            return line(refusal);
        }
        let Some(source) = self.whole()? else { return Ok(None) };
        self.ns.shared.roots.failure(&*source).map_or(Ok(None), line)
    }

    fn config(&self) -> Result<Option<Descriptor>> {
        Ok(self.doc()?.and_then(|doc| doc.config.clone()))
    }

    /// The path of a file of its directory; with no name, of the directory.
    pub fn path(&self, file: &str) -> Target {
        let home = name::join(["namespaces", self.ns.name(), "manifests", &self.descriptor().digest.hex()]);
        Target::Tree(if file.is_empty() { home } else { format!("{home}/{file}") })
    }

    /// Whether its directory has this file now: what a link to it has to know.
    pub fn has(&self, file: &str) -> Result<bool> {
        let node = crate::node::bind::member(self.clone(), &MANIFEST);
        Ok(crate::node::bind::present(node.place.lookup(file.as_bytes())?)?.is_some())
    }
}

/// Why the layers of an image can never be shown, as far as the manifest tells.
fn refusal(doc: &ManifestDoc) -> Option<Error> {
    let media_types = doc.layers.iter().map(|layer| &layer.descriptor.media_type);
    let unknown = media_types.filter_map(|media_type| crate::layers::decode::media::promise(media_type).err()).next();
    let uneven = doc.image.as_ref().filter(|image| image.diff_ids.len() != doc.layers.len());
    let mismatch = uneven.map(|image| {
        let (diff_ids, layers) = (image.diff_ids.len(), doc.layers.len());
        Error::new(Kind::Corrupt, format!("the config has {diff_ids} diff ids, the manifest {layers} layers"))
    });
    unknown.or(mismatch)
}

impl Object for Manifest {
    fn component(&self) -> Cow<'_, str> {
        self.descriptor().digest.hex().into()
    }
}

fn manifests(ns: &Ns) -> Result<Vec<Manifest>> {
    Ok(links::manifests(ns)?.into_values().collect())
}

fn find(ns: &Ns, component: &str) -> Result<Option<Manifest>> {
    // sha256 is told from sha512 by its length.
    let algorithms = ["sha256", "sha512", "sha384"];
    let Some(digest) = algorithms.iter().find_map(|name| Digest::parse(&format!("{name}:{component}"))) else {
        return Ok(None);
    };
    if let Some(image) = links::hint(ns, &digest)
        && let Some(record) = ns.namespace.image(&image)?
        && let Some(resolved) = usable(ns.namespace.resolve(&record.target))?
        && let Some(named) = resolved.manifests.iter().find(|named| named.descriptor.digest == digest)
    {
        return Ok(Some(Manifest::new(ns, named)));
    }
    Ok(links::manifests(ns)?.remove(component))
}

fn annotations(manifest: &Manifest) -> Text {
    let own = manifest.doc()?.map(|doc| doc.annotations.clone()).unwrap_or_default();
    let both: crate::containerd::Labels = manifest.descriptor().annotations.iter().chain(own.iter()).collect();
    if both.is_empty() { Ok(None) } else { write::labels(&both) }
}

fn history(manifest: &Manifest) -> Text {
    let Some(doc) = manifest.doc()? else { return Ok(None) };
    let Some(image) = doc.image.as_ref().filter(|image| !image.history.is_empty()) else { return Ok(None) };
    let mut text = String::new();
    for step in &image.history {
        let layer = match step.layer.and_then(|n| doc.layers.get(n)) {
            Some(layer) => layer.descriptor.digest.to_string(),
            None => "empty".into(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\t{layer}\t{}", field(&step.created), field(&step.created_by));
    }
    Ok(Some(text.into_bytes()))
}
