//! Content: whole documents, verified, and the bytes of blobs, in one cache that is bounded in bytes.

use super::content_read::{self, Piece};
use super::direct::INLINE_BYTES;
use super::fetch::not_local;
use super::rpc::{Call, lock, request};
use super::{BlobInfo, Digest, Namespace, status};
use crate::error::{Error, Kind, Result};
use crate::fail;
use bytes::Bytes;
use containerd_client::services::v1 as api;
use lru::LruCache;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::{Status, Streaming};

/// The longest document that is read whole.
pub const DOCUMENT_BYTES: u64 = 8 << 20;

/// What the cache holds of a blob at a time, and what one message of containerd holds at most.
pub(super) const BLOCK_BYTES: u64 = 1 << 20;

/// A part of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// All of it, verified.
    Document(Digest),
    /// One block of it, as it was read.
    Block(Digest, u64),
}

/// The bytes read lately. What they are never changes, so nothing is ever wrong here; whether a namespace has them
/// is asked elsewhere.
pub(super) struct Cache {
    parts: Mutex<Held>,
    bound_bytes: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The parts, and their weight in bytes.
type Held = (LruCache<Part, Bytes>, u64);

impl Cache {
    pub fn new(bound_bytes: u64) -> Cache {
        let parts = Mutex::new((LruCache::unbounded(), 0));
        Cache { parts, bound_bytes, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    pub fn get(&self, part: &Part) -> Option<Bytes> {
        let found = lock(&self.parts).0.get(part).cloned();
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub fn put(&self, part: Part, bytes: Bytes) {
        let weight = |bytes: &Bytes| bytes.len() as u64 + 128;
        // What would push out everything else is not worth it.
        if weight(&bytes) > self.bound_bytes {
            return;
        }
        let mut parts = lock(&self.parts);
        parts.1 += weight(&bytes);
        if let Some(old) = parts.0.put(part, bytes) {
            parts.1 -= weight(&old);
        }
        while parts.1 > self.bound_bytes {
            let Some((_, old)) = parts.0.pop_lru() else { break };
            parts.1 -= weight(&old);
        }
    }

    /// Bytes held, hits, misses.
    pub fn figures(&self) -> (u64, u64, u64) {
        let bytes = lock(&self.parts).1;
        (bytes, self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

impl Namespace {
    /// A whole document of at most 8 MiB, verified against its digest. `NotLocal` if the blob is not here.
    pub fn document(&self, digest: &Digest) -> Result<Bytes> {
        let Some(info) = self.blob(digest)? else { return Err(not_local(digest)) };
        if info.size > DOCUMENT_BYTES {
            return fail!(TooLong, "blob {digest} is no document: it has {} bytes, more than 8 MiB", info.size);
        }
        let inner = self.inner();
        let part = Part::Document(digest.clone());
        if let Some(bytes) = inner.cache.get(&part) {
            return Ok(bytes);
        }
        if info.size <= INLINE_BYTES
            && let Some(bytes) = self.document_file(digest, &info)?
        {
            let bytes: Bytes = verified(digest, bytes)?.into();
            inner.cache.put(part, bytes.clone());
            return Ok(bytes);
        }
        let flight = (self.name().clone(), digest.clone());
        let ready = || inner.cache.get(&part);
        inner.documents.run(&flight, ready, || {
            let bytes: Bytes = self.read_document(digest, &info)?.into();
            inner.cache.put(part.clone(), bytes.clone());
            Ok(bytes)
        })
    }

    fn read_document(&self, digest: &Digest, info: &BlobInfo) -> Result<Vec<u8>> {
        let bytes = match self.document_file(digest, info)? {
            Some(bytes) => bytes,
            None => self.read_range(digest, info.size, 0, info.size)?,
        };
        verified(digest, bytes)
    }

    /// `len` bytes at `offset` of a blob of `size` bytes, or an error: never fewer.
    pub(super) fn read_range(&self, digest: &Digest, size: u64, offset: u64, len: u64) -> Result<Vec<u8>> {
        let len = len.min(size.saturating_sub(offset));
        // To containerd a length of 0 means everything.
        if len == 0 {
            return Ok(Vec::new());
        }
        let object = format!("blob {digest}");
        let call = self.call("Content.Read", &object);
        let rpc = &self.inner().rpc;
        let collect = |all: &mut Vec<u8>, answer: Piece| {
            if (all.len() as u64) < len {
                all.extend_from_slice(&answer.data);
            }
        };
        let query = api::ReadContentRequest {
            digest: digest.to_string(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            size: i64::try_from(len).unwrap_or(i64::MAX),
        };
        let channel = rpc.content_channel();
        let read = |_, request| content_read::read(channel.clone(), request);
        let answer = rpc.stream(call, query, read, collect);
        let bytes = answer.map_err(|e| short_read(e, digest, size))?;
        match bytes.len() as u64 == len {
            true => Ok(bytes),
            false => Err(too_short(digest, size, offset + bytes.len() as u64)),
        }
    }

    /// An open stream of everything from `offset` on, on a connection that it shares with few.
    pub(super) async fn open_stream(
        &self,
        digest: &Digest,
        offset: u64,
        len: u64,
    ) -> std::result::Result<Streaming<Piece>, Status> {
        let object = format!("blob {digest}");
        let call: Call<'_> = self.call("Content.Read", &object);
        let query = api::ReadContentRequest {
            digest: digest.to_string(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            size: i64::try_from(len).unwrap_or(i64::MAX),
        };
        let request = request(call, query).map_err(|e| Status::internal(e.to_string()))?;
        let channel = self.inner().rpc.content_channel();
        Ok(content_read::read(channel, request).await?.into_inner())
    }
}

/// The bytes, if they are those of the digest.
fn verified(digest: &Digest, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if digest.verify(&bytes) {
        return Ok(bytes);
    }
    fail!(Digest, "blob {digest} is damaged: the bytes that containerd stores are not those of the digest")
}

/// The error of a stream of content.
pub(super) fn stream_error(status: &Status, namespace: &Namespace, digest: &Digest, size: u64) -> Error {
    let object = format!("blob {digest}");
    short_read(status::error(namespace.call("Content.Read", &object), status), digest, size)
}

/// containerd refuses to read where its own record says there are bytes: the stored file was cut.
fn short_read(error: Error, digest: &Digest, size: u64) -> Error {
    match error.kind() {
        Kind::Invalid => {
            let message = format!("blob {digest}: fewer bytes are stored than the {size} that containerd records");
            Error::caused(Kind::Io, message, error)
        }
        Kind::NotFound => Error::caused(Kind::NotLocal, error.to_string(), error),
        _ => error,
    }
}

/// The error of a blob that ends before its record says.
pub(super) fn too_short(digest: &Digest, size: u64, end: u64) -> Error {
    let message =
        format!("blob {digest}: the stored bytes end at {end}, fewer than the {size} that containerd records");
    Error::new(Kind::Io, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_to_its_bound_and_drops_the_oldest() {
        let cache = Cache::new(1000);
        let block = |n: u64| Part::Block(Digest::of(b"x"), n);
        for n in 0..10 {
            cache.put(block(n), vec![0; 200].into());
            assert!(cache.get(&block(0)).is_some() == (n < 11));
        }
        assert!(cache.get(&block(1)).is_none() && cache.get(&block(9)).is_some());
        assert!(cache.figures().0 <= 1000);
        cache.put(block(99), vec![0; 2000].into());
        assert!(cache.get(&block(99)).is_none() && cache.get(&block(9)).is_some());
        cache.put(block(9), vec![0; 10].into());
        assert_eq!(cache.get(&block(9)).unwrap().len(), 10);
        assert!(cache.figures().0 <= 1000);
    }
}
