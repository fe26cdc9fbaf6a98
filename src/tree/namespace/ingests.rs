//! `/namespaces/<namespace>/ingests/<ref>/`: content that is being written.

use super::Ns;
use crate::containerd::IngestRecord;
use crate::error::Result;
use crate::fail;
use crate::node::row::{ctl, each, outcome, sink, text, when};
use crate::node::verb::{Verbs, verb};
use crate::node::{Dir, Each, Member, Object, Sink, Target};
use crate::run::content;
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
        when(
            |ingest| Ok(ingest.ns.shared.waiting.has(&ingest.ns.namespace, &ingest.record.reference)),
            sink("data", "Takes the bytes of an ingest that was begun here; the last one makes it a blob.", |ingest| {
                Ok(Some(Box::new(Data { of: ingest.clone(), ingest: None, taken: 0 })))
            }),
        ),
        ctl(&VERBS),
        outcome(),
    ],
};

static VERBS: Verbs<Ingest> =
    Verbs::new(&[&[verb("abort", "", "Drops what was written.", |ingest: &Ingest, command| {
        command.bare()?;
        match ingest.ns.shared.waiting.take(&ingest.ns.namespace, &ingest.record.reference) {
            Some(waiting) => {
                drop(waiting);
                Ok(())
            }
            None => ingest.ns.namespace.abort_ingest(&ingest.record.reference),
        }
    })
    .or(&["delete", "rm"])]]);

/// An ingest, as it was when it was looked up: a second old at most.
#[derive(Clone)]
struct Ingest {
    ns: Ns,
    record: Arc<IngestRecord>,
}

/// The bytes of an ingest, on their way.
struct Data {
    of: Ingest,
    ingest: Option<content::Ingest>,
    taken: u64,
}

impl Sink for Data {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let reference = &self.of.record.reference;
        if offset != self.taken {
            return fail!(Invalid, "ingest {reference}: it is written from its beginning to its end");
        }
        if self.ingest.is_none() {
            self.ingest = self.of.ns.shared.waiting.take(&self.of.ns.namespace, reference);
        }
        let Some(ingest) = &mut self.ingest else {
            return fail!(Busy, "ingest {reference}: somebody else writes it, or it is a blob already");
        };
        ingest.write(bytes)?;
        self.taken += bytes.len() as u64;
        match self.ingest.take_if(|ingest| ingest.is_whole()) {
            Some(ingest) => ingest.commit().map(drop),
            None => Ok(()),
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if self.ingest.is_none() {
            return Ok(());
        }
        fail!(Corrupt, "ingest {}: cut short after {} bytes; it is dropped", self.of.record.reference, self.taken)
    }
}

impl Ingest {
    fn new(ns: &Ns, record: &Arc<IngestRecord>) -> Ingest {
        Ingest { ns: ns.clone(), record: Arc::clone(record) }
    }
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
    Ok(ns.namespace.ingests()?.values().map(|record| Ingest::new(ns, record)).collect())
}

fn find(ns: &Ns, component: &str) -> Result<Option<Ingest>> {
    let ingests = ns.namespace.ingests()?;
    Ok(name::find(&ingests, component).map(|record| Ingest::new(ns, record)))
}

/// The path of an ingest, if it is under way.
pub fn link(ns: &Ns, reference: &str) -> Result<Option<Target>> {
    if !ns.namespace.ingests()?.contains_key(reference) {
        return Ok(None);
    }
    crate::tree::link(["namespaces", ns.name(), "ingests", reference])
}
