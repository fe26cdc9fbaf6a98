//! Whether this thread may wait, and until when.
//!
//! A FUSE thread answers from memory or not at all: what needs a call to containerd or a disk fails there with
//! [`Kind::WouldWait`], and `mount.rs` runs the same request again on a thread of the pool, where it may wait until
//! the deadline of the request. So no row has to say where it runs, and a row that is answered from memory nine times
//! of ten is answered inline nine times of ten (DESIGN 5.4).

use crate::error::{Kind, Result};
use crate::fail;
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static POLICY: Cell<Policy> = const { Cell::new(Policy::Free) };
}

#[derive(Clone, Copy)]
enum Policy {
    /// Not serving a request: start-up, tests, background threads. Waits have the default bound.
    Free,
    /// Serving a request on a FUSE thread: never waits.
    Never,
    /// Serving a request on a thread of the pool.
    Until(Instant),
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

fn with<R>(policy: Policy, f: impl FnOnce() -> R) -> R {
    struct Restore(Policy);
    impl Drop for Restore {
        fn drop(&mut self) {
            POLICY.set(self.0);
        }
    }
    let _restore = Restore(POLICY.replace(policy));
    f()
}

/// When a wait that begins now has to end. Fails with [`Kind::WouldWait`] where waiting is forbidden and with
/// [`Kind::Deadline`] where the time is up.
pub fn deadline() -> Result<Instant> {
    let now = Instant::now();
    match POLICY.get() {
        Policy::Free => Ok(now + DEFAULT),
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
    fn a_deadline_that_passed_is_said() {
        let error = until(Instant::now() - Duration::from_secs(1), deadline).unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
    }
}
