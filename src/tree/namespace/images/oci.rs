//! `/namespaces/<namespace>/images/<reference>/oci/`, and `oci.tar` of images and manifests: what is here of an image, as
//! a layout that other tools read in place, and as the archive that `ctr images export` writes of it.

use super::image::Image;
use crate::containerd::{Digest, ManifestRef};
use crate::error::Result;
use crate::node::row::{dir, each, text};
use crate::node::{Content, Dir, Each, Lifetime, Member, Object, stable_hash};
use crate::run::archive::{self, Archive};
use crate::run::layout::{self, Layout};
use crate::run::reference;
use crate::tree::namespace::{Ns, blobs, links};
use crate::tree::text::usable;
use bytes::Bytes;
use lru::LruCache;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub static OCI: Dir<Image> = Dir {
    doc: "What is here of it, as an OCI image layout: `skopeo` and `umoci` read it in place, by the path without a colon.",
    rows: &[
        text("oci-layout", "Says that this is one.", |_| Ok(Some(layout::OCI_LAYOUT.to_vec()))),
        text("index.json", "Names the target, where all of it is here, else each manifest that is.", |image| {
            Ok(image.layout()?.map(|layout| layout.index.clone()))
        }),
        text("manifest.json", "The same for `docker load`: config, tags, layers.", |image| {
            Ok(image.layout()?.and_then(|layout| layout.docker.clone()))
        }),
        dir("blobs", &BLOBS),
    ],
};

static BLOBS: Dir<Image> = Dir {
    doc: "The blobs of the layout, by algorithm of the digest.",
    rows: &[each(
        "<algorithm>",
        "`sha256`, mostly.",
        &Each { list: algorithms, find: find_algorithm, member: Member::Dir(&ALGORITHM) },
    )],
};

static ALGORITHM: Dir<Algorithm> = Dir {
    doc: "The blobs of the layout whose digests are of one algorithm.",
    rows: &[each(
        "<hex>",
        "A blob: the bytes of `blobs/`.",
        &Each { list: blobs, find: find_blob, member: Member::File(&blobs::AGAIN) },
    )],
};

/// An algorithm of digests, of the blobs of an image.
#[derive(Clone)]
struct Algorithm {
    image: Image,
    name: String,
}

impl Object for Algorithm {
    fn component(&self) -> Cow<'_, str> {
        self.name.as_str().into()
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        self.image.modified()
    }
    fn tag(&self) -> Option<u64> {
        self.image.tag()
    }
    fn group(&self) -> Option<u64> {
        self.image.group()
    }
    /// It is there, and in it is, what the image can be used for.
    fn lifetime(&self) -> Lifetime {
        self.image.contents()
    }
    fn contents(&self) -> Lifetime {
        self.image.contents()
    }
}

fn algorithms(image: &Image) -> Result<Vec<Algorithm>> {
    let Some(layout) = image.layout()? else { return Ok(Vec::new()) };
    let names: BTreeSet<&str> = layout.blobs.keys().map(Digest::algorithm).collect();
    Ok(names.into_iter().map(|name| Algorithm { image: image.clone(), name: name.to_owned() }).collect())
}

fn find_algorithm(image: &Image, component: &str) -> Result<Option<Algorithm>> {
    Ok(algorithms(image)?.into_iter().find(|algorithm| algorithm.name == component))
}

fn blobs(algorithm: &Algorithm) -> Result<Vec<blobs::Blob>> {
    let Some(layout) = algorithm.image.layout()? else { return Ok(Vec::new()) };
    let of_it = layout.blobs.keys().filter(|digest| digest.algorithm() == algorithm.name);
    of_it.filter_map(|digest| blobs::find(&algorithm.image.ns, digest).transpose()).collect()
}

fn find_blob(algorithm: &Algorithm, component: &str) -> Result<Option<blobs::Blob>> {
    let Some(digest) = Digest::parse(&format!("{}:{component}", algorithm.name)) else { return Ok(None) };
    match algorithm.image.layout()? {
        Some(layout) if layout.blobs.contains_key(&digest) => blobs::find(&algorithm.image.ns, &digest),
        _ => Ok(None),
    }
}

impl Image {
    /// What is here of it, as a layout; none if nothing of it can be used.
    pub(super) fn layout(&self) -> Result<Option<Arc<Layout>>> {
        let record = self.record()?;
        let key = (Arc::clone(self.ns.namespace.name()), Some(Arc::clone(&self.name)), record.target.digest.clone());
        kept(&self.ns, key, || layout::of_image(&self.ns.namespace, &self.name, &record.target))
    }
}

/// `oci.tar` of an image.
pub fn tar(image: &Image) -> Result<Option<Arc<dyn Content>>> {
    Ok(image.layout()?.map(|layout| Tar::open(&image.ns, "image", layout)))
}

/// `oci.tar` of one manifest, named as an image that names it: one that has a tag, if there is one.
pub fn tar_of_manifest(ns: &Ns, manifest: &Arc<ManifestRef>) -> Result<Option<Arc<dyn Content>>> {
    let digest = &manifest.descriptor.digest;
    let naming = links::naming(ns)?;
    let names = naming.get(digest).map(Vec::as_slice).unwrap_or_default();
    let tagged = |name: &&Arc<str>| !name.starts_with("sha256:") && reference::familiar(name).is_some();
    let name = names.iter().find(tagged).or_else(|| names.first()).cloned();
    let key = (Arc::clone(ns.namespace.name()), name.clone(), digest.clone());
    let layout = kept(ns, key, || {
        // Images may say different things of one manifest: what is shown depends on the name alone.
        let record = name.as_deref().map(|name| ns.namespace.image(name)).transpose()?.flatten();
        let resolved = record.map(|record| usable(ns.namespace.resolve(&record.target))).transpose()?.flatten();
        let same = |named: &&Arc<ManifestRef>| named.descriptor.digest == *digest;
        let named = resolved.as_ref().and_then(|resolved| resolved.manifests.iter().find(same));
        layout::of_manifest(&ns.namespace, name.as_deref(), named.unwrap_or(manifest))
    });
    Ok(layout?.map(|layout| Tar::open(ns, "manifest", layout)))
}

/// A namespace, the name of an image, and a digest.
type Key = (Arc<str>, Option<Arc<str>>, Digest);

/// Layouts that were made lately: listing one asks for it many times.
#[derive(Default)]
pub struct Layouts(Mutex<Vec<Made>>);

/// What was made, when, of what: nothing, where nothing is here.
type Made = (Key, Instant, Option<Arc<Layout>>);

/// How long a layout is good: blobs come and go, and nobody tells.
const FRESH: Duration = Duration::from_secs(1);

/// Layouts, and blobs in them, that are kept.
const KEPT: usize = 64;
const KEPT_BLOBS: usize = 200_000;

fn kept(ns: &Ns, key: Key, make: impl FnOnce() -> Result<Option<Layout>>) -> Result<Option<Arc<Layout>>> {
    let layouts = &ns.shared.layouts.0;
    let lock = || layouts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, layout)) = lock().iter().find(|(other, at, _)| *other == key && at.elapsed() < FRESH) {
        return Ok(layout.clone());
    }
    let at = Instant::now();
    let layout = usable(make())?.flatten().map(Arc::new);
    let mut all = lock();
    all.retain(|(other, at, _)| *other != key && at.elapsed() < FRESH);
    all.push((key, at, layout.clone()));
    let weight = |all: &[(Key, Instant, Option<Arc<Layout>>)]| -> usize {
        all.iter().flat_map(|(_, _, layout)| layout).map(|layout| layout.blobs.len()).sum()
    };
    while all.len() > KEPT || (all.len() > 1 && weight(&all) > KEPT_BLOBS) {
        all.remove(0);
    }
    Ok(layout)
}

/// An open archive. What it holds was settled when it was opened.
struct Tar {
    ns: Ns,
    layout: Arc<Layout>,
    identity: u64,
    open: Mutex<LruCache<Digest, Arc<dyn Content>>>,
}

/// Blobs of an archive that are open at once: a reader in order needs one.
const OPEN: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

impl Tar {
    /// An archive that changes becomes another file: what the kernel keeps of this one stays true.
    fn open(ns: &Ns, what: &str, layout: Arc<Layout>) -> Arc<dyn Content> {
        let fingerprint = layout.fingerprint.to_string();
        let identity = stable_hash(&[b"oci.tar", what.as_bytes(), ns.name().as_bytes(), fingerprint.as_bytes()]);
        Arc::new(Tar { ns: ns.clone(), layout, identity, open: Mutex::new(LruCache::new(OPEN)) })
    }

    fn archive(&self) -> &Archive {
        &self.layout.archive
    }

    fn blob(&self, digest: &Digest) -> Result<Arc<dyn Content>> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(blob) = lock().get(digest) {
            return Ok(Arc::clone(blob));
        }
        let Some(blob) = blobs::document(&self.ns, digest)? else {
            return crate::fail!(NotLocal, "blob {digest}: it was removed since the archive was opened");
        };
        blob.prepare()?;
        lock().put(digest.clone(), Arc::clone(&blob));
        Ok(blob)
    }
}

impl Content for Tar {
    fn size(&self) -> u64 {
        self.archive().size()
    }

    fn identity(&self) -> Option<u64> {
        Some(self.identity)
    }

    fn is_again(&self) -> bool {
        true
    }

    fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.archive().read_at(self, offset, length).map(Bytes::from)
    }
}

impl archive::Blobs for Tar {
    fn read_at(&self, digest: &Digest, offset: u64, buf: &mut [u8]) -> Result<()> {
        let blob = self.blob(digest)?;
        let bytes = blob.read(offset, buf.len())?;
        if bytes.len() != buf.len() {
            return crate::fail!(Io, "blob {digest}: {} bytes at {offset} instead of {}", bytes.len(), buf.len());
        }
        buf.copy_from_slice(&bytes);
        Ok(())
    }
}
