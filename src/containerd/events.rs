//! The event stream: it keeps the mirror true, tells of changes and fills the logs.
//!
//! One thread follows it. It subscribes, makes sure that it listens (the call does not return before there is an event,
//! so it publishes one itself), declares whatever was known before for unknown, and then takes one event at a time:
//! first the mirror, then the log, then whoever waits for changes.

use super::away::{Patience, Signs};
use super::log::{EventLog, Line};
use super::rpc::{Call, MESSAGE_BYTES, Rpc, lock, request};
use super::{Change, Inner, decode, status};
use crate::error::{Error, Kind, Result};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::types::Envelope;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;
use tonic::Streaming;

/// The topic of our own sign of life.
const PING: &str = "/ctrfs/ping";

/// How often a silent containerd is asked whether it answers again.
const TICK: Duration = Duration::from_secs(1);

/// Bytes of the log of all namespaces, and of each.
const ALL_BYTES: u64 = 4 << 20;
const EACH_BYTES: u64 = 1 << 20;

/// One who wants to know of changes. Called under a lock, so it has to be quick and may not wait.
pub(super) type Listener = Box<dyn Fn(Change) + Send>;

/// The logs, and those who want to know of changes.
pub(super) struct Hub {
    all: Arc<EventLog>,
    each: Mutex<HashMap<Arc<str>, Arc<EventLog>>>,
    listeners: Mutex<Vec<Listener>>,
    /// The number of the newest line.
    sequence: AtomicU64,
    seen: AtomicU64,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            all: Arc::new(EventLog::new(ALL_BYTES)),
            each: Mutex::default(),
            listeners: Mutex::default(),
            sequence: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        }
    }
}

impl Hub {
    pub fn on_change(&self, listener: Listener) {
        lock(&self.listeners).push(listener);
    }

    pub fn send(&self, change: Change) {
        lock(&self.listeners).iter().for_each(|listener| listener(change.clone()));
    }

    pub fn log(&self, namespace: Option<&str>) -> Arc<EventLog> {
        let Some(namespace) = namespace else { return self.all.clone() };
        let mut each = lock(&self.each);
        match each.get(namespace) {
            Some(log) => log.clone(),
            None => each.entry(namespace.into()).or_insert_with(|| Arc::new(EventLog::new(EACH_BYTES))).clone(),
        }
    }

    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Writes a line into the log of all, and into that of its namespace.
    fn write(&self, namespace: Option<&str>, time: Option<String>, topic: &str, event: Value) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let mut object = json!({"seq": sequence, "timestamp": time});
        if let Some(namespace) = namespace {
            object["namespace"] = json!(namespace);
        }
        object["topic"] = json!(topic);
        object["event"] = event;
        let line: Line = format!("{object}\n").into_bytes().into();
        self.all.append(&line);
        match namespace {
            Some(namespace) => self.log(Some(namespace)).append(&line),
            // What concerns all of them stands in each.
            None => {
                let logs: Vec<_> = lock(&self.each).values().cloned().collect();
                logs.iter().for_each(|log| log.append(&line));
            }
        }
    }
}

/// Starts the thread that follows the events as long as `inner` lives.
pub(super) fn follow(inner: &Arc<Inner>) -> Result<()> {
    let weak = Arc::downgrade(inner);
    let spawned = std::thread::Builder::new().name("ctrfs-events".into()).spawn(move || run(&weak));
    spawned.map(drop).map_err(|e| Error::caused(Kind::Io, format!("cannot start the thread of the events: {e}"), e))
}

fn run(weak: &Weak<Inner>) {
    let mut patience = Patience::default();
    while let Some(inner) = weak.upgrade() {
        // Before the attempt, so that nothing that happens after it is missed.
        let signs = Signs::of(&inner.config.address, inner.rpc.handle(), &inner.rpc.wake);
        match subscribe(&inner) {
            Ok((stream, first)) => {
                drop(signs);
                inner.connected();
                if let Some(envelope) = first {
                    inner.take(envelope);
                }
                drop(inner);
                let why = listen(weak, stream);
                let Some(inner) = weak.upgrade() else { return };
                inner.lost(&why);
                patience = Patience::default();
            }
            Err(error) => {
                inner.lost(&error.to_string());
                // With the client in hand: its clock must not end under the wait.
                signs.wait(&mut patience);
            }
        }
    }
}

type Subscription = (Streaming<Envelope>, Option<Envelope>);

/// Opens the stream and returns when it is certain to be heard on.
fn subscribe(inner: &Inner) -> Result<Subscription> {
    let rpc = &inner.rpc;
    inner.ping()?;
    let namespace = super::Source::list(&super::Namespaces(inner))?.into_keys().next().unwrap_or("default".into());
    let call = Call::new("Events.Subscribe", &namespace, &"events");
    let query = request(call, api::SubscribeRequest::default())?;
    let mut client = EventsClient::new(rpc.channel()).max_decoding_message_size(MESSAGE_BYTES);
    let mut opening = Box::pin(rpc.handle().spawn(async move { client.subscribe(query).await }));
    let deadline = rpc.deadline()?;
    // Mostly the second event is heard: whoever waits for the connection waits for this.
    let mut wait = Duration::from_millis(1);
    while Instant::now() < deadline {
        publish(rpc, &namespace)?;
        wait = (wait * 2).min(Duration::from_millis(20));
        match rpc.handle().block_on(async { tokio::time::timeout(wait, &mut opening).await }) {
            Err(_) => continue,
            Ok(Ok(Ok(answer))) => {
                let mut stream = answer.into_inner();
                let first = rpc.block(call, deadline, stream.message()).map_err(super::rpc::Failure::into_error)?;
                return Ok((stream, first));
            }
            Ok(Ok(Err(status))) => return Err(status::error(call, &status)),
            Ok(Err(error)) => return Err(Error::caused(Kind::Io, "the subscription ended", error)),
        }
    }
    opening.abort();
    Err(Error::new(Kind::Deadline, "containerd sends no events"))
}

/// An event of our own. Never without a body: containerd 1.6 dies of that.
fn publish(rpc: &Rpc, namespace: &str) -> Result<()> {
    let event = containerd_client::events::ContainerDelete { id: "ctrfs".into() };
    let query = api::PublishRequest { topic: PING.into(), event: Some(containerd_client::to_any(&event)) };
    let call = Call::new("Events.Publish", namespace, &"events");
    super::unary!(rpc, call, EventsClient.publish, query).map(drop)
}

/// Takes events until the stream ends; returns why it did.
fn listen(weak: &Weak<Inner>, mut stream: Streaming<Envelope>) -> String {
    const GONE: &str = "no longer wanted";
    loop {
        let Some(inner) = weak.upgrade() else { return GONE.into() };
        let (handle, wake) = (inner.rpc.handle().clone(), inner.rpc.wake.clone());
        let patience = inner.rpc.is_silent().then_some(TICK);
        // Not to keep the client alive while there is nothing to do.
        drop(inner);
        let next = handle.block_on(next(&mut stream, &wake, patience));
        let Some(inner) = weak.upgrade() else { return GONE.into() };
        match next {
            Some(Ok(Some(envelope))) => inner.take(envelope),
            Some(Ok(None)) => return "containerd ended the stream of events".into(),
            Some(Err(status)) => return status::cause(&status),
            // Reads are answered from the mirror while containerd is silent; this finds that it answers again.
            None if inner.rpc.is_silent() && patience.is_some() => {
                let soon = Instant::now() + TICK;
                drop(crate::wait::until(soon, || inner.ping()));
            }
            None => {}
        }
    }
}

type Message = std::result::Result<Option<Envelope>, tonic::Status>;

/// The next event; nothing if somebody wakes the thread, or `patience` has an end.
async fn next(stream: &mut Streaming<Envelope>, wake: &Notify, patience: Option<Duration>) -> Option<Message> {
    let mut message = pin!(stream.message());
    let mut woken = pin!(wake.notified());
    let either = poll_fn(|context| match message.as_mut().poll(context) {
        Poll::Ready(message) => Poll::Ready(Some(message)),
        Poll::Pending => woken.as_mut().poll(context).map(|()| None),
    });
    match patience {
        Some(patience) => tokio::time::timeout(patience, either).await.unwrap_or(None),
        None => either.await,
    }
}

impl Inner {
    /// The stream is heard: what was known before it may be false.
    fn connected(&self) {
        // First, so that whoever sees the connection finds nothing that was known before it.
        self.apply(&Change::Everything);
        let mut line = lock(&self.link);
        line.epoch += 1;
        let gap = line.stale_since.take();
        let again = line.epoch > 1;
        (line.connected, line.untried, line.problem, line.since) = (true, false, None, SystemTime::now());
        drop(line);
        self.tried.notify_all();
        self.rpc.answered();
        if again {
            let since = gap.and_then(timestamp);
            self.events.write(None, timestamp(SystemTime::now()), "gap", json!({"since": since}));
        }
        self.events.send(Change::Everything);
    }

    /// The stream is not heard any more.
    fn lost(&self, why: &str) {
        let mut line = lock(&self.link);
        if line.connected || line.untried {
            let now = SystemTime::now();
            line.since = now;
            line.stale_since.get_or_insert(now);
            tracing::info!(why, "containerd is not there");
        }
        (line.connected, line.untried, line.problem) = (false, false, Some(why.to_string()));
        self.tried.notify_all();
    }

    /// One event: mirror, log, listeners.
    fn take(&self, envelope: Envelope) {
        self.rpc.answered();
        if envelope.topic == PING {
            return;
        }
        self.events.seen.fetch_add(1, Ordering::Relaxed);
        let any = envelope.event.unwrap_or_default();
        let event = decode::document(&any.type_url, &any.value);
        let namespace: Arc<str> = envelope.namespace.into();
        let changes = changes(&namespace, &envelope.topic, &event);
        let known = self.namespaces.peek().is_some_and(|all| all.contains_key(&namespace));
        if !known {
            self.apply(&Change::Namespace { name: namespace.clone() });
        }
        changes.iter().for_each(|change| self.apply(change));
        self.settle(&envelope.topic, &event);
        let time = envelope.timestamp.and_then(|t| decode::time(t.seconds, t.nanos));
        self.events.write(Some(&namespace), time, &envelope.topic, event);
        if !known {
            self.events.send(Change::Namespace { name: namespace.clone() });
        }
        changes.into_iter().for_each(|change| self.events.send(change));
    }

    /// What an event means for others than the object that it names.
    fn settle(&self, topic: &str, event: &Value) {
        match topic {
            "/namespaces/delete" => {
                if let Some(mirror) = lock(&self.mirrors).get(text(event, "name")) {
                    mirror.clear();
                }
            }
            "/images/delete" | "/containers/delete" | "/snapshot/remove" | "/content/delete" => {
                self.expect_collection();
            }
            _ => {}
        }
    }
}

fn timestamp(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|t| t.to_string())
}

fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The objects that an event names.
fn changes(namespace: &Arc<str>, topic: &str, event: &Value) -> Vec<Change> {
    let namespace = namespace.clone();
    let field = |name: &str| -> Arc<str> { text(event, name).into() };
    let family = topic.split('/').nth(1).unwrap_or_default();
    match family {
        "namespaces" => vec![Change::Namespace { name: field("name") }],
        "images" => vec![Change::Image { namespace, name: field("name") }],
        // A record that goes takes its task out of sight: Tasks.Get asks for the record first.
        "containers" => vec![
            Change::Container { namespace: namespace.clone(), id: field("id") },
            Change::Task { namespace, id: field("id") },
        ],
        "tasks" => vec![Change::Task { namespace, id: field("container_id") }],
        "snapshot" => {
            let of = |key| Change::Snapshot { namespace: namespace.clone(), snapshotter: field("snapshotter"), key };
            let mut all = vec![of(field("key"))];
            if topic == "/snapshot/commit" {
                all.push(of(field("name")));
            }
            all
        }
        "content" => vec![Change::Content { namespace, digest: field("digest") }],
        "sandboxes" => vec![Change::Sandbox { namespace, id: field("sandbox_id") }],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_changes_the_key_and_the_name() {
        let event = json!({"key": "k", "name": "n", "snapshotter": "overlayfs"});
        let all = changes(&"ns".into(), "/snapshot/commit", &event);
        assert_eq!(all.len(), 2);
        assert!(
            matches!(&all[1], Change::Snapshot { key, snapshotter, .. } if &**key == "n" && &**snapshotter == "overlayfs")
        );
        assert_eq!(changes(&"ns".into(), "/ctrfs/other", &json!({})), []);
    }

    #[test]
    fn a_line_has_a_number_and_stands_in_both_logs() {
        let hub = Hub::default();
        hub.write(Some("a"), Some("t".into()), "/images/create", json!({"name": "x"}));
        hub.write(None, None, "gap", json!({}));
        let all = String::from_utf8(hub.log(None).read(0, 1000).unwrap()).unwrap();
        let first = r#"{"seq":1,"timestamp":"t","namespace":"a","topic":"/images/create","event":{"name":"x"}}"#;
        assert_eq!(all.lines().next(), Some(first));
        assert_eq!(hub.log(Some("a")).read(0, 1000).unwrap(), all.as_bytes());
        assert_eq!(hub.log(Some("b")).end(), 0);
    }
}
