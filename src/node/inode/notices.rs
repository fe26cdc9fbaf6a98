//! What the kernel has to be told when something changed.

use super::{ROOT, Table};
use crate::node::{Attr, FileType, Node, Seat};

/// What the kernel has to drop after a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// Attributes, pages or listing of an inode.
    Inode(u64),
    /// A name in a directory.
    Entry(u64, Vec<u8>),
}

impl Table {
    /// What the kernel has to drop when the object called `tag` changed.
    pub fn notices(&self, tag: u64) -> Vec<Notice> {
        let places: Vec<(u64, u64, Node)> = {
            let inner = self.lock();
            let numbers =
                inner.tagged.get(&tag).into_iter().flatten().chain(inner.grouped.get(&tag).into_iter().flatten());
            numbers.filter_map(|n| inner.known.get(n).map(|k| (*n, k.parent, k.node()))).collect()
        };
        let mut notices = Vec::new();
        for (ino, parent, node) in places {
            notices.push(Notice::Inode(ino));
            for name in node.place.fixed() {
                let plain = Attr::new(FileType::Regular, 0, 0, None);
                let child = self.number(ino, name.as_bytes(), &plain);
                if self.lock().known.contains_key(&child) {
                    notices.push(Notice::Inode(child));
                }
                notices.push(Notice::Entry(ino, name.as_bytes().to_vec()));
            }
            if node.place.is_object() && ino != ROOT {
                notices.push(Notice::Entry(parent, node.name().into_owned()));
            }
        }
        notices
    }

    /// Everything that the kernel may have to drop after a loss of events: all directories, all names in them, and the
    /// texts that it was promised to be told of.
    pub fn everything(&self) -> Vec<Notice> {
        let texts = self.texts.believed().into_iter().map(Notice::Inode);
        let inner = self.lock();
        let objects = inner.known.iter().filter(|(_, k)| k.seat == Seat::Itself);
        objects
            .flat_map(|(ino, k)| [Notice::Inode(*ino), Notice::Entry(k.parent, k.name().into_owned())])
            .chain(texts)
            .collect()
    }
}
