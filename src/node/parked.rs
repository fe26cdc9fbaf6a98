//! Requests that wait: for an event, for output, for an exit, for a slow call.
//!
//! fuser answers FUSE_INTERRUPT with ENOSYS, so a caller that is blocked in the mount survives even SIGKILL until it is
//! answered. Whoever waits therefore sits here: one thread watches all callers for pending signals and answers EINTR,
//! and no waiting request holds a thread (DESIGN 5.4).

use crate::error::{Error, Kind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often callers are looked at: a killed reader is gone well within 100 ms.
const TICK: Duration = Duration::from_millis(40);

/// How long a caller waits whom we cannot see, because it lives in another pid namespace.
const UNSEEN: Duration = Duration::from_secs(5);

/// How many requests may wait at once.
const MOST: usize = 4096;

/// A request that waits.
pub trait Waiter: Send {
    /// Tries to answer; true when it was answered. Must not block.
    fn attempt(&mut self) -> bool;
    /// Answers with a failure.
    fn give_up(self: Box<Self>, error: Error);
    /// The signals of its caller that end the wait, as a mask like those of proc(5).
    fn minds(&self) -> u64 {
        !unheard()
    }
}

/// The bit of a signal in the masks of proc(5).
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Signals that mean nothing to whoever waits: a shell whose child ended, a terminal that changed its size.
const fn unheard() -> u64 {
    bit(libc::SIGCHLD) | bit(libc::SIGWINCH) | bit(libc::SIGURG) | bit(libc::SIGCONT)
}

/// Signals that only stop: a command goes on while its writer is stopped.
pub const fn stopping() -> u64 {
    unheard() | bit(libc::SIGTSTP) | bit(libc::SIGSTOP) | bit(libc::SIGTTIN) | bit(libc::SIGTTOU)
}

struct Entry {
    waiter: Box<dyn Waiter>,
    /// The thread id of the caller as this pid namespace sees it, 0 if it does not.
    caller: u32,
    since: Instant,
}

/// The place where requests wait.
#[derive(Clone)]
pub struct Parked(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    /// Entries that the thread has taken out to try them.
    held: usize,
    woken: bool,
    started: bool,
}

impl Default for Parked {
    fn default() -> Parked {
        Parked(Arc::new(Shared::default()))
    }
}

impl Parked {
    /// Lets `waiter` wait until it is answered or its caller has a signal to handle. Its first attempt is made soon,
    /// so that nothing is lost between the caller's own attempt and this call.
    pub fn park(&self, caller: u32, waiter: Box<dyn Waiter>) {
        let mut state = self.0.lock();
        if state.entries.len() + state.held >= MOST {
            drop(state);
            waiter.give_up(Error::new(Kind::Again, format!("{MOST} requests wait already")));
            return;
        }
        state.entries.push(Entry { waiter, caller, since: Instant::now() });
        state.woken = true;
        if !state.started {
            let shared = Arc::clone(&self.0);
            state.started =
                std::thread::Builder::new().name("ctrfs-parked".into()).spawn(move || shared.watch()).is_ok();
        }
        if !state.started {
            let entries = std::mem::take(&mut state.entries);
            drop(state);
            for entry in entries {
                entry.waiter.give_up(Error::new(Kind::Again, "no thread can be started to wait on"));
            }
            return;
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Has every waiter try again.
    pub fn wake(&self) {
        let mut state = self.0.lock();
        if state.entries.is_empty() && state.held == 0 {
            return;
        }
        state.woken = true;
        drop(state);
        self.0.changed.notify_one();
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        let state = self.0.lock();
        state.entries.len() + state.held
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Answers everybody: the mount ends.
    pub fn release(&self) {
        let entries = std::mem::take(&mut self.0.lock().entries);
        for entry in entries {
            entry.waiter.give_up(Error::new(Kind::Interrupted, "ctrfs ends"));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut looked = Instant::now();
        loop {
            let mut entries = {
                let mut state = self.lock();
                while !state.woken {
                    if state.entries.is_empty() {
                        state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    } else {
                        let (next, timeout) =
                            self.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner);
                        state = next;
                        if timeout.timed_out() {
                            break;
                        }
                    }
                }
                state.woken = false;
                state.held = state.entries.len();
                std::mem::take(&mut state.entries)
            };
            entries.retain_mut(|entry| !entry.waiter.attempt());
            if looked.elapsed() >= TICK {
                entries = interrupt(entries);
                looked = Instant::now();
            }
            let mut state = self.lock();
            state.held = 0;
            entries.append(&mut state.entries);
            state.entries = entries;
        }
    }
}

/// Answers those whose callers have to handle a signal, and gives back the others.
fn interrupt(entries: Vec<Entry>) -> Vec<Entry> {
    let (stay, go): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| match entry.caller {
        0 => entry.since.elapsed() < UNSEEN,
        caller => !has_signal(caller, entry.waiter.minds()),
    });
    for entry in go {
        entry.waiter.give_up(Error::new(Kind::Interrupted, "the caller has a signal to handle"));
    }
    stay
}

/// Whether the thread has a pending signal that it does not block and that the waiter minds, or is gone (`SigPnd`,
/// `ShdPnd` and `SigBlk` of proc(5); ignored signals never become pending).
fn has_signal(thread: u32, minds: u64) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{thread}/status")) else { return true };
    let mask = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") & minds != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};

    struct Probe {
        ready: Arc<AtomicBool>,
        told: Sender<Option<Kind>>,
    }

    impl Waiter for Probe {
        fn attempt(&mut self) -> bool {
            let ready = self.ready.load(Ordering::SeqCst);
            if ready {
                self.told.send(None).unwrap();
            }
            ready
        }
        fn give_up(self: Box<Self>, error: Error) {
            self.told.send(Some(error.kind())).unwrap();
        }
    }

    #[test]
    fn a_waiter_is_answered_when_woken() {
        let parked = Parked::default();
        let (told, answer) = channel();
        let ready = Arc::new(AtomicBool::new(false));
        parked.park(std::process::id(), Box::new(Probe { ready: Arc::clone(&ready), told }));
        assert!(answer.recv_timeout(Duration::from_millis(150)).is_err());
        ready.store(true, Ordering::SeqCst);
        parked.wake();
        assert_eq!(answer.recv_timeout(Duration::from_secs(5)).unwrap(), None);
    }

    #[test]
    fn a_waiter_whose_caller_is_killed_is_answered_within_a_tick_or_two() {
        let parked = Parked::default();
        let (told, answer) = channel();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        parked.park(child.id(), Box::new(Probe { ready: Arc::default(), told }));
        assert!(answer.recv_timeout(Duration::from_millis(150)).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(answer.recv_timeout(Duration::from_secs(5)).unwrap(), Some(Kind::Interrupted));
    }
}
