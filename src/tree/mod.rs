//! `/`: the tree. One source file per directory; the path of the source is the path in the mount.
//!
//! To add a file, add one row to the table of its directory. To add a directory, add one source file and one row in
//! its parent.

pub mod name;
pub mod namespace;
pub mod plugins;
pub mod rootfs;
pub mod status;
pub mod tag;
mod text;

use crate::containerd::Client;
use crate::error::Result;
use crate::node::bind::Made;
use crate::node::row::{dir, each, follow, log, text};
use crate::node::{Dir, Each, Followed, Follower, Member, Node, Object, Stream, Target, bind};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;
use text::{Text, line};

/// The whole of it: a client of containerd and the daemon that serves it.
#[derive(Clone)]
pub struct Root(Arc<Shared>);

/// What all objects of the tree share.
pub struct Shared {
    pub client: Client,
    pub daemon: Arc<status::Daemon>,
    pub links: namespace::links::Links,
    pub layouts: namespace::images::oci::Layouts,
    pub roots: Arc<rootfs::Roots>,
    pub waiting: crate::run::content::Waiting,
    pub engine: Arc<crate::run::Engine>,
}

/// The node of the root.
pub fn root(
    client: Client,
    daemon: Arc<status::Daemon>,
    roots: Arc<rootfs::Roots>,
    engine: Arc<crate::run::Engine>,
) -> Node {
    bind::member(
        Root(Arc::new(Shared {
            client,
            daemon,
            links: Default::default(),
            layouts: Default::default(),
            roots,
            waiting: Default::default(),
            engine,
        })),
        &ROOT,
    )
}

/// The reference of the tree, as `docs/tree.md` has it.
pub fn reference() -> String {
    format!("{HEAD}{}", crate::node::doc::reference(&ROOT))
}

const HEAD: &str = "\
# The tree

Written by `ctrfs --tree` from the tables that serve the tree; a test holds this page against them. *text*: rendered
from memory, its size is true. *live text*: fetched when it is opened. *state*: a text that poll(2) waits for: POLLPRI when a read at offset 0 would show another.
*bytes*: immutable, byte for byte. *grows*: ends
where it ends now. *waits*: a read at its end waits; found by name, never listed. *control*: takes commands, one a line. *private*: only for the owner of the
mount, under `allow_other` too. What does not apply, or is not on this host, is absent.

";

impl Object for Root {
    fn component(&self) -> Cow<'_, str> {
        "".into()
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        Ok(Some(self.0.daemon.started))
    }
    fn tag(&self) -> Option<u64> {
        Some(tag::root())
    }
}

static ROOT: Dir<Root> = Dir {
    doc: "Everything that this containerd knows.",
    rows: &[
        text("README", "What this is, on one screen.", |_| Ok(Some(README.into()))),
        text("CACHEDIR.TAG", "Lets backups pass by (bford.info/cachedir).", |_| Ok(Some(CACHEDIR_TAG.into()))),
        text("version", "Version and revision of containerd.", |root| {
            let server = root.0.client.server()?;
            line(format_args!("{} {}", server.version, server.revision))
        }),
        text("info.json", "UUID, process and deprecations of the server (`ctr info`).", info),
        text(
            "deprecations",
            "What the server's configuration uses and will lose: id, last use, message.",
            deprecations,
        ),
        text("spec.json", "The OCI runtime spec that a container starts from (`ctr oci spec`).", |root| {
            let spec = crate::run::spec::default(&root.0.client.server()?.version);
            spec.map_or(Ok(None), |spec| text::json(&spec))
        }),
        dir("plugins", &plugins::PLUGINS),
        log("events", "Every event since the mount, of every namespace, one JSON object a line.", |root| {
            events(&root.0.client, None)
        }),
        follow("events.follow", "The same; a read at the end waits for the next event.", |root| {
            events(&root.0.client, None)
        }),
        dir(".ctrfs", &status::STATUS),
        dir("namespaces", &NAMESPACES),
    ],
};

static NAMESPACES: Dir<Root> = Dir {
    doc: "One directory a namespace.",
    rows: &[each(
        "<namespace>",
        "A namespace: nothing in it is seen from another one.",
        &Made {
            family: Each { list: namespaces, find: find_namespace, member: Member::Dir(&namespace::NAMESPACE) },
            make: |root, name| root.0.client.create_namespace(name, &Default::default()),
        },
    )],
};

fn namespaces(root: &Root) -> Result<Vec<namespace::Ns>> {
    let names = root.0.client.namespaces()?;
    let open = |name: &Arc<str>| namespace::Ns::open(&root.0, name);
    names.keys().map(open).filter_map(Result::transpose).collect()
}

fn find_namespace(root: &Root, component: &str) -> Result<Option<namespace::Ns>> {
    // containerd's names of namespaces need no encoding; a name that does is none.
    if name::encode(component) != component { Ok(None) } else { namespace::Ns::open(&root.0, component) }
}

fn info(root: &Root) -> Text {
    let server = root.0.client.server()?;
    let deprecations = server.deprecations.iter().map(|d| json!({ "id": d.id, "message": d.message }));
    let mut info = json!({ "version": server.version, "revision": server.revision, "uuid": server.uuid });
    if server.pid != 0 {
        info["pid"] = server.pid.into();
        info["pidns"] = server.pidns.into();
    }
    info["deprecations"] = deprecations.collect();
    text::json(&info)
}

fn deprecations(root: &Root) -> Text {
    let server = root.0.client.server()?;
    let line = |d: &crate::containerd::Deprecation| {
        let last = d.last.map_or_else(|| "-".into(), text::rfc3339);
        format!("{}\t{last}\t{}\n", text::field(&d.id), text::field(&d.message))
    };
    Ok(Some(server.deprecations.iter().map(line).collect::<String>().into_bytes()))
}

/// The log of events of one namespace, or of all.
fn events(client: &Client, namespace: Option<&str>) -> Result<Option<Arc<dyn Stream>>> {
    let log = client.events(namespace);
    let generation = log.generation();
    Ok(Some(Arc::new(Events { log, generation })))
}

/// A log of events as a file: one generation of it.
struct Events {
    log: Arc<crate::containerd::EventLog>,
    generation: Arc<crate::containerd::Generation>,
}

impl Stream for Events {
    fn generation(&self) -> u64 {
        self.generation.id()
    }
    fn modified(&self) -> Option<SystemTime> {
        Some(self.generation.modified())
    }
    fn size(&self) -> u64 {
        self.generation.len()
    }
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        Ok(self.generation.read_at(offset, length))
    }
    fn follow(&self) -> Result<Box<dyn Follower>> {
        let origin = self.log.start();
        Ok(Box::new(EventsFollower { log: Arc::clone(&self.log), origin, at: origin }))
    }
}

/// A reader of a log. Offset 0 of its file is the oldest event that was kept when it was opened.
struct EventsFollower {
    log: Arc<crate::containerd::EventLog>,
    origin: u64,
    /// Where the last read ended.
    at: u64,
}

impl Follower for EventsFollower {
    fn read(&mut self, offset: u64, length: usize) -> Result<Followed> {
        let from = self.origin.saturating_add(offset);
        match self.log.read(from, length) {
            Ok(bytes) if bytes.is_empty() => {
                self.at = from;
                Ok(Followed::Nothing)
            }
            Ok(bytes) => {
                self.at = from + bytes.len() as u64;
                Ok(Followed::Bytes(bytes))
            }
            Err(error) => {
                // Told once: the next read goes on with the oldest event that is kept.
                self.origin = self.log.start().saturating_sub(offset);
                Err(error)
            }
        }
    }
    fn ready(&self) -> bool {
        self.log.end() > self.at
    }
}

/// Whether a link's target is shown, and where.
type Link = Result<Option<Target>>;

fn link<'a>(names: impl IntoIterator<Item = &'a str>) -> Link {
    Ok(Some(Target::Tree(name::join(names))))
}

const README: &str = include_str!("README");

const CACHEDIR_TAG: &str = "\
Signature: 8a477f597d28d172789f06886806bc55
# What is below this directory shows a containerd; there is nothing to back up.
";
