//! The operations that change something by name: labels always, objects under `-o allow_delete`, the rest never.
//!
//! The answer is an errno of the table in `docs/semantics.md` and a line in the journal. ENOSYS is only said where
//! the kernel is to do the thing by itself.

/// The methods of `fuser::Filesystem` that would change something.
macro_rules! changes {
    () => {
        fn setattr(
            &self,
            request: &Request,
            ino: INodeNo,
            mode: Option<u32>,
            uid: Option<u32>,
            gid: Option<u32>,
            size: Option<u64>,
            _atime: Option<fuser::TimeOrNow>,
            _mtime: Option<fuser::TimeOrNow>,
            _ctime: Option<std::time::SystemTime>,
            _number: Option<FileHandle>,
            _crtime: Option<std::time::SystemTime>,
            _chgtime: Option<std::time::SystemTime>,
            _bkuptime: Option<std::time::SystemTime>,
            _flags: Option<fuser::BsdFileFlags>,
            reply: ReplyAttr,
        ) {
            let ask = self.ask(request, Op::setattr, "setattr", ino);
            // A shell truncates what it writes to, and `touch` sets times: neither means anything to such a file.
            let harmless = mode.is_none() && uid.is_none() && gid.is_none() && size.unwrap_or(0) == 0;
            let work = move |fs: &Shared| match fs.table.attr(ino.0)? {
                attr if attr.takes && harmless && !fs.policy.read_only => Ok(attr),
                _ => Err(fs.unchangeable("what stands here is not changed in this way")),
            };
            self.serve(ask, reply, work, move |fs, reply: ReplyAttr, attr| {
                let (life, attr) = fs.told(ino.0, &attr);
                reply.attr(&life, &attr);
            });
        }

        fn mknod(&self, r: &Request, parent: INodeNo, entry: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
            self.refuse_change(r, Op::changed, "create", parent, Some(entry), reply);
        }

        fn mkdir(&self, r: &Request, parent: INodeNo, entry: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
            let (ask, name) = self.named(r, "mkdir", parent, entry);
            let work = move |fs: &Shared| fs.make(parent.0, &name);
            self.serve(ask, reply, work, move |fs, reply: ReplyEntry, found| {
                fs.table.remember(parent.0, &found);
                let (life, attr) = fs.told(found.ino, &found.attr);
                reply.entry_with_ttls(&life, &ttl(found.attr.name_life), &attr, Generation(0));
            });
        }

        fn unlink(&self, r: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
            let (ask, name) = self.named(r, "unlink", parent, entry);
            self.serve(ask, reply, move |fs| fs.delete(parent.0, &name), |_, reply: ReplyEmpty, ()| reply.ok());
        }

        fn rmdir(&self, r: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
            let (ask, name) = self.named(r, "rmdir", parent, entry);
            self.serve(ask, reply, move |fs| fs.delete(parent.0, &name), |_, reply: ReplyEmpty, ()| reply.ok());
        }

        fn symlink(&self, r: &Request, parent: INodeNo, entry: &OsStr, _: &std::path::Path, reply: ReplyEntry) {
            self.refuse_change(r, Op::changed, "symlink", parent, Some(entry), reply);
        }

        fn rename(
            &self,
            r: &Request,
            parent: INodeNo,
            entry: &OsStr,
            new_parent: INodeNo,
            new_entry: &OsStr,
            flags: fuser::RenameFlags,
            reply: ReplyEmpty,
        ) {
            let (ask, name) = self.named(r, "rename", parent, entry);
            let new_name = new_entry.as_bytes().to_vec();
            let plain = parent == new_parent && flags.difference(fuser::RenameFlags::RENAME_NOREPLACE).is_empty();
            let work = move |fs: &Shared| fs.rename(parent.0, &name, plain.then_some(&new_name));
            self.serve(ask, reply, work, |_, reply: ReplyEmpty, ()| reply.ok());
        }

        fn link(&self, r: &Request, _: INodeNo, parent: INodeNo, entry: &OsStr, reply: ReplyEntry) {
            self.refuse_change(r, Op::changed, "link", parent, Some(entry), reply);
        }

        fn create(
            &self,
            r: &Request,
            parent: INodeNo,
            entry: &OsStr,
            _: u32,
            _: u32,
            _: i32,
            reply: fuser::ReplyCreate,
        ) {
            self.refuse_change(r, Op::changed, "create", parent, Some(entry), reply);
        }

        fn setxattr(
            &self,
            r: &Request,
            ino: INodeNo,
            name: &OsStr,
            value: &[u8],
            flags: i32,
            _: u32,
            reply: ReplyEmpty,
        ) {
            let (ask, value) = (self.ask(r, Op::changed, "setxattr", ino), value.to_vec());
            let name = name.as_bytes().to_vec();
            let work = move |fs: &Shared| fs.set_xattr(ino.0, &name, Some(&value), flags);
            self.serve(ask, reply, work, |_, reply: ReplyEmpty, ()| reply.ok());
        }

        fn removexattr(&self, r: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
            let ask = self.ask(r, Op::changed, "removexattr", ino);
            let name = name.as_bytes().to_vec();
            let work = move |fs: &Shared| fs.set_xattr(ino.0, &name, None, libc::XATTR_REPLACE);
            self.serve(ask, reply, work, |_, reply: ReplyEmpty, ()| reply.ok());
        }

        fn fallocate(&self, r: &Request, ino: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
            self.refuse_change(r, Op::changed, "fallocate", ino, None, reply);
        }

        fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
            // A shell flushes before it writes: flush does no work and never fails (DESIGN 4).
            reply.ok();
        }

        fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
            reply.ok();
        }

        fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
            reply.ok();
        }

        fn access(&self, _: &Request, _: INodeNo, _: fuser::AccessFlags, reply: ReplyEmpty) {
            // Not asked under default_permissions; whoever gets here was let in by the kernel.
            reply.ok();
        }

        fn ioctl(
            &self,
            _: &Request,
            _: INodeNo,
            _: FileHandle,
            _: fuser::IoctlFlags,
            _: u32,
            _: &[u8],
            _: u32,
            reply: fuser::ReplyIoctl,
        ) {
            reply.error(Errno::from_i32(libc::ENOTTY));
        }

        fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: fuser::ReplyLseek) {
            // The kernel then seeks by itself, as on any file without holes.
            reply.error(Errno::ENOSYS);
        }

        fn copy_file_range(
            &self,
            _: &Request,
            _: INodeNo,
            _: FileHandle,
            _: u64,
            _: INodeNo,
            _: FileHandle,
            _: u64,
            _: u64,
            _: fuser::CopyFileRangeFlags,
            reply: fuser::ReplyWrite,
        ) {
            // The kernel then copies by reading and writing.
            reply.error(Errno::ENOSYS);
        }

        fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: fuser::ReplyBmap) {
            reply.error(Errno::ENOSYS);
        }
    };
}

pub(super) use changes;

use super::{Ask, Mounted, Op, Refuse, Shared};
use crate::error::Result;
use crate::fail;
use crate::node::inode::Found;
use crate::node::{FileType, NOT_BY_NAME, Node};
use fuser::{INodeNo, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

impl Shared {
    /// `mkdir`.
    pub(super) fn make(&self, parent: u64, name: &[u8]) -> Result<Found> {
        if self.policy.read_only {
            return Err(self.unchangeable(""));
        }
        // Asked before as well: this may be the second run of a request whose first one was refused a wait.
        self.table.node(parent)?.place.make(name)?;
        match self.table.find(parent, name)? {
            Some(found) => Ok(found),
            None => fail!(Io, "it was made, and containerd does not know it"),
        }
    }

    /// The entry that `rm`, `rmdir` or `mv` is about, where these are allowed at all.
    fn deletable(&self, parent: u64, name: &[u8]) -> Result<Node> {
        if self.policy.read_only || !self.policy.allow_delete {
            return Err(self.unchangeable(NOT_BY_NAME));
        }
        match self.table.find(parent, name)? {
            Some(found) if found.attr.kind != FileType::Symlink => Ok(found.node),
            Some(_) => fail!(Policy, "this is a link to it: {NOT_BY_NAME}"),
            None => fail!(NotFound, "no such entry"),
        }
    }

    /// `rm` and `rmdir`.
    pub(super) fn delete(&self, parent: u64, name: &[u8]) -> Result<()> {
        let node = self.deletable(parent, name)?;
        node.place.delete(node.seat)
    }

    /// `mv` within a directory; `None` for any other.
    pub(super) fn rename(&self, parent: u64, name: &[u8], new_name: Option<&Vec<u8>>) -> Result<()> {
        let node = self.deletable(parent, name)?;
        let Some(new_name) = new_name else {
            return fail!(
                Policy,
                "a rename by name stays in its directory; where its `ctl` has `rename`, that goes further"
            );
        };
        if self.table.find(parent, new_name)?.is_some() {
            return fail!(Exists, "{}: is there already", String::from_utf8_lossy(new_name));
        }
        node.place.rename(node.seat, new_name)
    }

    /// `setfattr`, with the flags of setxattr(2).
    pub(super) fn set_xattr(&self, ino: u64, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<()> {
        if self.policy.read_only {
            return Err(self.unchangeable(""));
        }
        let node = self.table.node(ino)?;
        let there = node.place.xattr(node.seat, name)?.is_some();
        if flags & libc::XATTR_CREATE != 0 && there {
            return fail!(Exists, "there is such an attribute");
        }
        if flags & libc::XATTR_REPLACE != 0 && !there {
            return fail!(NoAttribute, "there is no such attribute");
        }
        node.place.set_xattr(node.seat, name, value)
    }
}

impl Mounted {
    /// A change of the entry `entry` of a directory.
    pub(super) fn named(
        &self,
        request: &Request,
        name: &'static str,
        parent: INodeNo,
        entry: &OsStr,
    ) -> (Ask, Vec<u8>) {
        let ask = Ask { entry: Some(entry.into()), ..self.ask(request, Op::changed, name, parent) };
        (ask, entry.as_bytes().to_vec())
    }

    /// Answers that nothing can be changed in this way.
    pub(super) fn refuse_change(
        &self,
        request: &Request,
        op: Op,
        name: &'static str,
        ino: INodeNo,
        entry: Option<&OsStr>,
        reply: impl Refuse,
    ) {
        let ask = Ask { entry: entry.map(Box::from), ..self.ask(request, op, name, ino) };
        let error = self.0.unchangeable(NOT_BY_NAME);
        self.0.note(&ask, &error);
        reply.refuse(error.errno());
    }
}
