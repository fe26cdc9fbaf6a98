//! Labels, set and cleared one by one, on everything that has them.

use super::change::{Patience, change};
use super::{Change, Digest, Namespace};
use crate::error::Result;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use prost_types::FieldMask;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Labels to set; an empty value clears its label, as `ctr … label` has it.
pub type LabelChanges = BTreeMap<String, String>;

/// The mask that leaves all other labels as they are.
fn mask(changes: &LabelChanges) -> Option<FieldMask> {
    Some(FieldMask { paths: changes.keys().map(|key| format!("labels.{key}")).collect() })
}

fn map(changes: &LabelChanges) -> HashMap<String, String> {
    changes.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Namespace {
    /// Sets and clears labels of an image.
    pub fn label_image(&self, name: &str, labels: &LabelChanges) -> Result<()> {
        use api::images_client::ImagesClient;
        let object = format!("image {name}");
        // The mask leaves the target alone, but containerd 1.7 and 2.x dereference it: without one they crash.
        let target = Some(Default::default());
        let image = api::Image { name: name.into(), labels: map(labels), target, ..Default::default() };
        let query = api::UpdateImageRequest { image: Some(image), update_mask: mask(labels), source_date_epoch: None };
        let call = self.call("Images.Update", &object);
        let done = change!(self, Patience::Usual, call, ImagesClient.update, query);
        self.client().touched(&Change::Image { namespace: Arc::clone(self.name()), name: name.into() });
        done.map(drop)
    }

    /// Sets and clears labels of a container.
    pub fn label_container(&self, id: &str, labels: &LabelChanges) -> Result<()> {
        use api::containers_client::ContainersClient;
        let object = format!("container {id}");
        let container = api::Container { id: id.into(), labels: map(labels), ..Default::default() };
        let query = api::UpdateContainerRequest { container: Some(container), update_mask: mask(labels) };
        let call = self.call("Containers.Update", &object);
        let done = change!(self, Patience::Usual, call, ContainersClient.update, query);
        self.client().touched(&Change::Container { namespace: Arc::clone(self.name()), id: id.into() });
        done.map(drop)
    }

    /// Sets and clears labels of a blob.
    pub fn label_blob(&self, digest: &Digest, labels: &LabelChanges) -> Result<()> {
        use api::content_client::ContentClient;
        let object = format!("blob {digest}");
        let info = api::Info { digest: digest.to_string(), labels: map(labels), ..Default::default() };
        let query = api::UpdateRequest { info: Some(info), update_mask: mask(labels) };
        let call = self.call("Content.Update", &object);
        let done = change!(self, Patience::Usual, call, ContentClient.update, query);
        let digest = digest.to_string().into();
        self.client().touched(&Change::Content { namespace: Arc::clone(self.name()), digest });
        done.map(drop)
    }

    /// Sets and clears labels of a snapshot.
    pub fn label_snapshot(&self, snapshotter: &str, key: &str, labels: &LabelChanges) -> Result<()> {
        use snap::snapshots_client::SnapshotsClient;
        let object = format!("{snapshotter} snapshot {key}");
        let info = snap::Info { name: key.into(), labels: map(labels), ..Default::default() };
        let query = snap::UpdateSnapshotRequest {
            snapshotter: snapshotter.into(),
            info: Some(info),
            update_mask: mask(labels),
        };
        let call = self.call("Snapshots.Update", &object);
        let done = change!(self, Patience::Usual, call, SnapshotsClient.update, query);
        self.snapshot_changed(snapshotter, key);
        done.map(drop)
    }

    /// Sets and clears labels of the namespace itself.
    pub fn label(&self, labels: &LabelChanges) -> Result<()> {
        use api::namespaces_client::NamespacesClient;
        let object = format!("namespace {}", self.name());
        let namespace = api::Namespace { name: self.name().to_string(), labels: map(labels) };
        let query = api::UpdateNamespaceRequest { namespace: Some(namespace), update_mask: mask(labels) };
        let call = self.call("Namespaces.Update", &object);
        let done = change!(self, Patience::Usual, call, NamespacesClient.update, query);
        self.client().touched(&Change::Namespace { name: Arc::clone(self.name()) });
        done.map(drop)
    }
}
