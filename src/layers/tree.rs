//! A layer as a tree in memory, made by [`super::apply`] from the members of its archive: what the layer's directory
//! would hold if it were unpacked, in about 120 bytes a name.
//!
//! Inodes and names are kept apart, as on a disk, because hard links share an inode. A name that was removed stays in
//! the table, out of reach, so that numbers never move while a tree is built.

mod layer;
mod table;

use super::tar::Limits;
use crate::error::Result;
use std::sync::Arc;
use table::Table;

/// No name, no inode, nothing: where a `u32` may be absent.
const NONE: u32 = u32::MAX;

/// What kind of file a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    Dir,
    File,
    Symlink,
    Char,
    Block,
    Fifo,
    Socket,
}

/// Extended attributes in the order of the archive.
pub type Xattrs = Vec<TreeXattr>;

/// The name and the value of an extended attribute.
pub type TreeXattr = (Box<[u8]>, Box<[u8]>);

/// A file of any kind. Its names are [`Name`]s.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub kind: Type,
    /// A directory that hides what lower layers have in it (overlayfs's opaque xattr).
    pub opaque: bool,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// The number of the layer in its chain that made this file; only a native tree holds more than one.
    pub layer: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub mtime: (i64, u32),
    pub size: u64,
    /// Where the content begins in the uncompressed archive.
    pub data: u64,
    /// The entry that made it, or [`NONE`] for a directory that is only implied.
    pub entry: u32,
    /// Device numbers as `st_rdev` encodes them in 32 bits.
    pub rdev: u32,
    /// Index into `xattrs`, or [`NONE`].
    pub xattrs: u32,
    /// Index into `links` (a symlink), into `sparse` (a sparse file), or the first name (a directory); or [`NONE`].
    pub extra: u32,
    /// The last name of a directory, where the next one is hung on.
    pub last: u32,
    /// The first of its names that is still there.
    pub name: u32,
}

impl Inode {
    pub(super) fn new(kind: Type, layer: u16) -> Inode {
        Inode {
            kind,
            opaque: false,
            mode: 0,
            layer,
            uid: 0,
            gid: 0,
            nlink: 0,
            mtime: (0, 0),
            size: 0,
            data: 0,
            entry: NONE,
            rdev: 0,
            xattrs: NONE,
            extra: NONE,
            last: NONE,
            name: NONE,
        }
    }
}

/// A name in a directory. Names of one directory hang together in the order in which they came.
#[derive(Debug, Clone)]
struct Name {
    offset: u32,
    length: u8,
    live: bool,
    parent: u32,
    inode: u32,
    next: u32,
    previous: u32,
}

/// The tree of one layer, or of a whole chain that was applied to one directory.
#[derive(Debug)]
pub struct LayerTree {
    /// What names the layer in identities: its digest.
    id: Arc<str>,
    inodes: Vec<Inode>,
    names: Vec<Name>,
    /// The bytes of all names.
    pool: Vec<u8>,
    table: Table,
    links: Vec<Box<[u8]>>,
    xattrs: Vec<Xattrs>,
    xattr_bytes: usize,
    max_bytes: usize,
    sparse: Vec<Arc<[(u64, u64)]>>,
    max_names: usize,
}

impl LayerTree {
    /// The number of the root directory.
    pub const ROOT: u32 = 0;

    /// A tree with nothing but a root directory, 0755 and root's.
    pub(super) fn new(id: &str, layer: u16, limits: &Limits) -> LayerTree {
        let mut root = Inode::new(Type::Dir, layer);
        (root.mode, root.nlink) = (0o755, 1);
        LayerTree {
            id: id.into(),
            inodes: vec![root],
            names: Vec::new(),
            pool: Vec::new(),
            table: Table::default(),
            links: Vec::new(),
            xattrs: Vec::new(),
            xattr_bytes: 0,
            max_bytes: limits.bytes,
            sparse: Vec::new(),
            // Offsets and numbers are 32 bits wide: 16 million names of 255 bytes at most.
            max_names: limits.nodes.min(1 << 24),
        }
    }

    /// How many names the tree has had, removed ones included.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the root directory has always been empty.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn inode(&self, inode: u32) -> &Inode {
        &self.inodes[inode as usize]
    }

    pub(super) fn inode_mut(&mut self, inode: u32) -> &mut Inode {
        &mut self.inodes[inode as usize]
    }

    /// The inode that `name` has in the directory `dir`.
    pub(super) fn find(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.find_name(dir, name).map(|n| self.names[n as usize].inode)
    }

    fn find_name(&self, dir: u32, name: &[u8]) -> Option<u32> {
        self.table.find(dir, name, |n| self.is_name(n, dir, name))
    }

    fn is_name(&self, n: u32, dir: u32, name: &[u8]) -> bool {
        let entry = &self.names[n as usize];
        entry.parent == dir && self.name_bytes(entry) == name
    }

    fn name_bytes(&self, name: &Name) -> &[u8] {
        &self.pool[name.offset as usize..name.offset as usize + usize::from(name.length)]
    }

    /// Makes a new inode with its first name. `name` must not be there yet, and is at most 255 bytes.
    pub(super) fn create(&mut self, dir: u32, name: &[u8], inode: Inode) -> Result<u32> {
        let number = self.inodes.len() as u32;
        self.inodes.push(inode);
        self.link(dir, name, number)?;
        Ok(number)
    }

    /// Gives an inode another name, which must not be there yet.
    pub(super) fn link(&mut self, dir: u32, name: &[u8], inode: u32) -> Result<()> {
        if self.names.len() >= self.max_names {
            return crate::fail!(TooLong, "the layer has more than {} names", self.max_names);
        }
        let number = self.names.len() as u32;
        let last = self.inode(dir).last;
        self.names.push(Name {
            offset: self.pool.len() as u32,
            length: name.len() as u8,
            live: true,
            parent: dir,
            inode,
            next: NONE,
            previous: last,
        });
        self.pool.extend_from_slice(name);
        self.table.insert(dir, name, number, |n, hash| {
            let entry = &self.names[n as usize];
            let start = entry.offset as usize;
            hash(entry.parent, &self.pool[start..start + usize::from(entry.length)])
        });
        if last == NONE {
            self.inode_mut(dir).extra = number;
        } else {
            self.names[last as usize].next = number;
        }
        self.inode_mut(dir).last = number;
        let target = self.inode_mut(inode);
        target.nlink += 1;
        if target.name == NONE {
            target.name = number;
        }
        Ok(())
    }

    /// Removes `name` and everything below it, as RemoveAll does; how many names went.
    pub(super) fn remove(&mut self, dir: u32, name: &[u8]) -> u64 {
        let Some(first) = self.find_name(dir, name) else { return 0 };
        let mut doomed = vec![first];
        let mut count = 0;
        while let Some(n) = doomed.pop() {
            count += 1;
            let inode = self.names[n as usize].inode;
            if self.inode(inode).kind == Type::Dir {
                doomed.extend(self.children(inode));
            }
            self.unlink(n);
        }
        count
    }

    fn unlink(&mut self, n: u32) {
        let Name { parent, inode, next, previous, offset, length, .. } = self.names[n as usize];
        let name = &self.pool[offset as usize..offset as usize + usize::from(length)];
        self.table.remove(parent, name, n);
        self.names[n as usize].live = false;
        if previous == NONE {
            self.inode_mut(parent).extra = next;
        } else {
            self.names[previous as usize].next = next;
        }
        if next == NONE {
            self.inode_mut(parent).last = previous;
        } else {
            self.names[next as usize].previous = previous;
        }
        self.inode_mut(inode).nlink -= 1;
    }

    /// The names in a directory, by number, in the order in which they came.
    fn children(&self, dir: u32) -> impl Iterator<Item = u32> + '_ {
        let first = if self.inode(dir).kind == Type::Dir { self.inode(dir).extra } else { NONE };
        let some = |n: u32| (n != NONE).then_some(n);
        std::iter::successors(some(first), move |&n| some(self.names[n as usize].next))
    }

    /// What is in a directory: names and inodes, in the order of the archive.
    pub(super) fn list(&self, dir: u32) -> impl Iterator<Item = (&[u8], u32)> + '_ {
        self.children(dir).map(|n| {
            let name = &self.names[n as usize];
            (self.name_bytes(name), name.inode)
        })
    }

    /// The path of the first name of an inode, from the root, with a slash before each part; the root is empty.
    /// Identities rest on it: it is the same wherever the layer is used.
    pub(super) fn path(&self, inode: u32) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = inode;
        while self.inode(at).name != NONE {
            let name = &self.names[self.inode(at).name as usize];
            parts.push(self.name_bytes(name));
            at = name.parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        path
    }

    /// Gives inodes with several names the first of them in the order of bytes, which an unpacked layer has as well, and
    /// inodes whose name was removed the one that is left. Called once, when the layer is complete.
    pub(super) fn choose_names(&mut self) {
        for n in 0..self.names.len() {
            let Name { live, inode, .. } = self.names[n];
            let first = self.inode(inode).name;
            if live && first != n as u32 && (!self.names[first as usize].live || self.is_before(n as u32, first)) {
                self.inode_mut(inode).name = n as u32;
            }
        }
    }

    /// Whether the path of one name comes before that of another.
    fn is_before(&self, one: u32, other: u32) -> bool {
        let [a, b] = [one, other].map(|n| &self.names[n as usize]);
        if a.parent == b.parent {
            return self.name_bytes(a) < self.name_bytes(b);
        }
        let path = |name: &Name| [&self.path(name.parent), &b"/"[..], self.name_bytes(name)].concat();
        path(a) < path(b)
    }

    pub(super) fn set_link(&mut self, inode: u32, target: &[u8]) {
        let index = self.links.len() as u32;
        self.links.push(target.into());
        let inode = self.inode_mut(inode);
        (inode.extra, inode.size) = (index, target.len() as u64);
    }

    /// Where a symlink points; empty for anything else.
    pub(super) fn target(&self, inode: u32) -> &[u8] {
        let inode = self.inode(inode);
        if inode.kind == Type::Symlink { self.links.get(inode.extra as usize).map_or(b"", |link| link) } else { b"" }
    }

    pub(super) fn set_sparse(&mut self, inode: u32, parts: &[(u64, u64)]) {
        let index = self.sparse.len() as u32;
        self.sparse.push(parts.into());
        self.inode_mut(inode).extra = index;
    }

    pub(super) fn sparse(&self, inode: u32) -> Option<&Arc<[(u64, u64)]>> {
        let inode = self.inode(inode);
        if inode.kind == Type::File { self.sparse.get(inode.extra as usize) } else { None }
    }

    pub(super) fn xattrs(&self, inode: u32) -> &[TreeXattr] {
        self.xattrs.get(self.inode(inode).xattrs as usize).map_or(&[], |xattrs| xattrs)
    }

    pub(super) fn set_xattrs(&mut self, inode: u32, xattrs: Xattrs) -> Result<()> {
        let at = self.inode(inode).xattrs;
        if at == NONE && xattrs.is_empty() {
            return Ok(());
        }
        // What implied directories take from lower layers is in no archive, so it has to be bounded here.
        self.xattr_bytes += xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.xattr_bytes > self.max_bytes {
            return crate::fail!(TooLong, "the layer's xattrs exceed {} bytes", self.max_bytes);
        }
        if at == NONE {
            self.inode_mut(inode).xattrs = self.xattrs.len() as u32;
            self.xattrs.push(xattrs);
        } else {
            self.xattrs[at as usize] = xattrs;
        }
        Ok(())
    }
}
