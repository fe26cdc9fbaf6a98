//! What a table is to the object that it shows.

use super::*;

/// The table, and what it is to its object. What the kernel knows has one each, so it refers to what is static.
pub(in crate::node) enum Shape<T: 'static> {
    /// The object's own directory, named by the object.
    Object(&'static Dir<T>),
    /// The directory of one other object, called as the row that leads to it.
    Named(&'static Dir<T>, &'static &'static str),
    /// A part of an object's directory: its row, and the table that this leads to.
    Part(&'static Row<T>, &'static Dir<T>),
    /// A member that is a file and not a directory: its one row is the file.
    File(&'static Row<T>),
}

impl<T> Shape<T> {
    pub fn rows(&self) -> &'static [Row<T>] {
        match self {
            Shape::Object(table) | Shape::Named(table, _) | Shape::Part(_, table) => table.rows,
            Shape::File(row) => std::slice::from_ref(row),
        }
    }

    /// The row that is shown at `seat`; none for a directory itself.
    pub fn row(&self, seat: Seat) -> Result<Option<&'static Row<T>>> {
        let row = match (seat, self) {
            (Seat::Itself, Shape::File(row)) => Some(*row),
            (Seat::Itself, _) => return Ok(None),
            (Seat::Row(n), _) => self.rows().get(usize::from(n)),
        };
        row.map(Some).ok_or_else(|| Error::new(Kind::NotFound, "no such row"))
    }

    /// The name at `seat`, unless it is the object that tells it.
    pub fn name(&self, seat: Seat) -> Option<&'static str> {
        match (seat, self) {
            (Seat::Row(n), _) => Some(self.rows().get(usize::from(n)).map_or("", |row| row.name)),
            (Seat::Itself, Shape::Part(row, _)) => Some(row.name),
            (Seat::Itself, Shape::Named(_, name)) => Some(name),
            (Seat::Itself, Shape::Object(_) | Shape::File(_)) => None,
        }
    }

    /// Whether the directory itself is for the owner of the mount only.
    pub fn is_private(&self) -> bool {
        matches!(self, Shape::Part(row, _) if row.private)
    }
}
