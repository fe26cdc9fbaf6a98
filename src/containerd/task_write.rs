//! Tasks and the further processes in them: made, started, told, ended.

use super::change::{Patience, change};
use super::container_write::any;
use super::snapshot_write::{wire_descriptor, wire_mount};
use super::{Change, Descriptor, Document, Mount, Namespace, convert};
use crate::error::Result;
use containerd_client::services::v1 as api;
use containerd_client::services::v1::tasks_client::TasksClient;
use prost_types::{Any, Timestamp};
use std::sync::Arc;
use std::time::SystemTime;

/// What containerd calls the process of a spec; its bytes are JSON.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// What it calls the resources of one.
const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// How long until a wait that was cut off is begun again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(300);

/// Where a process's input and output are: paths and URIs as containerd takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub status: u32,
    pub at: Option<SystemTime>,
}

/// A task to be made.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    pub mounts: Vec<Mount>,
    pub stdio: Stdio,
    /// What it is restored from.
    pub checkpoint: Option<Descriptor>,
    /// Options of the runtime, where they are not those of the container.
    pub options: Option<Document>,
}

fn exit(status: u32, at: Option<Timestamp>) -> Exit {
    Exit { status, at: convert::time(at) }
}

fn named(id: &str, exec_id: &str) -> String {
    if exec_id.is_empty() { format!("task {id}") } else { format!("exec {exec_id} of task {id}") }
}

impl Namespace {
    /// Makes a task, which does not run yet; its pid. Not to be abandoned: see `run/detached.rs`.
    pub fn create_task(&self, id: &str, new: &NewTask) -> Result<u32> {
        let object = named(id, "");
        let query = api::CreateTaskRequest {
            container_id: id.into(),
            rootfs: new.mounts.iter().map(wire_mount).collect(),
            stdin: new.stdio.stdin.clone(),
            stdout: new.stdio.stdout.clone(),
            stderr: new.stdio.stderr.clone(),
            terminal: new.stdio.terminal,
            checkpoint: new.checkpoint.as_ref().map(wire_descriptor),
            options: new.options.as_ref().map(any),
            ..Default::default()
        };
        let call = self.call("Tasks.Create", &object);
        let made = change!(self, Patience::Long, call, TasksClient.create, query);
        self.task_changed(id);
        Ok(made?.pid)
    }

    /// Starts a task, or with an `exec_id` a further process in it; its pid.
    pub fn start_process(&self, id: &str, exec_id: &str) -> Result<u32> {
        let object = named(id, exec_id);
        let query = api::StartRequest { container_id: id.into(), exec_id: exec_id.into() };
        let call = self.call("Tasks.Start", &object);
        let started = change!(self, Patience::Long, call, TasksClient.start, query);
        self.task_changed(id);
        Ok(started?.pid)
    }

    /// Deletes a task that has ended.
    pub fn delete_task(&self, id: &str) -> Result<Exit> {
        let object = named(id, "");
        let query = api::DeleteTaskRequest { container_id: id.into() };
        let call = self.call("Tasks.Delete", &object);
        let gone = change!(self, Patience::Long, call, TasksClient.delete, query);
        self.task_changed(id);
        gone.map(|gone| exit(gone.exit_status, gone.exited_at))
    }

    /// Deletes a further process that has ended, or was never started.
    pub fn delete_process(&self, id: &str, exec_id: &str) -> Result<Exit> {
        let object = named(id, exec_id);
        let query = api::DeleteProcessRequest { container_id: id.into(), exec_id: exec_id.into() };
        let call = self.call("Tasks.DeleteProcess", &object);
        let gone = change!(self, Patience::Long, call, TasksClient.delete_process, query);
        self.task_changed(id);
        gone.map(|gone| exit(gone.exit_status, gone.exited_at))
    }

    /// Sends a signal to a process, or with `all` to every process of the task.
    pub fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let object = named(id, exec_id);
        let query = api::KillRequest { container_id: id.into(), exec_id: exec_id.into(), signal, all };
        let call = self.call("Tasks.Kill", &object);
        let done = change!(self, Patience::Usual, call, TasksClient.kill, query);
        self.task_changed(id);
        done.map(drop)
    }

    /// Stops all of a task's processes where they are.
    pub fn pause(&self, id: &str) -> Result<()> {
        let object = named(id, "");
        let query = api::PauseTaskRequest { container_id: id.into() };
        let call = self.call("Tasks.Pause", &object);
        let done = change!(self, Patience::Usual, call, TasksClient.pause, query);
        self.task_changed(id);
        done.map(drop)
    }

    /// Lets them go on.
    pub fn resume(&self, id: &str) -> Result<()> {
        let object = named(id, "");
        let query = api::ResumeTaskRequest { container_id: id.into() };
        let call = self.call("Tasks.Resume", &object);
        let done = change!(self, Patience::Usual, call, TasksClient.resume, query);
        self.task_changed(id);
        done.map(drop)
    }

    /// Adds a further process to a task; `process` is the part of that name of an OCI spec, in JSON.
    pub fn create_exec(&self, id: &str, exec_id: &str, process: Vec<u8>, stdio: &Stdio) -> Result<()> {
        let object = named(id, exec_id);
        let query = api::ExecProcessRequest {
            container_id: id.into(),
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            spec: Some(Any { type_url: PROCESS_TYPE.into(), value: process }),
            exec_id: exec_id.into(),
        };
        let call = self.call("Tasks.Exec", &object);
        let done = change!(self, Patience::Long, call, TasksClient.exec, query);
        self.task_changed(id);
        done.map(drop)
    }

    /// Tells a process's terminal its size.
    pub fn resize(&self, id: &str, exec_id: &str, width: u32, height: u32) -> Result<()> {
        let object = named(id, exec_id);
        let query = api::ResizePtyRequest { container_id: id.into(), exec_id: exec_id.into(), width, height };
        let call = self.call("Tasks.ResizePty", &object);
        change!(self, Patience::Usual, call, TasksClient.resize_pty, query).map(drop)
    }

    /// Ends a process's input.
    pub fn close_stdin(&self, id: &str, exec_id: &str) -> Result<()> {
        let object = named(id, exec_id);
        let query = api::CloseIoRequest { container_id: id.into(), exec_id: exec_id.into(), stdin: true };
        let call = self.call("Tasks.CloseIO", &object);
        change!(self, Patience::Usual, call, TasksClient.close_io, query).map(drop)
    }

    /// Changes what a task may use; `resources` is `linux.resources` of an OCI spec, in JSON.
    pub fn update_task(&self, id: &str, resources: Vec<u8>) -> Result<()> {
        let object = named(id, "");
        let resources = Some(Any { type_url: RESOURCES_TYPE.into(), value: resources });
        let query = api::UpdateTaskRequest { container_id: id.into(), resources, ..Default::default() };
        let call = self.call("Tasks.Update", &object);
        let done = change!(self, Patience::Usual, call, TasksClient.update, query);
        self.task_changed(id);
        done.map(drop)
    }

    /// Writes a task's state as content; the descriptors of what was written. Needs CRIU on containerd's host.
    pub fn checkpoint_task(&self, id: &str, options: Option<&Document>) -> Result<Vec<Descriptor>> {
        let object = named(id, "");
        let query = api::CheckpointTaskRequest {
            container_id: id.into(),
            parent_checkpoint: String::new(),
            options: options.map(any),
        };
        let call = self.call("Tasks.Checkpoint", &object);
        let made = change!(self, Patience::Long, call, TasksClient.checkpoint, query);
        self.task_changed(id);
        Ok(made?.descriptors.into_iter().map(convert::descriptor).collect())
    }

    /// Waits until a process has ended.
    pub fn wait_process(&self, id: &str, exec_id: &str) -> Result<Exit> {
        let object = named(id, exec_id);
        let query = api::WaitRequest { container_id: id.into(), exec_id: exec_id.into() };
        let call = self.call("Tasks.Wait", &object);
        let ended = change!(self, Patience::Long, call, TasksClient.wait, query);
        self.task_changed(id);
        ended.map(|ended| exit(ended.exit_status, ended.exited_at))
    }

    /// Calls `then` on a thread of its own when a process has ended; with nothing where nobody can tell how. It goes on
    /// asking while containerd is away: the shims, and the processes, live on.
    pub fn on_exit(&self, id: &str, exec_id: &str, then: impl FnOnce(Option<Exit>) + Send + 'static) -> Result<()> {
        let object = named(id, exec_id);
        let call = self.call("Tasks.Wait", &object);
        let query = api::WaitRequest { container_id: id.into(), exec_id: exec_id.into() };
        // Only whether it can be made: each attempt makes its own.
        drop(super::rpc::request(call, query.clone())?);
        let (rpc, namespace) = (&self.inner().rpc, Arc::clone(self.name()));
        let channel = rpc.channel();
        rpc.handle().spawn(async move {
            let exit = loop {
                let call = super::rpc::Call::new("Tasks.Wait", &namespace, &"process");
                let Ok(request) = super::rpc::request(call, query.clone()) else { break None };
                match TasksClient::new(channel.clone()).wait(request).await {
                    Ok(ended) => {
                        let ended = ended.into_inner();
                        break Some(exit(ended.exit_status, ended.exited_at));
                    }
                    Err(status) if status.code() == tonic::Code::NotFound => break None,
                    Err(_) => tokio::time::sleep(RETRY).await,
                }
            };
            tokio::task::spawn_blocking(move || then(exit));
        });
        Ok(())
    }

    fn task_changed(&self, id: &str) {
        self.client().touched(&Change::Task { namespace: Arc::clone(self.name()), id: id.into() });
    }
}
