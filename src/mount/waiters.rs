//! Programs that wait at the end of a file: readers and pollers.

use super::{Refuse, Shared, caught};
use crate::error::Error;
use crate::node::Followed;
use crate::node::handle::{Handle, Opened};
use crate::node::parked::Waiter;
use crate::wait;
use fuser::{FileHandle, PollEvents, PollFlags, PollNotifier, ReplyData, ReplyPoll};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A reader at the end of a file that waits.
pub struct Reader {
    pub reply: Option<ReplyData>,
    pub file: Arc<Handle>,
    pub offset: u64,
    pub size: usize,
}

impl Waiter for Reader {
    fn attempt(&mut self) -> bool {
        let Handle::File(Opened::Follow(follower)) = &*self.file else { return true };
        let result = caught(|| {
            let mut follower = follower.lock().unwrap_or_else(PoisonError::into_inner);
            wait::never(|| follower.read(self.offset, self.size))
        });
        if matches!(result, Ok(Followed::Nothing)) {
            return false;
        }
        let Some(reply) = self.reply.take() else { return true };
        match result {
            Ok(Followed::Bytes(bytes)) => reply.data(&bytes),
            Ok(Followed::End | Followed::Nothing) => reply.data(&[]),
            Err(error) => reply.refuse(error.errno()),
        }
        true
    }

    fn give_up(mut self: Box<Self>, error: Error) {
        if let Some(reply) = self.reply.take() {
            reply.refuse(error.errno());
        }
    }
}

/// The numbers of the open files for which a [`Poller`] is parked: one is enough, however often they are polled.
pub type Polled = Mutex<HashSet<u64>>;

/// Can be read at once.
const READABLE: PollEvents = PollEvents::POLLIN.union(PollEvents::POLLRDNORM);

/// What sysfs and cgroups say of a file that would be read differently now: it can be read at any time.
const CHANGED: PollEvents = READABLE.union(PollEvents::POLLPRI).union(PollEvents::POLLERR);

/// Waits for an open file on behalf of programs that poll it, as long as it is open.
struct Poller {
    shared: Arc<Shared>,
    number: FileHandle,
    notifier: Option<PollNotifier>,
}

impl Shared {
    /// poll(2): what is so now, and somebody who says when it is not any more.
    pub(super) fn poll(
        self: &Arc<Self>,
        caller: u32,
        number: FileHandle,
        notifier: PollNotifier,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let Ok(file) = self.handle(number) else { return reply.poll(READABLE) };
        let (events, is_awaited) = self.events(&file);
        reply.poll(events);
        if is_awaited
            && flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY)
            && self.polled.lock().unwrap_or_else(PoisonError::into_inner).insert(number.0)
        {
            self.parked.park(caller, Box::new(Poller { shared: Arc::clone(self), number, notifier: Some(notifier) }));
        }
    }

    /// What poll(2) says of an open file, and whether there is more to wait for.
    fn events(self: &Arc<Self>, file: &Handle) -> (PollEvents, bool) {
        match file {
            Handle::File(Opened::Follow(follower)) => {
                let ready = follower.lock().unwrap_or_else(PoisonError::into_inner).ready();
                if ready { (READABLE, false) } else { (PollEvents::empty(), true) }
            }
            Handle::File(Opened::State(state)) => match caught(|| wait::never(|| state.has_changed())) {
                Ok(true) => (CHANGED, false),
                Ok(false) => (READABLE, true),
                Err(_) => {
                    if let Some(asking) = state.ask() {
                        let shared = Arc::clone(self);
                        self.pool.run(move || {
                            wait::until(Instant::now() + shared.policy.timeout, || asking.find_out());
                            shared.parked.wake();
                        });
                    }
                    (READABLE, true)
                }
            },
            _ => (READABLE, false),
        }
    }
}

impl Poller {
    fn tell(&mut self) {
        // First, so that whoever polls again because of it is heard.
        self.shared.polled.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number.0);
        if let Some(notifier) = self.notifier.take() {
            // A poller that has gone is no failure.
            let _ = notifier.notify();
        }
    }
}

impl Waiter for Poller {
    fn attempt(&mut self) -> bool {
        let over = match self.shared.handle(self.number) {
            Ok(file) => !self.shared.events(&file).1,
            // It was closed.
            Err(_) => true,
        };
        if over {
            self.tell();
        }
        over
    }

    fn give_up(mut self: Box<Self>, _: Error) {
        self.tell();
    }
}
