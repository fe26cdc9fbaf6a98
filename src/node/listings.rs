//! Which listings the kernel keeps, so that a directory that was listed is not asked for again.
//!
//! The kernel keeps the pages of a listing as long as every open of the directory says so. It is told so only by what is
//! known here: that the whole listing was read through one handle, that no change was noticed since that reading began,
//! and that this was not long ago. One handle of a directory at a time fills the pages: of two, the one that began before
//! a change could mix its entries with those of the other.

use super::TOLD;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is known of the listings that the kernel has.
#[derive(Default)]
pub struct Listings(Mutex<HashMap<u64, Kept>>);

#[derive(Default)]
struct Kept {
    /// A handle that fills the pages is open.
    filling: bool,
    /// When the reading through that handle began, unless a change was noticed since.
    began: Option<Instant>,
    /// When the reading of what the kernel has began.
    since: Option<Instant>,
}

/// How a directory is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing of it is kept.
    Nothing,
    /// What is read is kept.
    Fill,
    /// What was read before is still true.
    Known,
}

impl Listings {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory is opened whose changes are told. Unless the answer is `Nothing`, [`Listings::released`] is due.
    pub fn opened(&self, ino: u64) -> Keep {
        let mut all = self.lock();
        let kept = all.entry(ino).or_default();
        if std::mem::replace(&mut kept.filling, true) {
            // The kernel drops what it has at such an open.
            kept.since = None;
            return Keep::Nothing;
        }
        kept.began = None;
        kept.since = kept.since.filter(|since| since.elapsed() < TOLD);
        if kept.since.is_some() { Keep::Known } else { Keep::Fill }
    }

    /// Its entries are about to be collected.
    pub fn begun(&self, ino: u64) {
        if let Some(kept) = self.lock().get_mut(&ino) {
            kept.began = Some(Instant::now());
        }
    }

    /// All of them were read.
    pub fn ended(&self, ino: u64) {
        if let Some(kept) = self.lock().get_mut(&ino) {
            kept.since = kept.began;
        }
    }

    /// The handle that filled the pages is closed.
    pub fn released(&self, ino: u64) {
        let mut all = self.lock();
        if let Some(kept) = all.get_mut(&ino) {
            kept.filling = false;
            if kept.since.is_none() {
                all.remove(&ino);
            }
        }
    }

    /// The directory may have changed.
    pub fn noticed(&self, ino: u64) {
        if let Some(kept) = self.lock().get_mut(&ino) {
            (kept.began, kept.since) = (None, None);
        }
    }

    /// The kernel has forgotten the directory.
    pub fn forget(&self, ino: u64) {
        self.lock().remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &Listings, ino: u64) -> Keep {
        let keep = all.opened(ino);
        all.begun(ino);
        all.ended(ino);
        all.released(ino);
        keep
    }

    #[test]
    fn what_was_read_whole_is_kept_until_a_change_is_noticed() {
        let all = Listings::default();
        assert_eq!([read(&all, 1), read(&all, 1), read(&all, 2)], [Keep::Fill, Keep::Known, Keep::Fill]);
        all.noticed(1);
        assert_eq!([read(&all, 1), read(&all, 1)], [Keep::Fill, Keep::Known]);
        all.forget(1);
        assert_eq!(read(&all, 1), Keep::Fill);
    }

    #[test]
    fn a_change_while_it_is_read_makes_it_worth_nothing() {
        let all = Listings::default();
        assert_eq!(all.opened(1), Keep::Fill);
        all.begun(1);
        all.noticed(1);
        all.ended(1);
        all.released(1);
        assert_eq!(read(&all, 1), Keep::Fill);
        // What was not read to its end is not kept either.
        all.noticed(1);
        all.opened(1);
        all.begun(1);
        all.released(1);
        assert_eq!(all.opened(1), Keep::Fill);
    }

    #[test]
    fn one_handle_at_a_time_fills() {
        let all = Listings::default();
        read(&all, 1);
        assert_eq!([all.opened(1), all.opened(1)], [Keep::Known, Keep::Nothing]);
        all.released(1);
        assert_eq!(all.opened(1), Keep::Fill);
    }
}
