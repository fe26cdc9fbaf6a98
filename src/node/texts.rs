//! Texts that take a call, as they were last rendered: what stat says of them, and which of them the kernel keeps.
//!
//! A text whose changes are told ([`super::row::told`]) is rendered again whenever it is opened. If the bytes are those
//! that the kernel has, it reads them by itself; if they are others, the reader gets his own, and nothing of them is kept
//! as long as the kernel may have anything of the former: no page, no length, no open file. So nobody sees two versions
//! in one file, and what the kernel believes of the length is what it would be told.

use super::TOLD;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So much later than it was told the kernel may believe something: an answer takes its time.
const LATE: Duration = Duration::from_secs(5);

/// What was rendered of the texts that the kernel knows.
#[derive(Default)]
pub struct Texts {
    inner: Mutex<Inner>,
    /// Of versions only the hash is kept; it is keyed, so that nobody makes two of the same.
    hasher: RandomState,
}

#[derive(Default)]
struct Inner {
    known: HashMap<u64, Rendered>,
    /// Changes noticed so far.
    turn: u64,
}

#[derive(Default)]
struct Rendered {
    /// The length of the newest rendering.
    newest: u64,
    /// The version that the kernel may have pages of, if it is one.
    version: Option<u64>,
    /// Its length: what open files end at.
    length: u64,
    /// How many read it through the kernel's pages.
    readers: u32,
    /// One of them closed his file: at the open the kernel dropped what it had of the version before.
    settled: bool,
    /// A change of the version will be noticed.
    promised: bool,
    /// Until when it was promised, and a little less than the kernel may believe the length.
    until: Option<Instant>,
    /// The turn of the last change.
    changed: u64,
    /// The kernel has forgotten it.
    forgotten: bool,
}

/// When a rendering began: what is noticed later may not be in it.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    turn: u64,
    at: Instant,
}

/// How a text is opened.
pub enum Keep {
    /// The reader asks for everything.
    Nothing,
    /// What is read is kept, and nothing that was read before.
    Fill(Reader),
    /// What was read before is still true.
    Known(Reader),
}

/// One who reads a text through the kernel's pages: as long as there is one, they are of his version.
pub struct Reader {
    texts: Arc<Texts>,
    ino: u64,
}

impl Reader {
    /// The kernel closes the file that it was given for him.
    pub fn closes(&self) {
        if let Some(text) = self.texts.lock().known.get_mut(&self.ino) {
            text.settled = true;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.texts.lock();
        if let Some(text) = inner.known.get_mut(&self.ino) {
            text.readers = text.readers.saturating_sub(1);
            if text.readers == 0 && text.forgotten {
                inner.known.remove(&self.ino);
            }
        }
    }
}

impl Texts {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A text is about to be rendered.
    pub fn begin(&self) -> Begun {
        Begun { turn: self.lock().turn, at: Instant::now() }
    }

    /// A text of which nothing is kept was rendered.
    pub fn rendered(&self, ino: u64, length: usize) {
        let mut inner = self.lock();
        let changed = inner.turn;
        inner.known.entry(ino).or_insert_with(|| Rendered { changed, ..Rendered::default() }).newest = length as u64;
    }

    /// A text was rendered of which a change is promised to be noticed.
    pub fn opened(self: &Arc<Self>, ino: u64, begun: Begun, bytes: &[u8]) -> Keep {
        let (version, now) = (self.hasher.hash_one(bytes), Instant::now());
        let mut inner = self.lock();
        // Of what was not known no change was noted: there may have been one.
        let changed = inner.turn;
        let text = inner.known.entry(ino).or_insert_with(|| Rendered { changed, ..Rendered::default() });
        (text.newest, text.forgotten) = (bytes.len() as u64, false);
        let overtaken = text.changed > begun.turn;
        let same = text.version == Some(version);
        // What the kernel may believe of another version it has to be told first, or to have forgotten.
        let free = text.readers == 0 && text.until.is_none_or(|until| until + LATE < now);
        if overtaken || !(same || free) {
            if !same {
                (text.version, text.promised) = (None, false);
            }
            return Keep::Nothing;
        }
        if !same {
            (text.version, text.length, text.settled) = (Some(version), text.newest, false);
        }
        text.readers += 1;
        (text.promised, text.until) = (true, text.until.max(Some(begun.at + TOLD)));
        let reader = Reader { texts: Arc::clone(self), ino };
        if text.settled { Keep::Known(reader) } else { Keep::Fill(reader) }
    }

    /// The length that stat says, and whether the kernel may believe it until it is told otherwise. `promised`: from now
    /// on a change will be noticed; it was promised before, too, or something may have changed in between.
    pub fn stat(&self, ino: u64, promised: bool) -> Option<(u64, bool)> {
        let mut inner = self.lock();
        let text = inner.known.get_mut(&ino)?;
        let now = Instant::now();
        text.forgotten = false;
        text.promised &= text.until.is_some_and(|until| now < until);
        let told = promised && text.promised;
        if told {
            text.until = Some(now + TOLD);
        }
        Some((if text.readers > 0 { text.length } else { text.newest }, told))
    }

    /// It may have changed: the kernel is about to be told.
    pub fn changes(&self, ino: u64) {
        let mut inner = self.lock();
        inner.turn += 1;
        let turn = inner.turn;
        if let Some(text) = inner.known.get_mut(&ino) {
            (text.promised, text.changed) = (false, turn);
        }
    }

    /// The kernel was told, and has dropped what it had.
    pub fn told(&self, ino: u64) {
        if let Some(text) = self.lock().known.get_mut(&ino)
            && !text.promised
        {
            text.until = None;
        }
    }

    /// All that the kernel may believe something of.
    pub fn believed(&self) -> Vec<u64> {
        let believed = |(ino, text): (&u64, &Rendered)| text.until.map(|_| *ino);
        self.lock().known.iter().filter_map(believed).collect()
    }

    /// The kernel has forgotten the file. One who closed it may not have been heard yet.
    pub fn forget(&self, ino: u64) {
        let mut inner = self.lock();
        if let Some(text) = inner.known.get_mut(&ino) {
            text.forgotten = text.readers > 0;
            if !text.forgotten {
                inner.known.remove(&ino);
            }
        }
    }
}

#[cfg(test)]
#[path = "texts_tests.rs"]
mod tests;
