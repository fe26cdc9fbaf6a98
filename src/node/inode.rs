//! Inode numbers, and what the kernel knows.
//!
//! A number is a hash of the parent's number, the name and the incarnation of the object, so readdir, lookup and stat
//! agree without any table, and numbers survive a remount. The table holds what the kernel holds: an entry is made by
//! a lookup and ends with its forget. A collision is found on insert and moved to the next free number.

use super::texts::{Begun, Keep, Texts};
use super::way::{self, is_below, relative};
use super::{Attr, FileType, Lifetime, Name, Node, Seat, Target, stable_hash};
use crate::error::{Kind, Result};
use crate::fail;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod known;
mod notices;

use known::Known;
pub use notices::Notice;

/// The number of the root of the mount, as the kernel has it.
pub const ROOT: u64 = 1;

/// Numbers stay below 2^53, so that tools that put them through a JSON number keep them.
const NUMBERS: u64 = (1 << 53) - 2;

/// What the kernel knows of the tree.
pub struct Table {
    /// The root of the whole tree, also where only a part of it is mounted.
    tree: Node,
    /// The encoded path, from the root of the tree, of the directory that is mounted.
    base: String,
    /// Whether `mv` may be done to what can be renamed.
    renames: bool,
    inner: Mutex<Inner>,
    /// How live texts were rendered last.
    pub texts: Arc<Texts>,
}

struct Inner {
    known: HashMap<u64, Known>,
    /// Numbers of the places that a change notice of this tag concerns.
    tagged: HashMap<u64, Vec<u64>>,
    /// The same for the notices that concern many.
    grouped: HashMap<u64, HashSet<u64>>,
    /// Tree paths of the directories that are shown where a link would lead out of the mount ([`Table::borrow`]).
    borrowed: HashMap<u64, String>,
}

/// An entry as a lookup finds it: not yet counted as known.
pub struct Found {
    pub node: Node,
    pub ino: u64,
    pub attr: Attr,
    /// Where the node is shown in place of a link out of the mount: its path in the tree.
    borrowed: Option<String>,
}

impl Table {
    /// A table for the tree `tree`, of which the directory at `base` (encoded, without leading slash; empty: all of
    /// it) is mounted. Fails if there is no such directory.
    pub fn new(tree: Node, base: &str) -> Result<Table> {
        let mut table = Table {
            tree: tree.clone(),
            base: String::new(),
            renames: false,
            inner: Mutex::new(Inner {
                known: HashMap::new(),
                tagged: HashMap::new(),
                grouped: HashMap::new(),
                borrowed: HashMap::new(),
            }),
            texts: Arc::default(),
        };
        let (node, base) = way::walk(&table.tree, base)?;
        if node.attr()?.kind != FileType::Directory {
            return fail!(NotDirectory, "--root {base}: not a directory of the tree");
        }
        table.base = base;
        table.remember(ROOT, &Found { ino: ROOT, attr: node.attr()?, node, borrowed: None });
        Ok(table)
    }

    /// The same, where `mv` is allowed. After it the kernel takes the old directory for the new one, whose number is
    /// another, as long as it believes in the old name: it never does.
    pub fn with_renames(self, renames: bool) -> Table {
        Table { renames, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of a number that the kernel was told.
    pub fn node(&self, ino: u64) -> Result<Node> {
        match self.lock().known.get(&ino) {
            Some(known) => Ok(known.node()),
            None => fail!(Stale, "inode {ino}: forgotten"),
        }
    }

    /// The attributes of a known number.
    pub fn attr(&self, ino: u64) -> Result<Attr> {
        let (node, parent) = match self.lock().known.get(&ino) {
            Some(known) => (known.node(), known.parent),
            None => return fail!(Stale, "inode {ino}: forgotten"),
        };
        let mut attr = node.attr()?;
        self.complete(parent, ino, &node, &mut attr)?;
        Ok(attr)
    }

    /// The entry `name` of the directory `parent`, `None` if there is none.
    pub fn find(&self, parent: u64, name: &[u8]) -> Result<Option<Found>> {
        let directory = self.node(parent)?;
        let Some(node) = directory.place.lookup(name)? else { return Ok(None) };
        self.found(parent, name, node)
    }

    /// The same, where a file that is written to gets the first number of its own that is not `taken`.
    pub fn find_free(&self, parent: u64, name: &[u8], taken: impl Fn(u64) -> bool) -> Result<Option<Found>> {
        let Some(mut found) = self.find(parent, name)? else { return Ok(None) };
        while found.attr.takes && taken(found.ino) {
            found.attr.incarnation += 1;
            found.ino = self.number(parent, name, &found.attr);
        }
        Ok(Some(found))
    }

    fn found(&self, parent: u64, name: &[u8], node: Node) -> Result<Option<Found>> {
        let attr = match node.attr() {
            Err(e) if e.kind() == Kind::NotFound => return Ok(None),
            attr => attr?,
        };
        let (node, mut attr, borrowed) = match self.borrow(parent, &node, &attr)? {
            Some(Borrow::Absent) => return Ok(None),
            Some(Borrow::Shown(shown, path)) => {
                let attr = shown.attr()?;
                (shown, attr, Some(path))
            }
            None => (node, attr, None),
        };
        tell_by_target(&node, &mut attr)?;
        if self.renames && node.place.is_renamed(node.seat) {
            attr.name_life = Lifetime::Never;
        }
        let ino = self.number(parent, name, &attr);
        self.complete(parent, ino, &node, &mut attr)?;
        Ok(Some(Found { node, ino, attr, borrowed }))
    }

    /// A listed entry, `None` if it turns out to be absent. One whose attributes cannot be had is there all the same, and
    /// opening it tells why.
    pub fn listed(&self, parent: u64, name: &Name, node: &Node) -> Result<Option<Found>> {
        match self.found(parent, name, node.clone()) {
            Err(e) if e.kind() != Kind::WouldWait => Ok(Some(self.unreadable(parent, name, node.clone()))),
            found => found,
        }
    }

    fn unreadable(&self, parent: u64, name: &Name, node: Node) -> Found {
        let mut attr = Attr::new(FileType::Regular, 0o444, 0, None);
        attr.attr_life = Lifetime::Never;
        attr.name_life = Lifetime::Never;
        let ino = self.number(parent, name, &attr);
        Found { node, ino, attr, borrowed: None }
    }

    /// Counts one lookup of what was found: from now on the kernel knows it.
    pub fn remember(&self, parent: u64, Found { node, ino, borrowed, .. }: &Found) {
        let ino = *ino;
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some(known) = inner.known.get_mut(&ino) {
            known.lookups = known.lookups.saturating_add(1);
            return;
        }
        if node.seat == Seat::Itself
            && let Some(tag) = node.place.tag()
        {
            inner.tagged.entry(tag).or_default().push(ino);
        }
        if node.seat == Seat::Itself
            && let Some(group) = node.place.group()
        {
            inner.grouped.entry(group).or_default().insert(ino);
        }
        if let Some(path) = borrowed {
            inner.borrowed.insert(ino, path.to_owned());
        }
        inner.known.insert(ino, Known::new(node, parent));
    }

    /// Takes back `lookups` lookups of a number; true if the kernel knows it no more.
    pub fn forget(&self, ino: u64, lookups: u64) -> bool {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(known) = inner.known.get_mut(&ino) else { return true };
        known.lookups = known.lookups.saturating_sub(u32::try_from(lookups).unwrap_or(u32::MAX));
        if known.lookups > 0 || ino == ROOT {
            return false;
        }
        let gone = inner.known.remove(&ino);
        inner.borrowed.remove(&ino);
        if let Some(Known { place, seat: Seat::Itself, .. }) = &gone
            && let Some(numbers) = place.group().and_then(|group| inner.grouped.get_mut(&group))
        {
            numbers.remove(&ino);
        }
        if let Some(Known { place, seat: Seat::Itself, .. }) = &gone
            && let Some(tag) = place.tag()
            && let Some(numbers) = inner.tagged.get_mut(&tag)
        {
            numbers.retain(|number| *number != ino);
            if numbers.is_empty() {
                inner.tagged.remove(&tag);
            }
        }
        // What the node holds is dropped outside of the lock.
        drop(guard);
        drop(gone);
        self.texts.forget(ino);
        true
    }

    /// How many numbers the kernel knows.
    pub fn len(&self) -> usize {
        self.lock().known.len()
    }

    /// Whether the kernel knows nothing, which is never: the root stays.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether a file is opened for the first time since the kernel knows it. It is no longer, then.
    pub fn begins(&self, ino: u64) -> bool {
        self.lock().known.get_mut(&ino).is_some_and(|known| !std::mem::replace(&mut known.begun, true))
    }

    /// How a text is opened that was just rendered and whose changes are told. Where it is shown in place of a link,
    /// nobody finds it to tell.
    pub fn keeps(&self, ino: u64, begun: Begun, bytes: &[u8]) -> Keep {
        if self.lock().borrowed.contains_key(&ino) {
            self.texts.rendered(ino, bytes.len());
            return Keep::Nothing;
        }
        self.texts.opened(ino, begun, bytes)
    }

    /// The bytes of a link: for a path of the tree, the way there from the directory of the link.
    pub fn target(&self, ino: u64) -> Result<Vec<u8>> {
        let (node, parent) = match self.lock().known.get(&ino) {
            Some(known) => (known.node(), known.parent),
            None => return fail!(Stale, "inode {ino}: forgotten"),
        };
        let mut attr = node.attr()?;
        if attr.attr_life == Lifetime::Ever {
            return Ok(self.way(parent, node.place.target(node.seat)?));
        }
        tell_by_target(&node, &mut attr)?;
        if attr.kind != FileType::Symlink || self.number(parent, &node.name(), &attr) != ino {
            // The kernel keeps what it reads here for the life of the inode, and asks for the name again.
            return fail!(Stale, "inode {ino}: the link leads elsewhere now");
        }
        let Some(target) = attr.target else { return fail!(Invalid, "inode {ino}: not a link") };
        Ok(self.way(parent, target))
    }

    /// The bytes of a link in the directory `parent`.
    fn way(&self, parent: u64, target: Target) -> Vec<u8> {
        match target {
            Target::Verbatim(bytes) => bytes,
            Target::Tree(path) => relative(&self.path(parent), &path).into_bytes(),
        }
    }

    /// The encoded path of a known number, from the root of the tree.
    pub fn path(&self, ino: u64) -> String {
        self.region(ino).1
    }

    /// The tree path of the region that a number lies in, and its own: the region is what is mounted, or what was
    /// borrowed from outside of it.
    fn region(&self, ino: u64) -> (String, String) {
        let inner = self.lock();
        let mut names: Vec<Name> = Vec::new();
        let mut at = ino;
        let base = loop {
            if let Some(path) = inner.borrowed.get(&at) {
                break path.clone();
            }
            match inner.known.get(&at) {
                Some(known) if at != ROOT => {
                    names.push(known.name());
                    at = known.parent;
                }
                _ => break self.base.clone(),
            }
        };
        let mut path = base.clone();
        for name in names.iter().rev() {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&String::from_utf8_lossy(name));
        }
        (base, path)
    }

    /// What attributes need the table for: the length of a link's way, the length of a live text.
    fn complete(&self, parent: u64, ino: u64, node: &Node, attr: &mut Attr) -> Result<()> {
        if attr.kind == FileType::Symlink {
            let known = attr.target.take();
            if attr.size == 0 {
                let target = known.map_or_else(|| node.place.target(node.seat), Ok)?;
                attr.size = self.way(parent, target).len() as u64;
            }
        } else if attr.live {
            let stat = self.texts.stat(ino, attr.attr_life == Lifetime::Told);
            let (size, told) = stat.unwrap_or((attr.size, false));
            (attr.size, attr.attr_life) = (size, if told { Lifetime::Told } else { Lifetime::Never });
        }
        Ok(())
    }

    /// Where only a part of the tree is mounted, a link that leads out of it would dangle: what it leads to is shown
    /// in its place instead, once; inside of what was borrowed, a link that leads out again is absent, or the tree
    /// would have no end.
    fn borrow(&self, parent: u64, node: &Node, attr: &Attr) -> Result<Option<Borrow>> {
        if self.base.is_empty() || attr.kind != FileType::Symlink {
            return Ok(None);
        }
        let target = attr.target.clone().map_or_else(|| node.place.target(node.seat), Ok)?;
        let Target::Tree(path) = target else { return Ok(None) };
        let (region, _) = self.region(parent);
        if is_below(&path, &region) {
            return Ok(None);
        }
        if region != self.base {
            return Ok(Some(Borrow::Absent));
        }
        match way::walk(&self.tree, &path) {
            Ok((shown, path)) => Ok(Some(Borrow::Shown(shown, path))),
            Err(e) if e.kind() == Kind::NotFound => Ok(Some(Borrow::Absent)),
            Err(e) => Err(e),
        }
    }

    fn number(&self, parent: u64, name: &[u8], attr: &Attr) -> u64 {
        if let Some(identity) = attr.identity {
            return 2 + identity % NUMBERS;
        }
        let seed = stable_hash(&[&parent.to_le_bytes(), name, &attr.incarnation.to_le_bytes()]);
        let mut number = 2 + seed % NUMBERS;
        let inner = self.lock();
        while let Some(known) = inner.known.get(&number) {
            if known.parent == parent && *known.name() == *name {
                break;
            }
            // Another file has this number: the next one, as in open addressing. A borrowed node has its own name.
            if inner.borrowed.contains_key(&number) && known.parent == parent {
                break;
            }
            number = 2 + (number - 1) % NUMBERS;
        }
        number
    }
}

/// A link that may lead elsewhere one day is another inode then: the kernel keeps where an inode leads.
fn tell_by_target(node: &Node, attr: &mut Attr) -> Result<()> {
    if attr.kind != FileType::Symlink || attr.attr_life == Lifetime::Ever {
        return Ok(());
    }
    let target = attr.target.take().map_or_else(|| node.place.target(node.seat), Ok)?;
    let bytes = match &target {
        Target::Tree(path) => path.as_bytes(),
        Target::Verbatim(bytes) => {
            attr.size = bytes.len() as u64;
            bytes
        }
    };
    attr.incarnation = stable_hash(&[&attr.incarnation.to_le_bytes(), bytes]);
    attr.identity = attr.identity.map(|identity| stable_hash(&[&identity.to_le_bytes(), bytes]));
    attr.target = Some(target);
    Ok(())
}

enum Borrow {
    Shown(Node, String),
    Absent,
}
