//! The rootfs engine: image layers, read in place and merged as overlayfs merges them (DESIGN 5.3).
//!
//! It knows neither FUSE nor containerd: a blob comes through [`Blob`], an unpacked snapshot as a directory, and what
//! goes out are names, attributes and bytes.

pub mod apply;
pub mod changes;
pub mod dir;
pub mod hidden;
pub mod merge;
pub mod mounted;
pub mod tar;
pub mod tree;

use crate::error::Result;

pub mod decode;
pub mod index;
pub mod reader;
pub mod spool;
pub mod store;

/// A content-addressed blob that a layer is read from.
pub trait Blob: Send + Sync {
    /// The digest that names it, `sha256:…`.
    fn digest(&self) -> &str;
    /// Its length in bytes.
    fn size(&self) -> u64;
    /// Fills `buf` with the bytes at `offset`, completely: a blob that ends early is an error, never a short read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;
}

/// One tar member as its headers tell it, in archive order: raw facts, without the meaning that a position in a
/// chain of layers gives them (a whiteout is an entry like any other). This is what an index on disk holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The name as the archive has it, after PAX and GNU long names were applied; any bytes but NUL.
    pub name: Vec<u8>,
    /// The type flag of the header (`b'0'`, `b'5'`, …); NUL is turned into `b'0'` or `b'5'` as Go's archive/tar does.
    pub flag: u8,
    /// The mode as the header has it, with whatever type bits are in it.
    pub mode: u32,
    /// Owner and group after containerd's truncation to 32 bits.
    pub uid: u32,
    pub gid: u32,
    /// The size of the file that this member shows, in bytes: for a sparse member the expanded size.
    pub size: u64,
    /// Seconds and nanoseconds since 1970, as the headers say them; containerd's clamping is already applied.
    pub mtime: (i64, u32),
    /// Target of a hard link or symbolic link.
    pub link: Vec<u8>,
    /// Device numbers of a device node.
    pub major: u32,
    pub minor: u32,
    /// Extended attributes (PAX `SCHILY.xattr.*`), in the order in which Go would set them; unfiltered.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content begins in the uncompressed archive, in bytes.
    pub data: u64,
    /// For a sparse member (PAX GNU.sparse): the parts that hold data, as (offset in the file, length); they lie one
    /// after the other at `data`. Empty for an ordinary file.
    pub sparse: Vec<(u64, u64)>,
}
