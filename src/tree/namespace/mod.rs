//! `/namespaces/<namespace>/`: one namespace of containerd.

pub mod blobs;
pub mod containers;
mod diff;
pub mod images;
pub mod ingests;
pub mod jobs;
pub mod layer;
pub mod leases;
pub mod links;
pub mod manifest;
pub mod pods;
pub mod sandboxes;
pub mod snapshots;
pub mod tables;
pub mod verbs;

use super::{Shared, tag, text};
use crate::containerd::Namespace;
use crate::error::Result;
use crate::node::row::{ctl, dir, follow, log, outcome, private, sink, text as text_row, when};
use crate::node::{Dir, Object};
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

/// A namespace, and what all objects share: one word, for every object has it.
#[derive(Clone)]
pub struct Ns(Arc<Scope>);

/// What an [`Ns`] leads to.
pub struct Scope {
    pub namespace: Namespace,
    pub shared: Arc<Shared>,
}

impl Deref for Ns {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.0
    }
}

impl Ns {
    /// The namespace of this name, if containerd has it.
    pub fn open(shared: &Arc<Shared>, name: &str) -> Result<Option<Ns>> {
        let namespace = shared.client.namespace(name)?;
        Ok(namespace.map(|namespace| Ns(Arc::new(Scope { namespace, shared: Arc::clone(shared) }))))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }
}

impl Object for Ns {
    fn component(&self) -> Cow<'_, str> {
        self.name().into()
    }
    fn labels(&self) -> Result<Vec<(String, String)>> {
        Ok(text::pairs(&self.namespace.labels()?))
    }
    fn tag(&self) -> Option<u64> {
        Some(tag::namespace(self.name()))
    }
    fn set_label(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.namespace.label(&verbs::one_label(key, value))
    }
    fn delete(&self) -> Result<()> {
        self.namespace.remove()
    }
}

pub static NAMESPACE: Dir<Ns> = Dir {
    doc: "A namespace. Each label is also an xattr `user.label.<key>` of the directory.",
    rows: &[
        ctl(&verbs::VERBS),
        outcome(),
        sink("import", "An archive of images written here is imported.", verbs::images::incoming),
        text_row("labels", "Its labels, `key=value` a line.", |ns| text::labels(&ns.namespace.labels()?)),
        log("events", "The events of this namespace, one JSON object a line.", |ns| {
            super::events(ns.namespace.client(), Some(ns.name()))
        }),
        follow("events.follow", "The same; a read at the end waits for the next event.", |ns| {
            super::events(ns.namespace.client(), Some(ns.name()))
        }),
        text_row("images.tsv", "One line an image, and a header: name, type, digest, times, labels.", tables::images),
        text_row("containers.tsv", "One line a container: id, image, runtime, snapshot, times.", tables::containers),
        text_row("tasks.tsv", "One line a task: id, process, status, exit.", tables::tasks),
        text_row("snapshots.tsv", "One line a snapshot: snapshotter, key, parent, kind, times.", tables::snapshots),
        dir("images", &images::IMAGES),
        dir("manifests", &manifest::MANIFESTS),
        dir("blobs", &blobs::ALGORITHMS),
        private(dir("ingests", &ingests::INGESTS)),
        private(dir("snapshots", &snapshots::SNAPSHOTTERS)),
        private(dir("containers", &containers::CONTAINERS)),
        when(pods::any, dir("pods", &pods::NAMESPACES)),
        when(|ns| ns.namespace.client().has_sandboxes(), dir("sandboxes", &sandboxes::SANDBOXES)),
        dir("leases", &leases::LEASES),
        private(dir("jobs", &jobs::JOBS)),
    ],
};
