//! Paths as Go's path/filepath and containerd's continuity/fs handle them: all of it on text, with links resolved
//! inside the tree that is being made and never out of it.

use super::Work;
use crate::error::Result;

/// What a system call would say of a path beyond this (`PATH_MAX`).
pub(super) const MAX_PATH: usize = 4096;
/// The longest name (`NAME_MAX`).
pub(super) const MAX_NAME: usize = 255;
/// How many links continuity's `RootPath` follows before it gives up.
const MAX_LINKS: usize = 255;

/// Something whose paths can be looked up, as `lstat` and `readlink` do.
pub(super) trait Lstat {
    /// What is at a cleaned path that begins with a slash: `None` if nothing is. An error if something on the way is
    /// neither a directory nor a link; a link on the way is resolved by the next round of [`root_path`], and until
    /// then nothing is there.
    fn lstat(&self, path: &[u8], work: &mut Work) -> Result<Option<Seen>>;
}

/// What is at a path: a link and where it points, or anything else.
pub(super) enum Seen {
    Link(Vec<u8>),
    Other,
}

/// Go's `filepath.Clean`: the shortest path that means the same, by its text alone; `.` for nothing.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut after_slash = true;
    // Most names are clean but for the slash behind a directory's, and there are many of them.
    let tidy = path.iter().all(|&b| {
        let odd = after_slash && matches!(b, b'/' | b'.');
        after_slash = b == b'/';
        !odd
    });
    if tidy && !path.is_empty() {
        return path.strip_suffix(b"/").unwrap_or(path).to_vec();
    }
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(&last) if last != b".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let body = parts.join(&b'/');
    match (rooted, body.is_empty()) {
        (true, _) => [b"/", &body[..]].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => body,
    }
}

/// The directory part with its slash, and the name after it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1))
}

/// `filepath.Join`: one path after the other, cleaned.
pub(super) fn join(dir: &[u8], rest: &[u8]) -> Vec<u8> {
    match (dir.is_empty(), rest.is_empty()) {
        (true, true) => Vec::new(),
        (true, false) => clean(rest),
        (false, true) => clean(dir),
        (false, false) => clean(&[dir, b"/", rest].concat()),
    }
}

/// The parts of a cleaned path.
pub(super) fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty())
}

/// continuity's `fs.RootPath`: `path` with all links resolved inside the root, also a last one. What is not there is
/// taken as no link. Its peculiarity is kept: each round replaces each link once, and `..` applies to the text.
pub(super) fn root_path(fs: &dyn Lstat, path: &[u8], work: &mut Work) -> Result<Vec<u8>> {
    if path.is_empty() {
        return Ok(b"/".to_vec());
    }
    let mut path = path.to_vec();
    let mut links = 0;
    loop {
        let before = links;
        let next = walk_links(fs, &path, &mut links, work)?;
        path = next;
        if before == links {
            let rooted = join(b"/", &path);
            if rooted == path {
                return Ok(path);
            }
            path = rooted;
        }
    }
}

/// One round: replaces each link on the way once. continuity's `walkLinks`, with its recursion over directories turned
/// into a loop over parts.
fn walk_links(fs: &dyn Lstat, path: &[u8], links: &mut usize, work: &mut Work) -> Result<Vec<u8>> {
    if path.len() > 2 * MAX_PATH {
        return too_long(path);
    }
    // What precedes the first name is either nothing or the root.
    let mut at = if path.first() == Some(&b'/') { b"/".to_vec() } else { Vec::new() };
    for part in parts(path) {
        // The text is gone through a few times for each part of it: what grows with each link costs time by its length.
        work.step(4 + at.len() as u64 / 16)?;
        let next = if at.is_empty() { part.to_vec() } else { join(&at, part) };
        let place = join(b"/", &next);
        if *links > MAX_LINKS {
            return crate::fail!(Corrupt, "failed to get root path: too many links");
        }
        if place == b"/" {
            at = place;
            continue;
        }
        at = match fs.lstat(&place, work)? {
            Some(Seen::Link(target)) => {
                *links += 1;
                if target.first() == Some(&b'/') || at.is_empty() { target } else { join(&at, &target) }
            }
            _ => place,
        };
    }
    Ok(at)
}

/// The error of a path or name that is too long.
pub(super) fn too_long<T>(path: &[u8]) -> Result<T> {
    crate::fail!(Corrupt, "{}: file name too long", show(path))
}

/// A path for a sentence: what is not text is replaced, and the middle of a long one left out.
pub(super) fn show(path: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().map(visible).collect::<String>();
    if path.len() <= 160 {
        return text(path);
    }
    format!("{}…{}", text(&path[..100]), text(&path[path.len() - 40..]))
}

/// A sentence is one line.
fn visible(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_is_go_s() {
        for (path, expected) in [
            ("", "."),
            ("./a/b", "a/b"),
            ("c//d/", "c/d"),
            ("g/../h", "h"),
            ("../../e", "../../e"),
            ("/../e", "/e"),
            ("x/../../../e", "../../e"),
            ("a/..", "."),
            ("/", "/"),
        ] {
            assert_eq!(String::from_utf8(clean(path.as_bytes())).unwrap(), expected, "{path}");
        }
    }
}
