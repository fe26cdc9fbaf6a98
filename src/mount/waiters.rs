//! Programs that wait at the end of a file: readers and pollers.

use super::{Refuse, caught};
use crate::error::Error;
use crate::node::Followed;
use crate::node::handle::{Handle, Opened};
use crate::node::parked::Waiter;
use crate::wait;
use fuser::{PollNotifier, ReplyData};
use std::sync::{Arc, PoisonError};

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

/// A program that polls a file that waits.
pub struct Poller {
    pub notifier: Option<PollNotifier>,
    pub file: Arc<Handle>,
}

impl Waiter for Poller {
    fn attempt(&mut self) -> bool {
        let Handle::File(Opened::Follow(follower)) = &*self.file else { return true };
        let ready = follower.lock().unwrap_or_else(PoisonError::into_inner).ready();
        if ready && let Some(notifier) = self.notifier.take() {
            // A poller that has gone is no failure.
            let _ = notifier.notify();
        }
        ready
    }

    fn give_up(mut self: Box<Self>, _: Error) {
        if let Some(notifier) = self.notifier.take() {
            let _ = notifier.notify();
        }
    }
}
