//! Paths of the tree: the way from one to another, and what stands at its end.

use super::{FileType, Node, Target};
use crate::error::{Kind, Result};
use crate::fail;

/// The longest chain of links that a path may take (as ELOOP of the kernel).
const MAX_LINKS: usize = 40;

/// The node at a path of the tree, links followed, and the path without links.
pub fn walk(tree: &Node, path: &str) -> Result<(Node, String)> {
    let mut rest: Vec<String> = path.split('/').rev().filter(|c| !c.is_empty()).map(str::to_owned).collect();
    let mut way: Vec<String> = Vec::new();
    let mut node = tree.clone();
    let mut links = 0;
    while let Some(component) = rest.pop() {
        let next = present(node.place.clone().lookup(component.as_bytes())?)?;
        let Some(next) = next else {
            let at = way.join("/");
            return fail!(NotFound, "/{path}: there is no '{component}' in /{at}");
        };
        if next.attr()?.kind == FileType::Symlink
            && let Target::Tree(target) = next.place.target(next.seat)?
        {
            links += 1;
            if links > MAX_LINKS {
                return fail!(Invalid, "/{path}: too many links");
            }
            rest.extend(target.split('/').rev().filter(|c| !c.is_empty()).map(str::to_owned));
            way.clear();
            node = tree.clone();
            continue;
        }
        way.push(component);
        node = next;
    }
    Ok((node, way.join("/")))
}

/// The node, unless stat says that it is absent.
pub fn present(node: Option<Node>) -> Result<Option<Node>> {
    let Some(node) = node else { return Ok(None) };
    match node.attr() {
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) if e.kind() == Kind::WouldWait => Err(e),
        _ => Ok(Some(node)),
    }
}

/// Whether a path is `base` or below it.
pub fn is_below(path: &str, base: &str) -> bool {
    base.is_empty() || path == base || path.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

/// The way from a directory to a path, both from the root of the tree.
pub fn relative(from: &str, to: &str) -> String {
    let from: Vec<&str> = from.split('/').filter(|c| !c.is_empty()).collect();
    let to: Vec<&str> = to.split('/').filter(|c| !c.is_empty()).collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut way = vec![".."; from.len() - common];
    way.extend(&to[common..]);
    if way.is_empty() { ".".to_owned() } else { way.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_target_is_relative_to_the_directory_of_the_link() {
        assert_eq!(relative("a/b", "a/c/d"), "../c/d");
        assert_eq!(relative("a/b", "a/b/c"), "c");
        assert_eq!(relative("a/b", "a"), "..");
        assert_eq!(relative("", "x"), "x");
        assert_eq!(relative("a", "a"), ".");
    }

    #[test]
    fn a_path_is_below_its_base_by_components_and_not_by_letters() {
        assert!(is_below("a/b", "a"));
        assert!(is_below("a", "a"));
        assert!(!is_below("ab", "a"));
        assert!(is_below("anything", ""));
    }
}
