//! Walks all of a root filesystem, and insists that every way of asking gives the same answer.

use ctrfs::layers::merge::{Attr, Identity, Rootfs, Source};
use ctrfs::layers::tree::Type;
use std::collections::{BTreeMap, HashMap};

/// What a file is: its attributes, where its bytes are, or where it points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub attr: Attr,
    pub source: Option<(usize, u32, u64)>,
    pub link: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything in `rootfs` by its path. `archive` is the length of the archive that the bytes of files lie in.
pub fn shown(rootfs: &Rootfs, archive: Option<u64>) -> BTreeMap<Vec<u8>, File> {
    let mut files = BTreeMap::new();
    let mut identities: HashMap<Identity, (usize, u32)> = HashMap::new();
    let mut dirs = vec![(Vec::new(), rootfs.root())];
    while let Some((path, dir)) = dirs.pop() {
        for (name, handle, attr) in rootfs.readdir(&dir).unwrap() {
            assert!(!matches!(&name[..], b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0));
            assert!(name.len() <= 255, "a name of {} bytes", name.len());
            let path = [&path[..], b"/", &name].concat();
            let shown = path.escape_ascii().to_string();
            let (found, same) = rootfs.lookup(&dir, &name).unwrap().unwrap_or_else(|| panic!("{shown} is a ghost"));
            assert_eq!(attr, same, "{shown}");
            assert_eq!(rootfs.attr(&found).unwrap(), same, "{shown}");
            assert!(rootfs.layer_of(&handle).unwrap() < rootfs.len().max(64), "{shown}");
            let mut file = File { attr, source: None, link: Vec::new(), xattrs: Vec::new() };
            match attr.kind {
                Type::File => {
                    let source = rootfs.source(&handle).unwrap();
                    let Source::Archive { layer, entry, data, sparse, size } = source else { panic!("{shown}") };
                    assert_eq!(size, attr.size, "{shown}");
                    let held = sparse.map_or(size, |parts| parts.iter().map(|part| part.1).sum());
                    assert!(archive.is_none_or(|all| data + held <= all), "{shown}: behind the end of the archive");
                    let identity = rootfs.identity(&handle).unwrap();
                    assert_eq!(*identities.entry(identity).or_insert((layer, entry)), (layer, entry), "{shown}");
                    file.source = Some((layer, entry, data));
                }
                Type::Symlink => file.link = rootfs.readlink(&handle).unwrap(),
                _ => {}
            }
            for name in rootfs.xattr_list(&handle).unwrap() {
                let value = rootfs.xattr_get(&handle, &name).unwrap().expect("a listed xattr has a value");
                file.xattrs.push((name, value));
            }
            assert!(files.insert(path.clone(), file).is_none(), "{shown} is listed twice");
            if attr.kind == Type::Dir {
                dirs.push((path, handle));
            }
        }
    }
    files
}
