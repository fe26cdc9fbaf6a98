//! containerd, as the tree sees it: synchronous calls with deadlines, and a mirror of its records that events keep true.
//!
//! This is the only place that knows gRPC. A method that needs a call asks [`crate::wait::deadline`] first, so it fails
//! with `WouldWait` on a FUSE thread; what is in memory is answered there. No lock is held across a call.

mod away;
mod blob;
mod blob_stream;
mod change;
mod container_write;
mod content;
mod content_read;
mod content_write;
mod convert;
mod decode;
mod direct;
mod events;
mod fetch;
mod flight;
mod foreign;
mod image;
mod image_write;
mod label_write;
mod lease;
mod log;
mod mirror;
mod name;
mod namespace;
mod namespace_write;
mod owner;
mod platform;
mod record;
mod resolve;
mod rpc;
mod schema;
mod server;
mod size;
mod snapshot_write;
mod sources;
mod status;
mod task_write;
mod view;

pub use blob::BlobReader;

pub use container_write::{CheckpointOptions, NewContainer, RuncOptions, SPEC_TYPE};
pub use content::DOCUMENT_BYTES;
pub use content_write::{ContentWriter, NewContent, PIECE_BYTES};
pub use image::{HistoryStep, ImageConfig, IndexDoc, LayerRef, ManifestDoc, ManifestKind, ManifestRef, Resolved};
pub use image::{chain_ids, parse_config, parse_index, parse_manifest};
pub use image_write::Replace;
pub use label_write::LabelChanges;
pub use lease::{EXPIRE as LEASE_EXPIRE, LeaseGuard};
pub use log::{EventLog, Generation};
pub use name::{Descriptor, Digest, Labels, Platform};
pub use namespace::{Map, Namespace};
pub use owner::Owner;
pub use record::{
    BlobInfo, ContainerInfo, ContainerRecord, Document, ImageRecord, IngestRecord, LeaseRecord, LeaseResource, Mount,
    Process, SandboxRecord, SnapshotKind, SnapshotRecord, Status, TaskRecord, Usage,
};
pub use server::{Deprecation, Plugin, Probe, Server};
pub use size::ImageCheck;
pub use task_write::{Exit, NewTask, Stdio};
pub use view::Views;

use crate::error::Result;
use flight::Flights;
use mirror::{Keyed, Link, SECOND, Source};
use rpc::{Call, Rpc, lock, unary};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Where containerd is and how patient to be with it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its socket.
    pub address: PathBuf,
    /// The longest that one call may take.
    pub timeout: Duration,
    /// The longest that connecting may take.
    pub connect_timeout: Duration,
    /// How many bytes of content are kept in memory.
    pub cache_bytes: u64,
}

/// How long after the start a list waits for the events.
const SOON: Duration = Duration::from_millis(100);

/// A connection to one containerd with all that is known of it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    rpc: Rpc,
    link: Mutex<Line>,
    /// Told when the first connection is made, or cannot be.
    tried: Condvar,
    started: Instant,
    server: server::Facts,
    namespaces: Keyed<Arc<str>, Labels>,
    mirrors: Mutex<HashMap<Arc<str>, Arc<namespace::Mirror>>>,
    events: events::Hub,
    cache: content::Cache,
    documents: Flights<(Arc<str>, Digest)>,
    resolved: resolve::Memo,
    leases: lease::Unreturned,
}

/// How the connection is, for [`State`] and for the mirror.
struct Line {
    connected: bool,
    since: SystemTime,
    stale_since: Option<SystemTime>,
    problem: Option<String>,
    epoch: u64,
    /// Nobody has found yet that it is away: the first questions are to be asked.
    untried: bool,
}

/// How the connection is.
#[derive(Debug, Clone)]
pub struct State {
    pub address: PathBuf,
    pub connected: bool,
    /// Since when it has been connected, or not been.
    pub since: SystemTime,
    /// While it is not: since when what is shown may be out of date.
    pub stale_since: Option<SystemTime>,
    /// Why it is not connected.
    pub problem: Option<String>,
    /// Counts the connections; 0 before the first.
    pub epoch: u64,
}

/// Something changed; the mirror knows already. A name may be empty: then any may have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    Namespace {
        name: Arc<str>,
    },
    Image {
        namespace: Arc<str>,
        name: Arc<str>,
    },
    Container {
        namespace: Arc<str>,
        id: Arc<str>,
    },
    Task {
        namespace: Arc<str>,
        id: Arc<str>,
    },
    /// The snapshotter is empty on 1.6: any may be meant.
    Snapshot {
        namespace: Arc<str>,
        snapshotter: Arc<str>,
        key: Arc<str>,
    },
    Content {
        namespace: Arc<str>,
        digest: Arc<str>,
    },
    Sandbox {
        namespace: Arc<str>,
        id: Arc<str>,
    },
    /// Other blobs are here than when it was promised that this would be told.
    Presence {
        namespace: Arc<str>,
    },
    /// No event tells of these two: only we ourselves do.
    Lease {
        namespace: Arc<str>,
        id: Arc<str>,
    },
    Ingest {
        namespace: Arc<str>,
        reference: Arc<str>,
    },
    /// A connection is new: whatever was known may be false.
    Everything,
}

/// Figures for `.ctrfs/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// By method: calls, and how many of them failed.
    pub calls: BTreeMap<&'static str, (u64, u64)>,
    pub cache_bytes: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// Events seen.
    pub events: u64,
    /// Connections after the first.
    pub reconnects: u64,
}

impl Client {
    /// A client of the containerd at `config.address`. It need not be there yet: connecting goes on in the background.
    pub fn new(config: Config) -> Result<Client> {
        let line = Line {
            connected: false,
            since: SystemTime::now(),
            stale_since: None,
            problem: None,
            epoch: 0,
            untried: true,
        };
        let inner = Arc::new(Inner {
            rpc: Rpc::new(&config)?,
            link: Mutex::new(line),
            tried: Condvar::new(),
            started: Instant::now(),
            server: server::Facts::default(),
            namespaces: Keyed::default(),
            mirrors: Mutex::default(),
            events: events::Hub::default(),
            cache: content::Cache::new(config.cache_bytes),
            documents: Flights::default(),
            resolved: resolve::Memo::default(),
            leases: lease::Unreturned::default(),
            config,
        });
        events::follow(&inner)?;
        Ok(Client { inner })
    }

    /// How the connection is. From memory.
    pub fn state(&self) -> State {
        let line = lock(&self.inner.link);
        let silent_since = self.inner.rpc.silent_since().filter(|_| line.connected);
        let silent = silent_since.is_some();
        State {
            address: self.inner.config.address.clone(),
            connected: line.connected && !silent,
            since: line.since,
            stale_since: line.stale_since.or(silent_since),
            problem: if silent { Some("containerd does not answer".into()) } else { line.problem.clone() },
            epoch: line.epoch,
        }
    }

    /// Every namespace with its labels.
    pub fn namespaces(&self) -> Result<Arc<BTreeMap<Arc<str>, Labels>>> {
        self.inner.namespaces.all(&Namespaces(&self.inner))
    }

    /// The namespace `name`, if there is one.
    pub fn namespace(&self, name: &str) -> Result<Option<Namespace>> {
        // Only the list tells: containerd says of any name that it is a namespace without labels.
        let all = self.namespaces()?;
        Ok(all.get_key_value(name).map(|(name, _)| Namespace::new(self.clone(), name.clone(), self.inner.mirror(name))))
    }

    /// Has `listener` told of every change from now on, in order, each after the mirror knows it. It is called where
    /// changes are noticed: it has to be quick, and may neither wait nor ask.
    pub fn on_change(&self, listener: impl Fn(Change) + Send + 'static) {
        self.inner.events.on_change(Box::new(listener));
    }

    /// The log of the events of every namespace, or of one.
    pub fn events(&self, namespace: Option<&str>) -> Arc<EventLog> {
        self.inner.events.log(namespace)
    }

    /// Figures since the start. From memory.
    pub fn stats(&self) -> Stats {
        let (cache_bytes, cache_hits, cache_misses) = self.inner.cache.figures();
        Stats {
            calls: self.inner.rpc.calls(),
            cache_bytes,
            cache_hits,
            cache_misses,
            events: self.inner.events.seen(),
            reconnects: lock(&self.inner.link).epoch.saturating_sub(1),
        }
    }

    /// Says that we changed something ourselves, so that the next read asks. What follows is what an event would cause.
    pub fn touched(&self, change: &Change) {
        self.inner.apply(change);
        self.inner.events.send(change.clone());
    }
}

impl Inner {
    fn link(&self) -> Link {
        let line = lock(&self.link);
        let (epoch, away) = (if line.connected { line.epoch } else { 0 }, !line.connected && !line.untried);
        drop(line);
        if away {
            // Somebody wants to know: worth another attempt.
            self.rpc.wake.notify_one();
        }
        Link { epoch, away: away || self.rpc.is_silent() }
    }

    /// Waits for the first connection, shortly and only while nobody knows whether there will be one: what is listed
    /// before events are heard has to be listed again.
    fn hear(&self) {
        let mut line = lock(&self.link);
        while line.untried {
            let left = (self.started + SOON).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            line = self.tried.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is known of a namespace. Kept when the namespace goes, so that every handle of a name sees the same.
    fn mirror(&self, name: &Arc<str>) -> Arc<namespace::Mirror> {
        lock(&self.mirrors).entry(name.clone()).or_default().clone()
    }

    /// Marks what `change` says as no longer known.
    fn apply(&self, change: &Change) {
        match change {
            Change::Namespace { .. } => self.namespaces.invalidate(),
            Change::Everything => {
                self.namespaces.invalidate();
                self.server.forget();
                lock(&self.mirrors).values().for_each(|m| m.invalidate());
            }
            Change::Presence { namespace }
            | Change::Image { namespace, .. }
            | Change::Container { namespace, .. }
            | Change::Task { namespace, .. }
            | Change::Snapshot { namespace, .. }
            | Change::Content { namespace, .. }
            | Change::Sandbox { namespace, .. }
            | Change::Lease { namespace, .. }
            | Change::Ingest { namespace, .. } => self.mirror(namespace).apply(change),
        }
    }

    /// After a delete containerd collects its garbage in every namespace, and says so to nobody.
    fn expect_collection(&self) {
        lock(&self.mirrors).values().for_each(|m| m.expect_collection());
    }
}

/// The source of the collection of namespaces.
struct Namespaces<'a>(&'a Inner);

impl Source<Arc<str>, Labels> for Namespaces<'_> {
    fn link(&self) -> Link {
        self.0.link()
    }

    fn trust(&self) -> Duration {
        // A write into a namespace that does not exist makes it, and no event tells.
        SECOND
    }

    fn list(&self) -> Result<BTreeMap<Arc<str>, Labels>> {
        use containerd_client::services::v1::ListNamespacesRequest;
        use containerd_client::services::v1::namespaces_client::NamespacesClient;
        let call = Call::new("Namespaces.List", "", &"namespaces");
        let list = unary!(self.0.rpc, call, NamespacesClient.list, ListNamespacesRequest::default())?;
        Ok(list.namespaces.into_iter().map(|n| (n.name.into(), n.labels.into_iter().collect())).collect())
    }

    fn get(&self, key: &Arc<str>) -> Result<Option<Labels>> {
        Ok(self.list()?.remove(key))
    }
}
