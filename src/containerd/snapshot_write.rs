//! Snapshots, made and removed, and layers applied to them.

use super::change::{Patience, change};
use super::{Change, Descriptor, Digest, Mount, Namespace, convert};
use crate::error::{Error, Kind, Result};
use crate::fail;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::types;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

fn map(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub(super) fn wire_mount(mount: &Mount) -> types::Mount {
    types::Mount {
        r#type: mount.kind.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    }
}

pub(super) fn wire_descriptor(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.to_string(),
        digest: descriptor.digest.to_string(),
        size: descriptor.size as i64,
        annotations: descriptor.annotations.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

/// Makes a snapshot on a parent, of one of the two kinds: only the request and the method differ.
macro_rules! made {
    ($ns:expr, $name:literal, $request:ident, $method:ident, ($snapshotter:expr, $key:expr, $parent:expr, $labels:expr)) => {{
        let object = format!("{} snapshot {}", $snapshotter, $key);
        let (snapshotter, key, parent) = ($snapshotter.into(), $key.into(), $parent.into());
        let query = snap::$request { snapshotter, key, parent, labels: map($labels) };
        let call = $ns.call($name, &object);
        let made = change!($ns, Patience::Long, call, SnapshotsClient.$method, query);
        $ns.snapshot_changed($snapshotter, $key);
        Ok(made?.mounts.into_iter().map(convert::mount).collect())
    }};
}

impl Namespace {
    /// An active snapshot on `parent` (empty for none), and how it is mounted.
    pub fn prepare_snapshot(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>> {
        made!(self, "Snapshots.Prepare", PrepareSnapshotRequest, prepare, (snapshotter, key, parent, labels))
    }

    /// A view of `parent`: read-only, and collected at once where neither a lease nor a label holds it.
    pub fn view_snapshot(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>> {
        made!(self, "Snapshots.View", ViewSnapshotRequest, view, (snapshotter, key, parent, labels))
    }

    /// Makes the active snapshot `key` the committed snapshot `name`.
    pub fn commit_snapshot(
        &self,
        snapshotter: &str,
        key: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<()> {
        let object = format!("{snapshotter} snapshot {key}");
        let query = snap::CommitSnapshotRequest {
            snapshotter: snapshotter.into(),
            name: name.into(),
            key: key.into(),
            labels: map(labels),
        };
        let call = self.call("Snapshots.Commit", &object);
        let done = change!(self, Patience::Long, call, SnapshotsClient.commit, query);
        self.snapshot_changed(snapshotter, key);
        self.snapshot_changed(snapshotter, name);
        done.map(drop)
    }

    /// Removes a snapshot, whoever uses it. [`Namespace::remove_unused_snapshot`] is the one for a user's word.
    pub fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<()> {
        let object = format!("{snapshotter} snapshot {key}");
        let query = snap::RemoveSnapshotRequest { snapshotter: snapshotter.into(), key: key.into() };
        let call = self.call("Snapshots.Remove", &object);
        let done = change!(self, Patience::Long, call, SnapshotsClient.remove, query);
        self.snapshot_changed(snapshotter, key);
        self.inner().expect_collection();
        done.map(drop)
    }

    /// Removes a snapshot that is no container's root file system: containerd would take it from under its process.
    pub fn remove_unused_snapshot(&self, snapshotter: &str, key: &str) -> Result<()> {
        let containers = self.containers()?;
        let user = containers.values().find(|c| &*c.snapshotter == snapshotter && &*c.snapshot_key == key);
        if let Some(user) = user {
            return fail!(
                Busy,
                "{snapshotter} snapshot {key}: it is the root file system of container {}; delete that first",
                user.id
            );
        }
        self.remove_snapshot(snapshotter, key)
    }

    /// Unpacks a layer into what is mounted so; the digest of the uncompressed archive.
    pub fn apply_diff(&self, layer: &Descriptor, mounts: &[Mount]) -> Result<Digest> {
        use api::diff_client::DiffClient;
        let object = format!("layer {}", layer.digest);
        let query = api::ApplyRequest {
            diff: Some(wire_descriptor(layer)),
            mounts: mounts.iter().map(wire_mount).collect(),
            ..Default::default()
        };
        let call = self.call("Diff.Apply", &object);
        let applied = change!(self, Patience::Long, call, DiffClient.apply, query)?.applied;
        let digest = applied.and_then(|a| Digest::parse(&a.digest));
        digest.ok_or_else(|| Error::new(Kind::Io, format!("{object}: containerd did not say what it unpacked")))
    }

    /// Writes the difference of two mounts as a blob of `media_type`; its descriptor.
    pub fn create_diff(
        &self,
        lower: &[Mount],
        upper: &[Mount],
        media_type: &str,
        reference: &str,
    ) -> Result<Descriptor> {
        use api::diff_client::DiffClient;
        let object = format!("diff {reference}");
        let query = api::DiffRequest {
            left: lower.iter().map(wire_mount).collect(),
            right: upper.iter().map(wire_mount).collect(),
            media_type: media_type.into(),
            r#ref: reference.into(),
            ..Default::default()
        };
        let call = self.call("Diff.Diff", &object);
        let made = change!(self, Patience::Long, call, DiffClient.diff, query)?.diff;
        let made = made.map(convert::descriptor);
        let made =
            made.ok_or_else(|| Error::new(Kind::Io, format!("{object}: containerd did not say what it wrote")))?;
        let digest = made.digest.to_string().into();
        self.client().touched(&Change::Content { namespace: Arc::clone(self.name()), digest });
        Ok(made)
    }

    pub(super) fn snapshot_changed(&self, snapshotter: &str, key: &str) {
        let (namespace, snapshotter, key) = (Arc::clone(self.name()), snapshotter.into(), key.into());
        self.client().touched(&Change::Snapshot { namespace, snapshotter, key });
    }
}
