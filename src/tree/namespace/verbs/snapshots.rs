//! `/namespaces/<namespace>/ctl`: `snapshots …`, and what a snapshot's own `ctl` does.

use super::pairs;
use crate::containerd::LabelChanges;
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::command::Command;
use crate::node::verb::{Verb, verb};
use crate::run::diff::{self, DiffArgs};
use crate::run::unpack;
use crate::tree::namespace::Ns;
use std::time::SystemTime;

/// What keeps a snapshot that nothing refers to from being collected, as `ctr` labels what it makes.
const ROOT: &str = "containerd.io/gc.root";

pub const VERBS: &[Verb<Ns>] = &[
    verb(
        "snapshots prepare",
        "[--snapshotter SN] KEY [PARENT]",
        "Makes a snapshot that can be written to.",
        |ns: &Ns, command| {
            let args: Make = command.parse()?;
            let (snapshotter, parent) = (args.snapshotter(ns)?, args.parent.as_deref().unwrap_or_default());
            ns.namespace.prepare_snapshot(&snapshotter, &args.key, parent, &root()).map(drop)
        },
    ),
    verb(
        "snapshots view",
        "[--snapshotter SN] KEY [PARENT]",
        "Makes a snapshot that can only be read.",
        |ns: &Ns, command| {
            let args: Make = command.parse()?;
            let (snapshotter, parent) = (args.snapshotter(ns)?, args.parent.as_deref().unwrap_or_default());
            ns.namespace.view_snapshot(&snapshotter, &args.key, parent, &root()).map(drop)
        },
    ),
    verb(
        "snapshots commit",
        "[--snapshotter SN] NAME KEY",
        "Makes the active snapshot KEY the committed one NAME.",
        |ns: &Ns, command| {
            let args: Commit = command.parse()?;
            let snapshotter = known(ns, args.snapshotter.as_deref())?;
            ns.namespace.commit_snapshot(&snapshotter, &args.key, &args.name, &root())
        },
    ),
    verb(
        "snapshots diff",
        "[FLAG…] --output FILE|--keep KEY [OTHER]",
        "Writes what differs in a snapshot from its parent, or in OTHER from it, as a layer's archive.",
        |ns: &Ns, command| {
            let args: DiffArgs = command.parse()?;
            ns.job(command, |namespace, progress| diff::diff(namespace, &args.keys, &args, progress))
        },
    ),
    verb(
        "snapshots delete",
        "[--snapshotter SN] KEY…",
        "Deletes snapshots that no container uses.",
        |ns: &Ns, command| {
            let args: Keys = command.parse()?;
            let snapshotter = known(ns, args.snapshotter.as_deref())?;
            if args.keys.is_empty() {
                return fail!(Invalid, "a key must be given");
            }
            args.keys.iter().try_for_each(|key| ns.namespace.remove_unused_snapshot(&snapshotter, key))
        },
    )
    .or(&["snapshots rm", "snapshots remove", "snapshots del"]),
    verb(
        "snapshots label",
        "[--snapshotter SN] KEY LABEL=VALUE…",
        "Sets labels of a snapshot; `LABEL=` takes one away.",
        |ns: &Ns, command| {
            let args: Keys = command.parse()?;
            let snapshotter = known(ns, args.snapshotter.as_deref())?;
            let Some(key) = args.keys.first() else { return fail!(Invalid, "a key must be given") };
            // The labels are the last words: flags come before the key.
            let words = &command.words[command.words.len() + 1 - args.keys.len()..];
            ns.namespace.label_snapshot(&snapshotter, key, &pairs(command, words)?)
        },
    ),
];

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct Make {
    #[arg(long)]
    snapshotter: Option<String>,
    key: String,
    parent: Option<String>,
}

impl Make {
    fn snapshotter(&self, ns: &Ns) -> Result<String> {
        known(ns, self.snapshotter.as_deref())
    }
}

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct Commit {
    #[arg(long)]
    snapshotter: Option<String>,
    name: String,
    key: String,
}

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct Keys {
    #[arg(long)]
    snapshotter: Option<String>,
    keys: Vec<String>,
}

fn root() -> LabelChanges {
    LabelChanges::from([(ROOT.to_owned(), crate::tree::text::rfc3339(SystemTime::now()))])
}

/// The snapshotter that is named, else the namespace's, else containerd's own default.
pub fn known(ns: &Ns, given: Option<&str>) -> Result<String> {
    let name = unpack::snapshotter(&ns.namespace, given)?;
    let loaded = ns.namespace.client().snapshotters()?;
    match loaded.iter().any(|snapshotter| **snapshotter == *name) {
        true => Ok(name),
        false => Err(Error::new(Kind::NotFound, format!("snapshotter {name}: not loaded; {} are", loaded.join(", ")))),
    }
}

/// `commit NAME` of the active snapshot `key`.
pub fn commit(ns: &Ns, snapshotter: &str, key: &str, command: &Command) -> Result<()> {
    ns.namespace.commit_snapshot(snapshotter, key, command.one("name")?, &root())
}

/// `diff [OTHER]` of the snapshot `key`.
pub fn diff_of(ns: &Ns, snapshotter: &str, key: &str, command: &Command) -> Result<()> {
    let mut args: DiffArgs = command.parse()?;
    if args.snapshotter.replace(snapshotter.to_owned()).is_some_and(|given| given != snapshotter) {
        return fail!(Invalid, "--snapshotter: this is a snapshot of {snapshotter}");
    }
    args.keys.insert(0, key.to_owned());
    ns.job(command, |namespace, progress| diff::diff(namespace, &args.keys, &args, progress))
}
