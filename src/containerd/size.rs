//! What an image takes and whether it is complete, as `ctr images ls`, `check` and `usage` count it.

use super::image::{parse_index, parse_manifest};
use super::resolve::{Adds, host};
use super::{Descriptor, Digest, ManifestRef, Namespace, Usage};
use crate::error::{Kind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Indexes in indexes, at most.
const DEPTH: u32 = 8;

/// Snapshots in a chain, at most.
const CHAIN: usize = 4096;

/// What `ctr images check` says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCheck {
    /// `complete`, `incomplete`, or `unavailable` where there is no manifest for this host.
    pub status: &'static str,
    pub required: Vec<Descriptor>,
    pub present: Vec<Descriptor>,
    pub missing: Vec<Descriptor>,
    pub required_size: u64,
    pub present_size: u64,
    pub unpacked: bool,
}

impl Namespace {
    /// The bytes that `ctr images ls` counts: the target, and in the host's platform what it names. What cannot be
    /// read because it is not here adds nothing.
    pub fn image_size(&self, target: &Descriptor) -> Result<u64> {
        self.size_below(target, DEPTH)
    }

    fn size_below(&self, target: &Descriptor, depth: u32) -> Result<u64> {
        if depth == 0 || !(target.is_index() || target.is_manifest()) || self.blob(&target.digest)?.is_none() {
            return Ok(target.size);
        }
        let adds = match self.adds(target) {
            Err(error) if error.kind() == Kind::NotLocal => return Ok(target.size),
            adds => adds?,
        };
        let below = match adds {
            Adds::Bytes(bytes) => bytes,
            Adds::Of(named) => named.map_or(Ok(0), |named| self.size_below(&named, depth - 1))?,
        };
        Ok(target.size.saturating_add(below))
    }

    /// What the document of a target adds to its own bytes.
    fn adds(&self, target: &Descriptor) -> Result<Adds> {
        let (memo, is_index) = (&self.inner().resolved, !target.is_manifest());
        if let Some(adds) = memo.adds(&target.digest, is_index) {
            return Ok(adds);
        }
        let bytes = self.document(&target.digest)?;
        let adds = if !is_index {
            let manifest = parse_manifest(&bytes)?;
            let parts = manifest.config.iter().chain(manifest.layers.iter().map(|l| &l.descriptor));
            Adds::Bytes(parts.fold(0, |sum, part| sum.saturating_add(part.size)))
        } else {
            let index = parse_index(&bytes)?;
            // As containerd sorts them: by how they suit, what says nothing of its platform last; then the first.
            let rank = |d: &Descriptor| d.platform.as_ref().map_or(Some(usize::MAX), |p| p.rank(host()));
            let ranked = index.manifests.into_iter().enumerate().filter_map(|(i, d)| Some(((rank(&d)?, i), d)));
            Adds::Of(ranked.min_by_key(|(rank, _)| *rank).map(|(_, d)| Arc::new(d)))
        };
        memo.keep_adds(&target.digest, is_index, adds.clone());
        Ok(adds)
    }

    /// The bytes of an image that are on this host: every blob that the target reaches, once.
    pub fn image_local_size(&self, target: &Descriptor) -> Result<u64> {
        let blobs = self.image_blobs(target)?;
        Ok(blobs.values().flatten().fold(0, |sum, size| sum.saturating_add(*size)))
    }

    /// Every blob that the target reaches, with its size on this host or nothing if it is not here.
    pub fn image_blobs(&self, target: &Descriptor) -> Result<BTreeMap<Digest, Option<u64>>> {
        let resolved = self.resolve(target)?;
        let mut blobs = BTreeMap::new();
        let mut note = |digest: &Digest| -> Result<()> {
            if !blobs.contains_key(digest) {
                blobs.insert(digest.clone(), self.blob(digest)?.map(|info| info.size));
            }
            Ok(())
        };
        note(&target.digest)?;
        for (index, _) in &resolved.indexes {
            note(&index.digest)?;
        }
        for manifest in &resolved.manifests {
            note(&manifest.descriptor.digest)?;
            if !manifest.local {
                continue;
            }
            // What cannot be read names nothing.
            let Ok(doc) = none_if_unreadable(self.manifest(&manifest.descriptor.digest))? else { continue };
            for part in doc.config.iter().chain(doc.layers.iter().map(|l| &l.descriptor)) {
                note(&part.digest)?;
            }
        }
        Ok(blobs)
    }

    /// As `ctr images check`: what is needed of the host's platform, what is here, and whether it is unpacked.
    pub fn image_check(&self, target: &Descriptor, snapshotter: &str) -> Result<ImageCheck> {
        let mut check = ImageCheck {
            status: "unavailable",
            required: Vec::new(),
            present: Vec::new(),
            missing: Vec::new(),
            required_size: 0,
            present_size: 0,
            unpacked: false,
        };
        let Some(manifest) = self.host_manifest(target)? else {
            check.required.push(target.clone());
            check.missing.push(target.clone());
            return Ok(check);
        };
        let doc = self.manifest(&manifest.descriptor.digest)?;
        for part in doc.config.iter().chain(doc.layers.iter().map(|l| &l.descriptor)) {
            check.required_size = check.required_size.saturating_add(part.size);
            check.required.push(part.clone());
            if self.blob(&part.digest)?.is_some() {
                check.present_size = check.present_size.saturating_add(part.size);
                check.present.push(part.clone());
            } else {
                check.missing.push(part.clone());
            }
        }
        check.status = if check.missing.is_empty() { "complete" } else { "incomplete" };
        check.unpacked = match doc.chain_id() {
            Some(chain) => self.snapshot(snapshotter, &chain.to_string())?.is_some(),
            None => false,
        };
        Ok(check)
    }

    /// As `ctr images usage`: every snapshot of the unpacked image, from the top down, and what it takes. Empty if the
    /// image is not unpacked.
    pub fn image_usage(&self, target: &Descriptor, snapshotter: &str) -> Result<Vec<(Arc<str>, Usage)>> {
        let Some(manifest) = self.host_manifest(target)? else { return Ok(Vec::new()) };
        let doc = self.manifest(&manifest.descriptor.digest)?;
        let mut key: Arc<str> = doc.chain_id().map(Digest::to_string).unwrap_or_default().into();
        let mut chain = Vec::new();
        while !key.is_empty() && chain.len() < CHAIN {
            let Some(snapshot) = self.snapshot(snapshotter, &key)? else { break };
            chain.push((key.clone(), self.snapshot_usage(snapshotter, &key)?));
            key = snapshot.parent.clone();
        }
        Ok(chain)
    }

    /// The manifest that containerd would run here, if it is here.
    fn host_manifest(&self, target: &Descriptor) -> Result<Option<Arc<ManifestRef>>> {
        let resolved = self.resolve(target)?;
        let suits =
            |m: &&Arc<ManifestRef>| !resolved.is_index || m.platform.as_ref().is_some_and(|p| p.rank(host()).is_some());
        let chosen = resolved.host.and_then(|i| resolved.manifests.get(i));
        Ok(chosen.filter(suits).filter(|m| m.local).cloned())
    }
}

/// An error that only says that this blob cannot be used is the inner one.
fn none_if_unreadable<T>(answer: Result<T>) -> Result<std::result::Result<T, ()>> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(error) if super::resolve::is_of_the_blob(error.kind()) => Ok(Err(())),
        Err(error) => Err(error),
    }
}
