//! The engine, on a toy tree.

use super::*;
use crate::node::inode::{Notice, ROOT, Table};
use crate::node::row;

#[derive(Clone)]
struct Toy(Vec<&'static str>);

#[derive(Clone)]
struct Part(&'static str);

impl Object for Toy {
    fn component(&self) -> Cow<'_, str> {
        "toy".into()
    }
    fn tag(&self) -> Option<u64> {
        Some(1)
    }
}

impl Object for Part {
    fn component(&self) -> Cow<'_, str> {
        self.0.into()
    }
    fn labels(&self) -> Result<Vec<(String, String)>> {
        Ok(vec![("color".into(), "red".into())])
    }
}

static PART: Dir<Part> = Dir {
    doc: "One part.",
    rows: &[
        row::text("name", "Its name.", |part| Ok(Some(part.0.as_bytes().to_vec()))),
        row::text("absent", "Never there.", |_| Ok(None)),
        row::link("top", "The list of all parts.", |_| Ok(Some(Target::Tree("parts".into())))),
        row::link("size", "The size of the toy.", |_| Ok(Some(Target::Tree("size".into())))),
    ],
};

static PARTS: Dir<Toy> = Dir {
    doc: "The parts.",
    rows: &[
        row::text("readme", "Wins over a part of the same name.", |_| Ok(Some(b"fixed".to_vec()))),
        row::each(
            "<part>",
            "One part.",
            &Each {
                list: |toy: &Toy| Ok(toy.0.iter().map(|name| Part(name)).collect()),
                find: |toy: &Toy, name| Ok(toy.0.iter().find(|part| **part == name).map(|part| Part(part))),
                member: Member::Dir(&PART),
            },
        ),
    ],
};

static TOY: Dir<Toy> = Dir {
    doc: "A toy.",
    rows: &[
        row::text("size", "How many parts.", |toy| Ok(Some(toy.0.len().to_string().into_bytes()))),
        row::unlisted(row::text("secret", "Found by name only.", |_| Ok(Some(b"x".to_vec())))),
        row::dir("parts", &PARTS),
    ],
};

fn list(table: &Table, parent: u64) -> Vec<(Name, inode::Found)> {
    let entry = |(name, node): (Name, Node)| Some((name.clone(), table.listed(parent, &name, &node).unwrap()?));
    table.node(parent).unwrap().place.list().unwrap().into_iter().filter_map(entry).collect()
}

fn names(entries: &[(Name, inode::Found)]) -> Vec<String> {
    entries.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
}

fn table(base: &str) -> Table {
    Table::new(member(Toy(vec!["wheel", "readme"]), &TOY), base).unwrap()
}

fn enter(table: &Table, parent: u64, name: &str) -> u64 {
    let found = table.find(parent, name.as_bytes()).unwrap().unwrap();
    table.remember(parent, &found);
    found.ino
}

#[test]
fn listing_and_lookup_agree_in_names_and_numbers() {
    let table = table("");
    assert_eq!(names(&list(&table, ROOT)), ["size", "parts"]);
    assert!(table.find(ROOT, b"secret").unwrap().is_some(), "unlisted, but there");
    assert!(table.find(ROOT, b"<part>").unwrap().is_none());
    let parts = enter(&table, ROOT, "parts");
    let listed = list(&table, parts);
    assert_eq!(names(&listed), ["readme", "wheel"], "the fixed name wins the clash");
    for (name, found) in &listed {
        assert_eq!(found.ino, table.find(parts, name).unwrap().unwrap().ino);
    }
    let wheel = enter(&table, parts, "wheel");
    assert_eq!(names(&list(&table, wheel)), ["name", "top", "size"], "what does not apply is absent");
}

#[test]
fn links_are_relative_and_their_size_is_their_length() {
    let table = table("");
    let parts = enter(&table, ROOT, "parts");
    let wheel = enter(&table, parts, "wheel");
    let top = enter(&table, wheel, "top");
    assert_eq!(table.target(top).unwrap(), b"..");
    assert_eq!(table.attr(top).unwrap().size, 2);
    let size = enter(&table, wheel, "size");
    assert_eq!(table.target(size).unwrap(), b"../../size");
}

#[test]
fn a_link_out_of_a_mounted_part_shows_what_it_leads_to() {
    let table = table("parts/wheel");
    assert_eq!(table.find(ROOT, b"size").unwrap().unwrap().attr.kind, FileType::Regular);
    let top = enter(&table, ROOT, "top");
    let wheel = enter(&table, top, "wheel");
    assert_eq!(names(&list(&table, wheel)), ["name", "top"], "links that lead out once more are absent");
    assert_eq!(table.target(enter(&table, wheel, "top")).unwrap(), b"..");
    assert!(Table::new(member(Toy(vec![]), &TOY), "parts/wheel").is_err());
}

#[test]
fn a_forgotten_number_is_stale_and_leaves_nothing() {
    let table = table("");
    let parts = enter(&table, ROOT, "parts");
    enter(&table, ROOT, "parts");
    table.forget(parts, 1);
    assert!(table.attr(parts).is_ok());
    table.forget(parts, 1);
    assert_eq!(table.attr(parts).unwrap_err().kind(), Kind::Stale);
    assert_eq!(table.len(), 1);
    table.forget(ROOT, 1);
    assert!(table.attr(ROOT).is_ok(), "the root stays");
}

#[test]
fn a_change_of_an_object_concerns_its_directories_and_their_fixed_names() {
    let table = table("");
    let parts = enter(&table, ROOT, "parts");
    let notices = table.notices(1);
    assert!(notices.contains(&Notice::Inode(ROOT)) && notices.contains(&Notice::Inode(parts)), "{notices:?}");
    assert!(notices.contains(&Notice::Entry(ROOT, b"parts".to_vec())));
    assert!(table.notices(2).is_empty());
}

#[test]
fn labels_are_xattrs_of_the_object_and_not_of_its_files() {
    let table = table("");
    let parts = enter(&table, ROOT, "parts");
    let wheel = enter(&table, parts, "wheel");
    let node = table.node(wheel).unwrap();
    assert_eq!(node.place.xattrs(node.seat).unwrap(), [("user.label.color".to_owned(), b"red".to_vec())]);
    let name = table.node(enter(&table, wheel, "name")).unwrap();
    assert!(name.place.xattrs(name.seat).unwrap().is_empty());
}

#[test]
fn the_reference_has_every_row() {
    let text = doc::reference(&TOY);
    for needle in ["## `/`", "`secret` | text, not listed", "## `/parts/<part>/`", "| `absent` | text | Never there. |"]
    {
        assert!(text.contains(needle), "{needle} in {text}");
    }
}
