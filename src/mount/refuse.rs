//! The operations that change something: this tree has none of them.
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
            _mode: Option<u32>,
            _uid: Option<u32>,
            _gid: Option<u32>,
            _size: Option<u64>,
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
            self.refuse_change(request, Op::setattr, "setattr", ino, None, reply);
        }

        fn mknod(&self, r: &Request, parent: INodeNo, entry: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
            self.refuse_change(r, Op::refused, "create", parent, Some(entry), reply);
        }

        fn mkdir(&self, r: &Request, parent: INodeNo, entry: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
            self.refuse_change(r, Op::refused, "mkdir", parent, Some(entry), reply);
        }

        fn unlink(&self, r: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
            self.refuse_change(r, Op::refused, "unlink", parent, Some(entry), reply);
        }

        fn rmdir(&self, r: &Request, parent: INodeNo, entry: &OsStr, reply: ReplyEmpty) {
            self.refuse_change(r, Op::refused, "rmdir", parent, Some(entry), reply);
        }

        fn symlink(&self, r: &Request, parent: INodeNo, entry: &OsStr, _: &std::path::Path, reply: ReplyEntry) {
            self.refuse_change(r, Op::refused, "symlink", parent, Some(entry), reply);
        }

        fn rename(
            &self,
            r: &Request,
            parent: INodeNo,
            entry: &OsStr,
            _: INodeNo,
            _: &OsStr,
            _: fuser::RenameFlags,
            reply: ReplyEmpty,
        ) {
            self.refuse_change(r, Op::refused, "rename", parent, Some(entry), reply);
        }

        fn link(&self, r: &Request, _: INodeNo, parent: INodeNo, entry: &OsStr, reply: ReplyEntry) {
            self.refuse_change(r, Op::refused, "link", parent, Some(entry), reply);
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
            self.refuse_change(r, Op::refused, "create", parent, Some(entry), reply);
        }

        fn setxattr(&self, r: &Request, ino: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
            self.refuse_change(r, Op::refused, "setxattr", ino, None, reply);
        }

        fn removexattr(&self, r: &Request, ino: INodeNo, _: &OsStr, reply: ReplyEmpty) {
            self.refuse_change(r, Op::refused, "removexattr", ino, None, reply);
        }

        fn write(
            &self,
            r: &Request,
            ino: INodeNo,
            _: FileHandle,
            _: u64,
            _: &[u8],
            _: fuser::WriteFlags,
            _: OpenFlags,
            _: Option<LockOwner>,
            reply: fuser::ReplyWrite,
        ) {
            self.refuse_change(r, Op::write, "write", ino, None, reply);
        }

        fn fallocate(&self, r: &Request, ino: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
            self.refuse_change(r, Op::refused, "fallocate", ino, None, reply);
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

use super::{Ask, Mounted, Op, Refuse};
use fuser::{INodeNo, Request};
use std::ffi::OsStr;

impl Mounted {
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
        let error = self.0.unchangeable("nothing is made, changed or removed by name here; see the README at the root");
        self.0.note(&ask, &error);
        reply.refuse(error.errno());
    }
}
