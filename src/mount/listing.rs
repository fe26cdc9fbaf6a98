//! Listings: what the entries of a directory are, told in parts.
//!
//! There are no open directories, so each part is asked for by itself; `node/listings.rs` says what that rests on.

use super::{Shared, reply, ttl};
use crate::error::Result;
use crate::node::Lifetime;
use crate::node::inode::Found;
use crate::node::listings::{self, Names};
use crate::wait;
use fuser::{FileAttr, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// So many entries are found before the first of them is told: about as many as a page holds. All of them may be waited
/// for at once where there is somebody to wait.
const AHEAD: usize = 16;

/// For `.` and `..`, of which the kernel takes the name only.
const NO_ATTRIBUTES: FileAttr = FileAttr {
    ino: INodeNo(1),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: fuser::FileType::Directory,
    perm: 0,
    nlink: 1,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

/// One part of a listing, as far as it is known.
pub(super) struct Part {
    /// Where it begins.
    offset: u64,
    names: Arc<Names>,
    /// The first entries, with their indices.
    found: VecDeque<(usize, Found)>,
    /// Where it goes on after them.
    next: usize,
}

impl Part {
    /// The next entry that is at hand.
    fn entry(&mut self, fs: &Shared, ino: u64) -> Option<(usize, Found)> {
        while self.found.is_empty()
            && let Some((name, node)) = self.names.entries.get(self.next)
        {
            let found = wait::never(|| fs.table.listed(ino, name, node)).ok()?;
            self.found.extend(found.map(|found| (self.next, found)));
            self.next += 1;
        }
        self.found.pop_front()
    }
}

/// A reply that takes entries until it is full.
pub(super) trait Entries {
    /// Adds one; false if it did not fit.
    fn entry(&mut self, fs: &Shared, offset: u64, name: &[u8], found: &Found) -> bool;
    /// Adds `.` or `..`, of which the kernel takes the name only; false if it did not fit.
    fn dot(&mut self, ino: u64, offset: u64, name: &str) -> bool;
}

impl Entries for ReplyDirectory {
    fn entry(&mut self, _: &Shared, offset: u64, name: &[u8], found: &Found) -> bool {
        !self.add(INodeNo(found.ino), offset, reply::kind(found.attr.kind), OsStr::from_bytes(name))
    }

    fn dot(&mut self, ino: u64, offset: u64, name: &str) -> bool {
        !self.add(INodeNo(ino), offset, fuser::FileType::Directory, name)
    }
}

/// With attributes: the kernel then knows every entry that fitted.
struct Plus<'a> {
    reply: &'a mut ReplyDirectoryPlus,
    parent: u64,
    /// How many of the names live for less long than what is told of, and how long.
    short: (usize, Duration),
}

impl Entries for Plus<'_> {
    fn entry(&mut self, fs: &Shared, offset: u64, name: &[u8], found: &Found) -> bool {
        let (life, attr) = fs.told(found.ino, &found.attr);
        // There is one lifetime for name and attributes here: the shorter one is right for both.
        let life = ttl(found.attr.name_life).min(life);
        if self.reply.add(INodeNo(found.ino), offset, OsStr::from_bytes(name), &life, &attr, Generation(0)) {
            return false;
        }
        fs.table.remember(self.parent, found);
        if found.attr.name_life < Lifetime::Told {
            self.short = (self.short.0 + 1, ttl(found.attr.name_life));
        }
        true
    }

    fn dot(&mut self, ino: u64, offset: u64, name: &str) -> bool {
        !self.reply.add(INodeNo(ino), offset, name, &Duration::ZERO, &NO_ATTRIBUTES, Generation(0))
    }
}

impl Shared {
    /// The part of a listing that begins at `offset`.
    pub(super) fn part(&self, ino: u64, offset: u64) -> Result<Part> {
        let kept = if offset == 0 { None } else { self.listings.kept(ino) };
        let names = match kept {
            _ if offset == listings::END => Arc::new(Names::new(Vec::new())),
            Some(names) => names,
            None => self.names(ino, offset)?,
        };
        let (mut next, mut found) = (names.after(offset), VecDeque::new());
        while let Some((name, node)) = names.entries.get(next)
            && found.len() < AHEAD
        {
            match self.table.listed(ino, name, node) {
                Ok(entry) => found.extend(entry.map(|entry| (next, entry))),
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error),
            }
            next += 1;
        }
        Ok(Part { offset, names, found, next })
    }

    /// The names of a directory, collected now.
    fn names(&self, ino: u64, offset: u64) -> Result<Arc<Names>> {
        let node = self.table.node(ino)?;
        let told = node.attr()?.attr_life;
        // Asked before they are collected: it has to be true of what is collected after it.
        let life = if matches!(told, Lifetime::Never | Lifetime::Ever) { told } else { node.place.contents() };
        if offset == 0 && life != Lifetime::Ever {
            let tag = node.place.members();
            if self.listings.begun(ino, ttl(life), tag) && life < told {
                self.kernel.notices.get().iter().for_each(|notices| (notices.outlived)(ino));
            }
        }
        Ok(Arc::new(Names::new(node.place.list()?)))
    }

    /// Tells a part with the attributes of its entries.
    pub(super) fn fill_plus(&self, ino: u64, part: Part, reply: &mut ReplyDirectoryPlus) {
        let mut plus = Plus { reply, parent: ino, short: (0, Duration::ZERO) };
        self.fill(ino, part, &mut plus);
        if let (count @ 1.., life) = plus.short {
            self.listings.shortened(ino, count, life);
        }
    }

    /// Tells a part, as much of it as fits: what is not at hand is left for the next one.
    pub(super) fn fill(&self, ino: u64, mut part: Part, reply: &mut impl Entries) {
        for (at, dot) in [".", ".."].into_iter().enumerate().skip(usize::try_from(part.offset).unwrap_or(usize::MAX)) {
            let offset = if at == 1 && part.names.entries.is_empty() { listings::END } else { at as u64 + 1 };
            if !reply.dot(ino, offset, dot) {
                return;
            }
        }
        let mut told = 0;
        let more = loop {
            let Some((index, entry)) = part.entry(self, ino) else { break part.next < part.names.entries.len() };
            let name = &part.names.entries[index].0;
            let is_last = index + 1 == part.names.entries.len();
            if !reply.entry(self, if is_last { listings::END } else { listings::offset(name) }, name, &entry) {
                break true;
            }
            told = index + 1;
        };
        match more {
            false => self.listings.ended(ino),
            true => {
                part.names.ended(told);
                self.listings.keep(ino, &part.names);
            }
        }
    }
}
