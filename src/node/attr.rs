//! What stat says of a node.

use super::{FileType, Lifetime, Target, handle, stable_hash};
use std::time::SystemTime;

/// What stat says of a node.
#[derive(Debug, Clone)]
pub struct Attr {
    pub kind: FileType,
    /// Permission bits.
    pub perm: u16,
    /// Owner and group; `None` is whoever mounted.
    pub owner: Option<(u32, u32)>,
    pub size: u64,
    /// Blocks of 512 bytes that it costs the host.
    pub blocks: u64,
    pub nlink: u32,
    pub rdev: u32,
    /// When it changed; `None` is as long as the mount is there.
    pub mtime: Option<SystemTime>,
    /// How long the attributes may be kept.
    pub attr_life: Lifetime,
    /// How long the name may be kept.
    pub name_life: Lifetime,
    /// For the owner of the mount only.
    pub private: bool,
    /// Part of the inode number, where a successor of the same name must have another.
    pub incarnation: u64,
    /// A file that is written to: every writer gets an inode of its own, because the kernel lets only one write to an
    /// inode at a time, and a command may take long.
    pub takes: bool,
    /// An inode number that does not depend on the path: for files that stand at several places (DESIGN 3).
    pub identity: Option<u64>,
    /// Where a link leads, if that is known: it need not be found out again.
    pub target: Option<Target>,
    /// Its size, and whether the kernel may believe that, is what came of the last rendering ([`super::texts`]).
    pub live: bool,
}

impl Attr {
    /// The attributes that most files of the tree have.
    pub fn new(kind: FileType, perm: u16, size: u64, mtime: Option<SystemTime>) -> Attr {
        Attr {
            kind,
            perm,
            owner: None,
            size,
            blocks: 0,
            nlink: 1,
            rdev: 0,
            mtime,
            attr_life: Lifetime::Second,
            name_life: Lifetime::Second,
            private: false,
            incarnation: 0,
            takes: false,
            identity: None,
            target: None,
            live: false,
        }
    }

    /// The attributes of a file that is written to. Its size is that of other files whose size nobody knows: a reader of a
    /// file without any may not read at all.
    pub(super) fn taking(modified: Option<SystemTime>, perm: u16) -> Attr {
        Attr {
            attr_life: Lifetime::Never,
            name_life: Lifetime::Never,
            takes: true,
            live: true,
            ..Attr::new(FileType::Regular, perm, handle::UNKNOWN_SIZE as u64, modified)
        }
    }

    /// The same file where it only shows again what stands elsewhere: it costs nothing, and it is another inode, for the
    /// kernel keeps one number of blocks for each.
    pub fn again(self) -> Attr {
        let salted = |identity: u64| stable_hash(&[b"again", &identity.to_le_bytes()]);
        Attr { blocks: 0, identity: self.identity.map(salted), ..self }
    }

    /// The same, where what would be believed for a second is believed for `life` if that is longer.
    pub(super) fn told(mut self, life: Lifetime) -> Attr {
        for own in [&mut self.attr_life, &mut self.name_life] {
            if *own == Lifetime::Second && life == Lifetime::Told {
                *own = life;
            }
        }
        self
    }
}
