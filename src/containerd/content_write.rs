//! Content, written: containerd's ingest protocol.
//!
//! A reference names what is being written and locks it; a second writer waits, and then mostly finds the blob there. Bytes
//! are sent in pieces, some of them ahead of their answers. containerd hashes what it gets and refuses at the commit what
//! is not of the digest or the length that was told. What is not committed stays, and is gone on with by whoever opens the
//! same reference again; containerd drops it after a day.

use super::change::{Patience, change};
use super::rpc::{Call, MESSAGE_BYTES, request};
use super::{Change, Digest, LabelChanges, Namespace, status};
use crate::error::{Error, Kind, Result};
use crate::wait;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::content_client::ContentClient;
use futures_util::stream::poll_fn;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Sender, channel};
use tonic::{Status, Streaming};

/// What one message carries.
pub const PIECE_BYTES: usize = 1 << 20;

/// Messages that were sent and not yet answered, at most.
const AHEAD: usize = 4;

/// How often a waiter looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(50);

/// How long an answer to a piece may take; a commit, which brings everything to the disk, may take longer.
const PIECE: Duration = Duration::from_secs(60);
const COMMIT: Duration = Duration::from_secs(1800);

/// What is to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewContent<'a> {
    /// Names it while it is being written.
    pub reference: &'a str,
    /// Its length, if it is known.
    pub size: Option<u64>,
    /// Its digest, if it is known.
    pub digest: Option<&'a Digest>,
}

/// A blob that is being written. Dropped without a commit, it stays as far as it came.
pub struct ContentWriter {
    namespace: Namespace,
    reference: String,
    size: Option<u64>,
    digest: Option<Digest>,
    requests: Sender<api::WriteContentRequest>,
    answers: Streaming<api::WriteContentResponse>,
    /// What containerd has, with what is on the way.
    sent: u64,
    unanswered: usize,
    piece: Vec<u8>,
}

impl Namespace {
    /// Begins to write a blob, or goes on with what was begun; none if the namespace has it already. Waits while somebody
    /// else writes it.
    pub fn write_content(&self, content: NewContent<'_>) -> Result<Option<ContentWriter>> {
        self.expect()?;
        let mut pause = Duration::from_millis(20);
        loop {
            match self.open_writer(content) {
                Err(error) if error.kind() == Kind::Exists => return Ok(None),
                Err(error) if error.kind() == Kind::Busy => {
                    wait::deadline()?;
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
                other => {
                    self.ingest_changed(content.reference);
                    return other.map(Some);
                }
            }
        }
    }

    fn open_writer(&self, content: NewContent<'_>) -> Result<ContentWriter> {
        let object = object(content.reference);
        let call = self.call("Content.Write", &object);
        let (requests, mut queue) = channel(AHEAD);
        let first = api::WriteContentRequest {
            action: api::WriteAction::Stat as i32,
            r#ref: content.reference.into(),
            total: content.size.map_or(0, |size| i64::try_from(size).unwrap_or(i64::MAX)),
            expected: content.digest.map(Digest::to_string).unwrap_or_default(),
            ..Default::default()
        };
        // There is room for it: nothing was sent yet.
        let _ = requests.try_send(first);
        let query = request(call, poll_fn(move |context| queue.poll_recv(context)))?;
        let mut client =
            ContentClient::new(self.inner().rpc.content_channel()).max_decoding_message_size(MESSAGE_BYTES);
        let answers = self.patient(call, PIECE, async move { client.write(query).await })?.into_inner();
        let mut writer = ContentWriter {
            namespace: self.clone(),
            reference: content.reference.into(),
            size: content.size,
            digest: content.digest.cloned(),
            requests,
            answers,
            sent: 0,
            unanswered: 1,
            piece: Vec::new(),
        };
        writer.sent = writer.answer(PIECE)?.offset.try_into().unwrap_or(0);
        Ok(writer)
    }

    /// Writes a small blob whose bytes are here, with labels; one that exists gets the labels.
    pub fn put_content(&self, reference: &str, bytes: &[u8], labels: &LabelChanges) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let content = NewContent { reference, size: Some(bytes.len() as u64), digest: Some(&digest) };
        match self.write_content(content)? {
            Some(mut writer) => {
                if writer.offset() != bytes.len() as u64 {
                    writer.restart();
                    writer.write(bytes)?;
                }
                writer.commit(labels)?;
            }
            None if !labels.is_empty() => self.label_blob(&digest, labels)?,
            None => {}
        }
        Ok(digest)
    }

    /// Drops what was written under a reference and never committed.
    pub fn abort_ingest(&self, reference: &str) -> Result<()> {
        let object = object(reference);
        let query = api::AbortRequest { r#ref: reference.into() };
        let call = self.call("Content.Abort", &object);
        let done = change!(self, Patience::Usual, call, ContentClient.abort, query);
        self.ingest_changed(reference);
        done.map(drop)
    }

    /// Deletes a blob, whoever refers to it.
    pub fn delete_content(&self, digest: &Digest) -> Result<()> {
        let object = format!("blob {digest}");
        let query = api::DeleteContentRequest { digest: digest.to_string() };
        let call = self.call("Content.Delete", &object);
        let done = change!(self, Patience::Usual, call, ContentClient.delete, query);
        self.content_changed(digest);
        self.inner().expect_collection();
        done.map(drop)
    }

    fn content_changed(&self, digest: &Digest) {
        let digest = digest.to_string().into();
        self.client().touched(&Change::Content { namespace: Arc::clone(self.name()), digest });
    }

    fn ingest_changed(&self, reference: &str) {
        let reference = reference.into();
        self.client().touched(&Change::Ingest { namespace: Arc::clone(self.name()), reference });
    }

    /// Waits for an answer until `limit`, or until the command is cancelled.
    fn patient<T>(
        &self,
        call: Call<'_>,
        limit: Duration,
        work: impl Future<Output = std::result::Result<T, Status>>,
    ) -> Result<T> {
        let rpc = &self.inner().rpc;
        let end = Instant::now() + limit;
        let mut work = std::pin::pin!(work);
        let outcome = loop {
            wait::deadline()?;
            let tick = Instant::now() + TICK;
            match rpc.handle().block_on(async { tokio::time::timeout_at(tick.into(), &mut work).await }) {
                Ok(outcome) => break outcome,
                Err(_) if Instant::now() >= end => {
                    let message = format!("{}: containerd did not answer {} in time", call.object, call.method);
                    return Err(Error::new(Kind::Deadline, message));
                }
                Err(_) => {}
            }
        };
        rpc.count(call.method, outcome.is_err());
        outcome.map_err(|status| status::error(call, &status))
    }
}

fn object(reference: &str) -> String {
    format!("ingest {reference}")
}

impl ContentWriter {
    /// How many bytes are written: where an earlier writer left off, to begin with.
    pub fn offset(&self) -> u64 {
        self.sent + self.piece.len() as u64
    }

    /// Forgets what is written: the next byte is the first.
    pub fn restart(&mut self) {
        self.piece.clear();
        self.sent = 0;
    }

    /// Appends bytes. `Exists` if the blob has come to be in the meantime.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.piece.len()));
            self.piece.extend_from_slice(head);
            bytes = tail;
            if self.piece.len() == PIECE_BYTES {
                let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
                self.send(api::WriteAction::Write, piece, HashMap::new())?;
                while self.unanswered >= AHEAD {
                    self.answer(PIECE)?;
                }
            }
        }
        Ok(())
    }

    /// Sends what is still here, and waits until containerd has everything: then nothing is lost if this is dropped.
    pub fn flush(&mut self) -> Result<()> {
        if !self.piece.is_empty() {
            let piece = std::mem::take(&mut self.piece);
            self.send(api::WriteAction::Write, piece, HashMap::new())?;
        }
        while self.unanswered > 0 {
            self.answer(PIECE)?;
        }
        Ok(())
    }

    /// Makes a blob of it, with labels. What is not of the length or the digest that was told is refused with `Digest`,
    /// and dropped. A blob that exists gets the labels.
    pub fn commit(mut self, labels: &LabelChanges) -> Result<Digest> {
        let committed = self.try_commit(labels);
        let (namespace, reference) = (self.namespace.clone(), std::mem::take(&mut self.reference));
        let expected = self.digest.clone();
        drop(self);
        match committed {
            Ok(digest) => {
                namespace.content_changed(&digest);
                namespace.ingest_changed(&reference);
                Ok(digest)
            }
            Err(error) if error.kind() == Kind::Exists => {
                let digest = expected.or_else(|| existing(&error.to_string())).ok_or(error)?;
                if !labels.is_empty() {
                    namespace.label_blob(&digest, labels)?;
                }
                Ok(digest)
            }
            Err(error) => {
                // Gone on with, it would be wrong again; without a digest nobody knows what it is.
                if error.kind() == Kind::Digest || expected.is_none() {
                    let _ = namespace.abort_ingest(&reference);
                }
                Err(error)
            }
        }
    }

    fn try_commit(&mut self, labels: &LabelChanges) -> Result<Digest> {
        let last = std::mem::take(&mut self.piece);
        let labels = labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        self.send(api::WriteAction::Commit, last, labels)?;
        let mut answer = self.answer(COMMIT)?;
        while self.unanswered > 0 {
            answer = self.answer(COMMIT)?;
        }
        Digest::parse(&answer.digest)
            .ok_or_else(|| Error::new(Kind::Io, format!("{}: containerd said no digest", object(&self.reference))))
    }

    /// Drops what was written.
    pub fn abort(self) -> Result<()> {
        let (namespace, reference) = (self.namespace.clone(), self.reference.clone());
        drop(self);
        namespace.abort_ingest(&reference)
    }

    fn send(&mut self, action: api::WriteAction, data: Vec<u8>, labels: HashMap<String, String>) -> Result<()> {
        let is_commit = action == api::WriteAction::Commit;
        let message = api::WriteContentRequest {
            action: action as i32,
            // At the commit containerd holds it against what it has: with an offset of 0 it would forget that first.
            offset: i64::try_from(self.sent).unwrap_or(i64::MAX),
            total: if is_commit { self.size.map_or(0, |size| size as i64) } else { 0 },
            expected: if is_commit {
                self.digest.as_ref().map(Digest::to_string).unwrap_or_default()
            } else {
                String::new()
            },
            labels,
            ..Default::default()
        };
        let length = data.len() as u64;
        let message = api::WriteContentRequest { data, ..message };
        let (namespace, requests) = (self.namespace.clone(), self.requests.clone());
        let object = object(&self.reference);
        let call = namespace.call("Content.Write", &object);
        let sent = namespace.patient(call, PIECE, async { Ok(requests.send(message).await.is_ok()) })?;
        self.unanswered += 1;
        self.sent += length;
        // The stream is over; its answer says why.
        if !sent {
            self.answer(PIECE)?;
            return Err(Error::new(Kind::Io, format!("{object}: containerd ended the stream")));
        }
        Ok(())
    }

    fn answer(&mut self, limit: Duration) -> Result<api::WriteContentResponse> {
        let namespace = self.namespace.clone();
        let object = object(&self.reference);
        let call = namespace.call("Content.Write", &object);
        let answer = namespace.patient(call, limit, self.answers.message())?;
        self.unanswered = self.unanswered.saturating_sub(1);
        answer.ok_or_else(|| Error::new(Kind::Io, format!("{object}: containerd ended the stream")))
    }
}

/// The digest in containerd's "content sha256:…: already exists".
fn existing(message: &str) -> Option<Digest> {
    message.split_whitespace().find_map(|word| Digest::parse(word.trim_end_matches(':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_what_exists_is_in_the_message() {
        let digest = Digest::of(b"x");
        let said = format!("ingest layer-{digest}: content {digest}: already exists");
        assert_eq!(existing(&said), Some(digest));
        assert_eq!(existing("already exists"), None);
    }
}
