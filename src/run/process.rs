//! Processes that somebody waits for: how they ended, and whether all that they wrote is there.

use super::output::{Output, Watching};
use super::store::{Files, Store};
use crate::containerd::{Exit, Namespace, TaskRecord};
use crate::error::Result;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long after its end a process's output may still come: some child of it may hold it open.
const DRAIN: Duration = Duration::from_secs(10);

/// A process, from memory: whoever waits for it asks without a call.
#[derive(Default)]
pub struct Process {
    exit: OnceLock<Option<Exit>>,
    over: AtomicBool,
}

impl Process {
    /// One that has ended, of which everything is known.
    pub fn ended(exit: Exit) -> Arc<Process> {
        let process = Process::default();
        let _ = process.exit.set(Some(exit));
        process.over.store(true, Ordering::Release);
        Arc::new(process)
    }

    /// How it ended, once it has and all of its output is there.
    pub fn exit(&self) -> Option<Exit> {
        if self.is_over() { self.exit.get().copied().flatten() } else { None }
    }

    /// Whether it has ended and all of its output is there. How it ended may be known to nobody.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Names a process: namespace, container, exec id, and pid of the task, which tells it from a successor.
type Key = (Arc<str>, String, String, u32);

/// All processes that somebody waits for.
#[derive(Default)]
pub struct Processes {
    known: Mutex<HashMap<Key, Weak<Process>>>,
}

/// What is done when a process is over, before anybody is told.
pub type AtEnd = Box<dyn FnOnce(&Namespace, Option<Exit>) + Send>;

impl Processes {
    /// A process to wait for. `outputs` are the files that it writes. One that is waited for already keeps the end that
    /// was first given to it.
    pub fn track(
        &self,
        store: &Arc<Store>,
        ns: &Namespace,
        (id, exec_id, pid): (&str, &str, u32),
        outputs: Vec<PathBuf>,
        at_end: Option<AtEnd>,
    ) -> Result<Arc<Process>> {
        let key: Key = (Arc::clone(ns.name()), id.to_owned(), exec_id.to_owned(), pid);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, process| process.strong_count() > 0);
        if let Some(process) = known.get(&key).and_then(Weak::upgrade).filter(|process| !process.is_over()) {
            return Ok(process);
        }
        let process = Arc::new(Process::default());
        known.insert(key, Arc::downgrade(&process));
        drop(known);
        let (theirs, store, held) = (Arc::clone(&process), Arc::clone(store), ns.clone());
        let watching = watch(&store, &outputs);
        ns.on_exit(id, exec_id, move |exit| {
            drained(&outputs);
            if let Some(at_end) = at_end {
                at_end(&held, exit);
            }
            let _ = theirs.exit.set(exit);
            theirs.over.store(true, Ordering::Release);
            drop(watching);
            store.watch.wake();
        })?;
        Ok(process)
    }
}

fn watch(store: &Store, outputs: &[PathBuf]) -> Vec<Watching> {
    outputs.iter().filter_map(|path| store.watch.add(path, store.of_output(path)).ok()).collect()
}

/// Waits until nobody writes to the files any more.
fn drained(outputs: &[PathBuf]) {
    let last = Instant::now() + DRAIN;
    for path in outputs {
        let Ok(Some(output)) = Output::open(path) else { continue };
        while !output.is_complete() && Instant::now() < last {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Store {
    /// Whether a file is one that we made.
    pub fn of_output(&self, path: &Path) -> bool {
        path.to_str().and_then(|path| self.of(&path.replace("/stderr", "/stdout"))).is_some()
    }
}

/// The outputs of a process that are plain files on this host, whoever made them: stdout and stderr.
pub fn outputs(record: &TaskRecord) -> [Option<PathBuf>; 2] {
    let path = |uri: &str| {
        // `file://` takes both streams to the path of the first.
        let path = uri.strip_prefix("file://").unwrap_or(uri);
        (path.starts_with('/') && path != "/dev/null").then(|| PathBuf::from(path))
    };
    [path(&record.stdout), path(&record.stderr)]
}

/// The files of a process that ctrfs started, as their paths.
pub fn paths(files: &Files, terminal: bool) -> Vec<PathBuf> {
    let stderr = (!terminal).then(|| files.stderr());
    std::iter::once(files.stdout()).chain(stderr).collect()
}
