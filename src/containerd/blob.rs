//! An open blob: whoever reads it in order gets one stream that runs ahead of him, others get what they ask for.

use super::content::{BLOCK_BYTES, Part, stream_error, too_short};
use super::flight::Flights;
use super::rpc::lock;
use super::{BlobInfo, Digest, Namespace};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use bytes::Bytes;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// So many blocks the stream may be ahead of its reader.
const AHEAD_BLOCKS: usize = 4;

/// A block so little behind the stream's next is waited for; any other is fetched by itself.
const NEAR_BLOCKS: u64 = 8;

/// A first look at a place, of at most so many bytes, does not fetch a whole block.
const GLANCE_BYTES: usize = 32 << 10;

/// An open blob. Readers in order share one stream that reads ahead; others fetch blocks. A read is never short but at
/// the end of the blob. May be used by many threads at once.
pub struct BlobReader {
    namespace: Namespace,
    digest: Digest,
    info: BlobInfo,
    state: Mutex<State>,
    moved: Condvar,
    fetches: Flights<u64>,
}

struct State {
    /// The stream, unless a reader has it in hand.
    stream: Option<Ahead>,
    in_hand: bool,
    /// The block that the stream brings next.
    next: Option<u64>,
    /// The block that was read last.
    last: Option<u64>,
}

/// A stream of blocks.
struct Ahead {
    blocks: Receiver<Result<Bytes>>,
    next: u64,
}

/// How to get a block that is not in memory.
enum Way {
    /// From the stream, which is now in hand; a new one begins at the block.
    Stream(Option<Ahead>),
    /// By itself.
    Fetch,
}

impl Namespace {
    /// A blob opened for reading. `NotFound` if the namespace does not know it.
    pub fn blob_reader(&self, digest: &Digest) -> Result<BlobReader> {
        let Some(info) = self.blob(digest)? else {
            return fail!(NotFound, "there is no blob {digest} in namespace {}", self.name());
        };
        let state = State { stream: None, in_hand: false, next: None, last: None };
        Ok(BlobReader {
            namespace: self.clone(),
            digest: digest.clone(),
            info,
            state: Mutex::new(state),
            moved: Condvar::new(),
            fetches: Flights::default(),
        })
    }
}

impl BlobReader {
    /// The digest that names it.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.info.size
    }

    /// What the content store says of it.
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// `len` bytes at `offset`, fewer only where the blob ends.
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let end = self.size().min(offset.saturating_add(len as u64));
        let len = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
        if len == 0 {
            return Ok(Bytes::new());
        }
        // The kernel reads in order and block by block: nothing of that is copied.
        let first = self.part(offset, end)?;
        if first.len() == len {
            return Ok(first);
        }
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&first);
        while out.len() < len {
            out.extend_from_slice(&self.part(offset + out.len() as u64, end)?);
        }
        Ok(out.into())
    }

    /// What lies between `at` and `end`, as far as the block at `at` has it.
    fn part(&self, at: u64, end: u64) -> Result<Bytes> {
        let block = at / BLOCK_BYTES;
        let (from, to) = (at % BLOCK_BYTES, (end - block * BLOCK_BYTES).min(BLOCK_BYTES));
        if let Some(glance) = self.glance(block, at, to - from)? {
            return Ok(glance.into());
        }
        let bytes = self.block(block)?;
        if (bytes.len() as u64) < to {
            return Err(too_short(&self.digest, self.size(), block * BLOCK_BYTES + bytes.len() as u64));
        }
        Ok(bytes.slice(from as usize..to as usize))
    }

    /// Fills `buf` or fails.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = self.read_at(offset, buf.len())?;
        if bytes.len() != buf.len() {
            return fail!(Io, "blob {}: nothing is stored behind {}", self.digest, self.size());
        }
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    fn cached(&self, block: u64) -> Option<Bytes> {
        self.namespace.inner().cache.get(&Part::Block(self.digest.clone(), block))
    }

    fn keep(&self, block: u64, bytes: &Bytes) {
        self.namespace.inner().cache.put(Part::Block(self.digest.clone(), block), bytes.clone());
    }

    /// The few bytes that somebody wants who looks here and there: a whole block would cost ten times as long.
    fn glance(&self, block: u64, offset: u64, len: u64) -> Result<Option<Vec<u8>>> {
        let mut state = lock(&self.state);
        let familiar =
            state.last == Some(block) || is_near(state.next, block) || state.last.map(|b| b + 1) == Some(block);
        let whole = self.size().saturating_sub(block * BLOCK_BYTES).min(BLOCK_BYTES) as usize;
        if len as usize > GLANCE_BYTES || familiar || whole <= GLANCE_BYTES {
            return Ok(None);
        }
        drop(state);
        if self.cached(block).is_some() {
            return Ok(None);
        }
        let bytes = self.namespace.read_range(&self.digest, self.size(), offset, len)?;
        state = lock(&self.state);
        state.last = Some(block);
        Ok(Some(bytes))
    }

    /// One block, from wherever it is had soonest.
    fn block(&self, block: u64) -> Result<Bytes> {
        if let Some(bytes) = self.cached(block) {
            lock(&self.state).last = Some(block);
            return Ok(bytes);
        }
        match self.way(block)? {
            Some(Way::Stream(stream)) => match self.pull(block, stream) {
                // The connection broke; a fetch makes a new one.
                Err(error) if error.kind() == Kind::Away => self.fetch(block),
                answer => answer,
            },
            Some(Way::Fetch) => self.fetches.run(&block, || self.cached(block), || self.fetch(block)),
            // The stream brought it while we waited.
            None => self.block(block),
        }
    }

    /// Decides, and waits while somebody has the stream in hand that will bring this block.
    fn way(&self, block: u64) -> Result<Option<Way>> {
        let deadline = wait::deadline()?;
        let mut state = lock(&self.state);
        loop {
            let in_order = state.last.map(|last| last + 1) == Some(block);
            let near = is_near(state.next, block);
            if !near && (!in_order || state.in_hand) {
                state.last = Some(block);
                return Ok(Some(Way::Fetch));
            }
            if !state.in_hand {
                state.in_hand = true;
                state.last = Some(block);
                let stream = state.stream.take().filter(|_| near);
                state.next = Some(stream.as_ref().map_or(block, |s| s.next));
                return Ok(Some(Way::Stream(stream)));
            }
            state = self.wait(state, deadline)?;
            drop(state);
            if self.cached(block).is_some() {
                return Ok(None);
            }
            state = lock(&self.state);
        }
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, deadline: Instant) -> Result<MutexGuard<'a, State>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return fail!(Deadline, "blob {}: containerd did not send it in time", self.digest);
        }
        Ok(self.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    fn fetch(&self, block: u64) -> Result<Bytes> {
        let bytes = self.namespace.read_range(&self.digest, self.size(), block * BLOCK_BYTES, BLOCK_BYTES)?;
        let bytes: Bytes = bytes.into();
        self.keep(block, &bytes);
        Ok(bytes)
    }

    /// Takes blocks off the stream, which is in hand, until `wanted` came.
    fn pull(&self, wanted: u64, stream: Option<Ahead>) -> Result<Bytes> {
        let mut hand = Hand { reader: self, stream: None };
        let mut stream = stream.unwrap_or_else(|| self.open(wanted));
        let rpc = &self.namespace.inner().rpc;
        let deadline = rpc.deadline()?;
        loop {
            let next =
                rpc.handle().block_on(async { tokio::time::timeout_at(deadline.into(), stream.blocks.recv()).await });
            let bytes = match next {
                Ok(Some(bytes)) => bytes?,
                Ok(None) => return Err(too_short(&self.digest, self.size(), stream.next * BLOCK_BYTES)),
                Err(_) => return fail!(Deadline, "blob {}: containerd did not send it in time", self.digest),
            };
            let block = stream.next;
            self.keep(block, &bytes);
            stream.next += 1;
            if block == wanted {
                hand.stream = (stream.next * BLOCK_BYTES < self.size()).then_some(stream);
                return Ok(bytes);
            }
            lock(&self.state).next = Some(stream.next);
            self.moved.notify_all();
        }
    }

    /// A stream from `block` to the end, pumped by a task that goes when the stream is dropped.
    fn open(&self, block: u64) -> Ahead {
        let (sender, blocks) = channel(AHEAD_BLOCKS);
        let (namespace, digest, size) = (self.namespace.clone(), self.digest.clone(), self.size());
        let handle = self.namespace.inner().rpc.handle();
        handle.spawn(async move {
            let pumped = pump(&namespace, &digest, size, block * BLOCK_BYTES, &sender).await;
            namespace.inner().rpc.count("Content.Read", pumped.is_err());
            if let Err(error) = pumped {
                // Nobody who wants to hear it, then: he has left.
                drop(sender.send(Err(error)).await);
            }
        });
        Ahead { blocks, next: block }
    }
}

fn is_near(next: Option<u64>, block: u64) -> bool {
    next.is_some_and(|next| (next..next + NEAR_BLOCKS).contains(&block))
}

/// Reads from `offset` to the end and sends what it reads, in blocks.
async fn pump(
    namespace: &Namespace,
    digest: &Digest,
    size: u64,
    offset: u64,
    sender: &Sender<Result<Bytes>>,
) -> std::result::Result<(), Error> {
    let told = |status: tonic::Status| stream_error(&status, namespace, digest, size);
    let mut stream = namespace.open_stream(digest, offset, size - offset).await.map_err(told)?;
    let mut at = offset;
    let mut block = Vec::with_capacity(BLOCK_BYTES as usize);
    let patience = namespace.client().inner.config.timeout;
    loop {
        // Whoever waited for it gave up by then.
        let next = tokio::time::timeout(patience, stream.message()).await;
        let next =
            next.map_err(|_| Error::new(Kind::Deadline, format!("blob {digest}: containerd stopped sending")))?;
        let Some(message) = next.map_err(told)? else { break };
        let mut data = message.data;
        while !data.is_empty() && at < size {
            let full = (size - (at - block.len() as u64)).min(BLOCK_BYTES) as usize;
            let head = data.split_to(data.len().min(full - block.len()));
            at += head.len() as u64;
            // containerd sends a block at a time, as a rule: then nothing is copied. What is less than a block is, for it
            // would keep what it was received with.
            let bytes = if head.len() as u64 == BLOCK_BYTES {
                head
            } else {
                block.extend_from_slice(&head);
                if block.len() < full {
                    continue;
                }
                Bytes::from(std::mem::take(&mut block))
            };
            if sender.send(Ok(bytes)).await.is_err() {
                return Ok(());
            }
        }
    }
    match at == size {
        true => Ok(()),
        false => Err(too_short(digest, size, at)),
    }
}

/// The stream in somebody's hand; put back, or lost after an error, when he is done.
struct Hand<'a> {
    reader: &'a BlobReader,
    stream: Option<Ahead>,
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.reader.state);
        state.in_hand = false;
        state.next = self.stream.as_ref().map(|s| s.next);
        state.stream = self.stream.take();
        drop(state);
        self.reader.moved.notify_all();
    }
}
