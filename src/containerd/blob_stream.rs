//! A blob as a stream, for those who send it elsewhere on threads that must not wait.

use super::content::{stream_error, too_short};
use super::content_read::Piece;
use super::{Digest, Namespace};
use crate::error::Result;
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use tonic::Streaming;

/// How far the stream is.
enum State {
    Begin,
    Open(Box<Streaming<Piece>>, u64),
    Over,
}

impl Namespace {
    /// The `size` bytes of a blob, in pieces of a mebibyte at most. Fewer bytes are an error.
    pub fn blob_stream(&self, digest: &Digest, size: u64) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let (ns, digest) = (self.clone(), digest.clone());
        unfold(State::Begin, move |state| {
            let (ns, digest) = (ns.clone(), digest.clone());
            async move {
                let (mut stream, got) = match state {
                    State::Over => return None,
                    State::Begin if size == 0 => return None,
                    State::Begin => match ns.open_stream(&digest, 0, size).await {
                        Ok(stream) => (Box::new(stream), 0),
                        Err(status) => return Some((Err(stream_error(&status, &ns, &digest, size)), State::Over)),
                    },
                    State::Open(stream, got) => (stream, got),
                };
                match stream.message().await {
                    Ok(Some(answer)) => {
                        let got = got + answer.data.len() as u64;
                        Some((Ok(answer.data), State::Open(stream, got)))
                    }
                    Ok(None) if got == size => None,
                    Ok(None) => Some((Err(too_short(&digest, size, got)), State::Over)),
                    Err(status) => Some((Err(stream_error(&status, &ns, &digest, size)), State::Over)),
                }
            }
        })
    }
}
