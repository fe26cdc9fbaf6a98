//! A file tree as a value: everything that two trees have to agree in, and in what they differ.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, i64);

/// A time that nothing has: with it, [`Tree::differences`] compares those of all directories.
pub const NEVER: Time = (i64::MAX, 0);

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: Time,
    /// Of what is no directory.
    pub links: u64,
    /// Of a regular file or a symlink.
    pub size: u64,
    pub device: u64,
    /// The digest of a file's bytes, or the target of a symlink.
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path by which the tree has it; empty for a directory.
    pub first: Vec<u8>,
}

/// Path from the root (which is empty) → file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tree {
    pub files: BTreeMap<Vec<u8>, File>,
    /// What readdir lists and lstat does not find.
    pub ghosts: Vec<Vec<u8>>,
}

impl Tree {
    /// Reads a whole tree, or fails as its root does; below the root nothing may fail.
    pub fn read(root: &Path) -> std::io::Result<Tree> {
        let root = &fs::canonicalize(root)?;
        fs::read_dir(root)?.collect::<std::io::Result<Vec<_>>>()?;
        let mut tree = Tree::default();
        tree.walk(root, Vec::new());
        let mut firsts: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        let mut inodes: Vec<(Vec<u8>, (u64, u64))> = Vec::new();
        for (path, file) in &tree.files {
            if file.kind != 'd' {
                let meta = fs::symlink_metadata(at(root, path)).unwrap();
                inodes.push((path.clone(), (meta.dev(), meta.ino())));
            }
        }
        for (path, inode) in inodes {
            let first = firsts.entry(inode).or_insert_with(|| path.clone()).clone();
            tree.files.get_mut(&path).unwrap().first = first;
        }
        Ok(tree)
    }

    fn walk(&mut self, root: &Path, path: Vec<u8>) {
        let here = at(root, &path);
        let Ok(meta) = fs::symlink_metadata(&here) else {
            return self.ghosts.push(path);
        };
        self.files.insert(path.clone(), File::of(&here, &meta));
        if meta.is_dir() {
            let entries = fs::read_dir(&here).unwrap_or_else(|error| panic!("{}: {error}", here.display()));
            for entry in entries {
                let entry = entry.unwrap_or_else(|error| panic!("in {}: {error}", here.display()));
                let below = [&path[..], b"/", entry.file_name().as_bytes()].concat();
                self.walk(root, below);
            }
        }
    }

    /// In what `ours` differs from this tree, a line a difference. Directories that this one has from `since` or later
    /// were made by the unpacking, and `ours` has to know a time from before.
    pub fn differences(&self, ours: &Tree, since: Time) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(ours.ghosts.iter().map(|path| format!("{}: listed and not found", path.escape_ascii())));
        for path in self.files.keys().filter(|path| !ours.files.contains_key(*path)) {
            lines.push(format!("{}: missing", path.escape_ascii()));
        }
        for (path, file) in &ours.files {
            let name = path.escape_ascii();
            let Some(right) = self.files.get(path) else {
                lines.push(format!("{name}: too much: {file:?}"));
                continue;
            };
            let (mut file, mut right) = (file.clone(), right.clone());
            if right.kind == 'd' && (path.is_empty() || right.mtime >= since) {
                if !path.is_empty() && file.mtime >= since && file.mtime != right.mtime {
                    lines.push(format!("{name}: its mtime is the time of the test"));
                }
                (file.mtime, right.mtime) = ((0, 0), (0, 0));
            }
            if file != right {
                lines.push(format!("{name}:\n      shown {file:?}\n      right {right:?}"));
            }
        }
        lines
    }

    /// Fails where `ours` differs.
    #[track_caller]
    pub fn assert_shown(&self, ours: &Tree, since: Time) {
        let lines = self.differences(ours, since);
        assert!(lines.is_empty(), "{} differences:\n  {}", lines.len(), lines[..lines.len().min(20)].join("\n  "));
    }
}

/// A path of a tree below its root.
fn at(root: &Path, path: &[u8]) -> std::path::PathBuf {
    let mut whole = root.as_os_str().to_owned();
    whole.push(std::ffi::OsStr::from_bytes(path));
    whole.into()
}

impl File {
    fn of(path: &Path, meta: &fs::Metadata) -> File {
        let kind = meta.file_type();
        let (letter, content) = match kind {
            kind if kind.is_dir() => ('d', Vec::new()),
            kind if kind.is_symlink() => ('l', fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
            kind if kind.is_file() => ('f', digest(path)),
            kind if kind.is_char_device() => ('c', Vec::new()),
            kind if kind.is_block_device() => ('b', Vec::new()),
            kind if kind.is_fifo() => ('p', Vec::new()),
            _ => ('s', Vec::new()),
        };
        File {
            kind: letter,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            links: if letter == 'd' { 0 } else { meta.nlink() },
            size: if matches!(letter, 'f' | 'l') { meta.size() } else { 0 },
            device: if matches!(letter, 'c' | 'b') { meta.rdev() } else { 0 },
            content,
            xattrs: xattrs(path),
            first: Vec::new(),
        }
    }
}

fn digest(path: &Path) -> Vec<u8> {
    let mut hasher = Sha256::new();
    let fail = |error| -> usize { panic!("{}: {error}", path.display()) };
    let mut file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = vec![0; 256 << 10];
    loop {
        match file.read(&mut bytes).unwrap_or_else(fail) {
            0 => break,
            length => hasher.update(&bytes[..length]),
        }
    }
    hex::encode(&hasher.finalize()[..8]).into_bytes()
}

/// The extended attributes that are listed, with their values.
fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let file = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0u8; 65536];
    let size = unsafe { libc::llistxattr(file.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    assert!(size >= 0, "{}: {}", path.display(), std::io::Error::last_os_error());
    let names = names[..size as usize].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let attribute = CString::new(name).unwrap();
        let mut value = vec![0u8; 65536];
        let (room, length) = (value.as_mut_ptr().cast(), value.len());
        let size = unsafe { libc::lgetxattr(file.as_ptr(), attribute.as_ptr(), room, length) };
        assert!(size >= 0, "{} {attribute:?}: {}", path.display(), std::io::Error::last_os_error());
        value.truncate(size as usize);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// What time it is.
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (since.as_secs() as i64, i64::from(since.subsec_nanos()))
}
