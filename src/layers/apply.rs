//! From the members of a layer's archive to its tree: what containerd's `archive.Apply` does to a directory
//! (containerd pkg/archive/tar.go, tar_unix.go, tar_opts_linux.go), done to a tree in memory. LAYERS.md, section 4,
//! numbers the points.
//!
//! containerd has two ways of applying, and they differ where archives are odd: an upper layer of an overlay gets
//! whiteouts as devices and opaque markers as xattrs; a base layer, and every layer of the native snapshotter, is
//! applied to the real tree, and its whiteouts remove.

mod member;
mod parent;
mod path;
mod whiteout;
mod xattr;

use super::Entry;
use super::merge::Layer;
use super::tar::Limits;
use super::tree::LayerTree;
use crate::error::Result;
use parent::Plain;
pub(super) use parent::{lower_dir_time, lstat};
use path::{MAX_NAME, clean, join, show, split};
use std::collections::HashSet;

/// In what capacity a layer is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The lowest layer, applied to an empty directory: whiteouts remove what is there.
    Base,
    /// A layer above others, applied to a directory of its own: whiteouts are recorded.
    Upper,
    /// A layer for itself: whiteouts are files like any others, and what cannot be done without the layers below, a
    /// link to one of their files, is left out.
    Alone,
}

/// What applying needs to know beside the members.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The mtime of directories that no member describes and no lower layer has: the image's creation (LAYERS.md 0.3).
    pub created: (i64, u32),
    /// The number of the layer in its chain; the base is 0.
    pub layer: u16,
    pub limits: Limits,
}

/// Makes the tree of one layer. `id` names it in identities (its digest); `lowers` are the layers below, nearest first,
/// whose directories lend their attributes to those that an upper layer only implies.
pub fn apply(id: &str, entries: &[Entry], role: Role, lowers: &[&dyn Layer], options: &Options) -> Result<LayerTree> {
    let mut applier = Applier::new(id, role, lowers, options);
    applier.layer(entries)?;
    Ok(applier.finish())
}

/// What the native snapshotter shows of a chain, base first: every layer applied to the same directory. It accepts
/// images that overlayfs refuses (LAYERS.md 0.2).
pub fn native_chain(id: &str, chain: &[&[Entry]], options: &Options) -> Result<LayerTree> {
    let mut applier = Applier::new(id, Role::Base, &[], options);
    for (number, entries) in chain.iter().enumerate() {
        applier.number = number as u16;
        applier.layer(entries)?;
    }
    Ok(applier.finish())
}

/// Counts the steps that hostile paths can multiply.
#[derive(Debug)]
struct Work {
    left: u64,
}

impl Work {
    fn step(&mut self, steps: u64) -> Result<()> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => crate::fail!(TooLong, "the layer takes too long to apply"),
        }
    }
}

struct Applier<'a> {
    tree: LayerTree,
    role: Role,
    lowers: &'a [&'a dyn Layer],
    created: (i64, u32),
    /// The number of the layer that is being applied.
    number: u16,
    work: Work,
    /// Directories with their times, which are set when everything is there: making files changes them.
    dirs: Vec<(Vec<u8>, (i64, u32))>,
    /// The paths that members of this layer made, where an opaque marker needs to know them.
    unpacked: Option<HashSet<Vec<u8>>>,
    /// The parent directory of the last member, where its path holds no link: the next one mostly has the same.
    recent: Option<(Vec<u8>, u32)>,
}

impl<'a> Applier<'a> {
    fn new(id: &str, role: Role, lowers: &'a [&'a dyn Layer], options: &Options) -> Applier<'a> {
        let mut tree = LayerTree::new(id, options.layer, &options.limits);
        tree.inode_mut(LayerTree::ROOT).mtime = options.created;
        Applier {
            tree,
            role,
            lowers,
            created: options.created,
            number: options.layer,
            work: Work { left: options.limits.work },
            dirs: Vec::new(),
            unpacked: None,
            recent: None,
        }
    }

    fn finish(mut self) -> LayerTree {
        self.tree.choose_names();
        self.tree
    }

    /// Applies the members of one archive.
    fn layer(&mut self, entries: &[Entry]) -> Result<()> {
        let opaque = |entry: &Entry| entry.name.windows(whiteout::OPAQUE.len()).any(|part| part == whiteout::OPAQUE);
        self.unpacked = (self.role == Role::Base && entries.iter().any(opaque)).then(HashSet::new);
        // A member may honestly cost a few steps for each part of its path.
        self.work.left += 64 * entries.len() as u64;
        for (number, entry) in entries.iter().enumerate() {
            self.entry(number as u32, entry)?;
        }
        for (name, mtime) in std::mem::take(&mut self.dirs) {
            self.set_dir_time(&name, mtime)?;
        }
        Ok(())
    }

    /// Points 1 to 6: finds the place of a member, makes room there, and makes it.
    fn entry(&mut self, number: u32, entry: &Entry) -> Result<()> {
        let name = clean(&entry.name);
        if name.len() >= path::MAX_PATH {
            return path::too_long(&name);
        }
        let (dir, base) = split(&name);
        if matches!(base, b"" | b"." | b"..") {
            // It resolves to the root, which keeps its attributes.
            return Ok(());
        }
        let parent = self.parent(dir)?;
        if self.role != Role::Alone && self.whiteout(parent, base)? {
            return Ok(());
        }
        if base.len() > MAX_NAME && entry.flag != b'g' {
            return crate::fail!(Corrupt, "open {}: file name too long", show(&name));
        }
        let existing = self.tree.find(parent, base);
        let kept = existing.filter(|&inode| entry.flag == b'5' && self.is_dir(inode));
        if existing.is_some() && kept.is_none() {
            self.remove(parent, base)?;
        }
        self.make(number, entry, parent, base, kept)?;
        if entry.flag == b'5' {
            self.dirs.push((name.clone(), entry.mtime));
        }
        if self.unpacked.is_some() {
            let path = self.place(parent, base);
            self.unpacked.get_or_insert_default().insert(path);
        }
        Ok(())
    }

    fn is_dir(&self, inode: u32) -> bool {
        self.tree.inode(inode).kind == super::tree::Type::Dir
    }

    /// The path of a name in a directory, from the root.
    fn place(&self, dir: u32, name: &[u8]) -> Vec<u8> {
        [&self.tree.path(dir), &b"/"[..], name].concat()
    }

    fn remove(&mut self, dir: u32, name: &[u8]) -> Result<()> {
        self.recent = None;
        let removed = self.tree.remove(dir, name);
        self.work.step(removed)
    }

    /// Point 9: the time of a directory is set by its path, whatever is there by now, and links are followed.
    fn set_dir_time(&mut self, name: &[u8], mtime: (i64, u32)) -> Result<()> {
        let inode = match self.plain(name)? {
            Plain::There(inode) => Some(inode),
            Plain::Missing => None,
            Plain::Unsure => {
                let path = path::root_path(&self.tree, name, &mut self.work)?;
                self.tree.walk(&path, &mut self.work)?
            }
        };
        let Some(inode) = inode else {
            let path = show(&join(b"/", name));
            return crate::fail!(Corrupt, "failed call to UtimesNanoAt for {path}: no such file or directory");
        };
        self.tree.inode_mut(inode).mtime = mtime;
        Ok(())
    }
}
