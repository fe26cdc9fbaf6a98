//! What a container changed since its image, as `docker diff` tells it (moby pkg/archive/changes.go), from its upper
//! directory alone: only what is in the upper directory is looked up in the layers below.

use super::merge::{Attr, Found, Handle, Layer, Options, Rootfs};
use super::tree::Type;
use crate::error::Result;
use std::collections::HashSet;
use std::sync::Arc;

/// A path beyond this is not followed: each level holds its own copy.
const MAX_PATH: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Changed,
    Deleted,
}

/// One path that is not as the image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    /// From the root, with a slash before each part.
    pub path: Vec<u8>,
}

impl Change {
    /// `A /path`, `C /path` or `D /path`, with a newline. A newline or a backslash inside a name is written in octal,
    /// as /proc/mounts does it, so that a name cannot pretend to be a line.
    pub fn line(&self) -> Vec<u8> {
        let letter = match self.kind {
            ChangeKind::Added => b'A',
            ChangeKind::Changed => b'C',
            ChangeKind::Deleted => b'D',
        };
        let mut line = vec![letter, b' '];
        for &byte in &self.path {
            match byte {
                b'\n' => line.extend(b"\\012"),
                b'\\' => line.extend(b"\\134"),
                _ => line.push(byte),
            }
        }
        line.push(b'\n');
        line
    }
}

/// What `upper` changes of `lowers`, top first; parents before what is in them, names in order.
pub fn changes(upper: &Arc<dyn Layer>, lowers: Vec<Arc<dyn Layer>>) -> Result<Vec<Change>> {
    let lower = match lowers.is_empty() {
        true => None,
        false => Some(Rootfs::new(lowers, Options { overlay: true, ..Options::default() })?),
    };
    let mut differ = Differ { upper: &**upper, lower: lower.as_ref(), changes: Vec::new(), levels: Vec::new() };
    let root = Found { at: upper.root(), attr: upper.attr(&upper.root())?, opaque: false };
    differ.enter(root, Vec::new(), differ.lower.map(Rootfs::root), false)?;
    differ.run()?;
    Ok(differ.changes)
}

/// An entry that is still to be told: what the upper directory has, or nothing, if it only hides something.
type Entry = (Vec<u8>, Option<Found>);

struct Level {
    /// Last name first.
    entries: Vec<Entry>,
    path: Vec<u8>,
    /// The directory below, if there is one.
    lower: Option<Handle>,
    opaque: bool,
    /// Where the directory itself was told, if that is only because something in it may have changed.
    doubtful: Option<usize>,
}

struct Differ<'a> {
    upper: &'a dyn Layer,
    lower: Option<&'a Rootfs>,
    changes: Vec<Change>,
    levels: Vec<Level>,
}

impl Differ<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            match level.entries.pop() {
                Some(entry) => self.tell(entry)?,
                None => {
                    let doubtful = level.doubtful;
                    self.levels.pop();
                    // Nothing in the directory changed: then it was only copied up.
                    if doubtful.is_some_and(|at| at + 1 == self.changes.len()) {
                        self.changes.pop();
                    }
                }
            }
        }
        Ok(())
    }

    /// Begins a directory of the upper layer.
    fn enter(&mut self, dir: Found, path: Vec<u8>, lower: Option<Handle>, opaque: bool) -> Result<()> {
        let mut entries: Vec<Entry> = Vec::new();
        if path.len() < MAX_PATH {
            entries.extend(self.upper.list(&dir.at)?.into_iter().map(|(name, found)| (name, Some(found))));
            if let (true, Some(rootfs), Some(lower)) = (opaque, self.lower, &lower) {
                let have: HashSet<Vec<u8>> = entries.iter().map(|(name, _)| name.clone()).collect();
                let gone = rootfs.readdir(lower)?.into_iter().filter(|(name, ..)| !have.contains(name));
                entries.extend(gone.map(|(name, ..)| (name, None)));
            }
        }
        entries.sort_by(|a, b| b.0.cmp(&a.0));
        self.levels.push(Level { entries, path, lower, opaque, doubtful: None });
        Ok(())
    }

    fn tell(&mut self, (name, found): Entry) -> Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let path = [&level.path[..], b"/", &name].concat();
        let opaque = level.opaque;
        let below = match (self.lower, &level.lower) {
            (Some(rootfs), Some(dir)) => rootfs.lookup(dir, &name)?,
            _ => None,
        };
        let Some(found) = found.filter(|found| !found.is_whiteout()) else {
            if below.is_some() {
                self.push(ChangeKind::Deleted, path);
            }
            return Ok(());
        };
        let is_dir = found.attr.kind == Type::Dir;
        let Some((lower, attr)) = below else {
            self.push(ChangeKind::Added, path.clone());
            return if is_dir { self.enter(found, path, None, false) } else { Ok(()) };
        };
        if is_dir && attr.kind == Type::Dir {
            let same = !self.differs(&found, &attr, &lower)?;
            let at = self.changes.len();
            self.push(ChangeKind::Changed, path.clone());
            let opaque = opaque || found.opaque;
            self.enter(found, path, Some(lower), opaque)?;
            if let Some(level) = self.levels.last_mut() {
                level.doubtful = same.then_some(at);
            }
            return Ok(());
        }
        if self.differs(&found, &attr, &lower)? {
            self.push(ChangeKind::Changed, path.clone());
        }
        if is_dir { self.enter(found, path, None, false) } else { Ok(()) }
    }

    /// docker's `statDifferent`, with the capabilities that it compares as well. Times and sizes of directories do not
    /// count.
    fn differs(&self, found: &Found, attr: &Attr, lower: &Handle) -> Result<bool> {
        let (new, old) = (&found.attr, attr);
        let owner = |attr: &Attr| (attr.kind, attr.perm, attr.uid, attr.gid, attr.rdev);
        if owner(new) != owner(old) || new.kind != Type::Dir && (new.mtime, new.size) != (old.mtime, old.size) {
            return Ok(true);
        }
        let capability = b"security.capability";
        let before = self.lower.map_or(Ok(None), |rootfs| rootfs.xattr_get(lower, capability))?;
        Ok(self.upper.xattr_get(&found.at, capability)? != before)
    }

    fn push(&mut self, kind: ChangeKind, path: Vec<u8>) {
        self.changes.push(Change { kind, path });
    }
}
