//! From a command to what containerd does: specs, processes, images in and out.

pub mod archive;
pub mod checkpoint;
pub mod content;
pub mod control;
pub mod convert;
pub mod create;
pub mod detached;
pub mod diff;
pub mod exec;
pub mod export;
pub mod fetch;
pub mod held;
pub mod image;
pub mod import;
pub mod jobs;
mod keeper;
pub mod layout;
pub mod output;
pub mod parallel;
mod pid_file;
pub mod platforms;
pub mod process;
pub mod progress;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod signal;
pub mod spec;
pub mod store;
pub mod task;
mod unfinished;
pub mod unpack;
pub mod update;

use crate::containerd::Mount;
use crate::error::Result;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Of so many containers the last exec is remembered.
const REMEMBERED: usize = 4096;

/// Reads a file of a root filesystem that is mounted so, links resolved inside it; `None` if there is none.
pub type ReadRoot = Box<dyn Fn(&[Mount], &str) -> Result<Option<Vec<u8>>> + Send + Sync>;

/// What commands about processes need beside containerd.
pub struct Engine {
    /// The files of processes.
    pub store: Arc<store::Store>,
    /// Long commands.
    pub jobs: jobs::Jobs,
    /// Who is waited for.
    pub processes: process::Processes,
    /// How a root filesystem is looked into.
    pub read: ReadRoot,
    /// Who writes to the input of which process.
    pub writers: Writers,
    /// The id of the process that was last added to a container, by namespace and container.
    last_exec: Mutex<HashMap<(Arc<str>, String), String>>,
}

/// How many have an input open for writing, by its path.
#[derive(Default)]
pub struct Writers(Mutex<HashMap<PathBuf, usize>>);

impl Writers {
    /// One more.
    pub fn enter(&self, path: &Path) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default() += 1;
    }

    /// One less; whether it was the last.
    pub fn leave(&self, path: &Path) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = all.get_mut(path) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            all.remove(path);
        }
        last
    }
}

impl Engine {
    /// An engine whose processes have their files in a store.
    pub fn new(store: store::Store, read: ReadRoot) -> Engine {
        Engine {
            store: Arc::new(store),
            jobs: Default::default(),
            processes: Default::default(),
            read,
            writers: Default::default(),
            last_exec: Mutex::default(),
        }
    }

    /// The id of the process that was last added to a container's task by this ctrfs.
    pub fn last_exec(&self, namespace: &Arc<str>, id: &str) -> Option<String> {
        let last = self.last_exec.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&(Arc::clone(namespace), id.to_owned())).cloned()
    }

    fn note_exec(&self, namespace: &Arc<str>, id: &str, exec_id: &str) {
        let mut last = self.last_exec.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= REMEMBERED {
            last.clear();
        }
        last.insert((Arc::clone(namespace), id.to_owned()), exec_id.to_owned());
    }
}
