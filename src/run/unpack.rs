//! Unpacking an image: each layer becomes a committed snapshot whose name says what it holds.

use super::progress::Progress;
use crate::containerd::{Digest, LayerRef, ManifestDoc, Namespace};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long taking back a half-unpacked layer may take.
const CLEAN: Duration = Duration::from_secs(10);

/// The label that names the snapshot to be; a remote snapshotter then need not unpack anything.
const TARGET: &str = "containerd.io/snapshot.ref";

/// Labels with this prefix are told to the snapshotter, as annotations of layers are.
const INHERITED: &str = "containerd.io/snapshot/";

/// The snapshot that a container of this manifest stands on; `NotFound` where there is none to be: an artifact.
pub fn chain(manifest: &ManifestDoc, digest: &Digest) -> Result<Digest> {
    let fits = manifest.image.as_ref().is_some_and(|image| image.diff_ids.len() == manifest.layers.len());
    match manifest.chain_id() {
        Some(chain) if fits => Ok(chain.clone()),
        _ if manifest.image.is_none() => {
            fail!(NotLocal, "manifest {digest}: its config is not on this host, or it is no container image")
        }
        _ => fail!(Corrupt, "manifest {digest}: its config and its layers do not agree"),
    }
}

/// Whether a snapshot holds all of the manifest already.
pub fn is_unpacked(ns: &Namespace, snapshotter: &str, chain: &Digest) -> Result<bool> {
    Ok(ns.snapshot(snapshotter, &chain.to_string())?.is_some())
}

/// The snapshotter that a command uses: the one that it names, else the namespace's, else overlayfs.
pub fn snapshotter(ns: &Namespace, named: Option<&str>) -> Result<String> {
    if let Some(named) = named.filter(|name| !name.is_empty()) {
        return Ok(named.to_owned());
    }
    let labels = ns.labels()?;
    Ok(labels.get("containerd.io/defaults/snapshotter").unwrap_or("overlayfs").to_owned())
}

/// Unpacks what is not unpacked yet; the name of the snapshot that holds all of it. `held` is a handle with a lease.
pub fn unpack(held: &Namespace, digest: &Digest, snapshotter: &str, progress: &Progress) -> Result<Digest> {
    unpack_when(held, digest, snapshotter, progress, &|_| Ok(()))
}

/// The same while the layers still come in: each is asked for with `ready`, which returns when it is here.
pub fn unpack_when(
    held: &Namespace,
    digest: &Digest,
    snapshotter: &str,
    progress: &Progress,
    ready: &dyn Fn(&Digest) -> Result<()>,
) -> Result<Digest> {
    let manifest = held.manifest_now(digest)?;
    let chain = chain(&manifest, digest)?;
    if !is_unpacked(held, snapshotter, &chain)? {
        let mut parent = String::new();
        progress.expect(manifest.layers.iter().map(|layer| layer.descriptor.size).sum());
        for layer in manifest.layers.iter() {
            wait::check()?;
            ready(&layer.descriptor.digest)?;
            progress.say(format!("unpacking {}", layer.descriptor.digest));
            parent = one(held, layer, &parent, snapshotter)?;
            progress.add(layer.descriptor.size);
        }
    }
    // The config holds the snapshot: what refers to the image refers to it.
    if let Some(config) = &manifest.config {
        let label = format!("containerd.io/gc.ref.snapshot.{snapshotter}");
        held.label_blob(&config.digest, &BTreeMap::from([(label, chain.to_string())]))?;
    }
    Ok(chain)
}

/// One layer on top of `parent`; the name of its snapshot.
fn one(held: &Namespace, layer: &LayerRef, parent: &str, snapshotter: &str) -> Result<String> {
    let (Some(chain), Some(diff_id)) = (&layer.chain_id, &layer.diff_id) else {
        return fail!(Corrupt, "layer {}: the config does not tell its diff id", layer.descriptor.digest);
    };
    let name = chain.to_string();
    if held.snapshot(snapshotter, &name)?.is_some() {
        return Ok(name);
    }
    let mut labels: BTreeMap<String, String> = layer
        .descriptor
        .annotations
        .iter()
        .filter(|(key, _)| key.starts_with(INHERITED))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    labels.insert(TARGET.into(), name.clone());
    let key = extract_key(&name);
    let mounts = match held.prepare_snapshot(snapshotter, &key, parent, &labels) {
        Ok(mounts) => mounts,
        // The snapshotter has it without our doing, or somebody was faster.
        Err(error) if error.kind() == Kind::Exists => return Ok(name),
        Err(error) => return Err(error),
    };
    let unpacked = fill(held, layer, diff_id, &mounts)
        .and_then(|()| held.commit_snapshot(snapshotter, &key, &name, &labels))
        .or_else(|error| {
            clean(held, snapshotter, &key);
            if error.kind() == Kind::Exists { Ok(()) } else { Err(error) }
        });
    unpacked.map(|()| name)
}

fn fill(held: &Namespace, layer: &LayerRef, diff_id: &Digest, mounts: &[crate::containerd::Mount]) -> Result<()> {
    let unpacked = held.apply_diff(&layer.descriptor, mounts)?;
    if unpacked != *diff_id {
        let digest = &layer.descriptor.digest;
        return fail!(Digest, "layer {digest}: unpacked it is {unpacked}, and the config says {diff_id}");
    }
    let label = BTreeMap::from([("containerd.io/uncompressed".to_owned(), diff_id.to_string())]);
    held.label_blob(&layer.descriptor.digest, &label)
}

/// Takes back what was begun, also after the command was cancelled. What stays, the lease's end collects.
fn clean(held: &Namespace, snapshotter: &str, key: &str) {
    let removed: Result<()> = wait::until(Instant::now() + CLEAN, || held.remove_snapshot(snapshotter, key));
    if let Err(error) = removed.or_else(|e: Error| if e.kind() == Kind::NotFound { Ok(()) } else { Err(e) }) {
        tracing::warn!(key, %error, "a half-unpacked layer stays until the garbage collection");
    }
}

/// A key as `ctr` makes it: it tells what is being unpacked, and two at once do not meet.
fn extract_key(chain: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let unique = format!("{}{:04}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed) % 10_000);
    format!("extract-{nanos}-{unique} {chain}")
}
