//! Answers of FUSE that are more than one call.

use super::{Shared, ttl};
use crate::node::handle::Listed;
use crate::node::{Attr, FileType};
use fuser::{
    Errno, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A reply that can say no.
pub trait Refuse: Send + 'static {
    /// Answers with an errno.
    fn refuse(self, errno: i32);
}

macro_rules! refuse {
    ($($reply:ty),*) => { $(
        impl Refuse for $reply {
            fn refuse(self, errno: i32) {
                self.error(Errno::from_i32(errno));
            }
        }
    )* };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyOpen,
    ReplyWrite,
    ReplyXattr
);

/// The type of a node in fuser's words.
pub fn kind(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Regular => fuser::FileType::RegularFile,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
    }
}

/// `.` and `..` come first; entry `n` has offset `n + 1`, where the next part goes on.
const DOTS: [&str; 2] = [".", ".."];

/// One part of a listing; true if nothing was left to list.
pub fn directory(mut reply: ReplyDirectory, ino: INodeNo, offset: u64, listing: &[Listed]) -> bool {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    for (n, dot) in DOTS.iter().enumerate().skip(start) {
        if reply.add(ino, n as u64 + 1, fuser::FileType::Directory, dot) {
            reply.ok();
            return false;
        }
    }
    for (n, entry) in listing.iter().enumerate().skip(start.saturating_sub(DOTS.len())) {
        let next = (n + DOTS.len()) as u64 + 1;
        let name = OsStr::from_bytes(&entry.name);
        if reply.add(INodeNo(entry.found.ino), next, kind(entry.found.attr.kind), name) {
            break;
        }
    }
    reply.ok();
    start >= listing.len() + DOTS.len()
}

/// The same with attributes: the kernel then knows every entry that fitted.
pub fn directory_plus(
    fs: &Shared,
    mut reply: ReplyDirectoryPlus,
    ino: INodeNo,
    own: &Attr,
    offset: u64,
    listing: &[Listed],
) -> bool {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let own = fs.attributes(ino.0, own);
    for (n, dot) in DOTS.iter().enumerate().skip(start) {
        // The kernel takes only the name of these two and counts no lookup for them.
        if reply.add(ino, n as u64 + 1, dot, &std::time::Duration::ZERO, &own, Generation(0)) {
            reply.ok();
            return false;
        }
    }
    for (n, Listed { name, found }) in listing.iter().enumerate().skip(start.saturating_sub(DOTS.len())) {
        let next = (n + DOTS.len()) as u64 + 1;
        let attr = fs.attributes(found.ino, &found.attr);
        // There is one lifetime for name and attributes here: the shorter one is right for both.
        let life = ttl(found.attr.name_life).min(ttl(found.attr.attr_life));
        if reply.add(INodeNo(found.ino), next, OsStr::from_bytes(name), &life, &attr, Generation(0)) {
            break;
        }
        fs.table.remember(ino.0, found);
    }
    reply.ok();
    start >= listing.len() + DOTS.len()
}

/// The value of an extended attribute, or its length where the caller asks for that.
pub fn xattr(reply: ReplyXattr, room: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(length) if room == 0 => reply.size(length),
        Ok(length) if length <= room => reply.data(value),
        _ => reply.refuse(libc::ERANGE),
    }
}
