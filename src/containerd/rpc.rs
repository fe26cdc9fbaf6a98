//! One call to containerd: its deadline, its namespace header, its error, its place in the figures.

use super::Config;
use super::status;
use crate::error::{Error, Kind, Result};
use crate::wait;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::BufReader;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;
use tokio::time::timeout_at;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

/// The longest message that is accepted. containerd sends at most 16 MiB unless it was told otherwise.
pub(super) const MESSAGE_BYTES: usize = 32 << 20;

/// Connections for content, so that bulk does not stand before short questions.
const CONTENT_CONNECTIONS: usize = 2;

/// So much is taken from a connection at a time. HTTP/2 alone takes eight kibibytes, half of one of containerd's frames: 68,000
/// reads for a blob of 512 MB.
const RECEIVE_BYTES: usize = 64 << 10;

/// Calls that may take long without anything being wrong: they walk directories, move bytes or ask a shim.
const SLOW: [&str; 5] = ["Content.Read", "Snapshots.Usage", "Tasks.Get", "Tasks.ListPids", "Tasks.Metrics"];

/// What is called, for the header, the figures and the sentence of an error.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// `Images.Get`, …
    pub method: &'static str,
    /// The namespace header; empty for the services that have no namespaces.
    pub namespace: &'a str,
    /// The lease header: what the call makes is held by this lease. Empty for none.
    pub lease: &'a str,
    /// What it is about.
    pub object: &'a dyn Display,
}

impl<'a> Call<'a> {
    /// A call without a lease.
    pub fn new(method: &'static str, namespace: &'a str, object: &'a dyn Display) -> Call<'a> {
        Call { method, namespace, lease: "", object }
    }
}

/// The connections and the threads that drive them.
pub(super) struct Rpc {
    runtime: Option<Runtime>,
    handle: Handle,
    channel: Channel,
    content: Vec<Channel>,
    turn: AtomicUsize,
    timeout: Duration,
    calls: Mutex<BTreeMap<&'static str, (u64, u64)>>,
    /// Since when containerd does not answer although it is there, and when that was last found.
    silent: Mutex<Option<(SystemTime, Instant)>>,
    /// Told when the thread of the events has something to look at: it has no clock of its own.
    pub wake: Arc<Notify>,
}

impl Rpc {
    /// Nothing is connected yet: every channel connects when it is first used, and again when it was lost.
    pub fn new(config: &Config) -> Result<Rpc> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ctrfs-rpc")
            .enable_all()
            .build()
            .map_err(|e| Error::caused(Kind::Io, format!("cannot start threads for containerd: {e}"), e))?;
        let handle = runtime.handle().clone();
        let _entered = handle.enter();
        let channel = connect(config)?;
        let content = (0..CONTENT_CONNECTIONS).map(|_| connect(config)).collect::<Result<_>>()?;
        drop(_entered);
        Ok(Rpc {
            runtime: Some(runtime),
            handle,
            channel,
            content,
            turn: AtomicUsize::new(0),
            timeout: config.timeout,
            calls: Mutex::default(),
            silent: Mutex::default(),
            wake: Arc::default(),
        })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// One of the connections for content, in turn.
    pub fn content_channel(&self) -> Channel {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.content.get(turn % CONTENT_CONNECTIONS).unwrap_or(&self.channel).clone()
    }

    /// Calls so far and how many failed, by method.
    pub fn calls(&self) -> BTreeMap<&'static str, (u64, u64)> {
        lock(&self.calls).clone()
    }

    /// Whether containerd was silent so lately that asking again is not worth another wait.
    pub fn is_silent(&self) -> bool {
        self.silent_since().is_some()
    }

    /// Since when it has been silent, if it is.
    pub fn silent_since(&self) -> Option<SystemTime> {
        let (since, found) = (*lock(&self.silent))?;
        (found.elapsed() < Duration::from_secs(5)).then_some(since)
    }

    /// When a call that begins now ends. Fails where this thread must not wait.
    pub fn deadline(&self) -> Result<Instant> {
        Ok(wait::deadline()?.min(Instant::now() + self.timeout))
    }

    /// A call with one answer. `send` gets the channel and the request; it is run a second time if the connection was
    /// lost under the first, so it must be a read.
    pub fn unary<Q, A, F, Fut>(&self, call: Call<'_>, query: Q, send: F) -> Result<A>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let deadline = self.deadline()?;
        self.twice(call, || {
            let request = request(call, query.clone())?;
            self.block(call, deadline, async { send(self.channel(), request).await.map(Response::into_inner) })
        })
    }

    /// A call with a stream of answers, each given to `each` of a fresh `T`.
    pub fn stream<Q, A, T, F, Fut>(&self, call: Call<'_>, query: Q, send: F, each: impl Fn(&mut T, A)) -> Result<T>
    where
        Q: Clone,
        T: Default,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<Streaming<A>>, Status>>,
    {
        let deadline = self.deadline()?;
        self.twice(call, || {
            let request = request(call, query.clone())?;
            self.block(call, deadline, async {
                let mut all = T::default();
                let mut answers = send(self.channel(), request).await?.into_inner();
                while let Some(answer) = answers.message().await? {
                    each(&mut all, answer);
                }
                Ok(all)
            })
        })
    }

    /// Runs a read and, if the connection was lost under it, once more.
    fn twice<T>(&self, call: Call<'_>, run: impl Fn() -> std::result::Result<T, Failure>) -> Result<T> {
        let mut outcome = run();
        if matches!(outcome, Err(Failure::Lost(_))) {
            outcome = run();
        }
        self.count(call.method, outcome.is_err());
        outcome.map_err(Failure::into_error)
    }

    /// Puts a call into the figures.
    pub fn count(&self, method: &'static str, failed: bool) {
        let mut calls = lock(&self.calls);
        let figures = calls.entry(method).or_default();
        figures.0 += 1;
        figures.1 += u64::from(failed);
    }

    /// Waits for `work` on this thread until `deadline`.
    pub fn block<T>(
        &self,
        call: Call<'_>,
        deadline: Instant,
        work: impl Future<Output = std::result::Result<T, Status>>,
    ) -> std::result::Result<T, Failure> {
        // The timeout has to be made inside the runtime: its timer belongs there.
        match self.handle.block_on(async { timeout_at(deadline.into(), work).await }) {
            Ok(Ok(answer)) => {
                self.answered();
                Ok(answer)
            }
            Ok(Err(status)) => {
                let error = status::error(call, &status);
                if error.kind() != Kind::Away {
                    self.answered();
                }
                // A refused connection is not tried again: nothing listens.
                Err(match status::is_transport(&status) && status.code() != Code::Unavailable {
                    true => Failure::Lost(error),
                    false => Failure::Told(error),
                })
            }
            Err(_) => {
                if !SLOW.contains(&call.method) {
                    let now = Instant::now();
                    lock(&self.silent).get_or_insert((SystemTime::now(), now)).1 = now;
                    self.wake.notify_one();
                }
                let message = format!("{}: containerd did not answer {} in time", call.object, call.method);
                Err(Failure::Told(Error::new(Kind::Deadline, message)))
            }
        }
    }

    /// containerd answers, whatever was thought before.
    pub fn answered(&self) {
        let mut silent = lock(&self.silent);
        if silent.is_some() {
            *silent = None;
        }
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.wake.notify_one();
        // Not to wait for calls in flight, and to be allowed on any thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why a call failed, and whether it is worth a second one.
pub(super) enum Failure {
    /// The connection broke under it.
    Lost(Error),
    /// containerd said so, or was silent, or is away.
    Told(Error),
}

impl Failure {
    pub fn into_error(self) -> Error {
        match self {
            Failure::Lost(error) | Failure::Told(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Told(error)
    }
}

/// A request with its namespace header.
pub(super) fn request<Q>(call: Call<'_>, query: Q) -> Result<Request<Q>> {
    let mut request = Request::new(query);
    if !call.namespace.is_empty() {
        let value = MetadataValue::try_from(call.namespace)
            .map_err(|_| Error::new(Kind::NotFound, format!("{:?} cannot be a namespace", call.namespace)))?;
        request.metadata_mut().insert("containerd-namespace", value);
    }
    if !call.lease.is_empty() {
        let value = MetadataValue::try_from(call.lease)
            .map_err(|_| Error::new(Kind::NotFound, format!("{:?} cannot be a lease", call.lease)))?;
        request.metadata_mut().insert("containerd-lease", value);
    }
    Ok(request)
}

/// A channel that connects when it is used.
fn connect(config: &Config) -> Result<Channel> {
    let address = config.address.clone();
    let limit = config.connect_timeout;
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let address = address.clone();
        async move {
            let stream = tokio::time::timeout(limit, tokio::net::UnixStream::connect(address))
                .await
                .map_err(|_| std::io::Error::from_raw_os_error(libc::ETIMEDOUT))??;
            Ok::<_, std::io::Error>(TokioIo::new(BufReader::with_capacity(RECEIVE_BYTES, stream)))
        }
    });
    // The address of the endpoint is never used; the connector knows the socket.
    let endpoint = Endpoint::try_from("http://[::]")
        .map_err(|e| Error::caused(Kind::Invalid, "no endpoint for containerd", e))?
        .user_agent(concat!("ctrfs/", env!("CARGO_PKG_VERSION")))
        .map_err(|e| Error::caused(Kind::Invalid, "no endpoint for containerd", e))?;
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Locks whatever a panic may have left: what is behind our locks is consistent between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A unary read: `unary!(rpc, call, ImagesClient.get, query)`.
macro_rules! unary {
    ($rpc:expr, $call:expr, $client:ident . $method:ident, $query:expr) => {
        $rpc.unary($call, $query, |channel, request| async move {
            $client::new(channel)
                .max_decoding_message_size($crate::containerd::rpc::MESSAGE_BYTES)
                .$method(request)
                .await
        })
    };
}
pub(super) use unary;

/// A streamed read, folded: `stream!(rpc, call, SnapshotsClient.list, query, |all, answer| …)`.
macro_rules! stream {
    ($rpc:expr, $call:expr, $client:ident . $method:ident, $query:expr, $each:expr) => {
        $rpc.stream(
            $call,
            $query,
            |channel, request| async move {
                $client::new(channel)
                    .max_decoding_message_size($crate::containerd::rpc::MESSAGE_BYTES)
                    .$method(request)
                    .await
            },
            $each,
        )
    };
}
pub(super) use stream;
