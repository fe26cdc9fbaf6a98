//! Points 6 to 10: making the file of one member (containerd's `createTarFile`).

use super::parent::Plain;
use super::path::{self, MAX_PATH, join, show, split};
use super::xattr::{self, CAPABILITY};
use super::{Applier, Role};
use crate::error::Result;
use crate::layers::Entry;
use crate::layers::tree::{Inode, Type, Xattrs};

/// A chown to this changes nothing.
const UNCHANGED: u32 = u32::MAX;

impl Applier<'_> {
    /// Makes the file of `entry` as `base` in `parent`, where nothing is, or gives the directory `kept`, which is
    /// there, its attributes.
    pub(super) fn make(
        &mut self,
        number: u32,
        entry: &Entry,
        parent: u32,
        base: &[u8],
        kept: Option<u32>,
    ) -> Result<()> {
        let mut new = Inode::new(Type::File, self.number);
        (new.entry, new.gid) = (number, self.inherited_gid(parent));
        new.kind = match entry.flag {
            b'0' => Type::File,
            b'2' => Type::Symlink,
            b'3' => Type::Char,
            b'4' => Type::Block,
            b'5' => Type::Dir,
            b'6' => Type::Fifo,
            b'1' => return self.hard_link(entry, parent, base),
            b'g' => return Ok(()),
            other => return crate::fail!(Corrupt, "unhandled tar header type {other}"),
        };
        match new.kind {
            Type::File => (new.size, new.data) = (entry.size, entry.data),
            Type::Char | Type::Block => new.rdev = device(entry.major, entry.minor),
            Type::Symlink => {
                let what = match entry.link.len() {
                    0 => "no such file or directory",
                    MAX_PATH.. => "file name too long",
                    _ => "",
                };
                if !what.is_empty() {
                    let place = self.place(parent, base);
                    return crate::fail!(Corrupt, "symlink {} {}: {what}", show(&entry.link), show(&place));
                }
            }
            _ => {}
        }
        let inode = match kept {
            Some(inode) => inode,
            None => self.tree.create(parent, base, new)?,
        };
        if entry.flag == b'2' {
            self.tree.set_link(inode, &entry.link);
        }
        if entry.flag == b'0' && !entry.sparse.is_empty() {
            self.tree.set_sparse(inode, &entry.sparse);
        }
        self.attributes(inode, entry)
    }

    /// Point 7: the last part of the target is not resolved, so a link to a symlink is a second name of that symlink.
    fn hard_link(&mut self, entry: &Entry, parent: u32, base: &[u8]) -> Result<()> {
        let (dir, last) = split(&entry.link);
        let dir = match self.plain(dir)? {
            Plain::There(_) | Plain::Missing => join(b"/", dir),
            Plain::Unsure => path::root_path(&self.tree, dir, &mut self.work)?,
        };
        let target = join(&dir, last);
        let inode = self.tree.walk(&target, &mut self.work)?;
        let what = match inode {
            None if self.role == Role::Alone => return Ok(()),
            None => "no such file or directory",
            Some(inode) if self.is_dir(inode) => "operation not permitted",
            Some(inode) => {
                self.tree.link(parent, base, inode)?;
                return self.attributes(inode, entry);
            }
        };
        crate::fail!(Corrupt, "link {} {}: {what}", show(&target), show(&self.place(parent, base)))
    }

    /// Points 8 to 10: owner, xattrs, mode and time of a header, onto an inode that may have had others.
    fn attributes(&mut self, number: u32, entry: &Entry) -> Result<()> {
        let kind = self.tree.inode(number).kind;
        // A chown of a file takes its capabilities away: of a hard link, those that its first name brought.
        let lost = |name: &[u8]| kind != Type::Dir && name == CAPABILITY;
        let have = self.tree.xattrs(number);
        if !entry.xattrs.is_empty() || have.iter().any(|(name, _)| lost(name)) {
            let size: usize = have.iter().map(|(name, value)| name.len() + value.len()).sum();
            self.work.step((have.len() * (1 + entry.xattrs.len()) + size / 64) as u64)?;
            let mut xattrs: Xattrs = have.iter().filter(|(name, _)| !lost(name)).cloned().collect();
            xattr::set(&mut xattrs, kind, &entry.name, &entry.xattrs)?;
            self.tree.set_xattrs(number, xattrs)?;
        }
        let inode = self.tree.inode_mut(number);
        if entry.uid != UNCHANGED {
            inode.uid = entry.uid;
        }
        if entry.gid != UNCHANGED {
            inode.gid = entry.gid;
        }
        inode.mode = if kind == Type::Symlink { 0o777 } else { (entry.mode & 0o7777) as u16 };
        inode.mtime = entry.mtime;
        Ok(())
    }
}

/// Device numbers as a 32-bit `st_rdev`: mknod(2) keeps 12 bits of the major and 20 of the minor.
fn device(major: u32, minor: u32) -> u32 {
    (major & 0xfff) << 8 | minor & 0xff | (minor & 0xfff00) << 12
}
