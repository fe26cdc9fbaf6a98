//! `/namespaces/<namespace>/blobs/<algorithm>/<hex>`: the content store.

use super::Ns;
use crate::containerd::{BlobInfo, BlobReader, DOCUMENT_BYTES, Digest, Namespace};
use crate::error::Result;
use crate::node::row::{bytes, each};
use crate::node::{Content, Dir, Each, Member, Object, Row, Target, stable_hash};
use crate::tree::{tag, text};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// The longest read of a file that is done where it is asked for: it takes less than a change of threads.
const INLINE: usize = 256 << 10;

pub static ALGORITHMS: Dir<Ns> = Dir {
    doc: "The content that this namespace knows, by algorithm of the digest.",
    rows: &[each(
        "<algorithm>",
        "`sha256`, and others where there are any.",
        &Each { list: algorithms, find: find_algorithm, member: Member::Dir(&ALGORITHM) },
    )],
};

static ALGORITHM: Dir<Algorithm> = Dir {
    doc: "The blobs whose digests are of one algorithm.",
    rows: &[each(
        "<hex>",
        "A blob: true size, time of creation; its labels are xattrs `user.label.<key>`.",
        &Each { list: blobs, find: find_blob, member: Member::File(&BLOB) },
    )],
};

static BLOB: Row<Blob> = bytes("<hex>", "The bytes.", |blob| Ok(Some(Arc::new(File::placed(blob, false)))));

/// A blob where it is shown again: the same file as in `blobs/`, that costs nothing.
pub static AGAIN: Row<Blob> =
    bytes("<hex>", "The file of `blobs/`.", |blob| Ok(Some(Arc::new(File::placed(blob, true)))));

/// An algorithm of digests.
#[derive(Clone)]
struct Algorithm {
    ns: Ns,
    name: String,
}

/// A blob that the content store has.
#[derive(Clone)]
pub struct Blob {
    pub ns: Ns,
    pub digest: Digest,
    pub info: BlobInfo,
}

impl Object for Algorithm {
    fn component(&self) -> Cow<'_, str> {
        self.name.as_str().into()
    }
    fn tag(&self) -> Option<u64> {
        Some(tag::blobs(self.ns.name()))
    }
}

impl Object for Blob {
    fn component(&self) -> Cow<'_, str> {
        self.digest.hex().into()
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        Ok(self.info.created)
    }
    fn labels(&self) -> Result<Vec<(String, String)>> {
        let info = self.ns.namespace.blob(&self.digest)?;
        Ok(info.map(|info| text::pairs(&info.labels)).unwrap_or_default())
    }
    fn set_label(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.ns.namespace.label_blob(&self.digest, &super::verbs::one_label(key, value))
    }
}

fn algorithms(ns: &Ns) -> Result<Vec<Algorithm>> {
    let blobs = ns.namespace.blobs()?;
    // sha256 is there even while nothing is: it is where blobs will come.
    let mut names = BTreeSet::from(["sha256"]);
    names.extend(blobs.keys().map(Digest::algorithm));
    Ok(names.into_iter().map(|name| Algorithm { ns: ns.clone(), name: name.to_owned() }).collect())
}

fn find_algorithm(ns: &Ns, component: &str) -> Result<Option<Algorithm>> {
    if component == "sha256" {
        return Ok(Some(Algorithm { ns: ns.clone(), name: component.to_owned() }));
    }
    Ok(algorithms(ns)?.into_iter().find(|algorithm| algorithm.name == component))
}

fn blobs(algorithm: &Algorithm) -> Result<Vec<Blob>> {
    let blobs = algorithm.ns.namespace.blobs()?;
    let of_it = blobs.iter().filter(|(digest, _)| digest.algorithm() == algorithm.name);
    let blob = |(digest, info): (&Digest, &BlobInfo)| Blob {
        ns: algorithm.ns.clone(),
        digest: digest.clone(),
        info: info.clone(),
    };
    Ok(of_it.map(blob).collect())
}

fn find_blob(algorithm: &Algorithm, component: &str) -> Result<Option<Blob>> {
    let Some(digest) = Digest::parse(&format!("{}:{component}", algorithm.name)) else { return Ok(None) };
    find(&algorithm.ns, &digest)
}

/// The blob of this digest, if the namespace has it.
pub fn find(ns: &Ns, digest: &Digest) -> Result<Option<Blob>> {
    let info = ns.namespace.blob(digest)?;
    Ok(info.map(|info| Blob { ns: ns.clone(), digest: digest.clone(), info }))
}

/// The path of a blob, if the namespace has it.
pub fn link(ns: &Ns, digest: &Digest) -> Result<Option<Target>> {
    if ns.namespace.blob(digest)?.is_none() {
        return Ok(None);
    }
    crate::tree::link(["namespaces", ns.name(), "blobs", digest.algorithm(), &digest.hex()])
}

/// A blob's bytes as a file of the tree, if the namespace has it: what documents are.
pub fn document(ns: &Ns, digest: &Digest) -> Result<Option<Arc<dyn Content>>> {
    Ok(find(ns, digest)?.map(|blob| Arc::new(File::new(&blob)) as Arc<dyn Content>))
}

/// An open blob. It is asked for when it is first read, and stays with the handle.
struct File {
    namespace: Namespace,
    digest: Digest,
    size: u64,
    created: Option<SystemTime>,
    identity: Option<u64>,
    again: bool,
    document: OnceLock<Bytes>,
    info: BlobInfo,
    /// The store's own file, where it is visible here.
    file: OnceLock<fs::File>,
    reader: OnceLock<BlobReader>,
}

impl File {
    fn new(blob: &Blob) -> File {
        File {
            namespace: blob.ns.namespace.clone(),
            digest: blob.digest.clone(),
            size: blob.info.size,
            created: blob.info.created,
            identity: None,
            again: false,
            document: OnceLock::new(),
            info: blob.info.clone(),
            file: OnceLock::new(),
            reader: OnceLock::new(),
        }
    }

    /// The file of the blob itself, which is one file wherever it stands.
    fn placed(blob: &Blob, again: bool) -> File {
        let (namespace, digest) = (blob.ns.name(), blob.digest.to_string());
        let identity = Some(stable_hash(&[b"blob", namespace.as_bytes(), digest.as_bytes()]));
        File { identity, again, ..File::new(blob) }
    }
}

impl Content for File {
    fn size(&self) -> u64 {
        self.size
    }

    fn modified(&self) -> Option<SystemTime> {
        self.created
    }

    /// A document is read whole and verified, so a damaged one fails here. A large blob is opened in the store where
    /// that is visible, else asked for when it is read.
    fn prepare(&self) -> Result<()> {
        if self.size <= DOCUMENT_BYTES {
            return self.read(0, 0).map(drop);
        }
        if let Some(file) = self.namespace.blob_file(&self.digest, &self.info)? {
            // Prepared once, at open.
            let _ = self.file.set(file);
        }
        Ok(())
    }

    fn backing(&self) -> Option<BorrowedFd<'_>> {
        self.file.get().map(AsFd::as_fd)
    }

    fn identity(&self) -> Option<u64> {
        self.identity
    }

    fn is_again(&self) -> bool {
        self.again
    }

    fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        if self.size <= DOCUMENT_BYTES {
            let bytes = match self.document.get() {
                Some(bytes) => bytes,
                None => {
                    let bytes = self.namespace.document(&self.digest)?;
                    self.document.get_or_init(|| bytes)
                }
            };
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let end = start.saturating_add(length).min(bytes.len());
            return Ok(bytes.slice(start..end));
        }
        if let Some(file) = self.file.get() {
            return read_file(file, self.size, offset, length).map(Bytes::from);
        }
        let reader = match self.reader.get() {
            Some(reader) => reader,
            None => {
                let reader = self.namespace.blob_reader(&self.digest)?;
                self.reader.get_or_init(|| reader)
            }
        };
        reader.read_at(offset, length)
    }
}

/// The bytes of a file at `offset`, which the caller knows to have `size`.
fn read_file(file: &fs::File, size: u64, offset: u64, length: usize) -> Result<Vec<u8>> {
    if length > INLINE {
        crate::wait::deadline()?;
    }
    let rest = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(rest)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
