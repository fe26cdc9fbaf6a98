//! Making uncompressed copies, one at a time, on a thread that lives as long as there is something to do.

use super::super::decode::Hooks;
use super::super::decode::pass::{Watch, pass};
use super::super::index::Index;
use super::super::reader::Layer;
use super::super::spool::{Finished, Spools, Writer};
use super::{Blob, Digest, Inner};
use crate::error::Result;
use crate::fail;
use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The copies and what is to be done about them.
pub(super) struct Spooling {
    spools: Option<Spools>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    running: bool,
    stopped: bool,
    /// What the copy that is being made heeds.
    watch: Arc<Watch>,
}

enum Task {
    /// Bring a complete copy to the disk.
    Settle(Finished),
    /// Make a copy.
    Copy(Arc<Layer>, Arc<dyn Blob>),
}

/// A layer that wants a copy after so many others can do without.
const TASKS: usize = 64;

impl Spooling {
    pub(super) fn new(spools: Option<Spools>) -> Spooling {
        Spooling { spools, queue: Mutex::default() }
    }

    pub(super) fn spools(&self) -> Option<&Spools> {
        self.spools.as_ref()
    }

    /// The copy of the archive of `index`.
    pub(super) fn open(&self, index: &Index) -> Option<File> {
        self.spools.as_ref()?.open(&index.diff_id(), index.uncompressed())
    }

    /// Deletes the copy of `diff_id`.
    pub(super) fn remove(&self, diff_id: &Digest) {
        if let Some(spools) = &self.spools {
            spools.remove(diff_id);
        }
    }

    pub(super) fn stop(&self) {
        let mut queue = self.queue();
        queue.stopped = true;
        queue.tasks.retain(|task| matches!(task, Task::Settle(_)));
        queue.watch.stop.store(true, Ordering::Relaxed);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pass made a copy: it is used from now on.
pub(super) fn adopt(inner: &Arc<Inner>, index: &Arc<Index>, writer: Writer) {
    if let Ok((file, finished)) = writer.finish(index.diff_id()) {
        inner.adopt(index).set_spool(file);
        add(inner, Task::Settle(finished));
    }
}

/// A reader asks for a copy of `layer`.
pub(super) fn promote(inner: &Arc<Inner>, layer: &Arc<Layer>, blob: &Arc<dyn Blob>) {
    if inner.spooling.spools.is_some() && layer.want_spool() {
        add(inner, Task::Copy(layer.clone(), blob.clone()));
    }
}

fn add(inner: &Arc<Inner>, task: Task) {
    let mut queue = inner.spooling.queue();
    if queue.tasks.len() >= TASKS || (queue.stopped && matches!(task, Task::Copy(..))) {
        return;
    }
    queue.tasks.push_back(task);
    if !queue.running {
        let inner = inner.clone();
        queue.running = std::thread::Builder::new().name("ctrfs-spool".into()).spawn(move || work(&inner)).is_ok();
    }
}

fn work(inner: &Arc<Inner>) {
    loop {
        let (task, watch) = {
            let mut queue = inner.spooling.queue();
            let Some(task) = queue.tasks.pop_front() else {
                queue.running = false;
                return;
            };
            (task, queue.watch.clone())
        };
        let Some(spools) = &inner.spooling.spools else { continue };
        let finished = match task {
            Task::Settle(finished) => Ok(finished),
            Task::Copy(layer, blob) => copy(inner, spools, &layer, &*blob, &watch),
        };
        match finished.and_then(|finished| spools.settle(finished)) {
            Ok(gone) => release(inner, &gone),
            // Without a copy it is slower, and right all the same.
            Err(error) => tracing::debug!("no uncompressed copy: {error}"),
        }
    }
}

/// Makes a copy of the archive of `layer`, and checks it on the way.
fn copy(inner: &Inner, spools: &Spools, layer: &Layer, blob: &dyn Blob, watch: &Watch) -> Result<Finished> {
    let index = &layer.index;
    let mut writer = spools.begin(Some(index.uncompressed()))?;
    let mut sink = |bytes: &[u8]| writer.write(bytes);
    let hooks = Hooks { sink: &mut sink, tee: None, watch, scratch: inner.scratch.as_deref() };
    let decoded = pass(blob, &inner.config.limits, hooks)?;
    if Digest::Sha256(decoded.diff_id) != index.diff_id() {
        return fail!(Digest, "the archive of {} is another one than its index says", index.digest());
    }
    let (file, finished) = writer.finish(index.diff_id())?;
    layer.set_spool(file);
    Ok(finished)
}

/// Copies that were deleted to keep the cap take space for as long as somebody holds them.
fn release(inner: &Inner, gone: &[String]) {
    if gone.is_empty() {
        return;
    }
    let state = inner.state();
    for (_, layer) in state.layers.iter() {
        if gone.contains(&layer.index.diff_id().hex()) {
            layer.drop_spool();
        }
    }
}
