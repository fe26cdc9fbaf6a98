//! Points 1 and 2: the directory that a member goes into, and the directories that it only implies (containerd's
//! `mkparent`).

use super::path::{self, Lstat, MAX_NAME, MAX_PATH, Seen, show};
use super::{Applier, Work};
use crate::error::Result;
use crate::layers::merge::{Found, Layer};
use crate::layers::tree::{Inode, LayerTree, Type, Xattrs};

impl Applier<'_> {
    /// The directory at `dir`, the first part of a cleaned name, made if it is not there.
    pub(super) fn parent(&mut self, dir: &[u8]) -> Result<u32> {
        if let Some((recent, inode)) = &self.recent
            && recent == dir
        {
            return Ok(*inode);
        }
        let path = match self.plain(dir)? {
            Plain::There(inode) if self.is_dir(inode) => {
                self.recent = Some((dir.to_vec(), inode));
                return Ok(inode);
            }
            Plain::There(_) | Plain::Missing => path::join(b"/", dir),
            Plain::Unsure => path::root_path(&self.tree, dir, &mut self.work)?,
        };
        self.make_parents(&path)
    }

    /// Looks a path up that may need no resolving, which is nearly every one.
    pub(super) fn plain(&mut self, path: &[u8]) -> Result<Plain> {
        let mut at = LayerTree::ROOT;
        for part in path::parts(path) {
            self.work.step(1)?;
            if matches!(part, b"." | b"..") || part.len() > MAX_NAME || !self.is_dir(at) {
                return Ok(Plain::Unsure);
            }
            match self.tree.find(at, part) {
                Some(inode) if self.tree.inode(inode).kind != Type::Symlink => at = inode,
                Some(_) => return Ok(Plain::Unsure),
                None => return Ok(Plain::Missing),
            }
        }
        Ok(Plain::There(at))
    }

    /// Makes the directories of a resolved path that are not there.
    fn make_parents(&mut self, path: &[u8]) -> Result<u32> {
        if path.len() >= MAX_PATH {
            return path::too_long(path);
        }
        let mut at = LayerTree::ROOT;
        let mut end = 0;
        for part in path::parts(path) {
            end += 1 + part.len();
            self.work.step(1)?;
            if part.len() > MAX_NAME {
                return path::too_long(path);
            }
            at = match self.tree.find(at, part) {
                Some(inode) if self.is_dir(inode) => inode,
                Some(_) => return crate::fail!(Corrupt, "mkparent {}: not a directory", show(&path[..end])),
                None => self.make_parent(at, part, &path[..end])?,
            };
        }
        Ok(at)
    }

    /// Makes one directory that no member describes. It takes after the directory of that path in the nearest lower
    /// layer that has the path; if that has something else there, or nobody has, it is plain.
    fn make_parent(&mut self, dir: u32, name: &[u8], path: &[u8]) -> Result<u32> {
        let mut inode = Inode::new(Type::Dir, self.number);
        (inode.mode, inode.mtime, inode.gid) = (0o755, self.created, self.inherited_gid(dir));
        let mut xattrs = Xattrs::new();
        if let Some((lower, found)) = lower_dir(self.lowers, path, &mut self.work)? {
            inode.mode = found.attr.perm;
            (inode.uid, inode.gid, inode.mtime) = (found.attr.uid, found.attr.gid, found.attr.mtime);
            xattrs = lower_xattrs(lower, &found)?;
        }
        let inode = self.tree.create(dir, name, inode)?;
        self.tree.set_xattrs(inode, xattrs)?;
        Ok(inode)
    }

    /// What is made in a directory with the setgid bit has the group of the directory, until a chown changes it.
    pub(super) fn inherited_gid(&self, dir: u32) -> u32 {
        let dir = self.tree.inode(dir);
        if dir.mode & 0o2000 != 0 { dir.gid } else { 0 }
    }
}

/// The directory that one at `path` takes after where an upper layer only implies it: the nearest lower layer's that
/// has the path; none if that has something else there.
fn lower_dir<'a>(lowers: &[&'a dyn Layer], path: &[u8], work: &mut Work) -> Result<Option<(&'a dyn Layer, Found)>> {
    for &lower in lowers {
        let below = Below(lower);
        let mut linked = false;
        let mut found = below.walk(path, &mut linked, work)?;
        if linked {
            let place = path::root_path(&below, path, work)?;
            found = below.walk(&place, &mut linked, work)?;
        }
        if let Some(found) = found {
            return Ok((found.attr.kind == Type::Dir).then_some((lower, found)));
        }
    }
    Ok(None)
}

/// The time that an implied directory takes from the layers below, nearest first; none if they have none there.
pub(in crate::layers) fn lower_dir_time(lowers: &[&dyn Layer], path: &[u8]) -> Result<Option<(i64, u32)>> {
    let mut work = Work { left: DIR_STEPS };
    Ok(lower_dir(lowers, path, &mut work)?.map(|(_, found)| found.attr.mtime))
}

/// What a layer has at a path, links not followed.
pub(in crate::layers) fn lstat(layer: &dyn Layer, path: &[u8]) -> Result<Option<Found>> {
    Below(layer).walk(path, &mut false, &mut Work { left: DIR_STEPS })
}

/// How many steps resolving one path may take: what hostile links can multiply.
const DIR_STEPS: u64 = 1 << 20;

/// What looking a path up without resolving it told.
pub(super) enum Plain {
    /// It is there, and no part of it is a link: resolving changes nothing.
    There(u32),
    /// Up to where it ends, no part of it is a link.
    Missing,
    /// It has to be resolved.
    Unsure,
}

/// The attributes that `copyUpXAttrs` copies: all but `trusted.*`.
fn lower_xattrs(lower: &dyn Layer, found: &Found) -> Result<Xattrs> {
    let mut xattrs = Xattrs::new();
    for name in lower.xattr_list(&found.at)? {
        if name.starts_with(b"trusted.") {
            continue;
        }
        if let Some(value) = lower.xattr_get(&found.at, &name)? {
            xattrs.push((name.into(), value.into()));
        }
    }
    Ok(xattrs)
}

impl LayerTree {
    /// What is at a cleaned path that begins with a slash. A link on the way leads nowhere, anything else that is no
    /// directory is an error.
    pub(super) fn walk(&self, path: &[u8], work: &mut Work) -> Result<Option<u32>> {
        if path.len() >= MAX_PATH {
            return path::too_long(path);
        }
        let mut at = LayerTree::ROOT;
        for part in path::parts(path) {
            work.step(1)?;
            if part.len() > MAX_NAME {
                return path::too_long(path);
            }
            match self.inode(at).kind {
                Type::Dir => {}
                Type::Symlink => return Ok(None),
                _ => return crate::fail!(Corrupt, "failed to get root path: lstat {}: not a directory", show(path)),
            }
            let Some(inode) = self.find(at, part) else { return Ok(None) };
            at = inode;
        }
        Ok(Some(at))
    }
}

impl Lstat for LayerTree {
    fn lstat(&self, path: &[u8], work: &mut Work) -> Result<Option<Seen>> {
        let inode = self.walk(path, work)?;
        Ok(inode.map(|inode| match self.inode(inode).kind {
            Type::Symlink => Seen::Link(self.target(inode).to_vec()),
            _ => Seen::Other,
        }))
    }
}

/// A layer below the one that is applied: a tree, or a directory on disk.
struct Below<'a>(&'a dyn Layer);

impl Below<'_> {
    /// What is at a cleaned path; `linked` is set if a link is on the way, or at its end.
    fn walk(&self, path: &[u8], linked: &mut bool, work: &mut Work) -> Result<Option<Found>> {
        if path.len() >= MAX_PATH {
            return path::too_long(path);
        }
        let at = self.0.root();
        let mut found = Found { attr: self.0.attr(&at)?, at, opaque: false };
        for part in path::parts(path) {
            work.step(1)?;
            match found.attr.kind {
                Type::Dir => {}
                Type::Symlink => return Ok(None),
                _ => return crate::fail!(Corrupt, "lstat {}: not a directory", show(path)),
            }
            let Some(next) = self.0.find(&found.at, part)? else { return Ok(None) };
            *linked |= next.attr.kind == Type::Symlink;
            found = next;
        }
        Ok(Some(found))
    }
}

impl Lstat for Below<'_> {
    fn lstat(&self, path: &[u8], work: &mut Work) -> Result<Option<Seen>> {
        let Some(found) = self.walk(path, &mut false, work)? else { return Ok(None) };
        if found.attr.kind == Type::Symlink {
            return self.0.readlink(&found.at).map(|target| Some(Seen::Link(target)));
        }
        Ok(Some(Seen::Other))
    }
}
