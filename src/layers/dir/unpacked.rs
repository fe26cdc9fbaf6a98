//! What the directory of an unpacked layer does not tell by itself: the times of directories that its archive only
//! implied, and the first names of its hard links. Both are found so that they are what the archive gives
//! ([`super::super::apply`]): which of the two is read must not be seen.

use super::{DirLayer, OpenDir, attr, sys};
use crate::error::{Error, Kind, Result};
use crate::layers::apply;
use crate::layers::merge::{At, Attr, Layer, Source};
use crate::layers::tree::Type;
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

/// Times of implied directories that are kept: they are asked for again with each of their entries.
const TIMES: usize = 1 << 16;

/// What the names of hard links may take. A layer that has more is known by inode numbers of the disk.
const LINK_BYTES: usize = 64 << 20;

/// How much of two files is compared to tell which layer made one that several copies have, and in what pieces.
const COMPARED: u64 = 16 << 20;
const BLOCK: u64 = 64 << 10;

/// A layer that was unpacked into a directory, and never changes from then on.
pub struct Unpacked {
    /// Where it is.
    pub path: PathBuf,
    /// When the image was created: the time of implied directories that no lower layer has.
    pub created: (i64, u32),
    /// The layers below, nearest first.
    pub lowers: Vec<Arc<dyn Layer>>,
    /// Where the directory is a copy of the next lower one's with the layer unpacked into it: its place in the chain, and
    /// those of `lowers`.
    copied: Option<(usize, Vec<usize>)>,
    /// When the snapshot was begun, where its files do not tell when they were made.
    begun: Option<SystemTime>,
    times: Mutex<HashMap<Box<[u8]>, Seconds>>,
    links: OnceLock<Links>,
}

/// Seconds and nanoseconds since 1970.
type Seconds = (i64, u32);

/// The first name of every inode that has several; none where there are too many.
type Links = Option<HashMap<(u64, u64), Box<[u8]>>>;

impl Unpacked {
    /// What is unpacked at `path`, above `lowers`, nearest first; `begun` is when the snapshot was, if its own directory
    /// does not tell.
    pub fn new(path: &Path, created: Seconds, lowers: Vec<Arc<dyn Layer>>, begun: Option<SystemTime>) -> Unpacked {
        // containerd keeps each snapshot in a directory of its own, which was there before anything was unpacked.
        let begun = begun.or_else(|| fs::metadata(path.parent()?).ok()?.created().ok());
        Unpacked {
            path: path.to_owned(),
            created,
            lowers,
            copied: None,
            begun,
            times: Mutex::default(),
            links: OnceLock::new(),
        }
    }

    /// The same where the directory, of the layer `number`, holds what lies below as well.
    pub fn copied(self, number: usize, lowers: Vec<usize>) -> Unpacked {
        Unpacked { copied: Some((number, lowers)), ..self }
    }

    /// Of `lowers` the one that made a file of a copy: the lowest that has it as it is here, and all between as well.
    fn maker(&self, layer: &DirLayer, at: &At) -> Option<usize> {
        let own = layer.attr(at).ok()?;
        let At::Path(path) = at else { return None };
        let same = |lower: &&Arc<dyn Layer>| {
            let Ok(Some(found)) = apply::lstat(&***lower, path) else { return false };
            let plain = |attr: Attr| Attr { nlink: 0, blocks: 0, ..attr };
            plain(found.attr) == plain(own)
                && (own.kind != Type::File || has_same_bytes(layer, at, &***lower, &found.at).unwrap_or(false))
        };
        self.lowers.iter().take_while(same).count().checked_sub(1)
    }

    /// The number of the layer that made a file of a copy.
    pub(super) fn origin(&self, layer: &DirLayer, at: &At) -> Option<usize> {
        let (number, lowers) = self.copied.as_ref()?;
        Some(self.maker(layer, at).and_then(|maker| lowers.get(maker)).copied().unwrap_or(*number))
    }

    /// The time of a directory. Those that the archive describes got theirs when everything was there; one that it
    /// only implies was changed last when something was unpacked into it, and has the time that it had below.
    pub(super) fn dir_time(&self, path: &[u8], meta: &Metadata) -> Result<(i64, u32)> {
        if path.is_empty() || !self.is_implied(meta) {
            return Ok((meta.mtime(), meta.mtime_nsec() as u32));
        }
        if let Some(time) = self.times.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return Ok(*time);
        }
        let lowers: Vec<&dyn Layer> = self.lowers.iter().map(|layer| &**layer).collect();
        let time = apply::lower_dir_time(&lowers, path)?.unwrap_or(self.created);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() >= TIMES {
            times.clear();
        }
        times.insert(path.into(), time);
        Ok(time)
    }

    /// Whether what changed a directory last was the making of its entries. The time that an archive gives was set after
    /// that, and lies before the directory was made, and before the snapshot was.
    fn is_implied(&self, meta: &Metadata) -> bool {
        let (changed, status) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
        let modified = u64::try_from(meta.mtime()).ok().and_then(|seconds| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, u32::try_from(meta.mtime_nsec()).ok()?))
        });
        match (meta.created().ok().or(self.begun), modified) {
            (Some(born), Some(modified)) => modified >= born && changed <= status,
            // The file system does not keep when a directory was made.
            _ => changed == status,
        }
    }

    /// The first name of a file that has several, as [`crate::layers::tree::LayerTree::path`] has it: the first in the
    /// order of bytes. It takes a look at all of the layer, so it has to be [`Layer::settle`]d before.
    pub(super) fn first_name(&self, meta: &Metadata) -> Result<Vec<u8>> {
        let Some(links) = self.links.get() else {
            return Err(Error::new(Kind::NotYet, "the hard links of a layer are being looked for"));
        };
        let inode = (meta.dev(), meta.ino());
        let known = links.as_ref().and_then(|links| links.get(&inode)).map(|path| path.to_vec());
        Ok(known.unwrap_or_else(|| super::by_inode(meta)))
    }

    pub(super) fn settle(&self, layer: &DirLayer) {
        self.links.get_or_init(|| {
            let links = layer.expect(hard_links(layer));
            links.inspect_err(|error| tracing::debug!(%error, "hard links of {}", self.path.display())).ok().flatten()
        });
    }
}

/// Whether two files of one length have the same bytes, as far as they are looked at.
fn has_same_bytes(one: &dyn Layer, at: &At, other: &dyn Layer, there: &At) -> Result<bool> {
    let (Source::File { file: mut a, .. }, Source::File { file: mut b, .. }) =
        (one.source(at, 0)?, other.source(there, 0)?)
    else {
        return Ok(false);
    };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for _ in 0..COMPARED / BLOCK {
        left.clear();
        right.clear();
        (&mut a).take(BLOCK).read_to_end(&mut left)?;
        (&mut b).take(BLOCK).read_to_end(&mut right)?;
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
    Ok(true)
}

/// The xattrs that an archive can have brought: the others are the host's.
pub(super) fn is_unpacked(name: &[u8]) -> bool {
    let host = [&b"security.selinux"[..], b"security.ima", b"security.evm"];
    !(name.starts_with(b"trusted.") || name.starts_with(b"system.") || host.contains(&name))
}

fn hard_links(layer: &DirLayer) -> Result<Links> {
    let mut links: HashMap<(u64, u64), Box<[u8]>> = HashMap::new();
    let mut bytes = 0;
    let mut dirs: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = dirs.pop() {
        let dir = OpenDir(sys::open_beneath(&layer.root, &path, libc::O_PATH | libc::O_DIRECTORY)?);
        for entry in fs::read_dir(dir.path())? {
            let name = entry?.file_name().into_vec();
            let Some(meta) = dir.stat(&name)? else { continue };
            layer.see(&meta);
            let below = if path.is_empty() { name } else { [&path, &b"/"[..], &name].concat() };
            if meta.is_dir() {
                bytes += below.len();
                dirs.push(below);
            } else if meta.nlink() > 1 {
                let below = [b"/", &below[..]].concat();
                let first = links.entry((meta.dev(), meta.ino())).or_insert_with(|| {
                    bytes += below.len() + 64;
                    below.clone().into()
                });
                if *below < **first {
                    *first = below.into();
                }
            }
            if bytes > LINK_BYTES {
                return Ok(None);
            }
        }
        dir.stat(b"")?.inspect(|meta| layer.see(meta));
    }
    Ok(Some(links))
}

impl DirLayer {
    /// Attributes as an archive of the layer would give them.
    pub(super) fn attr_of(&self, at: &At, meta: &Metadata) -> Result<Attr> {
        let mut attr = attr(meta);
        let (Some(unpacked), At::Path(path)) = (&self.unpacked, at) else { return Ok(attr) };
        match attr.kind {
            Type::Dir => attr.mtime = unpacked.dir_time(path, meta)?,
            // How the host's file system stores it is not to be seen.
            Type::File => attr.blocks = attr.size.div_ceil(512),
            _ => {}
        }
        Ok(attr)
    }
}
