//! What failed lately, for people: an errno cannot say why, so each refused request leaves a sentence here.

use crate::error::Error;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// How many failures are kept.
const KEPT: usize = 1000;

/// Longer sentences are cut: a peer's error text is not ours to bound.
const LONGEST: usize = 4096;

/// Who asked for what.
#[derive(Debug, Clone)]
pub struct Caller {
    pub uid: u32,
    pub pid: u32,
}

struct Line {
    time: SystemTime,
    caller: Caller,
    path: String,
    operation: &'static str,
    errno: i32,
    message: String,
    /// The command, and where in it the fault is.
    place: Option<String>,
    /// How often the same failure came in a row: a crawler must not push everything else out.
    times: u64,
}

/// A ring of failures, and what came of the last command of each directory.
pub struct Journal {
    lines: Mutex<VecDeque<Line>>,
    outcomes: Mutex<lru::LruCache<String, String>>,
}

impl Default for Journal {
    fn default() -> Journal {
        let kept = const { std::num::NonZeroUsize::new(KEPT).expect("not zero") };
        Journal { lines: Mutex::default(), outcomes: Mutex::new(lru::LruCache::new(kept)) }
    }
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what came of a command that was written in the directory at `path`.
    pub fn outcome(&self, path: &str, result: &crate::error::Result<()>) {
        let text = match result {
            Ok(()) => return drop(self.last_of(|outcomes| outcomes.pop(path))),
            Err(error) => {
                let place = error.place().map_or(String::new(), |place| format!("{place}\n"));
                format!("{}: {}\n{place}", sentence(error), errno_text(error.errno()))
            }
        };
        self.last_of(|outcomes| outcomes.put(path.to_owned(), text));
    }

    /// `ok`, or why the last command that was written in the directory at `path` failed.
    pub fn last(&self, path: &str) -> Vec<u8> {
        let last = self.last_of(|outcomes| outcomes.get(path).cloned());
        last.unwrap_or_else(|| "ok\n".into()).into_bytes()
    }

    fn last_of<R>(&self, f: impl FnOnce(&mut lru::LruCache<String, String>) -> R) -> R {
        f(&mut self.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that `operation` on `path` failed.
    pub fn note(&self, caller: Caller, operation: &'static str, path: String, error: &Error) {
        tracing::debug!(uid = caller.uid, pid = caller.pid, operation, path, %error, "refused");
        let message = sentence(error);
        let place = error.place();
        let mut lines = self.lock();
        if let Some(last) = lines.back_mut()
            && (&last.path, &last.message, last.caller.pid) == (&path, &message, caller.pid)
            && last.place == place
        {
            last.times += 1;
            last.time = SystemTime::now();
            return;
        }
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        let errno = error.errno();
        lines.push_back(Line { time: SystemTime::now(), caller, path, operation, errno, message, place, times: 1 });
    }

    /// All of it, a line each, the oldest first.
    pub fn text(&self) -> Vec<u8> {
        let mut text = String::new();
        for line in self.lock().iter() {
            line.write(&mut text);
        }
        text.into_bytes()
    }

    /// The failures of one process, `None` if there are none.
    pub fn of(&self, pid: u32) -> Option<(u32, Vec<u8>)> {
        let mut text = String::new();
        let mut uid = None;
        for line in self.lock().iter().filter(|line| line.caller.pid == pid) {
            line.write(&mut text);
            uid = Some(line.caller.uid);
        }
        Some((uid?, text.into_bytes()))
    }

    /// The processes that had failures.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.lock().iter().map(|line| line.caller.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

/// The sentence of a failure, on one line and not too long.
fn sentence(error: &Error) -> String {
    let mut message = error.to_string().replace('\n', "\\n");
    if message.len() > LONGEST {
        let cut = (0..=LONGEST).rev().find(|n| message.is_char_boundary(*n)).unwrap_or(0);
        message.truncate(cut);
    }
    message
}

/// What strerror(3) says.
fn errno_text(errno: i32) -> String {
    let name = std::io::Error::from_raw_os_error(errno).to_string();
    name.split(" (os error").next().unwrap_or_default().to_owned()
}

impl Line {
    fn write(&self, text: &mut String) {
        let time = jiff::Timestamp::try_from(self.time).unwrap_or_default();
        let name = errno_text(self.errno);
        let Caller { uid, pid } = self.caller;
        let again = if self.times > 1 { format!(" (×{})", self.times) } else { String::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{time:.3} uid={uid} pid={pid} {} /{}: {}: {name}{again}",
            self.operation, self.path, self.message
        );
        for line in self.place.iter().flat_map(|place| place.lines()) {
            let _ = writeln!(text, "    {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_same_failure_in_a_row_is_one_line_and_the_ring_is_bounded() {
        let journal = Journal::default();
        let caller = Caller { uid: 0, pid: 7 };
        for _ in 0..3 {
            journal.note(caller.clone(), "open", "a".into(), &Error::new(Kind::Io, "bad\nbytes"));
        }
        let text = String::from_utf8(journal.text()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("open /a: bad\\nbytes: Input/output error (×3)"), "{text}");
        for n in 0..2 * KEPT {
            journal.note(caller.clone(), "open", format!("{n}"), &Error::new(Kind::Io, "x"));
        }
        assert_eq!(journal.text().iter().filter(|b| **b == b'\n').count(), KEPT);
        assert_eq!(journal.pids(), [7]);
    }
}
