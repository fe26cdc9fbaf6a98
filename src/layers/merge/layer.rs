//! What the merge needs of a layer, and the words it answers in.

use crate::error::Result;
use crate::layers::tree::Type;
use std::fs::File;
use std::sync::Arc;

/// A place in a layer. What it means only the layer knows; it is cheap to copy and can be kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum At {
    /// An inode of a tree in memory.
    Node(u32),
    /// A path in a directory on disk, relative to its root; the root is empty.
    Path(Arc<[u8]>),
}

/// The attributes of a file, as `stat` tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    pub kind: Type,
    /// Permission bits with setuid, setgid and sticky.
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub size: u64,
    /// For a file, how many names the layer gives it; for a directory 1.
    pub nlink: u32,
    pub rdev: u32,
    /// In units of 512 bytes: what of it is data.
    pub blocks: u64,
}

/// A name that a layer has.
#[derive(Debug, Clone)]
pub struct Found {
    pub at: At,
    pub attr: Attr,
    /// A directory that hides what lower layers have in it.
    pub opaque: bool,
}

impl Found {
    /// overlayfs's whiteout: a character device 0:0 (overlayfs.rst, "whiteouts and opaque directories").
    pub fn is_whiteout(&self) -> bool {
        self.attr.kind == Type::Char && self.attr.rdev == 0
    }
}

/// Where the bytes of a file are.
#[derive(Debug)]
pub enum Source {
    /// In the archive of the layer `layer` of the chain, counted from the base, which is 0.
    Archive {
        layer: usize,
        /// The index of the entry in the archive.
        entry: u32,
        /// Where its content begins in the uncompressed archive.
        data: u64,
        /// For a sparse file: the parts that hold data, one after the other at `data`.
        sparse: Option<Arc<[(u64, u64)]>>,
        size: u64,
    },
    /// In a file on this host.
    File { layer: usize, file: File },
}

/// What tells one file from all others: its layer, and the path of its first name in it. Two images that share a
/// layer give the same identity (DESIGN 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The digest of the layer, or whatever else names it.
    pub layer: Arc<str>,
    /// From the root of the layer, with a slash before each part.
    pub path: Vec<u8>,
}

/// An extended attribute: its name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// One layer of a chain: a tree of its own, in which whiteouts are character devices 0:0.
pub trait Layer: Send + Sync {
    /// What names it in identities.
    fn id(&self) -> &Arc<str>;
    /// Its root directory.
    fn root(&self) -> At;
    /// Whether it can change while it is looked at: a running container's upper directory.
    fn is_live(&self) -> bool {
        false
    }
    /// The entry `name` of the directory `dir`, links not followed.
    fn find(&self, dir: &At, name: &[u8]) -> Result<Option<Found>>;
    /// All entries of the directory `dir`.
    fn list(&self, dir: &At) -> Result<Vec<(Vec<u8>, Found)>>;
    fn attr(&self, at: &At) -> Result<Attr>;
    /// Where a symlink points.
    fn readlink(&self, at: &At) -> Result<Vec<u8>>;
    fn xattr_list(&self, at: &At) -> Result<Vec<Vec<u8>>>;
    /// The value of an extended attribute; `None` where the file has none of that name.
    fn xattr_get(&self, at: &At, name: &[u8]) -> Result<Option<Vec<u8>>>;
    /// The path of the first name of the file, in the order of bytes, from the root, with a slash before each part.
    fn first_name(&self, at: &At) -> Result<Vec<u8>>;
    /// Finds out what [`Layer::first_name`] has to know of all of the layer, where that fails with
    /// [`crate::error::Kind::NotYet`] until it is known. May take as long as the layer is large.
    fn settle(&self) {}
    /// Whether all of it is still there: a directory may be removed while it is looked at, and what was found before
    /// this was asked is right if the answer is yes.
    fn is_whole(&self) -> bool {
        true
    }
    /// Where the content of a regular file is; `number` is this layer's place in the chain.
    fn source(&self, at: &At, number: usize) -> Result<Source>;
    /// The place in the chain of what made this file, where that is not the layer's own.
    fn origin(&self, _at: &At) -> Option<usize> {
        None
    }
}
