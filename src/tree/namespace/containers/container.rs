//! `/namespaces/<namespace>/containers/<id>/`: one container.

use super::output::Log;
use super::task::{TASK, Task};
use crate::containerd::ContainerRecord;
use crate::error::{Error, Kind, Result};
use crate::node::row::{ctl, graft, link, live, log, outcome, private, text, via, when};
use crate::node::verb::Verbs;
use crate::node::{Dir, Object, One, Stream};
use crate::tree::namespace::verbs::containers::{self, Tasked};
use crate::tree::namespace::{Ns, images, snapshots, verbs};
use crate::tree::text::{self as write, Text, line, line_if};
use crate::tree::{rootfs, tag};
use serde_json::json;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub static CONTAINER: Dir<Container> = Dir {
    doc: "A container: its record, what it is made of, and its task.",
    rows: &[
        link("image", "The image that it was made from.", |container| {
            images::link(&container.ns, &container.record()?.image)
        }),
        link("snapshot", "Its root file system.", |container| {
            let record = container.record()?;
            snapshots::link(&container.ns, &record.snapshotter, &record.snapshot_key)
        }),
        link("sandbox", "The sandbox that it belongs to.", |container| {
            let record = container.record()?;
            let ns = &container.ns;
            let there = !record.sandbox.is_empty() && ns.namespace.sandboxes()?.contains_key(&record.sandbox);
            if there { crate::tree::link(["namespaces", ns.name(), "sandboxes", &record.sandbox]) } else { Ok(None) }
        }),
        text("image_ref", "Name of the image that it was made from, there or not.", |container| {
            line_if(&container.record()?.image)
        }),
        text("runtime", "The runtime that runs it.", |container| line(&container.record()?.runtime)),
        text("snapshotter", "The snapshotter of its root file system.", |container| {
            line_if(&container.record()?.snapshotter)
        }),
        text("created", "When it was made.", |container| write::time(container.record()?.created)),
        text("updated", "When its record was changed.", |container| write::time(container.record()?.updated)),
        text("labels", "Its labels, `key=value` a line.", |container| write::labels(&container.record()?.labels)),
        private(live("info.json", "Its record without the spec (`ctr containers info`).", info)),
        private(live("spec.json", "Its OCI runtime spec.", |container| {
            let spec = container.ns.namespace.container_spec(&container.id)?;
            write::json(&spec.json())
        })),
        graft("rootfs", "Its root filesystem as it is now, without its volumes.", |container| {
            let record = container.record()?;
            rootfs::fs(&container.ns, &record.snapshotter, &record.snapshot_key, "rootfs")
        }),
        when(
            |container| {
                let record = container.record()?;
                Ok(upper(container, &record)?.is_some())
            },
            private(live("changes", "What it changed since its image: `A`, `C` or `D`, and the path.", changes)),
        ),
        via("task", "Its task, while there is one.", &One { get: task, table: &TASK }),
        private(when(is_cri, log("log", "Its output, as the kubelet keeps it.", cri_log))),
        ctl(&VERBS),
        outcome(),
    ],
};

static VERBS: Verbs<Container> = Verbs {
    groups: &[&[
        containers::start().when(|container| Ok(task(container)?.is_none())),
        containers::stop().when(has_task),
        containers::kill().when(has_task),
        containers::pause().when(has_task),
        containers::resume().when(has_task),
        containers::exec().when(has_task),
        containers::update(),
        containers::checkpoint().when(has_task),
        containers::delete(),
        verbs::label(),
    ]],
    words: |_, _| Ok(()),
    note: containers::note,
};

/// A container.
#[derive(Clone)]
pub struct Container {
    pub ns: Ns,
    pub id: Arc<str>,
    /// Tells it from a successor of the same id.
    created: u64,
}

impl Container {
    pub fn new(ns: &Ns, record: &ContainerRecord) -> Container {
        Container { ns: ns.clone(), id: Arc::clone(&record.id), created: write::nanos(record.created) }
    }

    pub fn record(&self) -> Result<Arc<ContainerRecord>> {
        let record = self.ns.namespace.container(&self.id)?;
        let same = record.filter(|record| write::nanos(record.created) == self.created);
        same.ok_or_else(|| Error::new(Kind::NotFound, format!("container {}: gone", self.id)))
    }
}

impl Object for Container {
    fn component(&self) -> Cow<'_, str> {
        (&*self.id).into()
    }
    fn incarnation(&self) -> u64 {
        self.created
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        let record = self.record()?;
        Ok(record.updated.or(record.created))
    }
    fn labels(&self) -> Result<Vec<(String, String)>> {
        Ok(write::pairs(&self.record()?.labels))
    }
    fn tag(&self) -> Option<u64> {
        Some(tag::container(self.ns.name(), &self.id))
    }
    fn set_label(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.record()?;
        self.ns.namespace.label_container(&self.id, &verbs::one_label(key, value))
    }
    fn delete(&self) -> Result<()> {
        self.record()?;
        crate::run::task::delete(&self.ns.shared.engine, &self.ns.namespace, &self.id, false, false)
    }
}

impl Tasked for Container {
    fn ns(&self) -> &Ns {
        &self.ns
    }
    fn id(&self) -> &str {
        &self.id
    }
}

fn has_task(container: &Container) -> Result<bool> {
    Ok(task(container)?.is_some())
}

fn is_cri(container: &Container) -> Result<bool> {
    Ok(container.record()?.labels.get("io.cri-containerd.kind") == Some("container"))
}

/// CRI keeps the path of the log in its own part of the record.
fn cri_log(container: &Container) -> Result<Option<Arc<dyn Stream>>> {
    let more = container.ns.namespace.container_info(&container.id)?;
    let own = more.extensions.iter().find(|(name, _)| name.starts_with("io.cri-containerd.container.metadata"));
    let Some(path) = own.and_then(|(_, document)| {
        document.json().pointer("/Metadata/LogPath").and_then(|path| path.as_str().map(str::to_owned))
    }) else {
        return Ok(None);
    };
    let engine = &container.ns.shared.engine;
    let (ns, id) = (container.ns.clone(), Arc::clone(&container.id));
    Log::open(Path::new(&path), &engine.store.watch, move || {
        let pid = ns.namespace.task(&id)?.map_or(0, |task| task.pid);
        let engine = &ns.shared.engine;
        engine.processes.track(&engine.store, &ns.namespace, (&id, "", pid), Vec::new(), None)
    })
}

fn task(container: &Container) -> Result<Option<Task>> {
    container.record()?;
    let record = container.ns.namespace.task(&container.id)?;
    Ok(record.map(|record| Task::new(container, &record)))
}

/// Its directories, if the upper one tells what it changed.
fn upper(container: &Container, record: &ContainerRecord) -> Result<Option<rootfs::Live>> {
    let live = rootfs::live(&container.ns, &record.snapshotter, &record.snapshot_key)?;
    Ok(live.filter(|live| live.found.live))
}

/// From the upper directory alone: as long as what was changed, however large the image is.
fn changes(container: &Container) -> Text {
    let record = container.record()?;
    let Some(live) = upper(container, &record)? else { return Ok(None) };
    crate::wait::deadline()?;
    let mut layers = live.layers()?.into_iter();
    let Some(upper) = layers.next() else { return Ok(None) };
    let changes = crate::layers::changes::changes(&upper, layers.collect())?;
    Ok(Some(changes.iter().flat_map(|change| change.line()).collect()))
}

fn info(container: &Container) -> Text {
    let record = container.record()?;
    let more = container.ns.namespace.container_info(&container.id)?;
    let extensions = more.extensions.iter().map(|(name, document)| (name.clone(), document.json()));
    let mut runtime = json!({ "name": &*record.runtime });
    if let Some(options) = &more.runtime_options {
        runtime["options"] = options.json();
    }
    write::json(&json!({
        "id": &*record.id,
        "image": &*record.image,
        "runtime": runtime,
        "snapshotter": &*record.snapshotter,
        "snapshot_key": &*record.snapshot_key,
        "sandbox": &*record.sandbox,
        "labels": record.labels,
        "extensions": extensions.collect::<serde_json::Map<String, serde_json::Value>>(),
        "created": record.created.map(write::rfc3339),
        "updated": record.updated.map(write::rfc3339),
    }))
}
