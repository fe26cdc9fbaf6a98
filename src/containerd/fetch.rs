//! What is asked for when it is read, and not kept: specs, usage, mounts, processes, figures.

use super::namespace::Namespace;
use super::record::{ContainerInfo, ContainerRecord, Document, LeaseResource, Mount, Process, TaskRecord, Usage};
use super::rpc::unary;
use super::sources::found;
use super::{convert, decode};
use crate::error::{Error, Kind, Result};
use crate::fail;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::snapshots as snap;
use containerd_client::types::v1 as task;
use std::sync::Arc;

impl Namespace {
    /// A container's spec, as it is: almost always JSON.
    pub fn container_spec(&self, id: &str) -> Result<Document> {
        match self.raw_container(id)?.spec {
            Some(spec) => Ok(convert::document(spec)),
            None => fail!(NotFound, "container {id} has no spec"),
        }
    }

    /// A container's record as it is at this moment, not as it was known; `NotFound` if there is none.
    pub fn container_now(&self, id: &str) -> Result<Arc<ContainerRecord>> {
        self.raw_container(id).map(convert::container)
    }

    /// A container's extensions and the options of its runtime.
    pub fn container_info(&self, id: &str) -> Result<ContainerInfo> {
        let container = self.raw_container(id)?;
        let mut extensions: Vec<(String, Document)> =
            container.extensions.into_iter().map(|(name, any)| (name, convert::document(any))).collect();
        extensions.sort_by(|a, b| a.0.cmp(&b.0));
        let runtime_options = container.runtime.and_then(|r| r.options).map(convert::document);
        Ok(ContainerInfo { extensions, runtime_options })
    }

    /// What a snapshot takes. For an active one containerd walks its directory: slow.
    pub fn snapshot_usage(&self, snapshotter: &str, key: &str) -> Result<Usage> {
        use snap::snapshots_client::SnapshotsClient;
        let object = format!("{snapshotter} snapshot {key}");
        let query = snap::UsageRequest { snapshotter: snapshotter.into(), key: key.into() };
        let usage = unary!(self.inner().rpc, self.call("Snapshots.Usage", &object), SnapshotsClient.usage, query)?;
        Ok(Usage { size: convert::count(usage.size), inodes: convert::count(usage.inodes) })
    }

    /// How an active snapshot or a view is mounted. A committed one has no mounts: `Busy`.
    pub fn snapshot_mounts(&self, snapshotter: &str, key: &str) -> Result<Vec<Mount>> {
        use snap::snapshots_client::SnapshotsClient;
        let object = format!("{snapshotter} snapshot {key}");
        let query = snap::MountsRequest { snapshotter: snapshotter.into(), key: key.into() };
        let mounts = unary!(self.inner().rpc, self.call("Snapshots.Mounts", &object), SnapshotsClient.mounts, query)?;
        Ok(mounts.mounts.into_iter().map(convert::mount).collect())
    }

    /// The processes of a task; those of execs name them.
    pub fn task_processes(&self, id: &str) -> Result<Vec<Process>> {
        use api::tasks_client::TasksClient;
        let object = format!("task {id}");
        let query = api::ListPidsRequest { container_id: id.into() };
        let list = unary!(self.inner().rpc, self.call("Tasks.ListPids", &object), TasksClient.list_pids, query)?;
        Ok(list.processes.into_iter().map(process).collect())
    }

    /// The host pids of a task.
    pub fn task_pids(&self, id: &str) -> Result<Vec<u32>> {
        Ok(self.task_processes(id)?.into_iter().map(|p| p.pid).collect())
    }

    /// An exec of a task, live.
    pub fn exec(&self, id: &str, exec_id: &str) -> Result<Option<Arc<TaskRecord>>> {
        let Some(process) = self.raw_process(id, exec_id)? else { return Ok(None) };
        Ok(Some(convert::task(task::Process { id: exec_id.to_string(), ..process })))
    }

    /// A task, or with an `exec_id` a further process of it.
    pub(super) fn raw_process(&self, id: &str, exec_id: &str) -> Result<Option<task::Process>> {
        use api::tasks_client::TasksClient;
        let object = if exec_id.is_empty() { format!("task {id}") } else { format!("exec {exec_id} of task {id}") };
        let query = api::GetRequest { container_id: id.into(), exec_id: exec_id.into() };
        let answer = found(unary!(self.inner().rpc, self.call("Tasks.Get", &object), TasksClient.get, query))?;
        Ok(answer.and_then(|a| a.process))
    }

    /// A task's cgroup figures, as JSON in containerd's field names.
    pub fn task_metrics(&self, id: &str) -> Result<serde_json::Value> {
        use api::tasks_client::TasksClient;
        let object = format!("task {id}");
        let query = api::MetricsRequest { filters: vec![format!("id=={id}")] };
        let answer = unary!(self.inner().rpc, self.call("Tasks.Metrics", &object), TasksClient.metrics, query)?;
        let metric = answer.metrics.into_iter().find(|m| m.id == id);
        match metric.and_then(|m| m.data) {
            Some(data) => Ok(decode::document(&data.type_url, &data.value)),
            None => fail!(NotFound, "{object} has no figures"),
        }
    }

    /// What a lease holds.
    pub fn lease_resources(&self, id: &str) -> Result<Vec<LeaseResource>> {
        use api::leases_client::LeasesClient;
        let object = format!("lease {id}");
        let query = api::ListResourcesRequest { id: id.into() };
        let call = self.call("Leases.ListResources", &object);
        let list = unary!(self.inner().rpc, call, LeasesClient.list_resources, query)?;
        Ok(list.resources.into_iter().map(|r| LeaseResource { id: r.id, kind: r.r#type }).collect())
    }

    /// One sandbox as it is now.
    pub fn sandbox(&self, id: &str) -> Result<Option<Arc<super::SandboxRecord>>> {
        Ok(self.sandboxes()?.get(id).cloned())
    }
}

fn process(info: task::ProcessInfo) -> Process {
    let details = info.info.map(convert::document);
    let exec_id = details.as_ref().filter(|d| d.type_url.ends_with("ProcessDetails")).and_then(exec_id);
    Process { pid: info.pid, exec_id: exec_id.unwrap_or_default(), details }
}

fn exec_id(details: &Document) -> Option<String> {
    let json = decode::known(&details.type_url, &details.value)?;
    Some(json.get("exec_id")?.as_str()?.to_string())
}

/// The error of a blob that a document names and this host does not have.
pub(super) fn not_local(digest: &super::Digest) -> Error {
    Error::new(Kind::NotLocal, format!("blob {digest} is not on this host: it was never pulled, or was discarded"))
}
