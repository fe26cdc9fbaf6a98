//! Work of others on our threads: the client of registries is asynchronous, and the only threads that drive such things are
//! here.

use super::Client;
use crate::error::Result;
use crate::{fail, wait};
use std::future::Future;
use std::time::{Duration, Instant};

/// How often a waiter looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(50);

impl Client {
    /// Waits for `work` on this thread, until `limit` has passed or the command that this is was cancelled; what was not
    /// done by then is dropped. `what` is for the sentence.
    pub fn drive<T>(&self, limit: Duration, what: &str, work: impl Future<Output = T>) -> Result<T> {
        let end = Instant::now() + limit;
        let handle = self.inner.rpc.handle();
        let mut work = std::pin::pin!(work);
        loop {
            wait::deadline()?;
            let tick = Instant::now() + TICK;
            if let Ok(done) = handle.block_on(async { tokio::time::timeout_at(tick.into(), &mut work).await }) {
                return Ok(done);
            }
            if Instant::now() >= end {
                return fail!(Deadline, "{what}: no answer in {} seconds", limit.as_secs());
            }
        }
    }
}
