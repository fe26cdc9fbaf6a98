//! containerd's API, for what `ctr` cannot say or says too slowly: odd names, ten thousand images, exact times.

use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Info as SnapshotInfo, ListSnapshotsRequest, PrepareSnapshotRequest, ViewSnapshotRequest,
};
use containerd_client::services::v1::*;
use containerd_client::tonic::{Code, Request, Status};
use containerd_client::types::Descriptor;
use containerd_client::{Client, connect};
use serde_json::Value;
use std::collections::HashMap;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Calls that block. The connection outlives a restart of containerd.
pub struct Rpc {
    client: Client,
}

pub type Labels<'a> = &'a [(&'a str, &'a str)];

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

/// True if a containerd answers at this socket.
pub fn answers(address: &str) -> bool {
    runtime().block_on(async {
        let Ok(channel) = connect(address).await else { return false };
        let asked = async { Client::from(channel).version().version(()).await };
        matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(_)))
    })
}

fn labels(pairs: Labels) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn within<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", namespace.parse().unwrap());
    request.set_timeout(Duration::from_secs(60));
    request
}

impl Rpc {
    pub fn new(address: &str) -> Rpc {
        Rpc { client: Client::from(runtime().block_on(connect(address)).expect("cannot connect")) }
    }

    /// Waits for a call of [`Rpc::client`]'s.
    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        runtime().block_on(call)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Every record of a namespace's content store.
    pub fn blobs(&self, namespace: &str) -> Vec<Info> {
        self.wait(async {
            let request = within(namespace, ListContentRequest::default());
            let mut stream = self.client.content().list(request).await.unwrap().into_inner();
            let mut all = Vec::new();
            while let Some(part) = stream.message().await.unwrap() {
                all.extend(part.info);
            }
            all
        })
    }

    /// Writes a blob, kept by a label of its own. One that is there already is taken as it is.
    pub fn write_blob(&self, namespace: &str, digest: &str, bytes: &[u8]) {
        let kept = labels(&[("containerd.io/gc.root", "test")]);
        match self.write(namespace, digest, bytes, Some(digest), kept) {
            Err(status) if status.code() != Code::AlreadyExists => panic!("cannot write {digest}: {status}"),
            _ => {}
        }
    }

    /// Leaves an ingest half done: `bytes` of `total` under `reference`.
    pub fn begin_ingest(&self, namespace: &str, reference: &str, bytes: &[u8], total: i64) {
        let request = WriteContentRequest {
            action: WriteAction::Write as i32,
            r#ref: reference.into(),
            total,
            data: bytes.to_vec(),
            ..Default::default()
        };
        self.wait(self.send(namespace, vec![request])).unwrap();
    }

    fn write(
        &self,
        namespace: &str,
        reference: &str,
        bytes: &[u8],
        expected: Option<&str>,
        labels: HashMap<String, String>,
    ) -> Result<(), Status> {
        let mut requests: Vec<_> = (0..bytes.len())
            .step_by(4 << 20)
            .map(|at| WriteContentRequest {
                action: WriteAction::Write as i32,
                r#ref: format!("test-{reference}"),
                offset: at as i64,
                data: bytes[at..bytes.len().min(at + (4 << 20))].to_vec(),
                ..Default::default()
            })
            .collect();
        requests.push(WriteContentRequest {
            action: WriteAction::Commit as i32,
            r#ref: format!("test-{reference}"),
            total: bytes.len() as i64,
            offset: bytes.len() as i64,
            expected: expected.unwrap_or_default().into(),
            labels,
            ..Default::default()
        });
        self.wait(self.send(namespace, requests))
    }

    async fn send(&self, namespace: &str, requests: Vec<WriteContentRequest>) -> Result<(), Status> {
        let request = within(namespace, tokio_stream::iter(requests));
        let mut answers = self.client.content().write(request).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    }

    pub fn delete_blob(&self, namespace: &str, digest: &str) {
        let request = within(namespace, DeleteContentRequest { digest: digest.into() });
        self.wait(self.client.content().delete(request)).unwrap();
    }

    pub fn images(&self, namespace: &str) -> Vec<Image> {
        let request = within(namespace, ListImagesRequest::default());
        self.wait(self.client.images().max_decoding_message_size(64 << 20).list(request)).unwrap().into_inner().images
    }

    /// Names a target as an image. Neither the name nor the target has to make sense.
    pub fn create_image(&self, namespace: &str, name: &str, target: &Value) {
        self.create_images(namespace, [name.to_owned()], target);
    }

    /// The same for many names, 32 calls at a time.
    pub fn create_images(&self, namespace: &str, names: impl IntoIterator<Item = String>, target: &Value) {
        let target = Descriptor {
            media_type: target["mediaType"].as_str().unwrap().into(),
            digest: target["digest"].as_str().unwrap().into(),
            size: target["size"].as_i64().unwrap(),
            annotations: HashMap::new(),
        };
        self.wait(async {
            let mut calls = tokio::task::JoinSet::new();
            for name in names {
                let image = Image { name: name.clone(), target: Some(target.clone()), ..Default::default() };
                let request = within(namespace, CreateImageRequest { image: Some(image), source_date_epoch: None });
                let mut images = self.client.images();
                calls.spawn(async move { images.create(request).await.map_err(|status| (name, status)) });
                if calls.len() >= 32 {
                    calls.join_next().await.unwrap().unwrap().expect("cannot create the image");
                }
            }
            while let Some(done) = calls.join_next().await {
                done.unwrap().expect("cannot create the image");
            }
        });
    }

    /// Points an image where another one points: an update, where `ctr images tag --force` deletes and makes it anew.
    pub fn point_image(&self, namespace: &str, name: &str, other: &str) {
        let images = self.images(namespace);
        let target = images.into_iter().find(|image| image.name == other).expect("no such image").target;
        let image = Image { name: name.into(), target, ..Default::default() };
        let mask = Some(prost_types::FieldMask { paths: vec!["target".into()] });
        let request = UpdateImageRequest { image: Some(image), update_mask: mask, source_date_epoch: None };
        self.wait(self.client.images().update(within(namespace, request))).expect("cannot point the image elsewhere");
    }

    pub fn delete_image(&self, namespace: &str, name: &str) {
        let request = within(namespace, DeleteImageRequest { name: name.into(), sync: true, ..Default::default() });
        self.wait(self.client.images().delete(request)).unwrap();
    }

    pub fn containers(&self, namespace: &str) -> Vec<Container> {
        let request = within(namespace, ListContainersRequest::default());
        let answer = self.wait(self.client.containers().max_decoding_message_size(64 << 20).list(request));
        answer.unwrap().into_inner().containers
    }

    /// A container record without a snapshot or a task.
    pub fn create_container(&self, namespace: &str, id: &str, pairs: Labels, spec: &Value) {
        self.create_containers(namespace, [id.to_owned()], pairs, spec);
    }

    /// The same for many ids, 32 calls at a time.
    pub fn create_containers(
        &self,
        namespace: &str,
        ids: impl IntoIterator<Item = String>,
        pairs: Labels,
        spec: &Value,
    ) {
        let spec = prost_types::Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
            value: spec.to_string().into_bytes(),
        };
        let record = |id| Container {
            id,
            labels: labels(pairs),
            runtime: Some(container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
            spec: Some(spec.clone()),
            ..Default::default()
        };
        self.wait(async {
            let mut calls = tokio::task::JoinSet::new();
            for id in ids {
                let request = within(namespace, CreateContainerRequest { container: Some(record(id)) });
                let mut containers = self.client.containers();
                calls.spawn(async move { containers.create(request).await });
                if calls.len() >= 32 {
                    calls.join_next().await.unwrap().unwrap().expect("cannot create the container");
                }
            }
            while let Some(done) = calls.join_next().await {
                done.unwrap().expect("cannot create the container");
            }
        });
    }

    pub fn tasks(&self, namespace: &str) -> Vec<containerd_client::types::v1::Process> {
        let request = within(namespace, ListTasksRequest::default());
        self.wait(self.client.tasks().list(request)).unwrap().into_inner().tasks
    }

    pub fn snapshots(&self, namespace: &str, snapshotter: &str) -> Vec<SnapshotInfo> {
        self.wait(async {
            let request = ListSnapshotsRequest { snapshotter: snapshotter.into(), ..Default::default() };
            let mut client = self.client.snapshots();
            let mut stream = client.list(within(namespace, request)).await.unwrap().into_inner();
            let mut all = Vec::new();
            while let Some(part) = stream.message().await.unwrap() {
                all.extend(part.info);
            }
            all
        })
    }

    /// An active snapshot that the garbage collector leaves alone.
    pub fn prepare_snapshot(&self, namespace: &str, snapshotter: &str, key: &str, parent: &str, pairs: Labels) {
        let mut labels = labels(pairs);
        labels.insert("containerd.io/gc.root".into(), "test".into());
        let (snapshotter, key, parent) = (snapshotter.into(), key.into(), parent.into());
        let request = PrepareSnapshotRequest { snapshotter, key, parent, labels };
        self.wait(self.client.snapshots().prepare(within(namespace, request))).unwrap();
    }

    pub fn view_snapshot(&self, namespace: &str, snapshotter: &str, key: &str, parent: &str) {
        let labels = labels(&[("containerd.io/gc.root", "test")]);
        let (snapshotter, key, parent) = (snapshotter.into(), key.into(), parent.into());
        let request = ViewSnapshotRequest { snapshotter, key, parent, labels };
        self.wait(self.client.snapshots().view(within(namespace, request))).unwrap();
    }

    pub fn commit_snapshot(&self, namespace: &str, snapshotter: &str, key: &str, name: &str) {
        let labels = labels(&[("containerd.io/gc.root", "test")]);
        let (snapshotter, key, name) = (snapshotter.into(), key.into(), name.into());
        let request = CommitSnapshotRequest { snapshotter, name, key, labels };
        self.wait(self.client.snapshots().commit(within(namespace, request))).unwrap();
    }

    pub fn leases(&self, namespace: &str) -> Vec<Lease> {
        let request = within(namespace, ListRequest::default());
        self.wait(self.client.leases().list(request)).unwrap().into_inner().leases
    }

    pub fn create_lease(&self, namespace: &str, id: &str, pairs: Labels) {
        let request = within(namespace, CreateRequest { id: id.into(), labels: labels(pairs) });
        self.wait(self.client.leases().create(request)).unwrap();
    }

    /// Lets a lease hold something: `content`, `snapshots/overlayfs`, … and its id.
    pub fn lease_resource(&self, namespace: &str, lease: &str, kind: &str, id: &str) {
        let resource = Some(Resource { id: id.into(), r#type: kind.into() });
        let request = within(namespace, AddResourceRequest { id: lease.into(), resource });
        self.wait(self.client.leases().add_resource(request)).unwrap();
    }

    pub fn lease_resources(&self, namespace: &str, lease: &str) -> Vec<Resource> {
        let request = within(namespace, ListResourcesRequest { id: lease.into() });
        self.wait(self.client.leases().list_resources(request)).unwrap().into_inner().resources
    }

    /// Records a sandbox, as CRI does before it starts one; false where the server has none.
    pub fn create_sandbox(&self, namespace: &str, id: &str, pairs: Labels) -> bool {
        let runtime =
            Some(containerd_client::types::sandbox::Runtime { name: "io.containerd.runc.v2".into(), options: None });
        let sandbox = containerd_client::types::Sandbox {
            sandbox_id: id.into(),
            runtime,
            labels: labels(pairs),
            ..Default::default()
        };
        let request =
            within(namespace, containerd_client::services::v1::sandbox::StoreCreateRequest { sandbox: Some(sandbox) });
        match self.wait(self.client.sandbox_store().create(request)) {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(status.code(), Code::Unimplemented, "{status}");
                false
            }
        }
    }

    /// Sends an event of a topic of our own that takes about so many bytes.
    pub fn publish(&self, namespace: &str, topic: &str, bytes: usize) {
        let value = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes)).into_bytes();
        let event = Some(prost_types::Any { type_url: "tests.Text".into(), value });
        let request = within(namespace, PublishRequest { topic: topic.into(), event });
        self.wait(self.client.events().publish(request)).unwrap();
    }

    pub fn namespaces(&self) -> Vec<Namespace> {
        let request = within("default", ListNamespacesRequest::default());
        self.wait(self.client.namespaces().list(request)).unwrap().into_inner().namespaces
    }
}
