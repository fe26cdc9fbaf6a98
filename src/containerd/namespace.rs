//! One namespace: a handle to ask with, and the collections of its mirror.

use super::mirror::{Keyed, Source};
use super::rpc::{Call, lock};
use super::sources::{Blobs, Containers, Images, Ingests, Leases, Sandboxes, Snapshots, Tasks};
use super::{BlobInfo, Change, Client, Digest, Inner, Labels};
use super::{ContainerRecord, ImageRecord, IngestRecord, LeaseRecord, SandboxRecord, SnapshotRecord, TaskRecord};
use crate::error::Result;
use crate::fail;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A map of records that readers share; a change copies it only while somebody still reads it.
pub type Map<R> = Arc<BTreeMap<Arc<str>, R>>;

type Records<R> = Keyed<Arc<str>, Arc<R>>;

/// What is known of a namespace.
#[derive(Default)]
pub(super) struct Mirror {
    pub images: Records<ImageRecord>,
    pub containers: Records<ContainerRecord>,
    tasks: Records<TaskRecord>,
    snapshots: Mutex<HashMap<Arc<str>, Arc<Records<SnapshotRecord>>>>,
    leases: Records<LeaseRecord>,
    ingests: Records<IngestRecord>,
    sandboxes: Records<SandboxRecord>,
    pub blobs: Keyed<Digest, BlobInfo>,
}

impl Mirror {
    pub fn snapshots(&self, snapshotter: &str) -> Arc<Records<SnapshotRecord>> {
        let mut all = lock(&self.snapshots);
        match all.get(snapshotter) {
            Some(records) => records.clone(),
            None => all.entry(snapshotter.into()).or_default().clone(),
        }
    }

    pub fn invalidate(&self) {
        self.images.invalidate();
        self.containers.invalidate();
        self.tasks.invalidate();
        self.leases.invalidate();
        self.ingests.invalidate();
        self.sandboxes.invalidate();
        self.expect_collection();
    }

    /// Blobs and snapshots may go now.
    pub fn expect_collection(&self) {
        self.blobs.invalidate();
        lock(&self.snapshots).values().for_each(|s| s.invalidate());
    }

    /// The namespace is gone; one of the same name begins empty.
    pub fn clear(&self) {
        self.invalidate();
        self.images.clear();
        self.containers.clear();
        self.tasks.clear();
        self.leases.clear();
        self.ingests.clear();
        self.sandboxes.clear();
        self.blobs.clear();
        lock(&self.snapshots).values().for_each(|s| s.clear());
    }

    pub fn apply(&self, change: &Change) {
        match change {
            Change::Image { name, .. } => touch(&self.images, name),
            Change::Container { id, .. } => touch(&self.containers, id),
            Change::Task { id, .. } => touch(&self.tasks, id),
            Change::Sandbox { id, .. } => touch(&self.sandboxes, id),
            Change::Lease { id, .. } => touch(&self.leases, id),
            Change::Ingest { reference, .. } => touch(&self.ingests, reference),
            Change::Snapshot { snapshotter, key, .. } => {
                let all = lock(&self.snapshots);
                all.iter()
                    .filter(|(name, _)| snapshotter.is_empty() || *name == snapshotter)
                    .for_each(|(_, records)| touch(records, key));
            }
            Change::Content { digest, .. } => match Digest::parse(digest) {
                Some(digest) => self.blobs.touch(digest),
                None => self.blobs.invalidate(),
            },
            // Found by a list: the mirror knows.
            Change::Presence { .. } => {}
            Change::Namespace { .. } | Change::Everything => self.invalidate(),
        }
    }
}

fn touch<R: PartialEq>(records: &Records<R>, name: &Arc<str>) {
    match name.is_empty() {
        true => records.invalidate(),
        false => records.touch(name.clone()),
    }
}

/// One namespace: a name to ask with. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    client: Client,
    name: Arc<str>,
    mirror: Arc<Mirror>,
    /// What calls through this handle make is held by this lease; empty for none.
    lease: Arc<str>,
}

impl Namespace {
    pub(super) fn new(client: Client, name: Arc<str>, mirror: Arc<Mirror>) -> Namespace {
        Namespace { client, name, mirror, lease: Arc::default() }
    }

    /// The same namespace through a handle whose calls make things that `lease` holds.
    pub(super) fn under(&self, lease: &str) -> Namespace {
        Namespace { lease: lease.into(), ..self.clone() }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The client that it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.client.inner
    }

    pub(super) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    pub(super) fn call<'a>(&'a self, method: &'static str, object: &'a dyn std::fmt::Display) -> Call<'a> {
        Call { method, namespace: &self.name, lease: &self.lease, object }
    }

    /// Its labels; `NotFound` if it is gone.
    pub fn labels(&self) -> Result<Labels> {
        match self.client.namespaces()?.get(&self.name) {
            Some(labels) => Ok(labels.clone()),
            None => fail!(NotFound, "there is no namespace {}", self.name),
        }
    }

    /// Every image, by reference.
    pub fn images(&self) -> Result<Map<Arc<ImageRecord>>> {
        self.mirror.images.all(&Images(self))
    }

    /// The image of this reference.
    pub fn image(&self, name: &str) -> Result<Option<Arc<ImageRecord>>> {
        self.mirror.images.one(&name.into(), &Images(self))
    }

    /// Every container, by id.
    pub fn containers(&self) -> Result<Map<Arc<ContainerRecord>>> {
        self.mirror.containers.all(&Containers(self))
    }

    /// The container of this id.
    pub fn container(&self, id: &str) -> Result<Option<Arc<ContainerRecord>>> {
        self.mirror.containers.one(&id.into(), &Containers(self))
    }

    /// Every task, by the id of its container.
    pub fn tasks(&self) -> Result<Map<Arc<TaskRecord>>> {
        self.mirror.tasks.all(&Tasks(self))
    }

    /// The task of the container `id`.
    pub fn task(&self, id: &str) -> Result<Option<Arc<TaskRecord>>> {
        self.mirror.tasks.one(&id.into(), &Tasks(self))
    }

    /// Every snapshot of a snapshotter, by key.
    pub fn snapshots(&self, snapshotter: &str) -> Result<Map<Arc<SnapshotRecord>>> {
        self.mirror.snapshots(snapshotter).all(&Snapshots(self, snapshotter))
    }

    /// One snapshot.
    pub fn snapshot(&self, snapshotter: &str, key: &str) -> Result<Option<Arc<SnapshotRecord>>> {
        self.mirror.snapshots(snapshotter).one(&key.into(), &Snapshots(self, snapshotter))
    }

    /// Whether a snapshot is there at this moment, whatever was known of it.
    pub fn has_snapshot(&self, snapshotter: &str, key: &str) -> Result<bool> {
        let is_there = Snapshots(self, snapshotter).get(&key.into())?.is_some();
        if !is_there {
            self.mirror.expect_collection();
        }
        Ok(is_there)
    }

    /// Every lease, by id.
    pub fn leases(&self) -> Result<Map<Arc<LeaseRecord>>> {
        self.mirror.leases.all(&Leases(self))
    }

    /// Everything that is being written, by reference.
    pub fn ingests(&self) -> Result<Map<Arc<IngestRecord>>> {
        self.mirror.ingests.all(&Ingests(self))
    }

    /// Empty where the server has no sandboxes.
    pub fn sandboxes(&self) -> Result<Map<Arc<SandboxRecord>>> {
        match self.client.has_sandboxes()? {
            true => self.mirror.sandboxes.all(&Sandboxes(self)),
            false => Ok(Arc::default()),
        }
    }

    /// Every blob that the namespace knows.
    pub fn blobs(&self) -> Result<Arc<BTreeMap<Digest, BlobInfo>>> {
        self.mirror.blobs.all(&Blobs(self))
    }

    /// A number that stays as long as the same blobs are here; `None` while nobody knows that without asking.
    pub(super) fn blobs_version(&self) -> Option<u64> {
        self.mirror.blobs.version(&Blobs(self))
    }

    /// Whether events of the namespace are heard now.
    pub fn is_heard(&self) -> bool {
        let link = self.inner().link();
        link.epoch != 0 && !link.away
    }

    /// Whether it is certain that [`Change::Presence`] comes if within `time` from now other blobs are here. Only while
    /// so much is asked of them that somebody looks after them anyway.
    pub fn promises_presence(&self, time: Duration) -> bool {
        self.is_heard() && self.mirror.blobs.promise(time)
    }

    /// What the namespace knows of one blob; one call, unless a list is at most a second old.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let answer = self.mirror.blobs.one(digest, &Blobs(self));
        if self.mirror.blobs.claim_renewal() {
            let namespace = self.clone();
            let renew = move || {
                let changed = || {
                    let name = namespace.name.clone();
                    namespace.inner().events.send(Change::Presence { namespace: name });
                };
                namespace.mirror.blobs.renew(&Blobs(&namespace), changed);
            };
            if std::thread::Builder::new().name("ctrfs-blobs".into()).spawn(renew).is_err() {
                self.mirror.blobs.abandon_renewal();
            }
        }
        answer
    }
}
