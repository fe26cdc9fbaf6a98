//! `/namespaces/<namespace>/snapshots/<snapshotter>/<key>/`: file systems, as layers upon layers.

use super::{Ns, containers, diff, links, verbs};
use crate::containerd::{SnapshotKind, SnapshotRecord};
use crate::error::{Error, Kind, Result};
use crate::node::row::{
    ctl, dir, each, graft, link as link_row, live as live_row, log, outcome, private, text, unlisted, when,
};
use crate::node::verb::{Verbs, verb};
use crate::node::{Dir, Each, Member, Object, Row, Target};
use crate::tree::name::{self, Decoded};
use crate::tree::text::{self as write, Text, line};
use crate::tree::{rootfs, tag};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

pub static SNAPSHOTTERS: Dir<Ns> = Dir {
    doc: "One directory a snapshotter that is loaded.",
    rows: &[each(
        "<snapshotter>",
        "The snapshots of one snapshotter.",
        &Each { list: snapshotters, find: find_snapshotter, member: Member::Dir(&SNAPSHOTTER) },
    )],
};

static SNAPSHOTTER: Dir<Snapshotter> = Dir {
    doc: "The snapshots of one snapshotter.",
    rows: &[each("<key>", "A snapshot.", &Each { list: snapshots, find, member: Member::Dir(&SNAPSHOT) })],
};

static SNAPSHOT: Dir<Snapshot> = Dir {
    doc: "A snapshot. What a layer of an image is unpacked to is called by its chain id.",
    rows: &[
        text("name", "Its whole key.", |snapshot| line(&snapshot.key)),
        text("kind", "`committed`, `active` or `view`.", |snapshot| line(snapshot.record()?.kind.word())),
        link_row("parent", "The snapshot that it stands on.", |snapshot| {
            let record = snapshot.record()?;
            if record.parent.is_empty() { Ok(None) } else { link(&snapshot.ns, &snapshot.snapshotter, &record.parent) }
        }),
        text("created", "When it was made.", |snapshot| write::time(snapshot.record()?.created)),
        text("updated", "When its record was changed.", |snapshot| write::time(snapshot.record()?.updated)),
        text("labels", "Its labels, `key=value` a line.", |snapshot| write::labels(&snapshot.record()?.labels)),
        private(text("info.json", "Its record (`ctr snapshots info`).", info)),
        live_row(
            "usage",
            "Bytes and inodes that it takes by itself; of an active one containerd walks the files.",
            |s| {
                let usage = s.ns.namespace.snapshot_usage(&s.snapshotter, &s.key)?;
                Ok(Some(format!("size={}\ninodes={}\n", usage.size, usage.inodes).into_bytes()))
            },
        ),
        when(
            |snapshot| Ok(snapshot.record()?.kind != SnapshotKind::Committed),
            private(live_row("mounts.json", "How to mount it (`ctr snapshots mounts`).", |snapshot| {
                let mounts = snapshot.ns.namespace.snapshot_mounts(&snapshot.snapshotter, &snapshot.key)?;
                write::json(&json!(mounts))
            })),
        ),
        graft("fs", "What a mount of it shows; of an active one, as it is now.", |snapshot| {
            rootfs::fs(&snapshot.ns, &snapshot.snapshotter, &snapshot.key, "fs")
        }),
        unlisted(private(log(
            "diff.tar",
            "What differs from its parent, as a layer's archive (`ctr snapshots diff`); made when it is read.",
            |s| Ok(diff::stream(&s.ns, &s.snapshotter, &s.key, s.modified()?)),
        ))),
        dir("children", &CHILDREN),
        dir("containers", &WRITERS),
        ctl(&VERBS),
        outcome(),
    ],
};

static VERBS: Verbs<Snapshot> = Verbs::new(&[&[
    verbs::label(),
    verb("commit", "NAME", "Makes it the committed snapshot NAME.", |snapshot: &Snapshot, command| {
        verbs::snapshots::commit(&snapshot.ns, &snapshot.snapshotter, &snapshot.key, command)
    })
    .when(|snapshot| Ok(snapshot.record()?.kind == SnapshotKind::Active)),
    verb(
        "diff",
        "[FLAG…] [OTHER]",
        "Writes what differs from its parent, or in OTHER from it.",
        |snapshot: &Snapshot, command| {
            verbs::snapshots::diff_of(&snapshot.ns, &snapshot.snapshotter, &snapshot.key, command)
        },
    ),
    verb("delete", "", "Deletes it, if no container and no snapshot stands on it.", |snapshot: &Snapshot, command| {
        command.bare()?;
        snapshot.delete()
    })
    .or(&["rm", "remove"]),
]]);

static CHILDREN: Dir<Snapshot> = Dir {
    doc: "Links to the snapshots that stand on this one: while there are any, it cannot be removed.",
    rows: &[each("<key>", "A snapshot.", &Each { list: children, find: find_child, member: Member::File(&CHILD) })],
};

static CHILD: Row<Snapshot> = link_row("<key>", "A snapshot.", |child| link(&child.ns, &child.snapshotter, &child.key));

static WRITERS: Dir<Snapshot> = Dir {
    doc: "Links to the containers whose root file system it is.",
    rows: &[each(
        "<id>",
        "A container.",
        &Each { list: writers, find: find_writer, member: Member::File(&containers::LINK) },
    )],
};

/// A snapshotter.
#[derive(Clone)]
struct Snapshotter {
    ns: Ns,
    name: Arc<str>,
}

/// A snapshot.
#[derive(Clone)]
struct Snapshot {
    ns: Ns,
    snapshotter: Arc<str>,
    key: Arc<str>,
    /// Tells it from a successor of the same key.
    created: u64,
}

impl Snapshot {
    fn new(ns: &Ns, snapshotter: &Arc<str>, record: &SnapshotRecord) -> Snapshot {
        Snapshot {
            ns: ns.clone(),
            snapshotter: Arc::clone(snapshotter),
            key: Arc::clone(&record.name),
            created: write::nanos(record.created),
        }
    }

    fn record(&self) -> Result<Arc<SnapshotRecord>> {
        let record = self.ns.namespace.snapshot(&self.snapshotter, &self.key)?;
        let same = record.filter(|record| write::nanos(record.created) == self.created);
        same.ok_or_else(|| Error::new(Kind::NotFound, format!("snapshot {}: gone", self.key)))
    }
}

impl Object for Snapshotter {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.name).into()
    }
    fn tag(&self) -> Option<u64> {
        Some(tag::snapshotter(self.ns.name(), &self.name))
    }
}

impl Object for Snapshot {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.key).into()
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
        Some(tag::snapshot(self.ns.name(), &self.key))
    }
    fn set_label(&self, key: &str, value: Option<&str>) -> Result<()> {
        self.record()?;
        self.ns.namespace.label_snapshot(&self.snapshotter, &self.key, &verbs::one_label(key, value))
    }
    fn delete(&self) -> Result<()> {
        self.record()?;
        self.ns.namespace.remove_unused_snapshot(&self.snapshotter, &self.key)
    }
}

fn info(snapshot: &Snapshot) -> Text {
    let record = snapshot.record()?;
    write::json(&json!({
        "name": &*record.name,
        "parent": &*record.parent,
        "kind": record.kind.word(),
        "snapshotter": &*snapshot.snapshotter,
        "labels": record.labels,
        "created": record.created.map(write::rfc3339),
        "updated": record.updated.map(write::rfc3339),
    }))
}

fn snapshotters(ns: &Ns) -> Result<Vec<Snapshotter>> {
    let names = ns.namespace.client().snapshotters()?;
    Ok(names.into_iter().map(|name| Snapshotter { ns: ns.clone(), name }).collect())
}

fn find_snapshotter(ns: &Ns, component: &str) -> Result<Option<Snapshotter>> {
    Ok(snapshotters(ns)?.into_iter().find(|snapshotter| snapshotter.component() == component))
}

fn snapshots(of: &Snapshotter) -> Result<Vec<Snapshot>> {
    let snapshots = of.ns.namespace.snapshots(&of.name)?;
    Ok(snapshots.values().map(|record| Snapshot::new(&of.ns, &of.name, record)).collect())
}

fn find(of: &Snapshotter, component: &str) -> Result<Option<Snapshot>> {
    match name::decode(component) {
        Some(Decoded::Name(key)) => {
            let record = of.ns.namespace.snapshot(&of.name, &key)?;
            Ok(record.map(|record| Snapshot::new(&of.ns, &of.name, &record)))
        }
        Some(Decoded::Hashed) => Ok(snapshots(of)?.into_iter().find(|snapshot| snapshot.component() == component)),
        None => Ok(None),
    }
}

/// The path of a snapshot, if there is one of this key.
pub fn link(ns: &Ns, snapshotter: &str, key: &str) -> Result<Option<Target>> {
    let known = ns.namespace.client().snapshotters()?.iter().any(|name| **name == *snapshotter);
    if !known || ns.namespace.snapshot(snapshotter, key)?.is_none() {
        return Ok(None);
    }
    crate::tree::link(["namespaces", ns.name(), "snapshots", snapshotter, key])
}

fn children(snapshot: &Snapshot) -> Result<Vec<Snapshot>> {
    let children = links::children(&snapshot.ns, &snapshot.snapshotter)?;
    let snapshots = snapshot.ns.namespace.snapshots(&snapshot.snapshotter)?;
    let records = children.get(&snapshot.key).into_iter().flatten().filter_map(|key| snapshots.get(key));
    Ok(records.map(|record| Snapshot::new(&snapshot.ns, &snapshot.snapshotter, record)).collect())
}

fn find_child(snapshot: &Snapshot, component: &str) -> Result<Option<Snapshot>> {
    Ok(children(snapshot)?.into_iter().find(|child| child.component() == component))
}

fn writers(snapshot: &Snapshot) -> Result<Vec<containers::Container>> {
    let writers = links::writers(&snapshot.ns, &snapshot.snapshotter)?;
    containers::of(&snapshot.ns, writers.get(&snapshot.key))
}

fn find_writer(snapshot: &Snapshot, component: &str) -> Result<Option<containers::Container>> {
    Ok(writers(snapshot)?.into_iter().find(|container| container.component() == component))
}
