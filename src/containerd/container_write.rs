//! Containers, made, changed and deleted.

use super::change::{Patience, change};
use super::{Change, Document, Namespace};
use crate::error::{Error, Kind, Result};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::containers_client::ContainersClient;
use prost::Message;
use prost_types::{Any, FieldMask};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What containerd calls an OCI runtime spec; its bytes are JSON.
pub const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// A container to be made.
#[derive(Debug, Clone, Default)]
pub struct NewContainer {
    pub id: String,
    /// Name of the image; may be empty.
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub runtime: String,
    pub runtime_options: Option<Document>,
    /// The OCI runtime spec, in JSON.
    pub spec: Vec<u8>,
    pub snapshotter: String,
    pub snapshot_key: String,
    /// Id of the sandbox that it is made in; mostly empty.
    pub sandbox: String,
}

/// What a runtime other than runc is told (`runtimeoptions.v1.Options`).
#[derive(Clone, PartialEq, Message)]
struct RuntimeOptions {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
}

impl Document {
    /// The options of a runtime that reads its configuration from a file.
    pub fn runtime_config(path: &str) -> Document {
        let options = RuntimeOptions { type_url: String::new(), config_path: path.into() };
        Document { type_url: "runtimeoptions.v1.Options".into(), value: options.encode_to_vec() }
    }

    /// As the bytes of a protobuf `Any`.
    pub fn to_any(&self) -> Vec<u8> {
        any(self).encode_to_vec()
    }

    /// The same in other bytes: the value first. containerd before 2.0 fails to write a document of which a blob exists.
    pub fn to_any_by_value(&self) -> Vec<u8> {
        let value = Any { type_url: String::new(), value: self.value.clone() };
        let kind = Any { type_url: self.type_url.clone(), value: Vec::new() };
        [value.encode_to_vec(), kind.encode_to_vec()].concat()
    }

    /// Out of such bytes.
    pub fn from_any(bytes: &[u8]) -> Result<Document> {
        let any = Any::decode(bytes).map_err(|e| Error::caused(Kind::Corrupt, "this is no typed document", e))?;
        Ok(Document { type_url: any.type_url, value: any.value })
    }
}

/// How a checkpoint is made (`containerd.runc.v1.CheckpointOptions`).
#[derive(Clone, PartialEq, Message)]
pub struct CheckpointOptions {
    #[prost(bool, tag = "1")]
    pub exit: bool,
    #[prost(bool, tag = "5")]
    pub file_locks: bool,
    #[prost(string, tag = "8")]
    pub image_path: String,
    #[prost(string, tag = "9")]
    pub work_path: String,
}

impl CheckpointOptions {
    /// As the document that the runtime is sent.
    pub fn document(&self) -> Document {
        Document { type_url: "containerd.runc.v1.CheckpointOptions".into(), value: self.encode_to_vec() }
    }
}

/// The options of the runc shim (`containerd.runc.v1.Options`), of which `ctr` sets some.
#[derive(Clone, PartialEq, Message)]
pub struct RuncOptions {
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    #[prost(string, tag = "6")]
    pub binary_name: String,
    #[prost(string, tag = "7")]
    pub root: String,
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
    #[prost(string, tag = "10")]
    pub criu_image_path: String,
    #[prost(string, tag = "11")]
    pub criu_work_path: String,
}

impl RuncOptions {
    /// As the document that containerd keeps of them.
    pub fn document(&self) -> Document {
        Document { type_url: "containerd.runc.v1.Options".into(), value: self.encode_to_vec() }
    }

    /// Out of such a document; the default where it is of another type.
    pub fn of(document: &Document) -> RuncOptions {
        match document.type_url.ends_with("containerd.runc.v1.Options") {
            true => RuncOptions::decode(&*document.value).unwrap_or_default(),
            false => RuncOptions::default(),
        }
    }
}

pub(super) fn any(document: &Document) -> Any {
    Any { type_url: document.type_url.clone(), value: document.value.clone() }
}

impl Namespace {
    /// Makes a container's record.
    pub fn create_container(&self, new: &NewContainer) -> Result<()> {
        let object = format!("container {}", new.id);
        let container = api::Container {
            id: new.id.clone(),
            labels: new.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            image: new.image.clone(),
            runtime: Some(api::container::Runtime {
                name: new.runtime.clone(),
                options: new.runtime_options.as_ref().map(any),
            }),
            spec: Some(Any { type_url: SPEC_TYPE.into(), value: new.spec.clone() }),
            snapshotter: new.snapshotter.clone(),
            snapshot_key: new.snapshot_key.clone(),
            sandbox: new.sandbox.clone(),
            ..Default::default()
        };
        let query = api::CreateContainerRequest { container: Some(container) };
        let call = self.call("Containers.Create", &object);
        let made = change!(self, Patience::Usual, call, ContainersClient.create, query);
        self.container_changed(&new.id);
        made.map(drop)
    }

    /// Gives a container another spec.
    pub fn set_container_spec(&self, id: &str, spec: Vec<u8>) -> Result<()> {
        let object = format!("container {id}");
        let spec = Any { type_url: SPEC_TYPE.into(), value: spec };
        let container = api::Container { id: id.into(), spec: Some(spec), ..Default::default() };
        let mask = FieldMask { paths: vec!["spec".into()] };
        let query = api::UpdateContainerRequest { container: Some(container), update_mask: Some(mask) };
        let call = self.call("Containers.Update", &object);
        let done = change!(self, Patience::Usual, call, ContainersClient.update, query);
        self.container_changed(id);
        done.map(drop)
    }

    /// Deletes a container's record. containerd does so also under a running task, which then nobody can reach: the
    /// caller has to look first.
    pub fn delete_container(&self, id: &str) -> Result<()> {
        let object = format!("container {id}");
        let query = api::DeleteContainerRequest { id: id.into() };
        let call = self.call("Containers.Delete", &object);
        let done = change!(self, Patience::Usual, call, ContainersClient.delete, query);
        self.container_changed(id);
        self.inner().expect_collection();
        done.map(drop)
    }

    pub(super) fn container_changed(&self, id: &str) {
        let (namespace, id): (_, Arc<str>) = (Arc::clone(self.name()), id.into());
        self.client().touched(&Change::Container { namespace: namespace.clone(), id: id.clone() });
        self.client().touched(&Change::Task { namespace, id });
    }
}
