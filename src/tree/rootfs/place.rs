//! A root filesystem as places of the tree.

use super::inside::inside;
use super::{Built, Roots, Source};
use crate::error::{Kind, Result};
use crate::fail;
use crate::layers::merge::{Attr as LayerAttr, Handle, Source as Bytes};
use crate::layers::reader::{Member, Reader};
use crate::layers::tree::Type;
use crate::layers::{Entry, merge};
use crate::node::handle::Opened;
use crate::node::{Attr, Content, FileType, Lifetime, Name, Node, Place, Seat, Target, stable_hash};
use crate::wait;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest read that is done where it is asked for: decoding it takes less than handing it to another thread.
const INLINE: usize = 256 << 10;

/// The root directory of what `source` gives, shown as `label`.
pub fn graft(roots: &Arc<Roots>, source: Arc<dyn Source>, label: &'static str) -> Arc<dyn Place> {
    let tree = Tree::new(roots, source, false);
    Arc::new(Shown { tree, up: None, found: None, name: label.as_bytes().into() })
}

/// A root filesystem, by what it is made from: it may not be built yet, or not be at hand any more.
pub(super) struct Tree {
    pub(super) roots: Arc<Roots>,
    pub(super) source: Arc<dyn Source>,
    /// It only shows again what stands elsewhere.
    again: bool,
}

/// A file of a root filesystem.
struct Shown {
    tree: Arc<Tree>,
    /// The directory that it was found in; none for the root, and for a file that is shown by itself.
    up: Option<Arc<Shown>>,
    /// `None` is the root: it can be stat'ed without building anything.
    found: Option<At>,
    name: Name,
}

/// A file as it was found, and in what shape of its root filesystem.
struct At {
    handle: Handle,
    shape: u64,
}

impl Tree {
    pub(super) fn new(roots: &Arc<Roots>, source: Arc<dyn Source>, again: bool) -> Arc<Tree> {
        let again = again || source.is_again();
        Arc::new(Tree { roots: Arc::clone(roots), source, again })
    }

    fn built(&self) -> Result<Arc<Built>> {
        if self.source.is_live() {
            // Looking at a directory that somebody else uses may take as long as that disk takes.
            wait::deadline()?;
        }
        self.roots.get(&self.source)
    }

    /// What answers a request whose root filesystem went away under it: it is built again.
    fn missing<R>(&self) -> Result<R> {
        self.built().and_then(|_| fail!(NotYet, "the layers are being read again"))
    }

    pub(super) fn life(&self) -> Lifetime {
        if self.source.is_live() { Lifetime::Never } else { Lifetime::Ever }
    }

    /// The attributes of the root, without building anything. containerd makes every root directory so.
    pub(super) fn root_attr(&self) -> Attr {
        let attr = Attr::new(FileType::Directory, 0o755, 0, self.source.created());
        Attr { owner: Some((0, 0)), ..attr }
    }

    /// What a layer says of a file, as the mount shows it.
    pub(super) fn convert(&self, attr: &LayerAttr) -> Attr {
        let kind = match attr.kind {
            Type::Dir => FileType::Directory,
            Type::File => FileType::Regular,
            Type::Symlink => FileType::Symlink,
            Type::Char => FileType::CharDevice,
            Type::Block => FileType::BlockDevice,
            Type::Fifo => FileType::Fifo,
            Type::Socket => FileType::Socket,
        };
        let (seconds, nanos) = attr.mtime;
        let mtime = u64::try_from(seconds).map_or(SystemTime::UNIX_EPOCH, |seconds| {
            SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos.min(999_999_999))
        });
        let life = self.life();
        Attr {
            owner: Some((attr.uid, attr.gid)),
            blocks: attr.blocks,
            nlink: if kind == FileType::Directory { 1 } else { attr.nlink },
            rdev: attr.rdev,
            attr_life: life,
            name_life: life,
            ..Attr::new(kind, attr.perm, attr.size, Some(mtime))
        }
    }

    /// A file that was found by itself, not in a directory of the root filesystem.
    pub(super) fn node(self: &Arc<Self>, name: &[u8], handle: Handle, built: &Built) -> Node {
        let found = Some(At { handle, shape: built.shape });
        Node::of(Arc::new(Shown { tree: Arc::clone(self), up: None, found, name: name.to_vec().into() }))
    }
}

impl Shown {
    /// Looks at the file in its root filesystem. What was found in a directory that containerd was just taking away is
    /// not believed: it is found again where the layer is now.
    fn with<R>(&self, f: impl FnOnce(&Arc<Built>, &Handle) -> Result<R>) -> Result<R> {
        let built = self.tree.built()?;
        let answer = match &self.found {
            None => f(&built, &built.rootfs.root()),
            Some(At { handle, shape }) if *shape == built.shape => f(&built, handle),
            Some(_) => self.again(&built).and_then(|handle| f(&built, &handle)),
        };
        if self.tree.roots.is_whole(&*self.tree.source, &built) { answer } else { self.tree.missing() }
    }

    /// The file, found in a root filesystem that was built again from other kinds of layers.
    fn again(&self, built: &Built) -> Result<Handle> {
        let mut names = vec![&self.name[..]];
        let mut at = self.up.as_ref();
        while let Some(dir) = at {
            names.push(if dir.found.is_some() { &dir.name } else { b"" });
            at = dir.up.as_ref();
        }
        names.reverse();
        if self.up.is_none() {
            return fail!(Stale, "{}: its layer is read from elsewhere now", String::from_utf8_lossy(&self.name));
        }
        match built.rootfs.walk(&names.join(&b'/'))? {
            Some((handle, _)) => Ok(handle),
            None => fail!(NotFound, "{}: it is no longer there", String::from_utf8_lossy(&self.name)),
        }
    }

    /// Where a link leads if it is not shown as it is, but so that it stays inside.
    fn inside(&self, built: &Built, handle: &Handle) -> Result<Option<Vec<u8>>> {
        let Some(dir) = self.up.as_ref().filter(|_| self.tree.roots.inside) else { return Ok(None) };
        let depth = std::iter::successors(dir.up.as_ref(), |dir| dir.up.as_ref()).count();
        Ok(inside(&built.rootfs.readlink(handle)?, depth))
    }

    fn entry(self: &Arc<Self>, built: &Built, name: &[u8], handle: Handle) -> Node {
        let found = Some(At { handle, shape: built.shape });
        let (tree, up) = (Arc::clone(&self.tree), Some(Arc::clone(self)));
        Node::of(Arc::new(Shown { tree, up, found, name: name.to_vec().into() }))
    }

    fn shown(&self, built: &Arc<Built>, handle: &Handle) -> Result<Attr> {
        let mut attr = self.tree.convert(&built.rootfs.attr(handle)?);
        let rewritten = if attr.kind == FileType::Symlink { self.inside(built, handle)? } else { None };
        if let Some(target) = &rewritten {
            attr.size = target.len() as u64;
        }
        if attr.kind != FileType::Directory {
            let identity = built.rootfs.identity(handle);
            if matches!(&identity, Err(e) if e.kind() == Kind::NotYet) {
                self.tree.roots.settle(&*self.tree.source, built, handle);
            }
            let merge::Identity { layer, path } = identity?;
            attr.identity = Some(match rewritten {
                // The same link may lead elsewhere from where it has another name.
                Some(target) => stable_hash(&[b"link", layer.as_bytes(), &path, &target]),
                None => stable_hash(&[b"file", layer.as_bytes(), &path]),
            });
        }
        Ok(if self.tree.again { attr.again() } else { attr })
    }
}

impl Place for Shown {
    fn attr(&self, _: Seat) -> Result<Attr> {
        if self.found.is_none() {
            // Never a reason to build it (DESIGN tenet 1).
            return Ok(self.tree.root_attr());
        }
        self.with(|built, handle| self.shown(built, handle))
    }

    fn name(&self, _: Seat) -> Name {
        self.name.clone()
    }

    fn lookup(self: Arc<Self>, name: &[u8]) -> Result<Option<Node>> {
        self.with(|built, handle| {
            let found = built.rootfs.lookup(handle, name)?;
            Ok(found.map(|(handle, _)| self.entry(built, name, handle)))
        })
    }

    /// Whether it is there may change, what is in it does not, unless somebody uses it.
    fn contents(&self) -> Lifetime {
        self.tree.life()
    }

    fn list(self: Arc<Self>) -> Result<Vec<(Name, Node)>> {
        self.with(|built, handle| {
            let entry = |(name, handle, _): merge::Named| {
                let node = self.entry(built, &name, handle);
                (Name::Owned(name), node)
            };
            Ok(built.rootfs.readdir(handle)?.into_iter().map(entry).collect())
        })
    }

    fn target(&self, _: Seat) -> Result<Target> {
        self.with(|built, handle| match self.inside(built, handle)? {
            Some(target) => Ok(Target::Verbatim(target)),
            None => built.rootfs.readlink(handle).map(Target::Verbatim),
        })
    }

    fn open(&self, _: Seat) -> Result<Opened> {
        let live = self.tree.source.is_live();
        let content: Arc<dyn Content> = self.with(|built, handle| {
            Ok(match built.rootfs.source(handle)? {
                Bytes::File { file, .. } => Arc::new(OnDisk { size: file.metadata()?.len(), file }) as Arc<dyn Content>,
                Bytes::Archive { layer, data, sparse, size, .. } => {
                    let Some(Some(reader)) = built.readers.get(layer) else {
                        return fail!(Io, "layer {layer} of this file has no reader");
                    };
                    let sparse = sparse.map(|parts| parts.to_vec()).unwrap_or_default();
                    let member = Member::of(&Entry { size, data, sparse, ..Entry::default() });
                    Arc::new(InLayer { reader: Arc::clone(reader), member })
                }
            })
        })?;
        Ok(if live { Opened::Changing(content) } else { Opened::Content(content) })
    }

    fn xattrs(&self, _: Seat) -> Result<Vec<(String, Vec<u8>)>> {
        if self.found.is_none() {
            return Ok(Vec::new());
        }
        self.with(|built, handle| {
            let mut all = Vec::new();
            for name in built.rootfs.xattr_list(handle)? {
                let value = built.rootfs.xattr_get(handle, &name)?.unwrap_or_default();
                all.push((String::from_utf8_lossy(&name).into_owned(), value));
            }
            Ok(all)
        })
    }

    fn xattr(&self, _: Seat, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let told = std::str::from_utf8(name).ok().filter(|name| name.starts_with("user.ctrfs."));
        if self.found.is_none() {
            // The root is the topmost layer's, and has what containerd gives it: nothing. Nothing is built to say so.
            return told.map_or(Ok(None), |told| self.tree.source.attribute_root(told));
        }
        if told.is_some() {
            // Of a snapshotter that copies, two files may have to be compared.
            wait::deadline()?;
        }
        self.with(|built, handle| match told {
            Some(told) => self.tree.source.attribute(built.rootfs.layer_of(handle)?, told),
            None => built.rootfs.xattr_get(handle, name),
        })
    }
}

/// A file inside the archive of a layer.
struct InLayer {
    reader: Arc<Reader>,
    member: Member,
}

impl Content for InLayer {
    fn size(&self) -> u64 {
        self.member.size
    }

    fn read(&self, offset: u64, length: usize) -> Result<bytes::Bytes> {
        if length > INLINE {
            wait::deadline()?;
        }
        let rest = self.member.size.saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(rest).unwrap_or(usize::MAX))];
        let read = self.reader.read_member(&self.member, offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes.into())
    }
}

/// A file on this host.
struct OnDisk {
    file: File,
    size: u64,
}

impl Content for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn backing(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn read(&self, offset: u64, length: usize) -> Result<bytes::Bytes> {
        if length > INLINE {
            wait::deadline()?;
        }
        let mut bytes = vec![0; length];
        let mut done = 0;
        while done < length {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        bytes.truncate(done);
        Ok(bytes.into())
    }
}
