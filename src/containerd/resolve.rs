//! From a target to manifests: which there are, for what platform, whether they are here, and which is the host's.

use super::image::{ManifestKind, looks_like_index, parse_config, parse_index, parse_manifest};
use super::rpc::lock;
use super::{Descriptor, Digest, ManifestDoc, ManifestRef, Namespace, Platform, Resolved};
use crate::error::{Kind, Result};
use lru::LruCache;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Indexes in indexes, at most.
const DEPTH: u32 = 8;

/// Indexes that one target may reach.
const INDEXES: usize = 256;

/// Above so many manifests one list of the blobs is cheaper than a question for each.
const ASK_EACH: usize = 64;

/// How long an answer is good: bytes never change, but what is here does.
const FRESH: Duration = Duration::from_secs(1);

/// Bytes of answers of each kind that are kept: ten thousand images, or a walk over them would read each document anew.
const MEMO_BYTES: usize = 24 << 20;

/// This machine's platform.
pub(super) fn host() -> &'static Platform {
    static HOST: OnceLock<Platform> = OnceLock::new();
    HOST.get_or_init(Platform::host)
}

/// What was resolved lately, by namespace and digest.
pub(super) struct Memo {
    targets: Mutex<Answers<Resolved>>,
    manifests: Mutex<Answers<ManifestDoc>>,
    sizes: Mutex<LruCache<(Digest, bool), Adds>>,
}

/// What a document adds to the size of an image.
#[derive(Clone)]
pub(super) enum Adds {
    /// A manifest: config and layers.
    Bytes(u64),
    /// An index: what it names for this host.
    Of(Option<Arc<Descriptor>>),
}

/// Documents of which it is kept what they add.
const SIZES: usize = 1 << 16;

impl Default for Memo {
    fn default() -> Self {
        Memo { targets: Mutex::default(), manifests: Mutex::default(), sizes: Mutex::new(LruCache::unbounded()) }
    }
}

impl Memo {
    /// What a document adds: kept for ever, as bytes never change. `is_index` is how it is read.
    pub fn adds(&self, digest: &Digest, is_index: bool) -> Option<Adds> {
        lock(&self.sizes).get(&(digest.clone(), is_index)).cloned()
    }

    pub fn keep_adds(&self, digest: &Digest, is_index: bool, adds: Adds) {
        let mut sizes = lock(&self.sizes);
        sizes.put((digest.clone(), is_index), adds);
        if sizes.len() > SIZES {
            sizes.pop_lru();
        }
    }
}

/// A namespace and a digest: what is here differs by namespace.
type Key = (Arc<str>, Digest);

struct Answers<T> {
    lru: LruCache<Key, Answer<T>>,
    bytes: usize,
}

/// An answer, and of what it was true: when it was asked for, and with which blobs here if that was known.
struct Answer<T> {
    at: Instant,
    blobs: Option<u64>,
    answer: Arc<T>,
    bytes: usize,
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Answers { lru: LruCache::unbounded(), bytes: 0 }
    }
}

impl<T> Answers<T> {
    /// The answer, if the same blobs are here as then, or else if it is new.
    fn get(&mut self, key: &Key, blobs: Option<u64>) -> Option<Arc<T>> {
        let kept = self.lru.get(key)?;
        let good = match (kept.blobs, blobs) {
            (Some(then), Some(now)) => then == now,
            _ => kept.at.elapsed() < FRESH,
        };
        good.then(|| kept.answer.clone())
    }

    fn put(&mut self, key: Key, answer: Answer<T>) {
        self.bytes += answer.bytes;
        if let Some(old) = self.lru.put(key, answer) {
            self.bytes -= old.bytes;
        }
        while self.bytes > MEMO_BYTES {
            let Some((_, old)) = self.lru.pop_lru() else { break };
            self.bytes -= old.bytes;
        }
    }
}

impl Namespace {
    /// What a target descriptor names: its manifests with platform and presence, and which is the host's.
    pub fn resolve(&self, target: &Descriptor) -> Result<Arc<Resolved>> {
        let key = (self.name().clone(), target.digest.clone());
        let memo = &self.inner().resolved.targets;
        let (at, known) = (Instant::now(), self.blobs_version());
        if let Some(resolved) = lock(memo).get(&key, known) {
            return Ok(resolved);
        }
        let mut walk = Walk { namespace: self, seen: HashSet::new(), resolved: Resolved::default() };
        walk.target(target)?;
        let mut resolved = walk.resolved;
        self.complete(&mut resolved)?;
        resolved.host = choose(&resolved.manifests);
        // For what lives as long as nothing changes: where that is not known it is not worth a question for each layer.
        resolved.whole = known.is_some() && self.is_whole(&resolved)?;
        let resolved = Arc::new(resolved);
        let bytes = 512 + 400 * (resolved.manifests.len() + resolved.indexes.len());
        lock(memo).put(key, Answer { at, blobs: known, answer: resolved.clone(), bytes });
        Ok(resolved)
    }

    /// A manifest with its config's facts (layers, diff ids, chain ids, history); `NotLocal` if the blob is not here.
    pub fn manifest(&self, digest: &Digest) -> Result<Arc<ManifestDoc>> {
        let key = (self.name().clone(), digest.clone());
        let memo = &self.inner().resolved.manifests;
        if let Some(manifest) = lock(memo).get(&key, self.blobs_version()) {
            return Ok(manifest);
        }
        self.manifest_now(digest)
    }

    /// The same with a config that may have come a moment ago.
    pub fn manifest_now(&self, digest: &Digest) -> Result<Arc<ManifestDoc>> {
        let key = (self.name().clone(), digest.clone());
        let memo = &self.inner().resolved.manifests;
        let (at, known) = (Instant::now(), self.blobs_version());
        let bytes = self.document(digest)?;
        let manifest = parse_manifest(&bytes).map_err(|e| e.context(format!("manifest {digest}")))?;
        let manifest = Arc::new(self.with_config(manifest)?);
        let bytes = 1024 + 2 * bytes.len();
        lock(memo).put(key, Answer { at, blobs: known, answer: manifest.clone(), bytes });
        Ok(manifest)
    }

    /// Adds what the config tells, if it is here. A config that cannot be read leaves the manifest as it was.
    fn with_config(&self, manifest: ManifestDoc) -> Result<ManifestDoc> {
        let config = manifest.config.as_ref().filter(|_| manifest.kind == ManifestKind::Image);
        let Some(digest) = config.map(|c| c.digest.clone()) else { return Ok(manifest) };
        match self.document(&digest).and_then(|bytes| parse_config(&bytes)) {
            Ok(image) => Ok(manifest.with_config(image)),
            Err(error) if is_of_the_blob(error.kind()) => Ok(manifest),
            Err(error) => Err(error),
        }
    }

    /// Whether every layer of the host's manifest is here.
    fn is_whole(&self, resolved: &Resolved) -> Result<bool> {
        let Some(host) = resolved.host.and_then(|host| resolved.manifests.get(host)) else { return Ok(false) };
        let doc = match self.manifest(&host.descriptor.digest) {
            Err(error) if is_of_the_blob(error.kind()) => return Ok(false),
            doc => doc?,
        };
        for layer in doc.layers.iter() {
            if self.blob(&layer.descriptor.digest)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds out for each manifest whether it is here, and what it is for if its descriptor does not say.
    fn complete(&self, resolved: &mut Resolved) -> Result<()> {
        let all = if resolved.manifests.len() > ASK_EACH { Some(self.blobs()?) } else { None };
        for manifest in &mut resolved.manifests {
            let manifest = Arc::make_mut(manifest);
            let digest = &manifest.descriptor.digest;
            manifest.local = match &all {
                Some(all) => all.contains_key(digest),
                None => self.blob(digest)?.is_some(),
            };
            if manifest.descriptor.is_attestation() {
                manifest.kind = ManifestKind::Attestation;
            } else if manifest.local {
                match self.manifest(digest) {
                    Ok(doc) => {
                        manifest.kind = doc.kind;
                        let from_config = || doc.image.as_ref().map(|i| i.platform.clone()).filter(|p| !p.is_empty());
                        manifest.platform = manifest.platform.take().or_else(from_config);
                    }
                    Err(error) if is_of_the_blob(error.kind()) => {}
                    Err(error) => return Err(error),
                }
            } else if manifest.platform.is_some() {
                manifest.kind = ManifestKind::Image;
            }
        }
        Ok(())
    }
}

/// Whether an error is about the one blob that was asked for: then the rest can still be shown.
pub(super) fn is_of_the_blob(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::NotLocal
            | Kind::NotFound
            | Kind::Digest
            | Kind::Corrupt
            | Kind::Unsupported
            | Kind::TooLong
            | Kind::Io
            | Kind::Invalid
    )
}

/// The walk through the indexes of a target.
struct Walk<'a> {
    namespace: &'a Namespace,
    seen: HashSet<Digest>,
    resolved: Resolved,
}

impl Walk<'_> {
    fn target(&mut self, target: &Descriptor) -> Result<()> {
        if target.is_index() {
            self.resolved.is_index = true;
            return self.index(target, DEPTH, true);
        }
        if !target.is_manifest() {
            // Of a type that we do not know, only the document tells.
            match self.namespace.document(&target.digest) {
                Ok(bytes) if looks_like_index(&bytes) => {
                    self.resolved.is_index = true;
                    return self.index(target, DEPTH, true);
                }
                Err(error) if !is_of_the_blob(error.kind()) => return Err(error),
                _ => {}
            }
        }
        self.manifest(target);
        Ok(())
    }

    fn index(&mut self, index: &Descriptor, depth: u32, is_target: bool) -> Result<()> {
        if depth == 0 || self.resolved.indexes.len() >= INDEXES || !self.seen.insert(index.digest.clone()) {
            return Ok(());
        }
        let document = self.namespace.document(&index.digest).and_then(|bytes| parse_index(&bytes));
        let local = !matches!(&document, Err(e) if e.kind() == Kind::NotLocal);
        self.resolved.indexes.push((index.clone(), local));
        let document = match document {
            Ok(document) => document,
            Err(error) if error.kind() == Kind::NotLocal => return Ok(()),
            Err(error) if !is_target && is_of_the_blob(error.kind()) => return Ok(()),
            Err(error) => return Err(error.context(format!("index {}", index.digest))),
        };
        for descriptor in &document.manifests {
            match descriptor.is_index() {
                true => self.index(descriptor, depth - 1, false)?,
                false => self.manifest(descriptor),
            }
        }
        Ok(())
    }

    fn manifest(&mut self, descriptor: &Descriptor) {
        let full = self.resolved.manifests.len() >= super::image::MANIFESTS;
        if full || !self.seen.insert(descriptor.digest.clone()) {
            return;
        }
        self.resolved.manifests.push(Arc::new(ManifestRef {
            platform: descriptor.platform.clone(),
            descriptor: descriptor.clone(),
            local: false,
            kind: ManifestKind::Unknown,
        }));
    }
}

/// The manifest that stands for the image: the host's platform, else the only one, else the first that is here.
fn choose(manifests: &[Arc<ManifestRef>]) -> Option<usize> {
    if let [_] = manifests {
        return Some(0);
    }
    let images = || manifests.iter().enumerate().filter(|(_, m)| m.kind == ManifestKind::Image);
    let rank = |m: &ManifestRef| m.platform.as_ref().and_then(|p| p.rank(host()));
    let best = images().filter_map(|(i, m)| Some((rank(m)?, !m.local, i))).min();
    if let Some((_, _, i)) = best {
        return Some(i);
    }
    let (mut images_left, here) = (images(), |(_, m): &(usize, &Arc<ManifestRef>)| m.local);
    if let (Some((i, _)), None) = (images_left.next(), images_left.next()) {
        return Some(i);
    }
    let first = images().find(here);
    first
        .or_else(|| manifests.iter().enumerate().find(|(_, m)| m.local && m.kind != ManifestKind::Attestation))
        .map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(platform: &str, local: bool, kind: ManifestKind) -> Arc<ManifestRef> {
        let platform = platform.split_once('/').map(|(os, architecture)| {
            Arc::new(Platform { os: os.into(), architecture: architecture.into(), ..Platform::default() })
        });
        let descriptor = Descriptor {
            media_type: "".into(),
            digest: Digest::of(b""),
            size: 0,
            annotations: Default::default(),
            platform: platform.clone(),
            artifact_type: None,
        };
        Arc::new(ManifestRef { descriptor, platform, local, kind })
    }

    #[test]
    fn the_hosts_manifest_comes_before_the_only_one_before_the_first_that_is_here() {
        use ManifestKind::*;
        let host = host().name();
        let odd = || manifest("linux/odd", true, Image);
        assert_eq!(choose(&[odd(), manifest(&host, false, Image), manifest(&host, true, Image)]), Some(2));
        assert_eq!(choose(&[odd(), manifest(&host, true, Attestation)]), Some(0));
        assert_eq!(choose(&[manifest("linux/odd", false, Image), odd(), odd()]), Some(1));
        assert_eq!(choose(&[manifest("", true, Attestation), manifest("", true, Artifact)]), Some(1));
        assert_eq!(choose(&[manifest("", false, Artifact)]), Some(0));
        assert_eq!(choose(&[]), None);
    }
}
