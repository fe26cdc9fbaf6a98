//! Constructors of rows: a table reads as data with them.

use super::verb::Verbs;
use super::{Content, Dir, Family, Make, Place, Relation, Row, Sink, Stream, Target, What};
use crate::error::Result;
use std::sync::Arc;

const fn make<T>(name: &'static str, doc: &'static str, what: What<T>) -> Row<T> {
    Row { name, doc, what, listed: true, private: false, told: false, when: None }
}

/// A small text of the record.
pub const fn text<T>(name: &'static str, doc: &'static str, f: Make<T, Vec<u8>>) -> Row<T> {
    make(name, doc, What::Text(f))
}
/// A text that can be waited for.
pub const fn state<T>(name: &'static str, doc: &'static str, f: Make<T, Vec<u8>>) -> Row<T> {
    make(name, doc, What::State(f))
}
/// A text that takes a call.
pub const fn live<T>(name: &'static str, doc: &'static str, f: Make<T, Vec<u8>>) -> Row<T> {
    make(name, doc, What::Live(f))
}
/// A text that takes a call and may not apply.
pub const fn live_if<T>(name: &'static str, doc: &'static str, f: Make<T, Vec<u8>>) -> Row<T> {
    make(name, doc, What::LiveIf(f))
}
/// Immutable bytes.
pub const fn bytes<T>(name: &'static str, doc: &'static str, f: Make<T, Arc<dyn Content>>) -> Row<T> {
    make(name, doc, What::Bytes(f))
}
/// A file that grows.
pub const fn log<T>(name: &'static str, doc: &'static str, f: Make<T, Arc<dyn Stream>>) -> Row<T> {
    make(name, doc, What::Log(f))
}
/// A file that waits; never listed.
pub const fn follow<T>(name: &'static str, doc: &'static str, f: Make<T, Arc<dyn Stream>>) -> Row<T> {
    let mut row = make(name, doc, What::Follow(f));
    row.listed = false;
    row
}
/// The control file of an object.
pub const fn ctl<T>(verbs: &'static Verbs<T>) -> Row<T> {
    private(make("ctl", "What can be done: one command a line, carried out as it is written.", What::Control(verbs)))
}
/// What came of the last command.
pub const fn outcome<T>() -> Row<T> {
    private(make("error", "`ok`, or why the last command written here failed.", What::Outcome))
}
/// A file that takes a stream.
pub const fn sink<T>(name: &'static str, doc: &'static str, f: Make<T, Box<dyn Sink>>) -> Row<T> {
    private(make(name, doc, What::Sink(f)))
}
/// A symbolic link.
pub const fn link<T>(name: &'static str, doc: &'static str, f: Make<T, Target>) -> Row<T> {
    make(name, doc, What::Link(f))
}
/// A directory over the same object.
pub const fn dir<T>(name: &'static str, table: &'static Dir<T>) -> Row<T> {
    make(name, table.doc, What::Dir(table))
}
/// A directory over one other object.
pub const fn via<T>(name: &'static str, doc: &'static str, other: &'static dyn Relation<T>) -> Row<T> {
    make(name, doc, What::Via(other))
}
/// The entries of one other object, in this directory.
pub const fn merge<T>(doc: &'static str, other: &'static dyn Relation<T>) -> Row<T> {
    make("", doc, What::Merge(other))
}
/// One entry for each member of a family.
pub const fn each<T>(name: &'static str, doc: &'static str, family: &'static dyn Family<T>) -> Row<T> {
    make(name, doc, What::Each(family))
}
/// A tree of another kind.
pub const fn graft<T>(name: &'static str, doc: &'static str, f: Make<T, Arc<dyn Place>>) -> Row<T> {
    make(name, doc, What::Graft(f))
}
/// The same row, for the owner of the mount only.
pub const fn private<T>(mut row: Row<T>) -> Row<T> {
    row.private = true;
    row
}
/// The same row of a live text, made of nothing but what the notices tell of that its object promises
/// ([`super::Object::contents`]): the kernel may keep it until then.
pub const fn told<T>(mut row: Row<T>) -> Row<T> {
    row.told = true;
    row
}
/// The same row, where `when` holds.
pub const fn when<T>(when: fn(&T) -> Result<bool>, mut row: Row<T>) -> Row<T> {
    row.when = Some(when);
    row
}
/// The same row, found by a lookup and not listed.
pub const fn unlisted<T>(mut row: Row<T>) -> Row<T> {
    row.listed = false;
    row
}

/// The names of rows that are names, and of those whose entries are shown among them.
pub(super) fn names<T>(rows: &'static [Row<T>]) -> Vec<&'static str> {
    let name = |row: &'static Row<T>| match row.what {
        What::Merge(other) => other.names(),
        _ => Some(row.name).filter(|name| !name.starts_with('<') && !name.is_empty()).into_iter().collect(),
    };
    rows.iter().flat_map(name).collect()
}
