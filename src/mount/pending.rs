//! Requests that are not answered where they come in: tried there, run on the pool, or asked again when what they need
//! is made. A request on the pool dies with its caller too: its reply sits in a slot that the one takes who is first.

use super::{Ask, Mounted, Refuse, Shared, caught};
use crate::error::{Error, Kind, Result};
use crate::node::parked::Waiter;
use crate::wait;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

impl Mounted {
    /// Runs `work` here if it needs not wait, else on the pool, and gives its result to `answer`. A failure is noted
    /// and its errno is the reply.
    pub(super) fn serve<R: Refuse, A: 'static>(
        &self,
        ask: Ask,
        reply: R,
        work: impl Fn(&Shared) -> Result<A> + Send + Sync + 'static,
        answer: impl FnOnce(&Shared, R, A) + Send + 'static,
    ) {
        let result = caught(|| wait::never(|| work(&self.0)));
        let Some(next) = Next::of(&result) else { return self.0.answer(&ask, reply, result, answer) };
        self.0.counters.waited.fetch_add(1, Ordering::Relaxed);
        let caller = ask.caller.pid;
        let shared = Arc::clone(&self.0);
        let pending = Arc::new(Pending { shared, ask, work, slot: Mutex::new(Some((reply, answer))) });
        if next == Next::Pool {
            Arc::clone(&pending).to_pool();
        }
        self.0.parked.park(caller, Box::new(Waiting { pending, next }));
    }
}

/// Where a request that cannot be answered at once goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// On a thread of the pool, where it may wait.
    Pool,
    /// Here, once what it needs is made.
    Again,
}

impl Next {
    fn of<A>(result: &Result<A>) -> Option<Next> {
        match result {
            Err(e) if e.kind() == Kind::WouldWait => Some(Next::Pool),
            Err(e) if e.kind() == Kind::NotYet => Some(Next::Again),
            _ => None,
        }
    }
}

/// A request that is not answered yet. Whoever takes the reply out of the slot answers: the pool with a result, or
/// the watch over callers with EINTR.
struct Pending<R, W, F> {
    shared: Arc<Shared>,
    ask: Ask,
    work: W,
    slot: Mutex<Option<(R, F)>>,
}

impl<R, A, W, F> Pending<R, W, F>
where
    R: Refuse,
    A: 'static,
    W: Fn(&Shared) -> Result<A> + Send + Sync + 'static,
    F: FnOnce(&Shared, R, A) + Send + 'static,
{
    fn take(&self) -> Option<(R, F)> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_answered(&self) -> bool {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn settle(&self, result: Result<A>) {
        if let Some((reply, answer)) = self.take() {
            self.shared.answer(&self.ask, reply, result, answer);
        }
    }

    fn to_pool(self: Arc<Self>) {
        let pool = self.shared.pool.clone();
        pool.run(move || {
            let deadline = Instant::now() + self.shared.policy.timeout;
            let result = caught(|| wait::until(deadline, || (self.work)(&self.shared)));
            match Next::of(&result) {
                Some(_) => {
                    let shared = Arc::clone(&self.shared);
                    let caller = self.ask.caller.pid;
                    shared.parked.park(caller, Box::new(Waiting { pending: self, next: Next::Again }));
                }
                None => self.settle(result),
            }
        });
    }
}

/// The watch over a pending request.
struct Waiting<R, W, F> {
    pending: Arc<Pending<R, W, F>>,
    next: Next,
}

impl<R, A, W, F> Waiter for Waiting<R, W, F>
where
    R: Refuse,
    A: 'static,
    W: Fn(&Shared) -> Result<A> + Send + Sync + 'static,
    F: FnOnce(&Shared, R, A) + Send + 'static,
{
    fn attempt(&mut self) -> bool {
        if self.pending.is_answered() {
            return true;
        }
        if self.next == Next::Pool {
            return false;
        }
        let result = caught(|| wait::never(|| (self.pending.work)(&self.pending.shared)));
        match Next::of(&result) {
            Some(Next::Again) => return false,
            Some(Next::Pool) => {
                self.next = Next::Pool;
                Arc::clone(&self.pending).to_pool();
                return false;
            }
            None => self.pending.settle(result),
        }
        true
    }

    fn give_up(self: Box<Self>, error: Error) {
        if let Some((reply, _)) = self.pending.take() {
            reply.refuse(error.errno());
        }
    }
}
