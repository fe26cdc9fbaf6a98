//! One call that changes something: sent once, and carried to its end whatever becomes of who waits for it.
//!
//! A call that is dropped in flight is cancelled on the server, and a cancelled Tasks.Create or Start leaves half a task.
//! So it runs on the runtime, and a command that is cancelled or out of time only stops waiting.

use super::Namespace;
use super::rpc::{Call, Failure, Rpc, request};
use crate::error::{Error, Kind, Result};
use crate::wait;
use std::future::Future;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// How often a waiter looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(50);

/// How long an answer is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as any call may take.
    Usual,
    /// As long as the command may take: what unpacks, starts processes or waits for one has no usual time.
    Long,
}

impl Rpc {
    /// A call with one answer. It is not sent again when the connection is lost: whether it was carried out is then not
    /// known, and the error says that containerd went away.
    pub fn change<Q, A, F, Fut>(&self, call: Call<'_>, patience: Patience, query: Q, send: F) -> Result<A>
    where
        A: Send + 'static,
        F: FnOnce(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<A>, Status>> + Send + 'static,
    {
        let last = self.deadline()?;
        let request = request(call, query)?;
        let mut sent = self.handle().spawn(send(self.channel(), request));
        let outcome = loop {
            let tick = Instant::now() + TICK;
            let until = if patience == Patience::Usual { tick.min(last) } else { tick };
            let answer = async { tokio::time::timeout_at(until.into(), &mut sent).await };
            match self.handle().block_on(answer) {
                Ok(Ok(Ok(answer))) => break self.settle(call, Ok(answer.into_inner())),
                Ok(Ok(Err(status))) => break self.settle(call, Err(status)),
                Ok(Err(error)) => {
                    break Err(Error::caused(Kind::Io, format!("{}: the call ended", call.object), error));
                }
                Err(_) if patience == Patience::Usual && Instant::now() >= last => {
                    let message = format!("{}: containerd did not answer {} in time", call.object, call.method);
                    break Err(Error::new(Kind::Deadline, message));
                }
                Err(_) => {
                    if let Err(error) = wait::deadline() {
                        break Err(error.context(format!("{}: {}", call.object, call.method)));
                    }
                }
            }
        };
        self.count(call.method, outcome.is_err());
        outcome
    }

    fn settle<A>(&self, call: Call<'_>, outcome: std::result::Result<A, Status>) -> Result<A> {
        // What is there already needs no waiting, but the figures of the connection are kept in one place.
        self.block(call, Instant::now() + TICK, async { outcome }).map_err(Failure::into_error)
    }
}

impl Namespace {
    /// Fails unless the namespace is there: containerd makes one for any write.
    pub fn expect(&self) -> Result<()> {
        self.labels().map(drop)
    }
}

/// A change in a namespace: `change!(ns, Patience::Usual, call, TasksClient.kill, query)`.
macro_rules! change {
    ($ns:expr, $patience:expr, $call:expr, $client:ident . $method:ident, $query:expr) => {{
        let ns: &$crate::containerd::Namespace = $ns;
        ns.expect().and_then(|()| {
            ns.inner().rpc.change($call, $patience, $query, |channel, request| async move {
                $client::new(channel)
                    .max_decoding_message_size($crate::containerd::rpc::MESSAGE_BYTES)
                    .$method(request)
                    .await
            })
        })
    }};
}
pub(super) use change;
