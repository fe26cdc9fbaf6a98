//! Images: what indexes, manifests and configs say. Pure reading, lenient where Go is, bounded everywhere.

use super::name::{Bounded, lenient};
use super::{Descriptor, Digest, Labels, Platform};
use crate::error::{Error, Kind, Result};
use crate::fail;
use serde::Deserialize;
use std::sync::Arc;
use std::time::SystemTime;

/// What a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManifestKind {
    /// A container image.
    Image,
    /// Says something about another manifest (provenance, SBOM).
    Attestation,
    /// Some other thing kept in a registry, such as a helm chart.
    Artifact,
    /// Its blob is not here and its descriptor does not tell.
    Unknown,
}

/// One manifest that a target names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRef {
    pub descriptor: Descriptor,
    /// From the descriptor, else from the config.
    pub platform: Option<Arc<Platform>>,
    /// Whether its blob is on this host.
    pub local: bool,
    pub kind: ManifestKind,
}

/// What a target descriptor names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// Whether the target is an index.
    pub is_index: bool,
    /// The manifests in the order of the index, each once; nested indexes are opened.
    pub manifests: Vec<Arc<ManifestRef>>,
    /// Every index on the way, the target too if it is one, and whether it is here.
    pub indexes: Vec<(Descriptor, bool)>,
    /// Which of `manifests` is the host's: the best match, else the only one, else the first that is here.
    pub host: Option<usize>,
    /// Whether every layer of that one is known to be here.
    pub whole: bool,
}

/// An index as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDoc {
    pub media_type: Arc<str>,
    pub manifests: Vec<Descriptor>,
    pub annotations: Labels,
}

/// One layer of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRef {
    pub descriptor: Descriptor,
    /// Digest of the uncompressed layer; none if the config is not here or has no such list.
    pub diff_id: Option<Digest>,
    /// The name of the snapshot that holds this layer and those below.
    pub chain_id: Option<Digest>,
    /// The build step that made it.
    pub created_by: Arc<str>,
}

/// A build step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryStep {
    /// As the config spells it.
    pub created: String,
    pub created_by: Arc<str>,
    pub comment: String,
    pub empty_layer: bool,
    /// Index of the layer it made.
    pub layer: Option<usize>,
}

/// What a config says, of the parts that ctrfs uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    pub platform: Arc<Platform>,
    pub created: Option<SystemTime>,
    pub diff_ids: Vec<Digest>,
    pub history: Vec<HistoryStep>,
    pub labels: Labels,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub stop_signal: String,
}

/// A manifest together with what its config adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestDoc {
    pub media_type: Arc<str>,
    pub artifact_type: Arc<str>,
    pub kind: ManifestKind,
    pub config: Option<Descriptor>,
    /// The config itself, if it is here and is an image's.
    pub image: Option<ImageConfig>,
    /// Shared with whatever shows them.
    pub layers: Arc<[LayerRef]>,
    pub subject: Option<Descriptor>,
    pub annotations: Labels,
}

/// Manifests of one index, at most.
pub(super) const MANIFESTS: usize = 10_000;

/// Layers of one manifest, at most.
const LAYERS: usize = 4096;

/// Entries of the lists of a config, at most.
const ENTRIES: usize = 16 << 10;

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

impl Descriptor {
    /// Whether its type says that it is an index.
    pub fn is_index(&self) -> bool {
        [OCI_INDEX, DOCKER_INDEX].contains(&&*self.media_type)
    }

    /// Whether its type says that it is a manifest.
    pub fn is_manifest(&self) -> bool {
        [OCI_MANIFEST, DOCKER_MANIFEST].contains(&&*self.media_type)
    }

    /// Whether its type says that it is an image's config.
    pub fn is_config(&self) -> bool {
        [OCI_CONFIG, DOCKER_CONFIG].contains(&&*self.media_type)
    }

    /// Whether it stands in its index only to say something about another manifest.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some()
            || self.platform.as_ref().is_some_and(|platform| platform.is_unknown())
    }
}

impl ManifestDoc {
    /// Whether a root filesystem can be made of it: an image whose layers and diff ids agree.
    pub fn has_rootfs(&self) -> bool {
        self.kind == ManifestKind::Image
            && !self.layers.is_empty()
            && self.image.as_ref().is_none_or(|image| image.diff_ids.len() == self.layers.len())
    }

    /// The name of the snapshot that holds all of it.
    pub fn chain_id(&self) -> Option<&Digest> {
        self.layers.last()?.chain_id.as_ref()
    }

    /// Adds what the config says of the layers.
    pub(super) fn with_config(mut self, image: ImageConfig) -> ManifestDoc {
        let fits = image.diff_ids.len() == self.layers.len();
        let chain_ids = chain_ids(&image.diff_ids);
        let layers = Arc::make_mut(&mut self.layers);
        if fits {
            for (layer, (diff_id, chain_id)) in layers.iter_mut().zip(image.diff_ids.iter().zip(chain_ids)) {
                layer.diff_id = Some(diff_id.clone());
                layer.chain_id = Some(chain_id);
            }
        }
        for step in &image.history {
            if let Some(layer) = step.layer.and_then(|n| layers.get_mut(n)) {
                layer.created_by = step.created_by.clone();
            }
        }
        self.image = Some(image);
        self
    }
}

/// The names of the snapshots of a chain of layers: each holds its layer and those below.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut ids: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match ids.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        ids.push(id);
    }
    ids
}

/// What an index or a manifest may hold, all of it optional: what is there tells which of them it is.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    #[serde(deserialize_with = "lenient")]
    media_type: String,
    #[serde(deserialize_with = "lenient")]
    artifact_type: String,
    manifests: Option<Bounded<Perhaps, MANIFESTS>>,
    config: Option<Descriptor>,
    layers: Option<Bounded<Descriptor, LAYERS>>,
    fs_layers: Option<serde::de::IgnoredAny>,
    subject: Option<Descriptor>,
    annotations: Labels,
}

/// A descriptor, or something in its place that is none and is passed over.
#[derive(Deserialize)]
#[serde(untagged)]
enum Perhaps {
    Descriptor(Box<Descriptor>),
    Other(serde::de::IgnoredAny),
}

fn parse(bytes: &[u8], what: &str) -> Result<Raw> {
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|e| Error::caused(Kind::Corrupt, format!("this is no {what}: {e}"), e))?;
    if raw.fs_layers.is_some() {
        return fail!(Unsupported, "a manifest of schema 1, which nobody writes since 2016");
    }
    // A document that is both could be shown as one and run as the other.
    if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
        return fail!(Corrupt, "a document that is both an index and a manifest");
    }
    Ok(raw)
}

/// Whether a document of unknown type is an index: only its shape can tell.
pub(super) fn looks_like_index(bytes: &[u8]) -> bool {
    parse(bytes, "document").is_ok_and(|raw| raw.manifests.is_some())
}

/// An index, read leniently and within bounds.
pub fn parse_index(bytes: &[u8]) -> Result<IndexDoc> {
    let raw = parse(bytes, "index")?;
    let Some(manifests) = raw.manifests else { return fail!(Corrupt, "this is no index: it has no manifests") };
    let descriptors = manifests.0.into_iter().filter_map(|m| match m {
        Perhaps::Descriptor(descriptor) => Some(*descriptor),
        Perhaps::Other(_) => None,
    });
    let manifests = descriptors.map(without_empty_platform).collect();
    Ok(IndexDoc { media_type: raw.media_type.into(), manifests, annotations: raw.annotations })
}

fn without_empty_platform(mut descriptor: Descriptor) -> Descriptor {
    descriptor.platform = descriptor.platform.filter(|p| !p.is_empty());
    descriptor
}

/// A manifest without its config.
pub fn parse_manifest(bytes: &[u8]) -> Result<ManifestDoc> {
    let raw = parse(bytes, "manifest")?;
    if raw.config.is_none() && raw.layers.is_none() {
        return fail!(Corrupt, "this is no manifest: it has neither a config nor layers");
    }
    let layers = raw.layers.unwrap_or_default().0;
    let is_image = raw.config.as_ref().is_some_and(Descriptor::is_config);
    let in_toto = |d: &Descriptor| d.media_type.starts_with("application/vnd.in-toto");
    let kind = match () {
        () if !layers.is_empty() && layers.iter().all(in_toto) => ManifestKind::Attestation,
        () if is_image => ManifestKind::Image,
        () => ManifestKind::Artifact,
    };
    let layer = |descriptor| LayerRef { descriptor, diff_id: None, chain_id: None, created_by: Arc::default() };
    Ok(ManifestDoc {
        media_type: raw.media_type.into(),
        artifact_type: raw.artifact_type.into(),
        kind,
        config: raw.config,
        image: None,
        layers: layers.into_iter().map(layer).collect(),
        subject: raw.subject,
        annotations: raw.annotations,
    })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConfig {
    #[serde(flatten)]
    platform: Platform,
    #[serde(deserialize_with = "lenient")]
    created: String,
    rootfs: Option<RawRootfs>,
    history: Bounded<RawStep, ENTRIES>,
    config: Option<RawRun>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRootfs {
    diff_ids: Bounded<Digest, LAYERS>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawStep {
    #[serde(deserialize_with = "lenient")]
    created: String,
    #[serde(deserialize_with = "lenient")]
    created_by: String,
    #[serde(deserialize_with = "lenient")]
    comment: String,
    empty_layer: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct RawRun {
    entrypoint: Bounded<String, ENTRIES>,
    cmd: Bounded<String, ENTRIES>,
    env: Bounded<String, ENTRIES>,
    #[serde(deserialize_with = "lenient")]
    user: String,
    #[serde(deserialize_with = "lenient")]
    working_dir: String,
    #[serde(deserialize_with = "lenient")]
    stop_signal: String,
    labels: Labels,
}

/// An image's config.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig> {
    let raw: RawConfig = serde_json::from_slice(bytes)
        .map_err(|e| Error::caused(Kind::Corrupt, format!("this is no image config: {e}"), e))?;
    let run = raw.config.unwrap_or_default();
    let mut next = 0;
    let step = |step: RawStep| {
        let empty_layer = step.empty_layer.unwrap_or(false);
        let layer = (!empty_layer).then_some(next);
        next += usize::from(!empty_layer);
        HistoryStep {
            created: step.created,
            created_by: step.created_by.into(),
            comment: step.comment,
            empty_layer,
            layer,
        }
    };
    Ok(ImageConfig {
        history: raw.history.0.into_iter().map(step).collect(),
        platform: Arc::new(raw.platform),
        created: raw.created.parse::<jiff::Timestamp>().ok().map(SystemTime::from),
        diff_ids: raw.rootfs.unwrap_or_default().diff_ids.0,
        labels: run.labels,
        entrypoint: run.entrypoint.0,
        cmd: run.cmd.0,
        env: run.env.0,
        user: run.user,
        working_dir: run.working_dir,
        stop_signal: run.stop_signal,
    })
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
