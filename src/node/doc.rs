//! The reference of the tree, written from the tables that serve it.

use super::{Dir, Row, What};
use std::fmt::Write;

/// Writes the reference: one section a directory, one line a row.
pub struct Writer {
    path: String,
    text: String,
    /// The tables above this one: a directory may hold directories of its own kind, and is told once.
    above: Vec<*const ()>,
}

/// The reference of the tree whose root is `table`, in Markdown.
pub fn reference<T: 'static>(table: &Dir<T>) -> String {
    let mut writer = Writer { path: "/".into(), text: String::new(), above: Vec::new() };
    writer.table(table.doc, table.rows);
    writer.text
}

impl Writer {
    /// The section of one directory, then those below it.
    pub fn table<T: 'static>(&mut self, doc: &str, rows: &[Row<T>]) {
        let table = rows.as_ptr().cast();
        if self.above.contains(&table) {
            return;
        }
        self.above.push(table);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "## `{}`\n\n{doc}\n\n| name | kind | what it holds |\n|---|---|---|\n", self.path);
        for row in rows {
            let name = if row.name.is_empty() { "…" } else { row.name };
            let slash = if matches!(row.what, What::Dir(_) | What::Via(_) | What::Graft(_)) { "/" } else { "" };
            let hidden = if row.listed { "" } else { ", not listed" };
            let private = if row.private { ", private" } else { "" };
            let kind = kind(&row.what);
            let _ = writeln!(self.text, "| `{name}{slash}` | {kind}{hidden}{private} | {} |", row.doc);
        }
        self.text.push('\n');
        for row in rows {
            if let What::Control(verbs) = row.what {
                self.text.push_str("| written to `ctl` | what it does |\n|---|---|\n");
                super::verb::describe(verbs, self);
                self.text.push('\n');
            }
        }
        for row in rows {
            self.below(row);
        }
        self.above.pop();
    }

    /// One verb of a control file.
    pub fn verb(&mut self, name: &str, args: &str, doc: &str) {
        let usage = format!("{name} {args}").replace('|', "\\|");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "| `{}` | {doc} |", usage.trim_end());
    }

    fn below<T: 'static>(&mut self, row: &Row<T>) {
        let here = self.path.len();
        if !row.name.is_empty() {
            self.path.push_str(row.name);
            self.path.push('/');
        }
        match row.what {
            What::Dir(table) => self.table(table.doc, table.rows),
            What::Via(other) | What::Merge(other) => other.describe(self),
            What::Each(family) => family.describe(self),
            _ => {}
        }
        self.path.truncate(here);
    }
}

fn kind<T>(what: &What<T>) -> &'static str {
    match what {
        What::Text(_) => "text",
        What::State(_) => "state",
        What::Live(_) | What::LiveIf(_) => "live text",
        What::Bytes(_) => "bytes",
        What::Log(_) => "grows",
        What::Follow(_) => "waits",
        What::Control(_) => "control",
        What::Outcome => "text",
        What::Sink(_) => "takes a stream",
        What::Link(_) => "link",
        What::Dir(_) | What::Via(_) => "directory",
        What::Merge(_) => "files",
        What::Each(_) => "each",
        What::Graft(_) => "tree",
    }
}
