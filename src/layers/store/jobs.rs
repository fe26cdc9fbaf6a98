//! Building indexes: one job a layer, a few threads, and everybody who waits.

use super::super::decode::pass::{Watch, pass};
use super::super::decode::{Digest, Hooks};
use super::super::index::{Builder, Index, Unnamed};
use super::super::spool::Optional;
use super::{Blob, Inner, Patience};
use crate::error::{Error, Kind, Result};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far a layer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Compressed bytes that were read.
    pub read: u64,
    /// All of them.
    pub total: u64,
}

/// The jobs that are not done.
#[derive(Default)]
pub(super) struct Jobs {
    table: Mutex<Table>,
    /// A thread has ended.
    idle: Condvar,
}

#[derive(Default)]
struct Table {
    all: HashMap<Digest, Arc<Job>>,
    /// Those that no thread has taken.
    waiting: Vec<Arc<Job>>,
    threads: usize,
    stopped: bool,
}

/// One layer that is to be indexed.
pub(super) struct Job {
    digest: Digest,
    blob: Arc<dyn Blob>,
    watch: Watch,
    result: Mutex<Option<Result<Arc<Index>>>>,
    done: Condvar,
}

/// A waiting caller looks after itself at least this often.
const LOOK: Duration = Duration::from_millis(100);
/// How long the end of a store waits for its threads: a blob that answers to nobody does not hold it up.
const ENDING: Duration = Duration::from_secs(1);

impl Jobs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self, digest: &Digest) -> Option<Progress> {
        let table = self.table();
        let job = table.all.get(digest)?;
        Some(Progress { read: job.watch.read.load(Ordering::Relaxed), total: job.blob.size() })
    }

    /// Ends all jobs, now and later, and waits a moment for indexes that are on their way to the disk.
    pub(super) fn stop(&self) {
        let mut table = self.table();
        table.stopped = true;
        table.waiting.clear();
        for (_, job) in table.all.drain() {
            job.watch.stop.store(true, Ordering::Relaxed);
            job.tell(Err(Error::new(Kind::Cancelled, "ctrfs is ending")));
        }
        drop(self.idle.wait_timeout_while(table, ENDING, |table| table.threads > 0));
    }
}

impl Job {
    fn tell(&self, result: Result<Arc<Index>>) {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(result);
        self.done.notify_all();
    }

    /// Waits until the job is done or `patience` ends.
    pub(super) fn wait(&self, patience: Patience) -> Result<Arc<Index>> {
        loop {
            if let Some(result) = &*self.result.lock().unwrap_or_else(PoisonError::into_inner) {
                return result.clone();
            }
            // Asked without the lock: it may look at files.
            let left = patience()?.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), LOOK);
            let result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
            if result.is_none() {
                drop(self.done.wait_timeout(result, left).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }
}

/// The job that indexes `blob`: a new one, or the one that does already.
pub(super) fn start(inner: &Arc<Inner>, blob: &Arc<dyn Blob>) -> Result<Arc<Job>> {
    let digest = Digest::parse(blob.digest())?;
    let mut table = inner.jobs.table();
    if let Some(job) = table.all.get(&digest) {
        return Ok(job.clone());
    }
    if table.stopped {
        return crate::fail!(Cancelled, "ctrfs is ending");
    }
    if let Some(error) = inner.failure(&digest) {
        return Err(error);
    }
    let job = Arc::new(Job {
        digest,
        blob: blob.clone(),
        watch: Watch::default(),
        result: Mutex::new(None),
        done: Condvar::new(),
    });
    // It may have been finished between the caller's look and the lock.
    if let Some(layer) = inner.state().layers.get(&digest) {
        job.tell(Ok(layer.index.clone()));
        return Ok(job);
    }
    if table.threads < inner.config.workers.max(1) {
        let inner = inner.clone();
        std::thread::Builder::new().name("ctrfs-index".into()).spawn(move || work(&inner))?;
        table.threads += 1;
    }
    table.waiting.push(job.clone());
    table.all.insert(digest, job.clone());
    Ok(job)
}

/// Does jobs, the largest first, until there are none.
fn work(inner: &Arc<Inner>) {
    loop {
        let job = {
            let mut table = inner.jobs.table();
            let largest = (0..table.waiting.len()).max_by_key(|n| table.waiting[*n].blob.size());
            match largest {
                Some(largest) => table.waiting.swap_remove(largest),
                None => {
                    table.threads -= 1;
                    inner.jobs.idle.notify_all();
                    return;
                }
            }
        };
        let built = catch_unwind(AssertUnwindSafe(|| build(inner, &job)));
        let built = built.unwrap_or_else(|_| Err(Error::new(Kind::Io, "the reader of the layer died of a defect")));
        let result = built.map_err(|error| error.context(format_args!("layer {}", job.digest)));
        let (result, unnamed) = match result {
            Ok((index, unnamed)) => (Ok(inner.adopt(&index).index.clone()), unnamed),
            Err(error) => {
                tracing::warn!("{error}");
                inner.state().failures.put(job.digest, (error.clone(), Instant::now()));
                (Err(error), None)
            }
        };
        inner.jobs.table().all.remove(&job.digest);
        let weight = result.as_ref().map_or(0, |index| index.weight() as u64);
        job.tell(result);
        // An index without a name serves this process, and is made anew by the next.
        match unnamed.map(Unnamed::name) {
            Some(Ok(())) => inner.keep_cap(weight),
            Some(Err(error)) => tracing::warn!("the index of {} is not kept: {error}", job.digest),
            None => {}
        }
    }
}

/// Reads the layer once and makes its index.
fn build(inner: &Arc<Inner>, job: &Job) -> Result<(Arc<Index>, Option<Unnamed>)> {
    let (config, blob) = (&inner.config, &*job.blob);
    let scratch = inner.scratch.as_deref();
    let mut builder = Builder::new(scratch, config.entries);
    let mut scan = (config.scan)();
    let mut copy = inner.spooling.spools().map(|spools| Optional::new(spools, &job.watch));
    let decoded = {
        let mut sink = |bytes: &[u8]| scan.push(bytes, &mut |entry| builder.push(entry));
        let tee = copy.as_mut().map(|copy| copy as _);
        let hooks = Hooks { sink: &mut sink, tee, watch: &job.watch, scratch };
        pass(blob, &config.limits, hooks)?
    };
    scan.finish(&mut |entry| builder.push(entry))?;
    let (index, unnamed) = builder.finish(inner.root.as_deref(), &job.digest, blob.size(), decoded, config.parser)?;
    let index = Arc::new(index);
    if let Some(writer) = copy.and_then(Optional::writer).filter(|_| index.needs_spool()) {
        super::spooling::adopt(inner, &index, writer);
    }
    Ok((index, unnamed))
}
