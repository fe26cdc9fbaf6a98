//! `/namespaces/<namespace>/sandboxes/<id>/`: groups of containers that share a sandbox (containerd 1.7 and later).

use super::Ns;
use crate::containerd::SandboxRecord;
use crate::error::{Error, Kind, Result};
use crate::node::row::{dir, each, private, text};
use crate::node::{Dir, Each, Member, Object};
use crate::tree::name;
use crate::tree::tag;
use crate::tree::text::{self as write, Text};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

pub static SANDBOXES: Dir<Ns> = Dir {
    doc: "One directory a sandbox.",
    rows: &[each("<id>", "A sandbox.", &Each { list: sandboxes, find, member: Member::Dir(&SANDBOX) })],
};

static SANDBOX: Dir<Sandbox> = Dir {
    doc: "A sandbox.",
    rows: &[
        text("runtime", "The runtime that made it.", |sandbox| write::line_if(&sandbox.record()?.runtime)),
        text("sandboxer", "The controller that made it.", |sandbox| write::line_if(&sandbox.record()?.sandboxer)),
        text("created", "When it was made.", |sandbox| write::time(sandbox.record()?.created)),
        text("updated", "When its record was changed.", |sandbox| write::time(sandbox.record()?.updated)),
        text("labels", "Its labels, `key=value` a line.", |sandbox| write::labels(&sandbox.record()?.labels)),
        private(text("info.json", "Its record, with its spec.", info)),
        private(dir("extensions", &EXTENSIONS)),
    ],
};

static EXTENSIONS: Dir<Sandbox> = Dir {
    doc: "What clients of containerd keep with the sandbox.",
    rows: &[each(
        "<name>",
        "One extension, as JSON.",
        &Each { list: extensions, find: find_extension, member: Member::File(&EXTENSION) },
    )],
};

static EXTENSION: crate::node::Row<Extension> =
    private(text("<name>", "Its value.", |extension| write::json(&extension.value)));

/// A sandbox.
#[derive(Clone)]
struct Sandbox {
    ns: Ns,
    id: Arc<str>,
    /// Tells it from a successor of the same id.
    created: u64,
}

/// An extension of a sandbox.
#[derive(Clone)]
struct Extension {
    name: Arc<str>,
    value: Arc<serde_json::Value>,
}

impl Sandbox {
    fn new(ns: &Ns, record: &SandboxRecord) -> Sandbox {
        Sandbox { ns: ns.clone(), id: Arc::clone(&record.id), created: write::nanos(record.created) }
    }

    fn record(&self) -> Result<Arc<SandboxRecord>> {
        let record = self.ns.namespace.sandboxes()?.get(&self.id).cloned();
        let same = record.filter(|record| write::nanos(record.created) == self.created);
        same.ok_or_else(|| Error::new(Kind::NotFound, format!("sandbox {}: gone", self.id)))
    }
}

impl Object for Sandbox {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.id).into()
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
        Some(tag::sandbox(self.ns.name(), &self.id))
    }
}

impl Object for Extension {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.name).into()
    }
}

fn info(sandbox: &Sandbox) -> Text {
    let record = sandbox.record()?;
    let spec = crate::containerd::Document { type_url: record.spec_type_url.to_string(), value: record.spec.to_vec() };
    let mut info = json!({
        "id": &*record.id,
        "runtime": { "name": &*record.runtime, "options": &*record.runtime_options },
        "sandboxer": &*record.sandboxer,
        "labels": record.labels,
        "created": record.created.map(write::rfc3339),
        "updated": record.updated.map(write::rfc3339),
    });
    if !record.spec.is_empty() {
        info["spec"] = spec.json();
    }
    write::json(&info)
}

fn sandboxes(ns: &Ns) -> Result<Vec<Sandbox>> {
    Ok(ns.namespace.sandboxes()?.values().map(|record| Sandbox::new(ns, record)).collect())
}

fn find(ns: &Ns, component: &str) -> Result<Option<Sandbox>> {
    let sandboxes = ns.namespace.sandboxes()?;
    Ok(name::find(&sandboxes, component).map(|record| Sandbox::new(ns, record)))
}

fn extensions(sandbox: &Sandbox) -> Result<Vec<Extension>> {
    let record = sandbox.record()?;
    let extension = |(name, document): &(Arc<str>, crate::containerd::Document)| Extension {
        name: Arc::clone(name),
        value: Arc::new(document.json()),
    };
    Ok(record.extensions.iter().map(extension).collect())
}

fn find_extension(sandbox: &Sandbox, component: &str) -> Result<Option<Extension>> {
    Ok(extensions(sandbox)?.into_iter().find(|extension| extension.component() == component))
}
