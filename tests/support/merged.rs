//! What a merged root filesystem shows, as a value.
#![allow(dead_code, reason = "each test uses its part of this")]

use super::tarball::TIME;
use ctrfs::layers::Entry;
use ctrfs::layers::merge::{Attr, Chain, Handle, Identity, Rootfs, Source};
use ctrfs::layers::tar::Parser;
use ctrfs::layers::tree::Type;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::FileExt;

pub const CHAIN: fn() -> Chain = || Chain { created: (TIME, 0), ..Chain::default() };
pub const DIGESTS: [&str; 6] = ["sha256:0", "sha256:1", "sha256:2", "sha256:3", "sha256:4", "sha256:5"];

/// The members of an archive.
pub fn entries(archive: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut parser = Parser::new();
    parser
        .push(archive, &mut |entry| {
            entries.push(entry);
            Ok(())
        })
        .unwrap();
    parser.finish().unwrap();
    entries
}

/// Calls `f` for each path, and checks that lookups agree with listings.
pub fn each(rootfs: &Rootfs, f: &mut dyn FnMut(&str, &Handle)) {
    let mut dirs = vec![(String::new(), rootfs.root())];
    while let Some((path, dir)) = dirs.pop() {
        let mut seen = HashSet::new();
        for (name, handle, attr) in rootfs.readdir(&dir).unwrap() {
            assert!(seen.insert(name.clone()), "{path} lists {name:?} twice");
            let (_, found) = rootfs.lookup(&dir, &name).unwrap().expect("no ghosts");
            assert_eq!(found, attr);
            let path = format!("{path}/{}", String::from_utf8(name).unwrap());
            f(&path, &handle);
            if attr.kind == Type::Dir {
                dirs.push((path, handle));
            }
        }
    }
}

/// The content of a file, or where a symlink points.
pub fn bytes(rootfs: &Rootfs, handle: &Handle, attr: &Attr, archives: &[Vec<u8>]) -> Vec<u8> {
    match attr.kind {
        Type::File => match rootfs.source(handle).unwrap() {
            Source::Archive { layer, data, size, .. } => archives[layer][data as usize..][..size as usize].to_vec(),
            Source::File { file, .. } => {
                let mut bytes = vec![0; attr.size as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            }
        },
        Type::Symlink => rootfs.readlink(handle).unwrap(),
        _ => Vec::new(),
    }
}

/// What is known of a file that the oracle knows as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub kind: Type,
    pub mode: u16,
    pub mtime: i64,
    pub nlink: u32,
    pub bytes: Vec<u8>,
    /// The first path at which the same file is seen; of a directory its own.
    pub first: String,
}

/// Everything in `rootfs`, and what each file is known by.
pub fn walk(rootfs: &Rootfs, archives: &[Vec<u8>]) -> (BTreeMap<String, Shown>, BTreeMap<String, Identity>) {
    let (mut all, mut identities) = (BTreeMap::new(), BTreeMap::new());
    each(rootfs, &mut |path, handle| {
        let attr = rootfs.attr(handle).unwrap();
        let bytes = bytes(rootfs, handle, &attr, archives);
        let (mode, mtime, nlink) = (attr.perm, attr.mtime.0, attr.nlink);
        all.insert(path.into(), Shown { kind: attr.kind, mode, mtime, nlink, bytes, first: path.into() });
        if attr.kind != Type::Dir {
            rootfs.settle(handle);
            identities.insert(path.to_owned(), rootfs.identity(handle).unwrap());
        }
    });
    let mut firsts: HashMap<&Identity, &String> = HashMap::new();
    for (path, identity) in &identities {
        all.get_mut(path).unwrap().first.clone_from(firsts.entry(identity).or_insert(path));
    }
    (all, identities)
}
