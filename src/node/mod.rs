//! How a tree is served: the vocabulary that `tree/` is written in, and the engine behind it.
//!
//! A directory is a table ([`Dir`]) over a type: a row is a name, a sentence and what the file is ([`What`]). Listing,
//! lookup, stat, `docs/tree.md` and the lints all read that row, so a name exists in one place only. The open set
//! (files) is data; the closed set (kinds of file, where the semantics live) is the enum. This module has never heard
//! of containerd.
//!
//! - [`row`]: constructors of rows;
//! - [`bind`]: a table and an object become a [`Place`], which is all that the mount sees; [`family`]: what leads to others;
//! - [`file`]: what stands behind a file;
//! - [`inode`]: numbers for places, and what the kernel knows of them;
//! - [`verb`]: what can be done to an object; [`command`]: the words that say so;
//! - [`listings`]: which listings the kernel keeps; [`texts`]: which texts that take a call;
//! - [`handle`]: what is open, and what was pinned when it was opened;
//! - [`parked`]: requests that wait, and die with their caller;
//! - [`pool`]: the threads that may wait;
//! - [`journal`]: what failed lately, for people; [`counters`]: how often what was asked;
//! - [`doc`]: the reference of the tree, written from the tables.

mod attr;
pub mod bind;
pub mod command;
pub mod counters;
pub mod doc;
mod family;
mod file;
pub mod handle;
pub mod inode;
pub mod journal;
pub mod listings;
pub mod parked;
pub mod pool;
pub mod row;
pub mod state;
pub mod texts;
pub mod verb;
pub mod way;

use crate::error::Result;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

pub use attr::Attr;
pub use bind::{Each, Member, One};
pub use file::{Content, Followed, Follower, Sink, Stream, Writer};

/// A directory: what it is for, and its rows.
pub struct Dir<T: 'static> {
    /// One sentence on what the directory shows, for the reference.
    pub doc: &'static str,
    /// Its files, directories, links and families, in the order in which they are documented and listed.
    pub rows: &'static [Row<T>],
}

/// One file of a directory, or one family of them.
pub struct Row<T: 'static> {
    /// The name; for a family the name of its members in angle brackets, as in `<namespace>`.
    pub name: &'static str,
    /// One sentence on what it holds.
    pub doc: &'static str,
    /// What kind of file it is, with the function that makes it.
    pub what: What<T>,
    /// What is not listed is found by a lookup only: a file that waits would stop a crawler (DESIGN 3).
    pub listed: bool,
    /// Shows what only the owner of the mount should see, even where `allow_other` lets others in (DESIGN 3).
    pub private: bool,
    /// A live text that changes with nothing but what [`Object::contents`] promises to tell of.
    pub told: bool,
    /// Whether the row applies to the object, where the function of its kind does not tell.
    pub when: Option<fn(&T) -> Result<bool>>,
}

/// Makes what a file of an object shows; `None` where the file does not apply.
pub type Make<T, C> = fn(&T) -> Result<Option<C>>;

/// The kinds of file. All semantics that FUSE sees live behind these; a function that gives `None` says that the file
/// does not apply to this object now, and then it is absent (DESIGN tenet 2).
pub enum What<T: 'static> {
    /// A small text out of the object's record: rendered when it is stat'ed, pinned when it is opened.
    Text(Make<T, Vec<u8>>),
    /// A text that takes a call to make: fetched when it is opened, of unknown size until then ([`texts`]).
    Live(Make<T, Vec<u8>>),
    /// The same, where only the rendering tells whether it applies: it is fetched for a stat, too.
    LiveIf(Make<T, Vec<u8>>),
    /// A text, mostly a word, that can be waited for: [`state`].
    State(Make<T, Vec<u8>>),
    /// Immutable bytes of true size: pages are kept by the kernel for ever.
    Bytes(Make<T, Arc<dyn Content>>),
    /// A file that grows and ends where it ends: `cat`, `grep` and `tail -f` work.
    Log(Make<T, Arc<dyn Stream>>),
    /// The same as a file in which a read at the end waits. Never listed.
    Follow(Make<T, Arc<dyn Stream>>),
    /// A control file: one command a line, carried out in `write()`; what is read are the verbs.
    Control(&'static verb::Verbs<T>),
    /// `ok`, or why the last command that was written in this directory failed.
    Outcome,
    /// A file that takes a stream. Opened for reading it is at its end.
    Sink(Make<T, Box<dyn Sink>>),
    /// A symbolic link.
    Link(Make<T, Target>),
    /// A directory over the same object.
    Dir(&'static Dir<T>),
    /// A directory over one other object, absent where there is none.
    Via(&'static dyn Relation<T>),
    /// The entries of one other object's directory, shown in the directory that holds the row.
    Merge(&'static dyn Relation<T>),
    /// One entry for each object of a family, in the directory that holds the row.
    Each(&'static dyn Family<T>),
    /// A tree of another kind.
    Graft(Make<T, Arc<dyn Place>>),
}

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path from the root of the tree, in encoded components; shown as the relative path from the link.
    Tree(String),
    /// Bytes to show as they are.
    Verbatim(Vec<u8>),
}

/// An object that a directory is a table over: a cheap handle of identity, not of data. Data is asked of the mirror
/// when it is shown, so that a handle never shows what was true once.
pub trait Object: Clone + Send + Sync + 'static {
    /// The name of its directory: one encoded component.
    fn component(&self) -> Cow<'_, str>;
    /// Tells this object from a predecessor of the same name: part of its inode number.
    fn incarnation(&self) -> u64 {
        0
    }
    /// When it was updated, else created.
    fn modified(&self) -> Result<Option<SystemTime>> {
        Ok(None)
    }
    /// Key and value of its labels, shown as xattrs `user.label.<key>` of its directory.
    fn labels(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }
    /// What the change notices call it: the kernel's caches of its directory are dropped when one names it.
    fn tag(&self) -> Option<u64> {
        None
    }
    /// What a notice of a change that may concern many calls all of them.
    fn group(&self) -> Option<u64> {
        None
    }
    /// What a notice of a change that concerns only which members the directory has calls it.
    fn members(&self) -> Option<u64> {
        None
    }
    /// How long the kernel may believe what it was told of it.
    fn lifetime(&self) -> Lifetime {
        Lifetime::Second
    }
    /// How long it may believe what its directory lists, and the texts and links in it.
    fn contents(&self) -> Lifetime {
        Lifetime::Second
    }
    /// Sets a label, or takes it away.
    fn set_label(&self, _key: &str, _value: Option<&str>) -> Result<()> {
        crate::fail!(Policy, "{}: has no labels that can be set", self.component())
    }
    /// Deletes it, as `rmdir` or `rm` under `-o allow_delete` asks.
    fn delete(&self) -> Result<()> {
        crate::fail!(
            Policy,
            "{}: is not deleted by name; where it has a `ctl`, that says what can be done",
            self.component()
        )
    }
    /// Whether it is one that can be renamed.
    fn is_renamed(&self) -> bool {
        false
    }
    /// Gives it the name that is encoded as `component`, within its directory, as `mv` under `-o allow_delete` asks.
    fn rename(&self, _component: &str) -> Result<()> {
        crate::fail!(Policy, "{}: is not renamed by name", self.component())
    }
}

/// How long the kernel keeps what it would be told of: longer than a walk over ten thousand images, for the next walk.
pub const TOLD: std::time::Duration = std::time::Duration::from_secs(30);

/// How long the kernel may keep a name or an attribute (DESIGN 5.1), the shortest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifetime {
    /// Asked each time.
    Never,
    /// A second, or until a change notice drops it.
    Second,
    /// Until a change notice drops it, which comes whatever happens: some seconds at most.
    Told,
    /// Content-addressed, or inside something that is.
    Ever,
}

/// What an object of type `P` leads to where that is one object or none. [`One`] is the implementation.
pub trait Relation<P: 'static>: Sync {
    /// The node of that object, under the name of the row.
    fn get(&self, parent: &P, label: &'static &'static str) -> Result<Option<Node>>;
    /// The fixed names of that object's directory.
    fn names(&self) -> Vec<&'static str>;
    /// Writes the reference of what it is.
    fn describe(&self, doc: &mut doc::Writer);
}

/// Why a change by name is refused.
pub const NOT_BY_NAME: &str = "nothing is made, changed or removed by name here; `ctl` says what can be done";

/// What an object of type `P` leads to where that is many. [`Each`] is the implementation.
pub trait Family<P: 'static>: Sync {
    /// The members' nodes, with their names.
    fn list(&self, parent: &P) -> Result<Vec<(Name, Node)>>;
    /// The member of this name.
    fn find(&self, parent: &P, name: &str) -> Result<Option<Node>>;
    /// Makes a member of this name, as `mkdir` asks.
    fn make(&self, _parent: &P, name: &str) -> Result<()> {
        crate::fail!(Policy, "{name}: {NOT_BY_NAME}")
    }
    /// Writes the reference of what a member is.
    fn describe(&self, doc: &mut doc::Writer);
}

/// A name in a directory: static for a row, owned for a member.
pub type Name = Cow<'static, [u8]>;

/// An object where the tree shows it: what the mount calls. Implemented once for tables (`bind.rs`) and once for each
/// tree of another kind.
pub trait Place: Send + Sync {
    /// The attributes of the place itself or of its file `seat`.
    fn attr(&self, seat: Seat) -> Result<Attr>;
    /// The name that the directory above gives it.
    fn name(&self, seat: Seat) -> Name;
    /// The entry of this name.
    fn lookup(self: Arc<Self>, name: &[u8]) -> Result<Option<Node>>;
    /// All listed entries.
    fn list(self: Arc<Self>) -> Result<Vec<(Name, Node)>>;
    /// The target of a link.
    fn target(&self, seat: Seat) -> Result<Target>;
    /// Opens a file for reading.
    fn open(&self, seat: Seat) -> Result<handle::Opened>;
    /// Names and values of the extended attributes to list.
    fn xattrs(&self, seat: Seat) -> Result<Vec<(String, Vec<u8>)>>;
    /// The value of one extended attribute: also of one that is not listed (DESIGN 3).
    fn xattr(&self, seat: Seat, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let listed = self.xattrs(seat)?.into_iter().find(|(key, _)| key.as_bytes() == name);
        Ok(listed.map(|(_, value)| value))
    }
    /// Opens a file for writing.
    fn writer(&self, _seat: Seat) -> Result<Writer> {
        crate::fail!(Policy, "files of this tree are read and not written")
    }
    /// Makes an entry of this name, as `mkdir` asks.
    fn make(self: Arc<Self>, name: &[u8]) -> Result<()> {
        crate::fail!(Policy, "{}: {NOT_BY_NAME}", String::from_utf8_lossy(name))
    }
    /// Deletes the object that this is, as `rmdir` or `rm` asks.
    fn delete(&self, seat: Seat) -> Result<()> {
        crate::fail!(Policy, "{}: {NOT_BY_NAME}", String::from_utf8_lossy(&self.name(seat)))
    }
    /// Whether this is an object that can be given another name.
    fn is_renamed(&self, _seat: Seat) -> bool {
        false
    }
    /// Gives the object that this is another name in its directory.
    fn rename(&self, seat: Seat, _name: &[u8]) -> Result<()> {
        crate::fail!(Policy, "{}: {NOT_BY_NAME}", String::from_utf8_lossy(&self.name(seat)))
    }
    /// Sets an extended attribute, or takes it away.
    fn set_xattr(&self, seat: Seat, _name: &[u8], _value: Option<&[u8]>) -> Result<()> {
        crate::fail!(Policy, "{}: its extended attributes cannot be set", String::from_utf8_lossy(&self.name(seat)))
    }
    /// What change notices call it.
    fn tag(&self) -> Option<u64> {
        None
    }
    /// What change notices call many such.
    fn group(&self) -> Option<u64> {
        None
    }
    /// What change notices call it that concern its listing only.
    fn members(&self) -> Option<u64> {
        None
    }
    /// How long the kernel may believe its listing, where that is longer than its attributes say.
    fn contents(&self) -> Lifetime {
        Lifetime::Second
    }
    /// Names of the fixed entries that a change notice for [`Place::tag`] may concern.
    fn fixed(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// Whether this is an object's own directory, which goes with the object, and not a part of another's.
    fn is_object(&self) -> bool {
        false
    }
}

/// Which part of a place a node is: the place itself, or the file of one of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// The place itself, mostly a directory.
    Itself,
    /// The file of row `n`. A table has a few dozen.
    Row(u8),
}

/// One node of the tree: a place, or a file of it, which takes no place of its own.
#[derive(Clone)]
pub struct Node {
    pub place: Arc<dyn Place>,
    pub seat: Seat,
}

impl Node {
    /// The node of a place itself.
    pub fn of(place: Arc<dyn Place>) -> Node {
        Node { place, seat: Seat::Itself }
    }

    /// Its attributes.
    pub fn attr(&self) -> Result<Attr> {
        self.place.attr(self.seat)
    }

    /// Its name in the directory above.
    pub fn name(&self) -> Name {
        self.place.name(self.seat)
    }
}

/// The type of a node, as far as the mount is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    Directory,
    Regular,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A hash that is the same in every run: inode numbers and tags are made of it (FNV-1a, then the finalizer of
/// splitmix64, because FNV alone leaves the high bits of short inputs nearly constant).
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(std::iter::once(&0xff)) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
