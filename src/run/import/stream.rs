//! An archive that somebody writes: taken as it is written, on a thread of its own.
//!
//! A write returns when all it brought is used up, or when the import is over; so the write that brings the archive's end
//! waits for the images and carries what became of them.

use super::{ImportFlags, import};
use crate::containerd::Namespace;
use crate::error::{Error, Kind, Result};
use crate::run::progress::Progress;
use crate::wait::{self, Cancel};
use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiter looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(50);

/// An import that is being written.
pub struct Stream {
    shared: Arc<Shared>,
    cancel: Cancel,
    worker: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// The reader has nothing left and waits.
    hungry: bool,
    /// Nothing more is written.
    closed: bool,
    outcome: Option<Result<()>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Stream {
    /// Begins an import. `run` carries out what it is given as a job.
    pub fn start(
        ns: &Namespace,
        args: ImportFlags,
        run: impl FnOnce(&mut dyn FnMut(&Progress) -> Result<()>) -> Result<()> + Send + 'static,
    ) -> Result<Stream> {
        let shared = Arc::new(Shared::default());
        let cancel = Cancel::default();
        let (mine, ns, stop) = (Arc::clone(&shared), ns.clone(), cancel.clone());
        let worker = std::thread::Builder::new().name("ctrfs-import".into()).spawn(move || {
            // Also if it panics: somebody waits for it.
            let mut end = End(&mine, Err(Error::new(Kind::Io, "ctrfs has a bug here: its standard error says where")));
            end.1 = wait::command(&stop, || run(&mut |progress| import(&ns, &args, Source(&mine), progress).map(drop)));
        })?;
        Ok(Stream { shared, cancel, worker: Some(worker) })
    }

    /// Takes the next bytes of the archive.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut state = self.shared.lock();
        if state.outcome.is_none() {
            state.bytes.extend(bytes);
            state.hungry = false;
            self.shared.changed.notify_all();
        }
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            if state.hungry && state.bytes.is_empty() {
                return Ok(());
            }
            state = self.shared.wait(state);
            if let Err(error) = wait::check() {
                self.cancel.cancel();
                return Err(error);
            }
        }
    }

    /// The archive is over: what became of it. An archive that is not whole fails now.
    pub fn finish(mut self) -> Result<()> {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.changed.notify_all();
        while state.outcome.is_none() {
            state = self.shared.wait(state);
            if wait::check().is_err() {
                self.cancel.cancel();
            }
        }
        let outcome = state.outcome.clone().unwrap_or(Ok(()));
        drop(state);
        if let Some(worker) = self.worker.take() {
            drop(worker.join());
        }
        outcome
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        if state.outcome.is_none() {
            self.cancel.cancel();
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// Says how the import ended, however it ended.
struct End<'a>(&'a Shared, Result<()>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().outcome = Some(self.1.clone());
        self.0.changed.notify_all();
    }
}

/// The reader's end.
struct Source<'a>(&'a Shared);

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut state = self.0.lock();
        loop {
            if !state.bytes.is_empty() {
                return state.bytes.read(buffer);
            }
            if state.closed {
                return Ok(0);
            }
            state.hungry = true;
            self.0.changed.notify_all();
            state = self.0.wait(state);
            wait::check().map_err(std::io::Error::other)?;
        }
    }
}
