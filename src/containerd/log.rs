//! The event logs: bounded files of JSON lines, for readers and followers.

use super::rpc::lock;
use crate::error::Result;
use crate::fail;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// A line is shared by all logs that hold it.
pub(super) type Line = Arc<[u8]>;

/// A log of events, one JSON object a line. Offsets of the stream count from the first byte ever written.
pub struct EventLog {
    current: Mutex<Arc<Generation>>,
    wake: RwLock<Vec<Box<dyn Fn() + Send + Sync>>>,
    bound_bytes: u64,
}

/// What `events` is while it is one file: it grows at its end and never changes otherwise. Holders of an old one keep
/// its bytes.
pub struct Generation {
    id: u64,
    /// Where its first byte stands in the stream.
    base: u64,
    lines: RwLock<Lines>,
    /// When it was last written to, else begun.
    modified: Mutex<SystemTime>,
}

#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    /// Where each line ends, counted from the head of the generation.
    ends: Vec<u64>,
}

impl Lines {
    fn push(&mut self, line: Line) {
        self.ends.push(self.len() + line.len() as u64);
        self.lines.push(line);
    }

    fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The lines that hold what stands at `offset` and behind it; each with its start.
    fn from(&self, offset: u64) -> impl Iterator<Item = (u64, &Line)> {
        let first = self.ends.partition_point(|end| *end <= offset);
        self.lines.iter().zip(&self.ends).skip(first).map(|(line, end)| (end - line.len() as u64, line))
    }

    fn read(&self, offset: u64, len: usize, whole_lines: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for (start, line) in self.from(offset) {
            let rest = line.get(offset.saturating_sub(start) as usize..).unwrap_or_default();
            let room = len - out.len();
            if rest.len() > room && whole_lines && !out.is_empty() {
                break;
            }
            out.extend_from_slice(rest.get(..room).unwrap_or(rest));
            if out.len() == len {
                break;
            }
        }
        out
    }
}

impl Generation {
    fn new(id: u64, base: u64) -> Generation {
        Generation { id, base, lines: RwLock::default(), modified: Mutex::new(SystemTime::now()) }
    }

    /// Tells the generations of a log apart; counts from 1.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its length in bytes now.
    pub fn len(&self) -> u64 {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing was written to it yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `len` bytes at `offset`, fewer at the end.
    pub fn read_at(&self, offset: u64, len: usize) -> Vec<u8> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).read(offset, len, false)
    }

    /// When it was last written to, else begun.
    pub fn modified(&self) -> SystemTime {
        *lock(&self.modified)
    }

    /// Where its first byte stands in the stream.
    pub fn base(&self) -> u64 {
        self.base
    }
}

impl EventLog {
    pub(super) fn new(bound_bytes: u64) -> EventLog {
        let current = Mutex::new(Arc::new(Generation::new(1, 0)));
        EventLog { current, wake: RwLock::default(), bound_bytes }
    }

    /// The newest generation.
    pub fn generation(&self) -> Arc<Generation> {
        lock(&self.current).clone()
    }

    /// Absolute offset of the oldest byte kept.
    pub fn start(&self) -> u64 {
        self.generation().base
    }

    /// Absolute offset behind the newest byte.
    pub fn end(&self) -> u64 {
        let generation = self.generation();
        generation.base + generation.len()
    }

    /// At most `max` bytes at an absolute offset: whole lines if one fits, empty at the end. `Overrun` if they are gone.
    pub fn read(&self, offset: u64, max: usize) -> Result<Vec<u8>> {
        let generation = self.generation();
        let Some(inside) = offset.checked_sub(generation.base) else {
            return fail!(
                Overrun,
                "the events at offset {offset} are gone; the oldest kept are at {}",
                generation.base
            );
        };
        Ok(generation.lines.read().unwrap_or_else(PoisonError::into_inner).read(inside, max, true))
    }

    /// Calls `wake` after every append, on the thread of the events: it must be quick.
    pub fn on_append(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.wake.write().unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    /// Adds a line; when the bound is passed, the newest half begins a new generation, as logrotate would do it.
    pub(super) fn append(&self, line: &Line) {
        let mut current = lock(&self.current);
        let full = current.len() + line.len() as u64 > self.bound_bytes;
        if full && !current.is_empty() {
            *current = Arc::new(self.rotated(&current));
        }
        current.lines.write().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        *lock(&current.modified) = SystemTime::now();
        drop(current);
        for wake in self.wake.read().unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
    }

    fn rotated(&self, old: &Generation) -> Generation {
        let lines = old.lines.read().unwrap_or_else(PoisonError::into_inner);
        // The line in which the newest half begins is dropped too: what is kept begins with a whole line.
        let middle = lines.len().saturating_sub(self.bound_bytes / 2);
        let mut kept = lines.from(middle).skip_while(|(start, _)| *start < middle).peekable();
        let base = old.base + kept.peek().map_or(lines.len(), |(start, _)| *start);
        let next = Generation::new(old.id + 1, base);
        let mut fresh = Lines::default();
        kept.for_each(|(_, line)| fresh.push(line.clone()));
        *next.lines.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u32) -> Line {
        format!("line {n:03}\n").into_bytes().into()
    }

    #[test]
    fn a_log_grows_and_is_read_in_whole_lines() {
        let log = EventLog::new(1000);
        (0..3).for_each(|n| log.append(&line(n)));
        assert_eq!(log.generation().read_at(0, 100), b"line 000\nline 001\nline 002\n");
        assert_eq!(log.generation().read_at(5, 6), b"000\nli");
        assert_eq!(log.read(0, 20).unwrap(), b"line 000\nline 001\n");
        assert_eq!(log.read(0, 4).unwrap(), b"line");
        assert_eq!(log.read(4, 12).unwrap(), b" 000\n");
        assert_eq!(log.read(27, 9).unwrap(), b"");
        assert_eq!((log.start(), log.end()), (0, 27));
    }

    #[test]
    fn past_its_bound_a_new_generation_begins_with_the_newest_half() {
        let log = EventLog::new(90);
        (0..10).for_each(|n| log.append(&line(n)));
        let old = log.generation();
        log.append(&line(10));
        let new = log.generation();
        assert_eq!((old.id(), new.id(), old.len()), (1, 2, 90));
        assert_eq!(new.read_at(0, 9), b"line 005\n");
        assert_eq!((log.start(), log.end()), (45, 99));
        assert_eq!(old.read_at(81, 100), b"line 009\n");
        assert_eq!(log.read(0, 10).unwrap_err().kind(), crate::error::Kind::Overrun);
        assert_eq!(log.read(45, 9).unwrap(), b"line 005\n");
    }

    #[test]
    fn a_line_longer_than_the_bound_is_kept_alone() {
        let log = EventLog::new(8);
        log.append(&line(1));
        log.append(&line(2));
        assert_eq!(log.generation().read_at(0, 100), b"line 002\n");
        assert_eq!(log.start(), 9);
    }
}
