//! Renders a root filesystem in the words of the table of odd layers, and reads that table's expectations.

use ctrfs::layers::merge::{Handle, Rootfs, Source};
use ctrfs::layers::tree::Type;
use std::collections::{BTreeMap, HashMap};

/// Path → what is there, the parts of it that are not as usual.
pub type Shown = BTreeMap<String, String>;

/// Everything in `rootfs`; `archives` are the layers' bytes, base first.
pub fn show(rootfs: &Rootfs, archives: &[Vec<u8>]) -> Shown {
    let mut files = Vec::new();
    walk(rootfs, &rootfs.root(), "", &mut files);
    files.sort_by(|a, b| a.0.cmp(&b.0));
    let mut inodes = HashMap::new();
    let mut shown = Shown::new();
    for (path, handle) in files {
        let text = describe(rootfs, &handle, archives, &mut inodes);
        shown.insert(path, text);
    }
    shown
}

fn walk(rootfs: &Rootfs, dir: &Handle, path: &str, files: &mut Vec<(String, Handle)>) {
    for (name, handle, attr) in rootfs.readdir(dir).unwrap() {
        let path = format!("{path}/{}", escape(&name));
        let (found, same) = rootfs.lookup(dir, &name).unwrap().expect("what readdir lists, lookup finds");
        assert_eq!(attr, same, "{path}");
        assert_eq!(rootfs.attr(&found).unwrap(), same, "{path}");
        if attr.kind == Type::Dir {
            walk(rootfs, &handle, &path, files);
        }
        files.push((path, handle));
    }
}

fn escape(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => text.into(),
        Err(_) => name.escape_ascii().to_string(),
    }
}

type Inodes = HashMap<ctrfs::layers::merge::Identity, usize>;

fn describe(rootfs: &Rootfs, handle: &Handle, archives: &[Vec<u8>], inodes: &mut Inodes) -> String {
    let attr = rootfs.attr(handle).unwrap();
    let mut parts = Vec::new();
    let (suffix, usual) = match attr.kind {
        Type::Dir => ("/", 0o755),
        Type::File => ("", 0o644),
        Type::Symlink => ("@", 0o777),
        Type::Char => ("(chr)", 0xffff),
        Type::Block => ("(blk)", 0xffff),
        Type::Fifo => ("(fifo)", 0xffff),
        Type::Socket => ("(sock)", 0xffff),
    };
    if attr.perm != usual {
        parts.push(format!("{:04o}", attr.perm));
    }
    if (attr.uid, attr.gid) != (0, 0) {
        parts.push(format!("{}:{}", attr.uid, attr.gid));
    }
    match attr.mtime {
        (1_700_000_000, 0) => {}
        (seconds, 0) => parts.push(format!("mtime {seconds}")),
        (seconds, nanos) => parts.push(format!("mtime {seconds}.{nanos:09}")),
    }
    match attr.kind {
        Type::Char | Type::Block => {
            let minor = attr.rdev & 0xff | (attr.rdev >> 12) & 0xfff00;
            parts.push(format!("{}:{minor}", (attr.rdev >> 8) & 0xfff));
        }
        Type::Symlink => parts.push(format!("-> {}", escape(&rootfs.readlink(handle).unwrap()))),
        Type::File if attr.size > 8 => parts.push(format!("size {}", attr.size)),
        Type::File => parts.push(format!("'{}'", String::from_utf8_lossy(&content(rootfs, handle, archives)))),
        _ => {}
    }
    if attr.kind != Type::Dir && attr.nlink > 1 {
        let next = inodes.len() + 1;
        let number = *inodes.entry(rootfs.identity(handle).unwrap()).or_insert(next);
        parts.push(format!("nlink {} inode#{number}", attr.nlink));
    }
    let mut names = rootfs.xattr_list(handle).unwrap();
    names.sort();
    for name in names {
        let value = rootfs.xattr_get(handle, &name).unwrap().unwrap();
        parts.push(format!("xattr {}={}", escape(&name), hex::encode(value)));
    }
    format!("{suffix} {}", parts.join(", ")).trim_end().to_string()
}

/// The content of a small file.
fn content(rootfs: &Rootfs, handle: &Handle, archives: &[Vec<u8>]) -> Vec<u8> {
    let Source::Archive { layer, data, sparse, size, .. } = rootfs.source(handle).unwrap() else { panic!("a file") };
    let mut out = vec![0; size as usize];
    let mut at = data as usize;
    let whole = [(0, size)];
    for &(offset, length) in sparse.as_deref().unwrap_or(&whole) {
        out[offset as usize..(offset + length) as usize].copy_from_slice(&archives[layer][at..at + length as usize]);
        at += length as usize;
    }
    out
}

/// What the table expects: a tree, or the sentence of a refusal.
pub enum Expected {
    Tree(Shown),
    Fails(String),
}

/// Reads an expectation; `base` is what `BASE` means.
pub fn expected(text: &str, base: &Shown) -> Expected {
    if let Some(sentence) = text.strip_prefix("FAILS: ") {
        return Expected::Fails(sentence.into());
    }
    let mut shown = Shown::new();
    let text = match text.strip_prefix("BASE") {
        Some(rest) => {
            shown.clone_from(base);
            rest
        }
        None => text,
    };
    for item in text.split(" ; ").map(str::trim).filter(|item| !item.is_empty() && *item != "(empty root)") {
        let item = expand(item);
        // What overlayfs lists and does not find is not shown.
        if item.ends_with("[listed by readdir, lstat ENOENT]") {
            continue;
        }
        if let Some(path) = item.strip_prefix('-') {
            shown.retain(|have, _| have != path && !have.starts_with(&format!("{path}/")));
            continue;
        }
        let item = item.trim_start_matches(['+', '~']);
        let (place, rest) = item.split_once(' ').unwrap_or((item, ""));
        let suffix = ["/", "@", "(chr)", "(blk)", "(fifo)"].into_iter().find(|s| place.ends_with(s)).unwrap_or("");
        let path = &place[..place.len() - suffix.len()];
        shown.insert(path.into(), format!("{suffix} {rest}").trim_end().into());
    }
    Expected::Tree(shown)
}

/// `x{60}` is sixty of x.
fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('{') {
        let (count, tail) = tail.split_once('}').expect("a closing brace");
        out.push_str(head);
        let last = out.pop().expect("something to repeat");
        out.extend(std::iter::repeat_n(last, count.parse().expect("a number")));
        rest = tail;
    }
    out + rest
}
