//! A tree in memory as a layer of the merge.

use super::{Inode, LayerTree, Type};
use crate::error::Result;
use crate::layers::merge::{At, Attr, Found, Layer, Source};
use std::sync::Arc;

impl LayerTree {
    /// The inode at `at`; places of other layers are no inodes of this one.
    fn at(&self, at: &At) -> Result<u32> {
        match at {
            At::Node(inode) if (*inode as usize) < self.inodes.len() => Ok(*inode),
            _ => crate::fail!(Stale, "no such file in layer {}", self.id),
        }
    }

    fn attr_of(&self, number: u32) -> Attr {
        let inode = self.inode(number);
        let held = self.sparse(number).map_or(inode.size, |parts| parts.iter().map(|part| part.1).sum());
        Attr {
            kind: inode.kind,
            perm: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            size: inode.size,
            nlink: if inode.kind == Type::Dir { 1 } else { inode.nlink },
            rdev: inode.rdev,
            blocks: if inode.kind == Type::File { held.div_ceil(512) } else { 0 },
        }
    }

    fn found(&self, number: u32) -> Found {
        Found { at: At::Node(number), attr: self.attr_of(number), opaque: self.inode(number).opaque }
    }
}

impl Layer for LayerTree {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn root(&self) -> At {
        At::Node(LayerTree::ROOT)
    }

    fn find(&self, dir: &At, name: &[u8]) -> Result<Option<Found>> {
        Ok(self.find(self.at(dir)?, name).map(|inode| self.found(inode)))
    }

    fn list(&self, dir: &At) -> Result<Vec<(Vec<u8>, Found)>> {
        Ok(self.list(self.at(dir)?).map(|(name, inode)| (name.to_vec(), self.found(inode))).collect())
    }

    fn attr(&self, at: &At) -> Result<Attr> {
        self.at(at).map(|inode| self.attr_of(inode))
    }

    fn readlink(&self, at: &At) -> Result<Vec<u8>> {
        self.at(at).map(|inode| self.target(inode).to_vec())
    }

    fn xattr_list(&self, at: &At) -> Result<Vec<Vec<u8>>> {
        Ok(self.xattrs(self.at(at)?).iter().map(|(name, _)| name.to_vec()).collect())
    }

    fn xattr_get(&self, at: &At, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let xattrs = self.xattrs(self.at(at)?);
        Ok(xattrs.iter().find(|(key, _)| **key == *name).map(|(_, value)| value.to_vec()))
    }

    fn first_name(&self, at: &At) -> Result<Vec<u8>> {
        self.at(at).map(|inode| self.path(inode))
    }

    fn source(&self, at: &At, _number: usize) -> Result<Source> {
        let number = self.at(at)?;
        let &Inode { kind, layer, entry, data, size, .. } = self.inode(number);
        if kind != Type::File {
            return crate::fail!(Invalid, "only a regular file has content");
        }
        Ok(Source::Archive { layer: usize::from(layer), entry, data, size, sparse: self.sparse(number).cloned() })
    }

    fn origin(&self, at: &At) -> Option<usize> {
        self.at(at).ok().map(|inode| usize::from(self.inode(inode).layer))
    }
}
