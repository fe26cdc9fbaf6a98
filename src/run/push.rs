//! `images push`: an image into a registry. What the registry has is not sent again.

use super::fetch::children;
use super::held::SOURCE;
use super::image::known;
use super::platforms;
use super::progress::Progress;
use super::registry::{Registry, RegistryArgs};
use super::{image, parallel};
use crate::containerd::{Descriptor, Digest, Labels, Namespace};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use bytes::Bytes;
use futures_util::StreamExt as _;
use oci_client::errors::OciDistributionError;
use std::collections::HashSet;

/// So many blobs at once.
const PARALLEL: usize = 3;

/// Indexes in indexes, and blobs, at most.
const DEPTH: u32 = 8;
const BLOBS: usize = 100_000;

/// `images push`
#[derive(Debug, clap::Parser)]
#[command(name = "images push", no_binary_name = true)]
pub struct PushArgs {
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Push this manifest and not the image
    #[arg(long, value_name = "DIGEST")]
    pub manifest: Option<String>,
    /// What the manifest is
    #[arg(long, value_name = "TYPE", default_value = "application/vnd.oci.image.manifest.v1+json")]
    pub manifest_type: String,
    /// Of an index only the manifest for this platform
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// So many blobs at once (3)
    #[arg(long, value_name = "N")]
    pub max_concurrent_uploaded_layers: Option<usize>,
    /// Also blobs that are not to be distributed
    #[arg(long)]
    pub allow_non_distributable_blobs: bool,
    #[arg(long, hide = true)]
    local: bool,
    /// Where to, and the image if that has another name
    pub names: Vec<String>,
}

/// What is pushed.
#[derive(Default)]
struct Parts {
    /// Documents, each behind all that it names.
    documents: Vec<(Descriptor, Bytes)>,
    blobs: Vec<Descriptor>,
    seen: HashSet<Digest>,
}

/// Pushes the image `local` as `remote`.
pub fn push(ns: &Namespace, remote: &str, local: &str, args: &PushArgs, progress: &Progress) -> Result<()> {
    let registry = Registry::new(ns.client(), remote, &args.registry)?;
    let target = target(ns, local, args)?;
    let mut parts = Parts::default();
    parts.gather(ns, &target, args.allow_non_distributable_blobs, DEPTH)?;
    progress.expect(parts.blobs.iter().map(|blob| blob.size).sum());
    let threads = args.max_concurrent_uploaded_layers.filter(|n| *n > 0).unwrap_or(PARALLEL).min(64);
    parallel::each(parts.blobs, threads, |blob| send(ns, &registry, blob, progress))?;
    for (document, bytes) in &parts.documents {
        wait::check()?;
        progress.say(format!("pushing {}", document.digest));
        registry.push_manifest(document, bytes, document.digest == target.digest)?;
    }
    progress.say(format!("pushed {}", target.digest));
    Ok(())
}

fn target(ns: &Namespace, local: &str, args: &PushArgs) -> Result<Descriptor> {
    if let Some(digest) = &args.manifest {
        let Some(digest) = Digest::parse(digest) else { return fail!(Invalid, "--manifest {digest}: no digest") };
        let Some(info) = ns.blob(&digest)? else { return fail!(NotFound, "there is no blob {digest}") };
        let (annotations, platform, artifact_type) = (Labels::default(), None, None);
        let media_type = args.manifest_type.as_str().into();
        return Ok(Descriptor { media_type, digest, size: info.size, annotations, platform, artifact_type });
    }
    let target = known(ns, local)?.target.clone();
    match &args.platform[..] {
        [] => Ok(target),
        [platform] => {
            let wanted = platforms::Wanted::Exactly(vec![platforms::parse(platform)?]);
            let found = image::manifests(ns, &target, &wanted)?.into_iter().next();
            found.ok_or_else(|| Error::new(Kind::NotFound, format!("image {local}: nothing in it is for {platform}")))
        }
        _ => fail!(Unsupported, "--platform is for one platform; without it everything is pushed"),
    }
}

impl Parts {
    fn gather(&mut self, ns: &Namespace, at: &Descriptor, foreign: bool, depth: u32) -> Result<()> {
        wait::check()?;
        if depth == 0 || self.seen.len() > BLOBS {
            return fail!(TooLong, "{}: more than {BLOBS} blobs, or indexes in {DEPTH} indexes", at.digest);
        }
        let bytes = ns.document(&at.digest).map_err(|e| match e.kind() {
            Kind::NotLocal => e.context("not everything is here; --platform pushes one platform"),
            _ => e,
        })?;
        for child in children(at, &bytes)? {
            if !self.seen.insert(child.digest.clone()) {
                continue;
            }
            let is_foreign = child.media_type.contains("foreign") || child.media_type.contains("nondistributable");
            match child.is_index() || child.is_manifest() {
                true => self.gather(ns, &child, foreign, depth - 1)?,
                false if is_foreign && !foreign => {}
                false => self.blobs.push(child),
            }
        }
        self.documents.push((at.clone(), bytes));
        Ok(())
    }
}

/// One blob, unless the registry has it or can take it from beside.
fn send(ns: &Namespace, registry: &Registry, blob: &Descriptor, progress: &Progress) -> Result<()> {
    progress.say(format!("pushing {}", blob.digest));
    if registry.has_blob(&blob.digest)? {
        progress.add(blob.size);
        return Ok(());
    }
    let Some(info) = ns.blob(&blob.digest)? else {
        return fail!(NotLocal, "blob {} is neither here nor in the registry", blob.digest);
    };
    let locator = registry.locator();
    let beside = info.labels.get(&format!("{SOURCE}{}", locator.hostname())).unwrap_or_default();
    let beside = beside.split(',').find(|repository| !repository.is_empty() && *repository != locator.repository);
    if let Some(repository) = beside
        && registry.mount_blob(&blob.digest, repository).is_ok()
    {
        progress.add(blob.size);
        return Ok(());
    }
    let counted = progress.clone();
    let stream = ns.blob_stream(&blob.digest, info.size).map(move |piece| {
        let piece = piece.map_err(|e| OciDistributionError::IoError(std::io::Error::other(e)))?;
        counted.add(piece.len() as u64);
        Ok(piece)
    });
    registry.push_blob(&blob.digest, info.size, stream)
}
