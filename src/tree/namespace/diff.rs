//! `/namespaces/<namespace>/snapshots/<snapshotter>/<key>/diff.tar`: what differs in a snapshot from its parent.
//!
//! containerd makes a blob of it, which is a change, and may take long: so the file is not listed, nothing happens before
//! its first byte is read, and what was made goes with the close.

use super::Ns;
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::handle::UNKNOWN_SIZE;
use crate::node::{Follower, Stream};
use crate::run::diff::{self, Difference};
use crate::wait::{self, Cancel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The difference of a snapshot, not made yet; none where nothing may be changed.
pub fn stream(ns: &Ns, snapshotter: &str, key: &str, modified: Option<SystemTime>) -> Option<Arc<dyn Stream>> {
    let of = Of { ns: ns.clone(), snapshotter: snapshotter.to_owned(), key: key.to_owned() };
    let diff = Diff { of, modified, state: Arc::default(), cancel: Cancel::default() };
    (!ns.shared.daemon.is_read_only()).then(|| Arc::new(diff) as Arc<dyn Stream>)
}

#[derive(Clone)]
struct Of {
    ns: Ns,
    snapshotter: String,
    key: String,
}

struct Diff {
    of: Of,
    modified: Option<SystemTime>,
    state: Arc<Mutex<State>>,
    cancel: Cancel,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Making,
    Made(Arc<Difference>),
    Failed(Error),
    /// Nobody reads it any more.
    Closed,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Of {
    fn make(&self) -> Result<State> {
        let ns = &self.ns;
        let command = format!("snapshots diff --snapshotter {} {}", self.snapshotter, self.key);
        ns.shared.engine.jobs.run(ns.namespace.name(), &command, |progress| {
            progress.say(format!("comparing {}", self.key));
            let keys = (self.key.as_str(), None);
            Ok(State::Made(Arc::new(diff::make(&ns.namespace, &self.snapshotter, keys, diff::PLAIN, None)?)))
        })
    }
}

impl Diff {
    /// Has it made on a thread of its own.
    fn begin(&self) -> Result<()> {
        let (of, shared, cancel) = (self.of.clone(), Arc::clone(&self.state), self.cancel.clone());
        std::thread::Builder::new().name("ctrfs-diff".into()).spawn(move || {
            let made = wait::command(&cancel, || of.make()).unwrap_or_else(State::Failed);
            let mut state = lock(&shared);
            let unused = match *state {
                State::Closed => made,
                _ => std::mem::replace(&mut *state, made),
            };
            drop(state);
            // It gives its lease back: not under the lock.
            drop(unused);
            of.ns.shared.engine.store.watch.wake();
        })?;
        Ok(())
    }
}

impl Stream for Diff {
    fn generation(&self) -> u64 {
        0
    }
    fn modified(&self) -> Option<SystemTime> {
        self.modified
    }
    fn size(&self) -> u64 {
        UNKNOWN_SIZE as u64
    }
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut state = lock(&self.state);
        let difference = match &*state {
            State::Made(difference) => Arc::clone(difference),
            State::Failed(error) => return Err(error.clone()),
            State::Closed => return fail!(Stale, "diff.tar: closed"),
            State::Making => return fail!(NotYet, "the difference is being made"),
            State::Idle => {
                *state = State::Making;
                drop(state);
                if let Err(error) = self.begin() {
                    *lock(&self.state) = State::Failed(error.clone());
                    return Err(error);
                }
                return fail!(NotYet, "the difference is being made");
            }
        };
        drop(state);
        difference.reader.read_at(offset, length).map(Vec::from)
    }
    fn follow(&self) -> Result<Box<dyn Follower>> {
        Err(Error::new(Kind::Unsupported, "diff.tar: it does not grow"))
    }
}

impl Drop for Diff {
    fn drop(&mut self) {
        self.cancel.cancel();
        let state = std::mem::replace(&mut *lock(&self.state), State::Closed);
        if matches!(state, State::Made(..)) {
            // Giving the lease back is a call, and this may be a thread that must not wait. If none is to be had, the
            // lease ends by itself.
            let _ = std::thread::Builder::new().name("ctrfs-diff".into()).spawn(move || drop(state));
        }
    }
}
