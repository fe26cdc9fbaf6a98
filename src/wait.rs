//! Whether this thread may wait, and until when.
//!
//! A FUSE thread answers from memory or not at all: what needs a call to containerd or a disk fails there with
//! [`Kind::WouldWait`], and `mount.rs` runs the same request again on a thread of the pool, where it may wait until
//! the deadline of the request. So no row has to say where it runs, and a row that is answered from memory nine times
//! of ten is answered inline nine times of ten (DESIGN 5.4).

use crate::error::{Kind, Result};
use crate::fail;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

thread_local! {
    static POLICY: RefCell<Policy> = const { RefCell::new(Policy::Free) };
}

#[derive(Clone)]
enum Policy {
    /// Not serving a request: start-up, tests, background threads. Waits have the default bound.
    Free,
    /// Serving a request on a FUSE thread: never waits.
    Never,
    /// Serving a request on a thread of the pool.
    Until(Instant),
    /// Carrying out a command: it may take long, but ends soon after it was cancelled.
    Command(Cancel),
}

/// Tells a command to end. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// From now on every wait of the command fails.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was told to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The longest wait of a thread that serves no request.
const DEFAULT: Duration = Duration::from_secs(30);

/// Runs `f` with waiting forbidden: whatever would wait fails with [`Kind::WouldWait`].
pub fn never<R>(f: impl FnOnce() -> R) -> R {
    with(Policy::Never, f)
}

/// Runs `f`, in which every wait ends at `deadline`.
pub fn until<R>(deadline: Instant, f: impl FnOnce() -> R) -> R {
    with(Policy::Until(deadline), f)
}

/// Runs `f`, a command that has as long as it needs and ends when it is cancelled. Each single call in it still has the
/// bound of its kind.
pub fn command<R>(cancel: &Cancel, f: impl FnOnce() -> R) -> R {
    with(Policy::Command(cancel.clone()), f)
}

/// Fails with [`Kind::Interrupted`] where this thread carries out a command that was cancelled: to be asked between
/// the steps of whatever takes long.
pub fn check() -> Result<()> {
    match cancel() {
        Some(cancel) if cancel.is_cancelled() => fail!(Interrupted, "cancelled"),
        _ => Ok(()),
    }
}

/// What cancels the command that this thread carries out, if it does.
pub fn cancel() -> Option<Cancel> {
    POLICY.with_borrow(|policy| if let Policy::Command(cancel) = policy { Some(cancel.clone()) } else { None })
}

fn with<R>(policy: Policy, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Policy>);
    impl Drop for Restore {
        fn drop(&mut self) {
            POLICY.set(self.0.take().unwrap_or(Policy::Free));
        }
    }
    let _restore = Restore(Some(POLICY.replace(policy)));
    f()
}

/// When a wait that begins now has to end. Fails with [`Kind::WouldWait`] where waiting is forbidden and with
/// [`Kind::Deadline`] where the time is up.
pub fn deadline() -> Result<Instant> {
    let now = Instant::now();
    check()?;
    match POLICY.with_borrow(Policy::clone) {
        Policy::Free | Policy::Command(_) => Ok(now + DEFAULT),
        Policy::Never => fail!(WouldWait, "this needs a call"),
        Policy::Until(at) if at > now => Ok(at),
        Policy::Until(_) => fail!(Deadline, "the time for this request is up; --timeout sets it"),
    }
}

/// Whether `error` only says that this thread must not wait.
pub fn would_wait<T>(result: &Result<T>) -> bool {
    matches!(result, Err(e) if e.kind() == Kind::WouldWait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuse_thread_never_waits_and_the_policy_is_restored() {
        let inner = never(deadline);
        assert!(would_wait(&inner));
        assert!(deadline().is_ok());
        let _ = std::panic::catch_unwind(|| never(|| panic!("restored even so")));
        assert!(deadline().is_ok());
    }

    #[test]
    fn a_command_that_was_cancelled_waits_for_nothing_more() {
        let stop = Cancel::default();
        command(&stop, || {
            assert!(deadline().is_ok() && check().is_ok());
            stop.cancel();
            assert_eq!(check().unwrap_err().kind(), Kind::Interrupted);
            assert_eq!(deadline().unwrap_err().kind(), Kind::Interrupted);
        });
        assert!(check().is_ok() && cancel().is_none());
    }

    #[test]
    fn a_deadline_that_passed_is_said() {
        let error = until(Instant::now() - Duration::from_secs(1), deadline).unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
    }
}
