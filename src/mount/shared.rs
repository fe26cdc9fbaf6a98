//! What requests ask of the nodes: attributes as FUSE wants them, opens.

use super::{Shared, reply, ttl};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::handle::{Handle, Opened};
use crate::node::journal::Caller;
use crate::node::texts;
use crate::node::{Attr, FileType, Lifetime};
use fuser::{FileHandle, FopenFlags, INodeNo, OpenAccMode, OpenFlags};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// The directory of a path.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Shared {
    /// The attributes as the kernel is told them, and for how long it may believe them: those of a directory no longer
    /// than what it keeps of its listing, whose age its mtime tells.
    pub(super) fn told(&self, ino: u64, attr: &Attr) -> (Duration, fuser::FileAttr) {
        let (mut life, mut told) = (ttl(attr.attr_life), self.attributes(ino, attr));
        if attr.kind == FileType::Directory && attr.attr_life != Lifetime::Ever {
            let (age, left) = self.listings.stamp(ino);
            told.mtime += age;
            life = life.min(left);
        }
        (life, told)
    }

    /// The attributes as FUSE wants them.
    pub(super) fn attributes(&self, ino: u64, attr: &Attr) -> fuser::FileAttr {
        let (uid, gid) = attr.owner.unwrap_or((self.policy.uid, self.policy.gid));
        let hidden = attr.private && self.policy.guarded;
        let perm = match attr.kind {
            FileType::Directory if hidden => 0o700,
            _ if hidden => attr.perm & 0o700,
            _ => attr.perm,
        };
        // The kernel takes no negative times; what is older than 1970 is shown as 1970, as containerd does.
        let time = attr.mtime.unwrap_or(self.policy.mounted).max(UNIX_EPOCH);
        fuser::FileAttr {
            ino: INodeNo(ino),
            size: attr.size,
            blocks: attr.blocks,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: reply::kind(attr.kind),
            perm,
            nlink: attr.nlink,
            uid,
            gid,
            rdev: attr.rdev,
            blksize: 4096,
            flags: 0,
        }
    }

    pub(super) fn open(&self, caller: &Caller, ino: u64, flags: OpenFlags) -> Result<(Handle, FopenFlags)> {
        let node = self.table.node(ino)?;
        let owner = caller.uid == 0 || caller.uid == self.policy.uid;
        let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
        // The kernel would let a reader with these flags write into the file that backs it.
        if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & (libc::O_TRUNC | libc::O_APPEND) != 0 {
            if self.policy.read_only {
                return Err(self.unchangeable(""));
            }
            if !owner {
                return fail!(Access, "only the owner of the mount and root change anything");
            }
            let reads = flags.acc_mode() != OpenAccMode::O_WRONLY;
            return Ok((self.open_writer(ino, &node, reads)?, direct));
        }
        if self.policy.guarded && !owner && node.attr()?.private {
            return fail!(Access, "only the owner of the mount reads this; -o allow_containers widens it");
        }
        let begun = self.table.texts.begin();
        let opened = match node.place.open(node.seat)? {
            Opened::Outcome => Opened::live(self.journal.last(parent(&self.table.path(ino)))),
            opened => opened,
        };
        if let Opened::Content(content) | Opened::Changing(content) = &opened {
            content.prepare()?;
        }
        let fresh = FopenFlags::FOPEN_NOFLUSH;
        let cached = FopenFlags::FOPEN_KEEP_CACHE | fresh;
        let opened = match opened {
            Opened::Told(bytes, _) => match self.table.keeps(ino, begun, &bytes) {
                texts::Keep::Nothing => Opened::text(bytes),
                texts::Keep::Fill(reader) => return Ok((Handle::File(Opened::Told(bytes, Some(reader))), fresh)),
                texts::Keep::Known(reader) => return Ok((Handle::File(Opened::Told(bytes, Some(reader))), cached)),
            },
            opened => opened,
        };
        let flags = match &opened {
            Opened::Content(content) => {
                if self.push.takes(content.size()) && self.table.begins(ino) {
                    self.push.give(ino, &**content);
                }
                cached
            }
            Opened::Text { bytes, live } => {
                if *live {
                    self.table.texts.rendered(ino, bytes.len());
                }
                direct
            }
            Opened::Told(..)
            | Opened::State(_)
            | Opened::Changing(_)
            | Opened::Log(_)
            | Opened::Follow(_)
            | Opened::Outcome => direct,
        };
        Ok((Handle::File(opened), flags))
    }

    pub(super) fn unchangeable(&self, why: &str) -> Error {
        match self.policy.read_only {
            true => Error::new(Kind::ReadOnly, "the mount is read-only (-o ro)"),
            false => Error::new(Kind::Policy, why),
        }
    }

    pub(super) fn handle(&self, number: FileHandle) -> Result<Arc<Handle>> {
        self.handles.get(number.0).ok_or_else(|| Error::new(Kind::Stale, "no such open file"))
    }
}
