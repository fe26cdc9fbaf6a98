//! Which listings the kernel keeps, and where a listing goes on.
//!
//! There is no open directory here (`FUSE_NO_OPENDIR_SUPPORT`): the kernel keeps the entries of every directory until
//! the directory has another mtime, and looks for one, where the lifetime of the attributes is over, whenever a listing
//! is read from its beginning (`fuse_readdir_cached` of fs/fuse/readdir.c). So the mtime of a directory that may change
//! has on top of its own as many nanoseconds as the kernel was found to have an old listing: because a change was
//! noticed, or because it was read longer ago than it may be believed. Its attributes live no longer than its listing.
//!
//! Without an open directory the offset alone says where a reader is: it is a hash of the last name that he got, so it
//! stays right while entries come and go. The names of a listing that takes several parts are kept for the next part.

use super::{Name, Node, stable_hash};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The offset behind the last entry: what is read there is nothing, whatever the directory holds by now.
pub const END: u64 = i64::MAX as u64;

/// The offsets behind `.` and `..`.
pub const DOTS: u64 = 2;

/// The offset behind the entry `name`.
pub fn offset(name: &[u8]) -> u64 {
    DOTS + 1 + (stable_hash(&[name]) >> 2)
}

/// So many names are kept for readers that have not read all of them.
const NAMES: usize = 32 * 1024;

/// The names of a short listing are not kept once somebody has read them all. Those of a long one are: who deletes what
/// he lists does so in batches (fts(3): ten thousand), and looks for where he was after the name is gone.
const SHORT: usize = 1024;

/// So many names of a listing that is kept may have to be looked up again.
const FEW: u16 = 8;

/// Attributes that were told without regard to a listing.
const ANY: u32 = u32::MAX;

/// The counter that the mtime carries begins again here: it is told by the last three digits of the nanoseconds.
const COUNTS: u16 = 1000;

/// What is known of the listings that the kernel has, and the names for those who are in the middle of one.
pub struct Listings {
    start: Instant,
    told: Mutex<HashMap<u64, Told>>,
    /// The directories that were listed since the last notice of this tag.
    tagged: Mutex<HashMap<u64, HashSet<u64>>>,
    names: Mutex<Kept>,
}

/// What the kernel was told of a directory.
#[derive(Default, Clone, Copy)]
struct Told {
    /// Milliseconds since the start until which its listing may be believed; 0 if the kernel will ask for it anyway.
    until: u64,
    /// For how long its attributes were told to be believed at most, in milliseconds.
    life: u32,
    /// How often the kernel's listing was found to be old.
    changes: u16,
    /// How many of the names that were listed have to be looked up again sooner than the listing.
    short: u16,
}

struct Kept {
    names: lru::LruCache<u64, Arc<Names>>,
    count: usize,
}

/// The entries of a directory, as they were when somebody began to read them.
pub struct Names {
    pub entries: Vec<(Name, Node)>,
    /// Where the last part ended: mostly where the next one begins.
    next: AtomicUsize,
}

impl Names {
    pub fn new(entries: Vec<(Name, Node)>) -> Names {
        Names { entries, next: AtomicUsize::new(0) }
    }

    /// The index of the first entry behind `at`. Where the name that was there is gone, a reader begins anew: he gets
    /// a name twice rather than miss one.
    pub fn after(&self, at: u64) -> usize {
        let is_last = |index: usize| index.checked_sub(1).is_some_and(|last| offset(&self.entries[last].0) == at);
        let likely = self.next.load(Ordering::Relaxed);
        match at {
            0..=DOTS => 0,
            END => self.entries.len(),
            _ if likely <= self.entries.len() && is_last(likely) => likely,
            _ => (1..=self.entries.len()).find(|index| is_last(*index)).unwrap_or(0),
        }
    }

    /// A part ended before the entry `index`.
    pub fn ended(&self, index: usize) {
        self.next.store(index, Ordering::Relaxed);
    }
}

impl Default for Listings {
    fn default() -> Listings {
        let names = Kept { names: lru::LruCache::unbounded(), count: 0 };
        Listings { start: Instant::now(), told: Mutex::default(), tagged: Mutex::default(), names: Mutex::new(names) }
    }
}

impl Listings {
    fn told(&self) -> MutexGuard<'_, HashMap<u64, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tagged(&self) -> MutexGuard<'_, HashMap<u64, HashSet<u64>>> {
        self.tagged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, Kept> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start, from 1.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX / 2) + 1
    }

    /// The entries of a directory are about to be collected. What comes of it may be believed for `life` from now on, but
    /// no longer than what the kernel may still have of an earlier reading, or until a notice of `tag`. Whether its
    /// attributes may have been told to be believed for longer.
    pub fn begun(&self, ino: u64, life: Duration, tag: Option<u64>) -> bool {
        if let Some(tag) = tag {
            self.tagged().entry(tag).or_default().insert(ino);
        }
        let (now, life) = (self.now(), milliseconds(life));
        let mut all = self.told();
        let told = all.entry(ino).or_insert(Told { life: ANY, ..Told::default() });
        let longer = told.life > life;
        if told.until <= now {
            told.until = now + u64::from(life);
            told.short = 0;
        }
        told.life = life;
        longer
    }

    /// Of a part of a listing `count` names live only for `life`. Where many do, so does the listing: with it they
    /// come at once, and else each has to be looked up.
    pub fn shortened(&self, ino: u64, count: usize, life: Duration) {
        let (now, life) = (self.now(), milliseconds(life));
        if let Some(told) = self.told().get_mut(&ino) {
            told.short = told.short.saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
            if told.short > FEW {
                told.life = told.life.min(life);
                told.until = told.until.min(now + u64::from(life));
            }
        }
    }

    /// What the mtime of a directory has on top of its own, and how long its attributes may be believed.
    pub fn stamp(&self, ino: u64) -> (Duration, Duration) {
        let now = self.now();
        let mut all = self.told();
        let Some(told) = all.get_mut(&ino) else { return (Duration::ZERO, Duration::MAX) };
        if told.until <= now {
            told.change();
        }
        let age = Duration::from_nanos(u64::from(told.changes));
        if told.until == 0 {
            // Whoever reads it next may find it to live shorter, but mostly nobody does.
            told.life = ANY;
            return (age, Duration::MAX);
        }
        (age, Duration::from_millis(told.until - now))
    }

    /// It may have changed. Whether it is a directory that was listed: then the kernel has but to ask for its attributes.
    pub fn noticed(&self, ino: u64) -> bool {
        let mut all = self.told();
        let told = all.get_mut(&ino);
        told.map(Told::change).is_some()
    }

    /// Other members are there in the directories of this tag. Those of which the kernel may have a listing.
    pub fn other_members(&self, tag: u64) -> HashSet<u64> {
        let numbers = self.tagged().remove(&tag).unwrap_or_default();
        for ino in &numbers {
            self.noticed(*ino);
        }
        numbers
    }

    /// Anything may have changed of which nobody tells. The directories whose listings the kernel would believe for a
    /// while, and those are not many, for it is a short one.
    pub fn changed(&self, while_short: Duration) -> Vec<u64> {
        let now = self.now();
        let soon = now + u64::from(milliseconds(while_short));
        let mut all = self.told();
        let short = all.iter_mut().filter(|(_, told)| (now + 1..=soon).contains(&told.until));
        short
            .map(|(ino, told)| {
                told.change();
                *ino
            })
            .collect()
    }

    /// Keeps the names of a directory for the next part.
    pub fn keep(&self, ino: u64, names: &Arc<Names>) {
        let mut kept = self.names();
        let mut gone = Vec::new();
        kept.count += names.entries.len();
        gone.extend(kept.names.push(ino, Arc::clone(names)));
        kept.count -= gone.iter().map(|(_, names)| names.entries.len()).sum::<usize>();
        while kept.count > NAMES && kept.names.len() > 1 {
            let Some((ino, names)) = kept.names.pop_lru() else { break };
            kept.count -= names.entries.len();
            gone.push((ino, names));
        }
        // What the nodes hold is dropped outside of the lock.
        drop(kept);
        drop(gone);
    }

    /// The names of the listing that somebody reads.
    pub fn kept(&self, ino: u64) -> Option<Arc<Names>> {
        self.names().names.get(&ino).cloned()
    }

    /// Somebody has read all of them.
    pub fn ended(&self, ino: u64) {
        let short = self.names().names.peek(&ino).is_some_and(|names| names.entries.len() < SHORT);
        if short {
            self.drop_names(ino);
        }
    }

    /// The kernel has forgotten the directory.
    pub fn forget(&self, ino: u64) {
        if self.told().remove(&ino).is_some() {
            for numbers in self.tagged().values_mut() {
                numbers.remove(&ino);
            }
        }
        self.drop_names(ino);
    }

    fn drop_names(&self, ino: u64) {
        let mut kept = self.names();
        let gone = kept.names.pop(&ino);
        kept.count -= gone.as_ref().map_or(0, |names| names.entries.len());
        drop(kept);
        drop(gone);
    }
}

/// As many as fit: 49 days.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl Told {
    /// The kernel shall ask for the listing again. If it has not begun to since the last time, it will.
    fn change(&mut self) {
        if self.until != 0 {
            self.changes = (self.changes + 1) % COUNTS;
            self.until = 0;
        }
    }
}

#[cfg(test)]
#[path = "listings_tests.rs"]
mod tests;
