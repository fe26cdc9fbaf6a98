//! A table bound to an object: the [`Place`] that all directories of `tree/` are.

pub use super::family::{Each, Made, Member, One};
use super::handle::Opened;
use super::row::names;
use super::verb::Control;
pub use super::way::present;
use super::*;
use crate::error::{Error, Kind};
use crate::fail;
pub(super) use shape::Shape;

mod shape;

/// An object and the table that shows it.
struct Bound<T: 'static> {
    object: T,
    shape: Shape<T>,
}

/// The node of an object under its own name: of the root of a tree, or to ask what the directory of a member has.
pub fn member<T: Object>(object: T, table: &'static Dir<T>) -> Node {
    node(object, Shape::Object(table))
}

pub(super) fn node<T: Object>(object: T, shape: Shape<T>) -> Node {
    Node::of(Arc::new(Bound { object, shape }))
}

impl<T: Object> Bound<T> {
    fn absent<R>(&self, row: &Row<T>) -> Result<R> {
        fail!(NotFound, "{}/{}: does not apply here", self.object.component(), row.name)
    }

    fn rows(&self) -> &'static [Row<T>] {
        self.shape.rows()
    }

    fn row(&self, seat: Seat) -> Result<Option<&'static Row<T>>> {
        self.shape.row(seat)
    }

    /// Whether the labels of the object are xattrs of this: of its own directory or file, and of no part of it. A link
    /// has none: the kernel keeps `user.*` for files and directories (xattr(7)).
    fn has_labels(&self, seat: Seat) -> Result<bool> {
        let own = seat == Seat::Itself && !matches!(self.shape, Shape::Part(..));
        Ok(own && !matches!(self.row(seat)?, Some(Row { what: What::Link(_), .. })))
    }

    /// The node of row `n`, if the row applies; a leaf that turns out to be absent says so when it is stat'ed.
    fn entry(self: &Arc<Self>, n: usize) -> Result<Option<Node>> {
        let row = &self.rows()[n];
        if let Some(when) = row.when
            && !when(&self.object)?
        {
            return Ok(None);
        }
        Ok(match row.what {
            What::Dir(table) => Some(node(self.object.clone(), Shape::Part(row, table))),
            What::Via(other) => other.get(&self.object, &row.name)?,
            What::Graft(f) => f(&self.object)?.map(Node::of),
            What::Each(_) | What::Merge(_) => None,
            _ => match u8::try_from(n) {
                Ok(n) => Some(Node { place: Arc::<Self>::clone(self), seat: Seat::Row(n) }),
                Err(_) => return fail!(TooLong, "{}: more rows than a table may have", row.name),
            },
        })
    }

    /// How long the kernel may believe what a row shows. Asked before anything is made: it has to be true of what is
    /// made after it.
    fn contents_of_rows(&self) -> Lifetime {
        // What a member's own file is called and shows is its family's matter.
        if matches!(self.shape, Shape::File(_)) { Lifetime::Second } else { self.object.contents() }
    }

    fn leaf(&self, row: &Row<T>) -> Result<Attr> {
        let told = self.contents_of_rows();
        let modified = self.object.modified()?;
        let text = |size: usize| Attr::new(FileType::Regular, 0o444, size as u64, modified);
        let live = |size| Attr { attr_life: Lifetime::Never, live: true, ..text(size) };
        let mut attr = match row.what {
            What::Text(f) | What::State(f) => match f(&self.object)? {
                Some(bytes) => text(bytes.len()),
                None => return self.absent(row),
            },
            What::LiveIf(f) => match f(&self.object)? {
                Some(bytes) => Attr { name_life: Lifetime::Never, ..live(bytes.len()) },
                None => return self.absent(row),
            },
            What::Live(_) if row.told && told == Lifetime::Told => {
                Attr { attr_life: told, ..live(handle::UNKNOWN_SIZE) }
            }
            What::Live(_) | What::Outcome => live(handle::UNKNOWN_SIZE),
            What::Bytes(f) => match f(&self.object)? {
                Some(content) => {
                    let modified = content.modified().or(modified);
                    let attr = Attr::new(FileType::Regular, 0o444, content.size(), modified);
                    let blocks = content.size().div_ceil(512);
                    let attr = Attr { blocks, identity: content.identity(), attr_life: Lifetime::Ever, ..attr };
                    if content.is_again() { attr.again() } else { attr }
                }
                None => return self.absent(row),
            },
            What::Log(f) | What::Follow(f) => match f(&self.object)? {
                Some(stream) => Attr {
                    attr_life: Lifetime::Never,
                    name_life: Lifetime::Never,
                    incarnation: stream.generation(),
                    ..Attr::new(FileType::Regular, 0o444, stream.size(), stream.modified())
                },
                None => return self.absent(row),
            },
            What::Control(_) => Attr::taking(modified, 0o644),
            What::Sink(_) => Attr { size: 0, ..Attr::taking(modified, 0o200) },
            What::Link(f) => match f(&self.object)? {
                Some(target) => {
                    let size = if let Target::Verbatim(bytes) = &target { bytes.len() } else { 0 };
                    Attr { target: Some(target), ..Attr::new(FileType::Symlink, 0o777, size as u64, modified) }
                }
                None => return self.absent(row),
            },
            What::Dir(_) | What::Via(_) | What::Merge(_) | What::Each(_) | What::Graft(_) => return self.absent(row),
        };
        attr.private = row.private;
        Ok(attr.told(told))
    }
}

impl<T: Object> Place for Bound<T> {
    fn attr(&self, seat: Seat) -> Result<Attr> {
        if let Some(row) = self.row(seat)? {
            let attr = self.leaf(row)?;
            // A member that is a file is told from its predecessor as a member that is a directory is.
            let incarnation = if seat == Seat::Itself { self.object.incarnation() } else { attr.incarnation };
            return Ok(Attr { incarnation, ..attr });
        }
        let life = self.object.lifetime();
        Ok(Attr {
            attr_life: life,
            name_life: life,
            incarnation: self.object.incarnation(),
            private: self.shape.is_private(),
            ..Attr::new(FileType::Directory, 0o555, 0, self.object.modified()?)
        })
    }

    fn name(&self, seat: Seat) -> Name {
        match self.shape.name(seat) {
            Some(name) => name.as_bytes().into(),
            None => Name::Owned(self.object.component().into_owned().into_bytes()),
        }
    }

    fn lookup(self: Arc<Self>, name: &[u8]) -> Result<Option<Node>> {
        // Fixed names first: they win over members of the same name (DESIGN 2.5).
        if let Some(n) = self.rows().iter().position(|row| !row.name.is_empty() && row.name.as_bytes() == name)
            && let Some(node) = self.entry(n)?
        {
            return Ok(Some(node));
        }
        // Members have encoded names, which are UTF-8: another name is no member.
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        for row in self.rows() {
            let found = match row.what {
                What::Merge(other) => match other.get(&self.object, &row.name)? {
                    Some(node) => present(node.place.lookup(name.as_bytes())?)?,
                    None => None,
                },
                What::Each(family) => family.find(&self.object, name)?,
                _ => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn list(self: Arc<Self>) -> Result<Vec<(Name, Node)>> {
        let mut entries: Vec<(Name, Node)> = Vec::with_capacity(self.rows().len());
        let mut members = Vec::new();
        for (n, row) in self.rows().iter().enumerate() {
            match row.what {
                What::Each(family) => members.append(&mut family.list(&self.object)?),
                What::Merge(other) => {
                    if let Some(node) = other.get(&self.object, &row.name)? {
                        entries.append(&mut node.place.list()?);
                    }
                }
                _ if row.listed => {
                    entries.extend(self.entry(n)?.map(|node| (Name::Borrowed(row.name.as_bytes()), node)));
                }
                _ => {}
            }
        }
        if !entries.is_empty() && !members.is_empty() {
            let taken: std::collections::HashSet<Name> = entries.iter().map(|(name, _)| name.clone()).collect();
            members.retain(|(name, _)| !taken.contains(name));
        }
        entries.append(&mut members);
        Ok(entries)
    }

    fn target(&self, seat: Seat) -> Result<Target> {
        match self.row(seat)? {
            Some(row @ Row { what: What::Link(f), .. }) => f(&self.object)?.map_or_else(|| self.absent(row), Ok),
            _ => fail!(Invalid, "{}: not a symbolic link", self.object.component()),
        }
    }

    fn open(&self, seat: Seat) -> Result<Opened> {
        let Some(row) = self.row(seat)? else { return fail!(IsDirectory, "{}: a directory", self.object.component()) };
        let opened = match row.what {
            What::Text(f) => f(&self.object)?.map(Opened::text),
            What::State(f) => state::State::open(&self.object, f)?,
            What::Live(f) if row.told && self.contents_of_rows() == Lifetime::Told => {
                f(&self.object)?.map(Opened::told)
            }
            What::Live(f) | What::LiveIf(f) => f(&self.object)?.map(Opened::live),
            What::Bytes(f) => f(&self.object)?.map(Opened::Content),
            What::Log(f) => f(&self.object)?.map(Opened::Log),
            What::Follow(f) => f(&self.object)?.map(|stream| stream.follow()).transpose()?.map(Opened::follow),
            What::Control(verbs) => Some(Opened::live(verb::Bound { object: self.object.clone(), verbs }.help()?)),
            What::Outcome => Some(Opened::Outcome),
            What::Sink(_) => Some(Opened::text(Vec::new())),
            _ => None,
        };
        opened.map_or_else(|| self.absent(row), Ok)
    }

    fn writer(&self, seat: Seat) -> Result<Writer> {
        match self.row(seat)? {
            Some(Row { what: What::Control(verbs), .. }) => {
                Ok(Writer::Control(Arc::new(verb::Bound { object: self.object.clone(), verbs })))
            }
            Some(row @ Row { what: What::Sink(f), .. }) => match f(&self.object)? {
                Some(sink) => Ok(Writer::Sink(sink)),
                None => self.absent(row),
            },
            _ => fail!(Policy, "{}: files of this tree are read and not written", self.object.component()),
        }
    }

    fn make(self: Arc<Self>, name: &[u8]) -> Result<()> {
        let Ok(text) = std::str::from_utf8(name) else { return fail!(Invalid, "a name is UTF-8") };
        if self.clone().lookup(name)?.is_some() {
            return fail!(Exists, "{text}: is there already");
        }
        let family =
            self.rows().iter().find_map(|row| if let What::Each(family) = row.what { Some(family) } else { None });
        match family {
            Some(family) => family.make(&self.object, text),
            None => fail!(Policy, "{text}: {NOT_BY_NAME}"),
        }
    }

    fn delete(&self, seat: Seat) -> Result<()> {
        match (seat, &self.shape) {
            (Seat::Itself, Shape::Object(_) | Shape::File(_)) => self.object.delete(),
            _ => fail!(Policy, "{}: {NOT_BY_NAME}", String::from_utf8_lossy(&self.name(seat))),
        }
    }

    fn is_renamed(&self, seat: Seat) -> bool {
        seat == Seat::Itself && matches!(self.shape, Shape::Object(_)) && self.object.is_renamed()
    }

    fn rename(&self, seat: Seat, name: &[u8]) -> Result<()> {
        match (seat, &self.shape, std::str::from_utf8(name)) {
            (Seat::Itself, Shape::Object(_), Ok(name)) => self.object.rename(name),
            _ => fail!(Policy, "{}: {NOT_BY_NAME}", String::from_utf8_lossy(&self.name(seat))),
        }
    }

    fn set_xattr(&self, seat: Seat, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let key = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix("user.label."));
        let value = value.map(std::str::from_utf8).transpose();
        match (key, value) {
            (Some(key), Ok(value)) if self.has_labels(seat)? => self.object.set_label(key, value),
            (Some(_), Err(_)) => fail!(Invalid, "the value of a label is UTF-8"),
            _ => {
                fail!(Policy, "{}: only labels are set, as user.label.<key> of what has them", self.object.component())
            }
        }
    }

    fn xattrs(&self, seat: Seat) -> Result<Vec<(String, Vec<u8>)>> {
        if !self.has_labels(seat)? {
            return Ok(Vec::new());
        }
        let labels = self.object.labels()?;
        Ok(labels.into_iter().map(|(key, value)| (format!("user.label.{key}"), value.into_bytes())).collect())
    }

    fn tag(&self) -> Option<u64> {
        self.object.tag()
    }

    fn group(&self) -> Option<u64> {
        self.object.group()
    }

    fn members(&self) -> Option<u64> {
        self.object.members()
    }

    fn contents(&self) -> Lifetime {
        self.object.contents()
    }

    fn fixed(&self) -> Vec<&'static str> {
        names(self.rows())
    }

    fn is_object(&self) -> bool {
        !matches!(self.shape, Shape::Part(..))
    }
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
