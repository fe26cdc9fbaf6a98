//! `/.ctrfs/`: the daemon itself.

use super::Root;
use super::text::{self, Text, line};
use crate::error::Result;
use crate::node::counters::Counters;
use crate::node::journal::Journal;
use crate::node::row::{dir, each, live, private, text as text_row};
use crate::node::{Dir, Each, Member, Object, Row};
use serde_json::json;
use std::borrow::Cow;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// The daemon, as far as the tree shows it.
pub struct Daemon {
    pub started: SystemTime,
    pub mountpoint: PathBuf,
    /// The directory of the tree that is mounted; empty: all of it.
    pub root: String,
    /// `-o`, as it was given.
    pub options: String,
    pub journal: Arc<Journal>,
    pub counters: Arc<Counters>,
    /// Reads what changes by itself; set when the mount is there.
    pub gauges: OnceLock<Box<dyn Fn() -> Gauges + Send + Sync>>,
}

impl Daemon {
    /// Whether the mount is passive: nothing may be changed through it, nor for what it shows.
    pub fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }
}

/// What the mount holds right now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    /// Nodes that the kernel knows.
    pub nodes: usize,
    /// Open files.
    pub open: usize,
    /// Requests that wait.
    pub parked: usize,
    /// Requests that wait for a thread.
    pub queued: usize,
}

pub static STATUS: Dir<Root> = Dir {
    doc: "ctrfs itself.",
    rows: &[
        text_row("version", "Version of ctrfs.", |_| line(env!("CARGO_PKG_VERSION"))),
        live("status.json", "Mount, connection, and since when what is shown may be out of date.", status),
        live("metrics", "Counters, as Prometheus reads them.", metrics),
        private(live("error_log", "What failed lately: time, uid, pid, what, why.", |root| {
            Ok(Some(root.0.daemon.journal.text()))
        })),
        dir("errors", &ERRORS),
    ],
};

static ERRORS: Dir<Root> = Dir {
    doc: "The same by process: `cat errors/$$` tells a shell why its last command failed.",
    rows: &[each(
        "<pid>",
        "What failed for this process.",
        &Each { list: callers, find: find_caller, member: Member::File(&ERROR) },
    )],
};

static ERROR: Row<Failed> = private(live("<pid>", "What failed for this process.", |failed| {
    Ok(failed.root.0.daemon.journal.of(failed.pid).map(|(_, text)| text))
}));

/// A process that had failures.
#[derive(Clone)]
struct Failed {
    root: Root,
    pid: u32,
}

impl Object for Failed {
    fn component(&self) -> Cow<'_, str> {
        self.pid.to_string().into()
    }
}

fn callers(root: &Root) -> Result<Vec<Failed>> {
    let pids = root.0.daemon.journal.pids();
    Ok(pids.into_iter().map(|pid| Failed { root: root.clone(), pid }).collect())
}

fn find_caller(root: &Root, component: &str) -> Result<Option<Failed>> {
    let pid = component.parse().ok().filter(|pid: &u32| pid.to_string() == component);
    let known = pid.filter(|pid| root.0.daemon.journal.of(*pid).is_some());
    Ok(known.map(|pid| Failed { root: root.clone(), pid }))
}

fn status(root: &Root) -> Text {
    let daemon = &root.0.daemon;
    let state = root.0.client.state();
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started": text::rfc3339(daemon.started),
        "mountpoint": daemon.mountpoint.to_string_lossy(),
        "root": format!("/{}", daemon.root),
        "options": daemon.options,
        "containerd": {
            "address": state.address.to_string_lossy(),
            "connected": state.connected,
            "since": text::rfc3339(state.since),
            "connections": state.epoch,
        },
    });
    if let Some(since) = state.stale_since {
        status["containerd"]["stale_since"] = text::rfc3339(since).into();
    }
    if let Some(problem) = state.problem {
        status["containerd"]["problem"] = problem.into();
    }
    text::json(&status)
}

fn metrics(root: &Root) -> Text {
    let mut text = String::new();
    let daemon = &root.0.daemon;
    let mut family = |name: &str, kind: &str, help: &str, values: Vec<(String, u64)>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP ctrfs_{name} {help}\n# TYPE ctrfs_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "ctrfs_{name}{labels} {value}");
        }
    };
    let one = |value: u64| vec![(String::new(), value)];
    let requests = daemon.counters.read().map(|(name, count)| (format!("{{operation=\"{name}\"}}"), count));
    family("requests_total", "counter", "Requests of the kernel, by operation.", requests.collect());
    let waited = daemon.counters.waited.load(std::sync::atomic::Ordering::Relaxed);
    family("waited_total", "counter", "Requests that memory could not answer.", one(waited));
    let parked = daemon.counters.parked.load(std::sync::atomic::Ordering::Relaxed);
    family("parked_total", "counter", "Reads that waited at the end of a file.", one(parked));
    let gauges = daemon.gauges.get().map(|read| read()).unwrap_or_default();
    family("nodes", "gauge", "Nodes that the kernel knows.", one(gauges.nodes as u64));
    family("open", "gauge", "Open files.", one(gauges.open as u64));
    family("parked", "gauge", "Requests that wait.", one(gauges.parked as u64));
    family("queued", "gauge", "Requests that wait for a thread.", one(gauges.queued as u64));
    let stats = root.0.client.stats();
    let by_method = |n: fn(&(u64, u64)) -> u64| {
        stats.calls.iter().map(|(method, counts)| (format!("{{method=\"{method}\"}}"), n(counts))).collect()
    };
    family("calls_total", "counter", "Calls of containerd, by method.", by_method(|counts| counts.0));
    family("call_errors_total", "counter", "Calls that failed, by method.", by_method(|counts| counts.1));
    family("cache_bytes", "gauge", "Bytes of content in memory.", one(stats.cache_bytes));
    family("cache_hits_total", "counter", "Reads of content that memory answered.", one(stats.cache_hits));
    family("cache_misses_total", "counter", "Reads of content that it did not.", one(stats.cache_misses));
    family("events_total", "counter", "Events of containerd.", one(stats.events));
    family("reconnects_total", "counter", "Connections after the first.", one(stats.reconnects));
    Ok(Some(text.into_bytes()))
}
