//! What is open. Whatever is shown through a handle was pinned when it was opened: an open file never changes under
//! its reader, except the ones that are made to grow.

use super::state::State;
use super::texts::Reader;
use super::verb::Control;
use super::{Content, Follower, Sink, Stream};
use crate::error::Error;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The size that stat gives a live text before it was ever rendered: busybox's `cat` prints nothing at size 0.
pub const UNKNOWN_SIZE: usize = 4096;

/// An open file.
pub enum Opened {
    /// A text, rendered at open. `live`: its length is news to stat.
    Text { bytes: Vec<u8>, live: bool },
    /// A live text whose changes the kernel is told: it may keep the bytes.
    Told(Vec<u8>, Option<Reader>),
    /// A text that can be waited for.
    State(Arc<State>),
    /// Immutable bytes.
    Content(Arc<dyn Content>),
    /// Bytes that somebody else may change: nothing of them is kept.
    Changing(Arc<dyn Content>),
    /// A file that grows.
    Log(Arc<dyn Stream>),
    /// What came of the last command in the same directory: the mount knows.
    Outcome,
    /// A reader that waits at the end. It belongs to the handle, for it remembers what the reader lost.
    Follow(Arc<Mutex<Box<dyn Follower>>>),
}

impl Opened {
    pub fn text(bytes: Vec<u8>) -> Opened {
        Opened::Text { bytes, live: false }
    }

    pub fn live(bytes: Vec<u8>) -> Opened {
        Opened::Text { bytes, live: true }
    }

    pub fn told(bytes: Vec<u8>) -> Opened {
        Opened::Told(bytes, None)
    }

    pub fn follow(follower: Box<dyn Follower>) -> Opened {
        Opened::Follow(Arc::new(Mutex::new(follower)))
    }
}

/// A file that is open for writing.
pub struct Written {
    /// What a reader of the same handle sees.
    pub text: Vec<u8>,
    pub slot: Mutex<Slot>,
}

/// What is behind a file that is open for writing, and how it is now.
pub enum Slot {
    /// A control file.
    Control(Arc<dyn Control>),
    /// The same, of which a later line of a write failed: the next write hears of it.
    Failing(Arc<dyn Control>, Error),
    /// A command failed: what follows it is not carried out.
    Failed,
    /// What takes a stream.
    Sink(Box<dyn Sink>),
    /// A write is being carried out.
    Busy,
    /// A stream that failed. The kernel cuts long writes in pieces: whichever of them is the last to be answered says why.
    Broken(Error),
    /// What is closed while a write is still being carried out.
    Closed,
}

/// What a handle is.
pub enum Handle {
    File(Opened),
    /// A file that is written to.
    Written(Written),
}

/// All that is open.
#[derive(Default)]
pub struct Handles {
    open: Mutex<HashMap<u64, Arc<Handle>>>,
    next: AtomicU64,
}

impl Handles {
    /// Keeps `handle` and gives its number, which is never used again.
    pub fn insert(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().insert(number, Arc::new(handle));
        number
    }

    pub fn get(&self, number: u64) -> Option<Arc<Handle>> {
        self.lock().get(&number).cloned()
    }

    /// Forgets a handle. It is returned, so that it is dropped outside of the lock.
    pub fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        self.lock().remove(&number)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Handle>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
