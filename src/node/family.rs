//! What leads from one object to others: a family of many, or one.

use super::bind::{Shape, node};
use super::row::names;
use super::*;

/// What the members of a family are.
pub enum Member<C: 'static> {
    /// A directory each.
    Dir(&'static Dir<C>),
    /// A file each, of the kind that the row says; its name is the object's.
    File(&'static Row<C>),
}

/// A family: how its members are listed and found, and what each of them is.
pub struct Each<P: 'static, C: 'static> {
    /// All members.
    pub list: fn(&P) -> Result<Vec<C>>,
    /// The member whose encoded name this is. Any other spelling is no member.
    pub find: fn(&P, &str) -> Result<Option<C>>,
    /// What a member is.
    pub member: Member<C>,
}

/// A family of which `mkdir` makes a new member.
pub struct Made<P: 'static, C: 'static> {
    pub family: Each<P, C>,
    /// Makes the member of this encoded name.
    pub make: fn(&P, &str) -> Result<()>,
}

impl<P: Sync + 'static, C: Object> Family<P> for Made<P, C> {
    fn list(&self, parent: &P) -> Result<Vec<(Name, Node)>> {
        self.family.list(parent)
    }

    fn find(&self, parent: &P, name: &str) -> Result<Option<Node>> {
        self.family.find(parent, name)
    }

    fn make(&self, parent: &P, name: &str) -> Result<()> {
        (self.make)(parent, name)
    }

    fn describe(&self, doc: &mut doc::Writer) {
        self.family.describe(doc);
    }
}

impl<P: 'static, C: Object> Each<P, C> {
    fn node(&self, object: C) -> Node {
        match self.member {
            Member::Dir(table) => node(object, Shape::Object(table)),
            Member::File(row) => node(object, Shape::File(row)),
        }
    }
}

impl<P: Sync + 'static, C: Object> Family<P> for Each<P, C> {
    fn list(&self, parent: &P) -> Result<Vec<(Name, Node)>> {
        let named = |object: C| {
            let name = Name::Owned(object.component().into_owned().into_bytes());
            (name, self.node(object))
        };
        Ok((self.list)(parent)?.into_iter().map(named).collect())
    }

    fn find(&self, parent: &P, name: &str) -> Result<Option<Node>> {
        Ok((self.find)(parent, name)?.map(|object| self.node(object)))
    }

    fn describe(&self, doc: &mut doc::Writer) {
        match self.member {
            Member::Dir(table) => doc.table(table.doc, table.rows),
            Member::File(_) => {}
        }
    }
}

/// A relation to one other object.
pub struct One<P: 'static, C: 'static> {
    /// That object, if there is one.
    pub get: fn(&P) -> Result<Option<C>>,
    /// The table that shows it.
    pub table: &'static Dir<C>,
}

impl<P: Sync + 'static, C: Object> Relation<P> for One<P, C> {
    fn get(&self, parent: &P, label: &'static &'static str) -> Result<Option<Node>> {
        Ok((self.get)(parent)?.map(|object| node(object, Shape::Named(self.table, label))))
    }

    fn names(&self) -> Vec<&'static str> {
        names(self.table.rows)
    }

    fn describe(&self, doc: &mut doc::Writer) {
        doc.table(self.table.doc, self.table.rows);
    }
}
