//! A directory on disk as a layer: the `fs` of an unpacked snapshot, or the upper directory of a running container,
//! with overlayfs's own whiteouts (character devices 0:0) and opaque xattrs (kernel overlayfs.rst).
//!
//! What is in it was chosen by the author of an image or by a container, so no path in it is ever resolved by the
//! kernel's rules: directories are opened beneath the root without following a link, and their entries are reached
//! through the open directory.

mod intact;
mod sys;
mod unpacked;

pub use unpacked::Unpacked;

use super::merge::{At, Attr, Found, Layer, Source};
use super::tree::Type;
use crate::error::{Error, Kind, Result};
use intact::Intact;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a directory is to be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirOptions {
    /// It can change at any time: a container's upper directory. Every call then shows what is there now.
    pub live: bool,
    /// The overlay is mounted with `userxattr`: its marks are `user.overlay.*`, not `trusted.overlay.*`.
    pub user_xattr: bool,
}

/// A directory on disk.
pub struct DirLayer {
    id: Arc<str>,
    root: OwnedFd,
    options: DirOptions,
    /// None where the directory may change.
    intact: Option<Intact>,
    unpacked: Option<Unpacked>,
}

impl DirLayer {
    /// Opens the directory at `path`, which containerd told us. `id` names the layer in identities: the digest of the
    /// layer that was unpacked there, or for a live directory something that no other one has.
    pub fn open(path: &Path, id: &str, options: DirOptions) -> Result<DirLayer> {
        let intact = (!options.live).then(Intact::new);
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let root = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
        let root = root.map_err(|e| Error::from(e).context(path.display()))?;
        Ok(DirLayer { id: id.into(), root: root.into(), options, intact, unpacked: None })
    }

    /// A layer of an image that was unpacked there: it shows what its archive would.
    pub fn unpacked(id: &str, user_xattr: bool, unpacked: Unpacked) -> Result<DirLayer> {
        let layer = DirLayer::open(&unpacked.path, id, DirOptions { live: false, user_xattr })?;
        Ok(DirLayer { unpacked: Some(unpacked), ..layer })
    }

    /// Opens a directory of the layer, and refuses one that is not all here: overlayfs can leave a directory's
    /// content at another path of the layers below.
    fn dir(&self, at: &At) -> Result<OpenDir> {
        let At::Path(path) = at else { return gone() };
        let fd = sys::open_beneath(&self.root, path, libc::O_PATH | libc::O_DIRECTORY).map_err(moved)?;
        let dir = OpenDir(fd);
        if !path.is_empty() && self.mark(&dir.entry(b""), "redirect")?.is_some() {
            let path = String::from_utf8_lossy(path).into_owned();
            return crate::fail!(
                Unsupported,
                "/{path} was renamed by overlayfs (redirect_dir), which ctrfs cannot follow"
            );
        }
        Ok(dir)
    }

    /// The directory that holds `at`, and the name it has there; for the root the root and an empty name.
    fn holder<'a>(&self, at: &'a At) -> Result<(OpenDir, &'a [u8])> {
        let At::Path(path) = at else { return gone() };
        let slash = path.iter().rposition(|&b| b == b'/');
        let (dir, name) = (&path[..slash.unwrap_or(0)], &path[slash.map_or(0, |slash| slash + 1)..]);
        let fd = sys::open_beneath(&self.root, dir, libc::O_PATH | libc::O_DIRECTORY).map_err(moved)?;
        Ok((OpenDir(fd), name))
    }

    /// A private xattr of overlayfs.
    fn mark(&self, path: &Path, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(sys::get_xattr(path, format!("{}{name}", self.prefix()).as_bytes())?)
    }

    fn prefix(&self) -> &'static str {
        if self.options.user_xattr { "user.overlay." } else { "trusted.overlay." }
    }

    fn shows_xattr(&self, name: &[u8]) -> bool {
        !name.starts_with(self.prefix().as_bytes()) && (self.unpacked.is_none() || unpacked::is_unpacked(name))
    }

    /// Takes note of an inode that an answer rests on, after the answer was found.
    fn see(&self, meta: &Metadata) {
        if let Some(intact) = &self.intact {
            intact.see(meta);
        }
    }

    /// An answer about a place that had been found: that it is not there says more than that.
    fn expect<T>(&self, answer: Result<T>) -> Result<T> {
        if let (Some(intact), Err(error)) = (&self.intact, &answer)
            && error.kind() == Kind::NotFound
        {
            intact.lost();
        }
        answer
    }

    fn found(&self, dir: &OpenDir, name: &[u8], path: &At, meta: &Metadata) -> Result<Found> {
        self.see(meta);
        let opaque = meta.is_dir() && self.mark(&dir.entry(name), "opaque")?.is_some_and(|value| value == b"y");
        let at = child(path, name)?;
        Ok(Found { attr: self.attr_of(&at, meta)?, at, opaque })
    }

    fn meta(&self, at: &At) -> Result<Metadata> {
        let (dir, name) = self.holder(at)?;
        let meta = dir.stat(name)?.map_or_else(gone, Ok)?;
        self.see(&meta);
        Ok(meta)
    }

    fn look_up(&self, at: &At, name: &[u8]) -> Result<Option<Found>> {
        let dir = self.dir(at)?;
        if let Some(meta) = dir.stat(name)? {
            return self.found(&dir, name, at, &meta).map(Some);
        }
        dir.stat(b"")?.inspect(|meta| self.see(meta));
        Ok(None)
    }

    fn read(&self, at: &At) -> Result<Vec<(Vec<u8>, Found)>> {
        let dir = self.dir(at)?;
        let mut all = Vec::new();
        for entry in fs::read_dir(dir.path())? {
            let name = entry?.file_name().into_vec();
            // What went away since is not there.
            let Some(meta) = dir.stat(&name)? else { continue };
            let found = self.found(&dir, &name, at, &meta)?;
            all.push((name, found));
        }
        dir.stat(b"")?.inspect(|meta| self.see(meta));
        Ok(all)
    }

    fn open_file(&self, at: &At) -> Result<File> {
        let (dir, name) = self.holder(at)?;
        // Opened without effect first: what is there may by now be a fifo or a device.
        let held = open(&dir.entry(name), libc::O_PATH | libc::O_NOFOLLOW)?;
        if !held.metadata()?.is_file() {
            return crate::fail!(Invalid, "only a regular file has content");
        }
        if self.mark(&dir.entry(name), "metacopy")?.is_some() {
            return crate::fail!(
                Unsupported,
                "the file's content is in a lower layer (metacopy), where ctrfs cannot follow"
            );
        }
        open(&OpenDir(held.into()).path(), libc::O_NONBLOCK)
    }

    fn first(&self, at: &At) -> Result<Vec<u8>> {
        let At::Path(path) = at else { return gone() };
        let meta = self.meta(at)?;
        if !self.options.live && (meta.nlink() == 1 || meta.is_dir()) {
            return Ok([&b"/"[..], path].concat());
        }
        match &self.unpacked {
            Some(unpacked) => unpacked.first_name(&meta),
            None => Ok(by_inode(&meta)),
        }
    }
}

impl Layer for DirLayer {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn root(&self) -> At {
        At::Path((&b""[..]).into())
    }

    fn is_live(&self) -> bool {
        self.options.live
    }

    fn find(&self, at: &At, name: &[u8]) -> Result<Option<Found>> {
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
            return Ok(None);
        }
        self.expect(self.look_up(at, name))
    }

    fn list(&self, at: &At) -> Result<Vec<(Vec<u8>, Found)>> {
        self.expect(self.read(at))
    }

    fn attr(&self, at: &At) -> Result<Attr> {
        self.expect(self.meta(at).and_then(|meta| self.attr_of(at, &meta)))
    }

    fn readlink(&self, at: &At) -> Result<Vec<u8>> {
        let read = |(dir, name): (OpenDir, &[u8])| Ok(fs::read_link(dir.entry(name)).map_err(moved)?.into_os_string());
        self.expect(self.holder(at).and_then(read)).map(OsStringExt::into_vec)
    }

    fn xattr_list(&self, at: &At) -> Result<Vec<Vec<u8>>> {
        let list = |(dir, name): (OpenDir, &[u8])| sys::list_xattrs(&dir.entry(name)).map_err(moved);
        let mut names = self.expect(self.holder(at).and_then(list))?;
        names.retain(|name| self.shows_xattr(name));
        Ok(names)
    }

    fn xattr_get(&self, at: &At, name: &[u8]) -> Result<Option<Vec<u8>>> {
        if !self.shows_xattr(name) {
            return Ok(None);
        }
        let get = |(dir, file): (OpenDir, &[u8])| sys::get_xattr(&dir.entry(file), name).map_err(moved);
        self.expect(self.holder(at).and_then(get))
    }

    /// The disk does not tell which name of a file was first. In a live directory, where names move, everything is
    /// known by its inode number.
    fn first_name(&self, at: &At) -> Result<Vec<u8>> {
        self.expect(self.first(at))
    }

    fn settle(&self) {
        if let Some(unpacked) = &self.unpacked {
            unpacked.settle(self);
        }
    }

    fn origin(&self, at: &At) -> Option<usize> {
        self.unpacked.as_ref()?.origin(self, at)
    }

    fn is_whole(&self) -> bool {
        self.intact.as_ref().is_none_or(Intact::is_whole)
    }

    fn source(&self, at: &At, number: usize) -> Result<Source> {
        Ok(Source::File { layer: number, file: self.expect(self.open_file(at))? })
    }
}

/// An open directory (or file), whose entries are reached through /proc: the kernel resolves nothing but the name.
struct OpenDir(OwnedFd);

impl OpenDir {
    fn path(&self) -> PathBuf {
        OpenDir::proc(&self.0)
    }

    fn proc(fd: &OwnedFd) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
    }

    /// An entry; the directory itself for an empty name, as its `.`, so that nothing takes it for the link in /proc.
    fn entry(&self, name: &[u8]) -> PathBuf {
        self.path().join(OsStr::from_bytes(if name.is_empty() { b"." } else { name }))
    }

    fn stat(&self, name: &[u8]) -> Result<Option<Metadata>> {
        match fs::symlink_metadata(self.entry(name)) {
            Ok(meta) => Ok(Some(meta)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENAMETOOLONG)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn open(path: &Path, flags: i32) -> Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(moved)
}

fn child(dir: &At, name: &[u8]) -> Result<At> {
    let At::Path(path) = dir else { return gone() };
    let path = if path.is_empty() { name.into() } else { [path, &b"/"[..], name].concat().into() };
    Ok(At::Path(path))
}

fn attr(meta: &Metadata) -> Attr {
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => Type::Dir,
        () if kind.is_symlink() => Type::Symlink,
        () if kind.is_char_device() => Type::Char,
        () if kind.is_block_device() => Type::Block,
        () if kind.is_fifo() => Type::Fifo,
        () if kind.is_socket() => Type::Socket,
        () => Type::File,
    };
    let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
    Attr {
        kind,
        perm: (meta.mode() & 0o7777) as u16,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: (meta.mtime(), meta.mtime_nsec() as u32),
        // A directory's size is the host file system's affair.
        size: if kind == Type::Dir { 0 } else { meta.size() },
        nlink: if kind == Type::Dir { 1 } else { meta.nlink() as u32 },
        rdev: (major & 0xfff) << 8 | minor & 0xff | (minor & 0xfff00) << 12,
        blocks: if kind == Type::File { meta.blocks() } else { 0 },
    }
}

/// What no name tells a file by.
fn by_inode(meta: &Metadata) -> Vec<u8> {
    format!("\0{}:{}", meta.dev(), meta.ino()).into_bytes()
}

/// A place that is no directory any more, or behind a link by now, is a place that is gone.
fn moved(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP | libc::EXDEV) => {
            Error::caused(Kind::NotFound, "it is no longer there", error)
        }
        _ => error.into(),
    }
}

fn gone<T>() -> Result<T> {
    crate::fail!(NotFound, "it is no longer there")
}
