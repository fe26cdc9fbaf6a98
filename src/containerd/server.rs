//! The server behind the socket: who it is and what it can do.

use super::flight::Flights;
use super::rpc::{Call, lock, request, unary};
use super::{Client, Inner, Platform, convert, status};
use crate::error::Result;
use containerd_client::services::v1 as api;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tonic::Code;

/// What a look at the socket found.
#[derive(Debug, Clone)]
pub enum Probe {
    /// containerd, of this version.
    Containerd(String),
    /// Nothing listens there; it may come.
    Away(String),
    /// Something listens, and it is no containerd.
    Stranger(String),
    /// Something listens and has not answered in time.
    Silent,
}

/// The server behind the socket.
#[derive(Debug, Clone, Default)]
pub struct Server {
    pub version: String,
    pub revision: String,
    pub uuid: String,
    /// 0 on 1.6, which does not tell.
    pub pid: u64,
    pub pidns: u64,
    pub deprecations: Vec<Deprecation>,
}

/// A use of something that containerd is going to drop.
#[derive(Debug, Clone)]
pub struct Deprecation {
    pub id: String,
    pub message: String,
    pub last: Option<SystemTime>,
}

/// A plugin of the server.
#[derive(Debug, Clone, Default)]
pub struct Plugin {
    /// `io.containerd.snapshotter.v1`, …
    pub kind: String,
    pub id: String,
    pub requires: Vec<String>,
    pub platforms: Vec<Platform>,
    pub exports: BTreeMap<String, String>,
    pub capabilities: Vec<String>,
    /// Code and message, if it did not start.
    pub init_error: Option<(i32, String)>,
}

/// What was asked of this server; forgotten when the connection is new.
#[derive(Default)]
pub(super) struct Facts {
    server: Mutex<Option<Arc<Server>>>,
    plugins: Mutex<Option<Arc<Vec<Plugin>>>>,
    flights: Flights<&'static str>,
}

impl Facts {
    pub fn forget(&self) {
        *lock(&self.server) = None;
        *lock(&self.plugins) = None;
    }
}

impl Client {
    /// Version, identity and deprecations; asked once for every connection.
    pub fn server(&self) -> Result<Arc<Server>> {
        let facts = &self.inner.server;
        let ready = || lock(&facts.server).clone();
        facts.flights.run(&"server", ready, || {
            let server = Arc::new(self.inner.ask_server()?);
            *lock(&facts.server) = Some(server.clone());
            Ok(server)
        })
    }

    /// The plugins; asked once for every connection.
    pub fn plugins(&self) -> Result<Arc<Vec<Plugin>>> {
        let facts = &self.inner.server;
        let ready = || lock(&facts.plugins).clone();
        facts.flights.run(&"plugins", ready, || {
            let plugins = Arc::new(self.inner.ask_plugins()?);
            *lock(&facts.plugins) = Some(plugins.clone());
            Ok(plugins)
        })
    }

    /// The ids of the snapshotters that work, sorted.
    pub fn snapshotters(&self) -> Result<Vec<Arc<str>>> {
        let plugins = self.plugins()?;
        let works = plugins.iter().filter(|p| p.kind == "io.containerd.snapshotter.v1" && p.init_error.is_none());
        let mut ids: Vec<Arc<str>> = works.map(|p| p.id.as_str().into()).collect();
        ids.sort();
        Ok(ids)
    }

    /// Whether a plugin of this type is loaded and works, for instance `io.containerd.transfer.v1`.
    pub fn has_plugin(&self, kind: &str) -> Result<bool> {
        Ok(self.plugins()?.iter().any(|p| p.kind == kind && p.init_error.is_none()))
    }

    /// Whether the server has the sandbox store (1.7 and later).
    pub fn has_sandboxes(&self) -> Result<bool> {
        let is_service =
            |p: &Plugin| p.kind == "io.containerd.grpc.v1" && p.id == "sandboxes" && p.init_error.is_none();
        Ok(self.plugins()?.iter().any(is_service))
    }

    /// Whether the server has the transfer service (1.7 and later).
    pub fn has_transfer(&self) -> Result<bool> {
        Ok(self.has_plugin("io.containerd.transfer.v1")? && self.has_plugin("io.containerd.streaming.v1")?)
    }

    /// The directory of the local content store, as the server tells it, if it has one. It is a path of the server's
    /// mount namespace, and what a namespace knows of it is for `Content.Info` to say.
    pub fn content_root(&self) -> Result<Option<PathBuf>> {
        let plugins = self.plugins()?;
        let store = plugins.iter().find(|p| p.kind == "io.containerd.content.v1" && p.init_error.is_none());
        Ok(store.and_then(|p| p.exports.get("root")).map(PathBuf::from))
    }

    /// Who answers at the socket, for start-up: nothing else is told apart from a server that is away.
    pub fn probe(&self, timeout: Duration) -> Probe {
        use api::version_client::VersionClient;
        let rpc = &self.inner.rpc;
        let call = Call::new("Version.Version", "", &"version");
        let ask = async {
            let request = request(call, ()).map_err(|e| tonic::Status::internal(e.to_string()))?;
            VersionClient::new(rpc.channel()).version(request).await
        };
        let deadline = Instant::now() + timeout;
        match rpc.handle().block_on(async { tokio::time::timeout_at(deadline.into(), ask).await }) {
            Err(_) => Probe::Silent,
            Ok(Ok(answer)) => Probe::Containerd(answer.into_inner().version),
            Ok(Err(status)) => classify(&status),
        }
    }
}

/// What a failed question for the version says of who was asked.
fn classify(status: &tonic::Status) -> Probe {
    let cause = status::cause(status);
    let mut error: Option<&dyn std::error::Error> = Some(status);
    while let Some(e) = error {
        // No connection at all: an errno of connect(2).
        if e.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error().is_some()) {
            return Probe::Away(cause);
        }
        error = e.source();
    }
    match status.code() {
        Code::Unavailable if !status::is_transport(status) => Probe::Away(cause),
        Code::Unimplemented => Probe::Stranger("it speaks gRPC and is no containerd".into()),
        _ => Probe::Stranger(cause),
    }
}

impl Inner {
    fn ask_server(&self) -> Result<Server> {
        use api::introspection_client::IntrospectionClient;
        use api::version_client::VersionClient;
        let call = Call::new("Version.Version", "", &"version");
        let version = unary!(self.rpc, call, VersionClient.version, ())?;
        let call = Call::new("Introspection.Server", "", &"server");
        let server = unary!(self.rpc, call, IntrospectionClient.server, ())?;
        let deprecation = |d: api::DeprecationWarning| Deprecation {
            id: d.id,
            message: d.message,
            last: convert::time(d.last_occurrence),
        };
        Ok(Server {
            version: version.version,
            revision: version.revision,
            uuid: server.uuid,
            pid: server.pid,
            pidns: server.pidns,
            deprecations: server.deprecations.into_iter().map(deprecation).collect(),
        })
    }

    fn ask_plugins(&self) -> Result<Vec<Plugin>> {
        use api::introspection_client::IntrospectionClient;
        let call = Call::new("Introspection.Plugins", "", &"plugins");
        let list = unary!(self.rpc, call, IntrospectionClient.plugins, api::PluginsRequest::default())?;
        let plugin = |p: api::Plugin| Plugin {
            kind: p.r#type,
            id: p.id,
            requires: p.requires,
            platforms: p.platforms.into_iter().map(convert::platform).collect::<Vec<Platform>>(),
            exports: p.exports.into_iter().collect::<BTreeMap<_, _>>(),
            capabilities: p.capabilities,
            init_error: p.init_err.map(|e| (e.code, e.message)),
        };
        Ok(list.plugins.into_iter().map(plugin).collect())
    }

    /// The version, for the thread that watches the connection.
    pub(super) fn ping(&self) -> Result<()> {
        use api::version_client::VersionClient;
        let call = Call::new("Version.Version", "", &"version");
        unary!(self.rpc, call, VersionClient.version, ()).map(drop)
    }
}

impl Server {
    /// Whether this is 1.6 or older, which tells neither of snapshotters in events nor of much else.
    pub fn is_old(&self) -> bool {
        let version = self.version.trim_start_matches('v');
        let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (1, 7)
    }
}
