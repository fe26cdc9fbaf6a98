//! `/namespaces/<namespace>/ingests/<ref>/`: content that is being written.

use super::Ns;
use crate::containerd::IngestRecord;
use crate::error::Result;
use crate::node::row::{each, text};
use crate::node::{Dir, Each, Member, Object, Target};
use crate::tree::name;
use crate::tree::text::{self as write, line};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

pub static INGESTS: Dir<Ns> = Dir {
    doc: "Content that is being written: pulls and imports under way, or left by ones that broke off.",
    rows: &[each("<ref>", "One ingest.", &Each { list: ingests, find, member: Member::Dir(&INGEST) })],
};

static INGEST: Dir<Ingest> = Dir {
    doc: "One ingest.",
    rows: &[
        text("ref", "The name that its writer gave it.", |ingest| line(&ingest.record.reference)),
        text("offset", "Bytes written so far.", |ingest| line(ingest.record.offset)),
        text("total", "Bytes there will be, if the writer said.", |ingest| match ingest.record.total {
            0 => Ok(None),
            total => line(total),
        }),
        text("expected", "The digest it has to have, if the writer said.", |ingest| {
            ingest.record.expected.as_ref().map_or(Ok(None), line)
        }),
        text("started", "When it was begun.", |ingest| write::time(ingest.record.started)),
        text("updated", "When something was last written.", |ingest| write::time(ingest.record.updated)),
    ],
};

/// An ingest, as it was when it was looked up: a second old at most.
#[derive(Clone)]
struct Ingest {
    record: Arc<IngestRecord>,
}

impl Object for Ingest {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.record.reference).into()
    }
    fn incarnation(&self) -> u64 {
        // What is shown is the record, so a newer record is another object.
        write::nanos(self.record.started) ^ write::nanos(self.record.updated)
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        Ok(self.record.updated)
    }
}

fn ingests(ns: &Ns) -> Result<Vec<Ingest>> {
    Ok(ns.namespace.ingests()?.values().map(|record| Ingest { record: Arc::clone(record) }).collect())
}

fn find(ns: &Ns, component: &str) -> Result<Option<Ingest>> {
    let ingests = ns.namespace.ingests()?;
    Ok(name::find(&ingests, component).map(|record| Ingest { record: Arc::clone(record) }))
}

/// The path of an ingest, if it is under way.
pub fn link(ns: &Ns, reference: &str) -> Result<Option<Target>> {
    if !ns.namespace.ingests()?.contains_key(reference) {
        return Ok(None);
    }
    crate::tree::link(["namespaces", ns.name(), "ingests", reference])
}
