//! `/namespaces/<namespace>/leases/<id>/`: what keeps garbage collection away from what.

use super::{Ns, blobs, ingests, snapshots, verbs};
use crate::containerd::{Digest, LeaseRecord, LeaseResource};
use crate::error::{Error, Kind, Result};
use crate::node::row::{ctl, dir, each, live, outcome, text};
use crate::node::verb::{Verbs, verb};
use crate::node::{Dir, Each, Member, Object, Row, Target};
use crate::tree::name;
use crate::tree::tag;
use crate::tree::text::{self as write, field};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

pub static LEASES: Dir<Ns> = Dir {
    doc: "One directory a lease.",
    rows: &[each("<id>", "A lease.", &Each { list: leases, find, member: Member::Dir(&LEASE) })],
};

static LEASE: Dir<Lease> = Dir {
    doc: "A lease: what it holds is not collected.",
    rows: &[
        text("id", "Its whole id.", |lease| write::line(&lease.id)),
        text("created", "When it was made.", |lease| write::time(lease.record()?.created)),
        text("labels", "Its labels; `containerd.io/gc.expire` says when it ends.", |lease| {
            write::labels(&lease.record()?.labels)
        }),
        live("resources.tsv", "All that it holds, here or not: type and id.", |lease| {
            let line = |r: &LeaseResource| format!("{}\t{}\n", field(&r.kind), field(&r.id));
            let lines = lease.resources()?.iter().map(line).collect::<String>();
            Ok(Some(format!("TYPE\tID\n{lines}").into_bytes()))
        }),
        dir("resources", &RESOURCES),
        ctl(&VERBS),
        outcome(),
    ],
};

static VERBS: Verbs<Lease> = Verbs::new(&[&[
    verb(
        "add",
        "TYPE ID",
        "Lets it hold what has this type (content, snapshots/<snapshotter>, …) and id.",
        |lease: &Lease, command| lease.ns.namespace.add_to_lease(&lease.id, &verbs::leases::resource(command)?),
    ),
    verb("remove", "TYPE ID", "Lets it hold that no longer.", |lease: &Lease, command| {
        lease.ns.namespace.remove_from_lease(&lease.id, &verbs::leases::resource(command)?)
    }),
    verb("delete", "[--sync]", "Deletes it; what nothing else holds is collected.", |lease: &Lease, command| {
        let delete: verbs::leases::Delete = command.parse()?;
        match delete.ids.as_slice() {
            [] => lease.ns.namespace.delete_lease(&lease.id, delete.sync),
            [id, ..] => crate::fail!(Invalid, "{id}: this is the ctl of one lease"),
        }
    })
    .or(&["rm", "del"]),
]]);

static RESOURCES: Dir<Lease> = Dir {
    doc: "Links to what the lease holds, as `<type>:<id>`, as far as it is here.",
    rows: &[each(
        "<type>:<id>",
        "A blob, snapshot or ingest.",
        &Each { list: resources, find: find_resource, member: Member::File(&RESOURCE) },
    )],
};

static RESOURCE: Row<Held> = crate::node::row::link("<type>:<id>", "What the lease holds.", Held::target);

/// A lease.
#[derive(Clone)]
struct Lease {
    ns: Ns,
    id: Arc<str>,
    /// Tells it from a successor of the same id.
    created: u64,
}

/// Something that a lease holds.
#[derive(Clone)]
struct Held {
    lease: Lease,
    resource: LeaseResource,
}

impl Lease {
    fn new(ns: &Ns, record: &LeaseRecord) -> Lease {
        Lease { ns: ns.clone(), id: Arc::clone(&record.id), created: write::nanos(record.created) }
    }

    fn record(&self) -> Result<Arc<LeaseRecord>> {
        let record = self.ns.namespace.leases()?.get(&self.id).cloned();
        let same = record.filter(|record| write::nanos(record.created) == self.created);
        same.ok_or_else(|| Error::new(Kind::NotFound, format!("lease {}: gone", self.id)))
    }

    fn resources(&self) -> Result<Vec<LeaseResource>> {
        self.ns.namespace.lease_resources(&self.id)
    }
}

impl Object for Lease {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.id).into()
    }
    fn incarnation(&self) -> u64 {
        self.created
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        Ok(self.record()?.created)
    }
    fn labels(&self) -> Result<Vec<(String, String)>> {
        Ok(write::pairs(&self.record()?.labels))
    }
    fn tag(&self) -> Option<u64> {
        Some(tag::lease(self.ns.name(), &self.id))
    }
    fn delete(&self) -> Result<()> {
        self.record()?;
        self.ns.namespace.delete_lease(&self.id, false)
    }
}

impl Object for Held {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&format!("{}:{}", self.resource.kind, self.resource.id)).into()
    }
}

impl Held {
    fn target(&self) -> Result<Option<Target>> {
        let ns = &self.lease.ns;
        match self.resource.kind.as_str() {
            "content" => match Digest::parse(&self.resource.id) {
                Some(digest) => blobs::link(ns, &digest),
                None => Ok(None),
            },
            "ingests" => ingests::link(ns, &self.resource.id),
            "images" => super::images::link(ns, &self.resource.id),
            kind => match kind.strip_prefix("snapshots/") {
                Some(snapshotter) => snapshots::link(ns, snapshotter, &self.resource.id),
                None => Ok(None),
            },
        }
    }
}

fn leases(ns: &Ns) -> Result<Vec<Lease>> {
    Ok(ns.namespace.leases()?.values().map(|record| Lease::new(ns, record)).collect())
}

fn find(ns: &Ns, component: &str) -> Result<Option<Lease>> {
    let leases = ns.namespace.leases()?;
    Ok(name::find(&leases, component).map(|record| Lease::new(ns, record)))
}

fn resources(lease: &Lease) -> Result<Vec<Held>> {
    let held = |resource| Held { lease: lease.clone(), resource };
    Ok(lease.resources()?.into_iter().map(held).collect())
}

fn find_resource(lease: &Lease, component: &str) -> Result<Option<Held>> {
    Ok(resources(lease)?.into_iter().find(|held| held.component() == component))
}
