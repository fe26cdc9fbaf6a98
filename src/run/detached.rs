//! Work that goes on to its end though whoever asked for it has gone away.
//!
//! A task that is half made when its caller is killed would stay half made. So it is made on a thread of its own; a
//! cancelled command only stops waiting, and what was made meanwhile is undone there.

use crate::error::{Error, Kind, Result};
use crate::wait;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often the waiter looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(30);

enum State<T> {
    Working,
    Done(Result<T>),
    /// Nobody waits any more.
    Abandoned,
}

/// Runs `work` and waits for it. If the command is cancelled first, `undo` gets what it made.
pub fn detached<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
    undo: impl FnOnce(T) + Send + 'static,
) -> Result<T> {
    wait::check()?;
    let shared = Arc::new((Mutex::new(State::Working), Condvar::new()));
    let theirs = Arc::clone(&shared);
    let thread = move || {
        let outcome = work();
        let (state, done) = &*theirs;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Abandoned) {
            drop(state);
            if let Ok(made) = outcome {
                undo(made);
            }
            return;
        }
        *state = State::Done(outcome);
        done.notify_all();
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(thread)
        .map_err(|e| Error::caused(Kind::Again, format!("no thread can be started: {e}"), e))?;
    let (state, done) = &*shared;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match std::mem::replace(&mut *state, State::Working) {
            State::Done(outcome) => return outcome,
            State::Working | State::Abandoned => {}
        }
        if let Err(error) = wait::check() {
            *state = State::Abandoned;
            return Err(error);
        }
        state = done.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn the_outcome_comes_back() {
        assert_eq!(detached("test", || Ok(7), |_| {}).unwrap(), 7);
        assert!(detached("test", || crate::fail!(Busy, "no") as Result<u8>, |_| {}).is_err());
    }

    #[test]
    fn what_nobody_waits_for_is_undone() {
        let (go, begin) = channel::<()>();
        let (undone, seen) = channel();
        let outcome = wait::command(&wait::Cancel::default(), || {
            let cancel = wait::cancel().unwrap();
            let late = move || {
                cancel.cancel();
                begin.recv().ok();
                Ok(5)
            };
            detached("test", late, move |made| undone.send(made).unwrap())
        });
        assert_eq!(outcome.unwrap_err().kind(), Kind::Interrupted);
        go.send(()).unwrap();
        assert_eq!(seen.recv_timeout(Duration::from_secs(5)), Ok(5));
    }
}
