//! `hidden/`: what upper layers deleted or replaced. It is still in the image, and whoever has the image can read it:
//! here it stands by layer and path, with the attributes and the bytes that its layer gives it.
//!
//! `hidden/<nn>/<path>` is a file of layer `<nn>` that the root filesystem does not show. The directories on the way are
//! the layer's, and hold nothing but what is hidden. Like the root filesystem, it is made at the first look inside.

use super::place::Tree;
use super::{Built, Roots, Source};
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::layers::hidden::Hidden;
use crate::layers::merge::Handle;
use crate::node::handle::Opened;
use crate::node::{Attr, Lifetime, Name, Node, Place, Seat, Target};
use std::sync::Arc;
use std::time::Instant;

/// What the names and handles of one image's hidden files may take in memory.
const BYTES: usize = 32 << 20;

/// What those of all images that are kept may take.
const KEPT_BYTES: usize = 64 << 20;

/// What is hidden of one image: by layer, and in each by path, so that what is in a directory stands together.
struct Hiding {
    files: Vec<(usize, Box<[u8]>, Handle)>,
    bytes: usize,
}

/// Those that were looked at lately, and their bytes.
pub(super) struct Kept {
    lru: lru::LruCache<String, Arc<Hiding>>,
    bytes: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Kept { lru: lru::LruCache::unbounded(), bytes: 0 }
    }
}

impl Kept {
    fn get(&mut self, key: &str) -> Option<Arc<Hiding>> {
        self.lru.get(key).cloned()
    }

    fn put(&mut self, key: String, hiding: Arc<Hiding>) {
        self.bytes += hiding.bytes;
        if let Some((_, old)) = self.lru.push(key, hiding) {
            self.bytes -= old.bytes;
        }
        while self.bytes > KEPT_BYTES && self.lru.len() > 1 {
            let Some((_, oldest)) = self.lru.pop_lru() else { break };
            self.bytes -= oldest.bytes;
        }
    }
}

impl Hiding {
    fn of(built: &Built) -> Result<Hiding> {
        // With what it takes where nothing is hidden: its place among those that are kept.
        let (mut files, mut bytes) = (Vec::new(), 256);
        built.rootfs.hidden(&mut |Hidden { layer, path, handle, .. }| {
            bytes += path.len() + size_of::<(usize, Box<[u8]>, Handle)>() + 16;
            if bytes > BYTES {
                return fail!(TooLong, "more is hidden than can be shown: layers/*/fs has all of it");
            }
            files.push((layer, path.into_boxed_slice(), handle));
            Ok(())
        })?;
        files.shrink_to_fit();
        files.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Ok(Hiding { files, bytes })
    }

    /// What is hidden in a layer below a directory, whose path ends with a slash.
    fn below(&self, layer: usize, start: &[u8]) -> &[(usize, Box<[u8]>, Handle)] {
        let from = self.files.partition_point(|(number, path, _)| (*number, &path[..]) < (layer, start));
        let rest = &self.files[from..];
        let count = rest.partition_point(|(number, path, _)| *number == layer && path.starts_with(start));
        &rest[..count]
    }
}

impl Roots {
    /// What is hidden in an image: at hand, or [`Kind::NotYet`] while it is being found out.
    fn hidden(self: &Arc<Self>, source: &Arc<dyn Source>) -> Result<(Arc<Built>, Arc<Hiding>)> {
        let mut built = self.get(source)?;
        if !self.is_whole(&**source, &built) {
            built = self.get(source)?;
        }
        let key = format!("hidden {} {}", built.shape, source.key());
        let mut state = self.lock();
        if let Some(hiding) = state.hidden.get(&key) {
            return Ok((built, hiding));
        }
        if let Some((error, since)) = state.failed.get(&key)
            && since.elapsed() < super::FAILED_FOR
        {
            return Err(error.clone());
        }
        if state.building.insert(key.clone()) {
            let roots = Arc::clone(self);
            self.builders.run(move || roots.find_hidden(key, &built));
        }
        drop(state);
        Err(Error::new(Kind::NotYet, "the layers are being compared"))
    }

    fn find_hidden(&self, key: String, built: &Built) {
        // As for building: a panic is a bug, and whoever waits is told.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Hiding::of(built)))
            .unwrap_or_else(|_| Err(Error::new(Kind::Io, "ctrfs has a bug here: its standard error says where")));
        let mut state = self.lock();
        state.building.remove(&key);
        match result {
            Ok(hiding) => state.hidden.put(key, Arc::new(hiding)),
            Err(error) => drop(state.failed.put(key, (error, Instant::now()))),
        }
        drop(state);
        self.woken();
    }
}

/// What is hidden in what `source` gives, shown as `label`.
pub fn graft(roots: &Arc<Roots>, source: Arc<dyn Source>, label: &'static str) -> Arc<dyn Place> {
    Arc::new(Shown { tree: Tree::new(roots, source, true), at: At::Top, name: label.as_bytes().into() })
}

/// A directory that is shown for what is hidden in it.
struct Shown {
    tree: Arc<Tree>,
    at: At,
    name: Name,
}

enum At {
    /// The directory of all layers. It can be stat'ed without building anything.
    Top,
    /// A directory of a layer: its path with a slash before each part; empty is its root.
    Layer(usize, Box<[u8]>),
}

/// The name of a layer, as below `layers/`: wide enough that names sort as numbers.
fn number(layer: usize, layers: usize) -> String {
    let width = layers.saturating_sub(1).to_string().len().max(2);
    format!("{layer:0width$}")
}

impl Shown {
    fn directory(&self, name: &[u8], layer: usize, path: &[u8]) -> Node {
        let (tree, at) = (Arc::clone(&self.tree), At::Layer(layer, path.into()));
        Node::of(Arc::new(Shown { tree, at, name: name.to_vec().into() }))
    }

    /// The layers that have something hidden.
    fn layers(&self) -> Result<Vec<(String, usize)>> {
        let (built, hiding) = self.tree.roots.hidden(&self.tree.source)?;
        let mut layers: Vec<usize> = hiding.files.iter().map(|(layer, ..)| *layer).collect();
        layers.dedup();
        Ok(layers.into_iter().map(|layer| (number(layer, built.rootfs.len()), layer)).collect())
    }

    /// What the layer itself says of the directory.
    fn layer_attr(&self, layer: usize, path: &[u8]) -> Result<Attr> {
        let built = self.tree.roots.get(&self.tree.source)?;
        let Some(layer) = built.rootfs.layer(layer) else { return fail!(NotFound, "there is no layer {layer}") };
        let mut at = layer.root();
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let Some(found) = layer.find(&at, part)? else {
                return fail!(NotFound, "{}: not in its layer", String::from_utf8_lossy(path));
            };
            at = found.at;
        }
        Ok(self.tree.convert(&layer.attr(&at)?).again())
    }
}

impl Place for Shown {
    fn attr(&self, _: Seat) -> Result<Attr> {
        match &self.at {
            At::Top => Ok(self.tree.root_attr()),
            // The root of an archive is whatever the archive says, or nothing.
            At::Layer(_, path) if path.is_empty() => Ok(self.tree.root_attr()),
            At::Layer(layer, path) => self.layer_attr(*layer, path),
        }
    }

    fn name(&self, _: Seat) -> Name {
        self.name.clone()
    }

    fn lookup(self: Arc<Self>, name: &[u8]) -> Result<Option<Node>> {
        let At::Layer(layer, path) = &self.at else {
            let found = self.layers()?.into_iter().find(|(label, _)| label.as_bytes() == name);
            return Ok(found.map(|(_, layer)| self.directory(name, layer, b"")));
        };
        let (built, hiding) = self.tree.roots.hidden(&self.tree.source)?;
        let whole = [path, &b"/"[..], name].concat();
        let exact = hiding.files.binary_search_by(|(number, path, _)| (*number, &path[..]).cmp(&(*layer, &whole)));
        if let Ok(at) = exact {
            return Ok(Some(self.tree.node(name, hiding.files[at].2.clone(), &built)));
        }
        let leads_on = !hiding.below(*layer, &[&whole[..], b"/"].concat()).is_empty();
        Ok(leads_on.then(|| self.directory(name, *layer, &whole)))
    }

    /// Whether it is there may change, what is in it does not, unless somebody uses it.
    fn contents(&self) -> Lifetime {
        self.tree.life()
    }

    fn list(self: Arc<Self>) -> Result<Vec<(Name, Node)>> {
        let At::Layer(layer, path) = &self.at else {
            let entry = |(label, layer): (String, usize)| {
                let node = self.directory(label.as_bytes(), layer, b"");
                (Name::Owned(label.into_bytes()), node)
            };
            return Ok(self.layers()?.into_iter().map(entry).collect());
        };
        let (built, hiding) = self.tree.roots.hidden(&self.tree.source)?;
        let start = [path, &b"/"[..]].concat();
        let mut rest = hiding.below(*layer, &start);
        let mut entries = Vec::new();
        while let Some((_, file, handle)) = rest.first() {
            let below = &file[start.len()..];
            let name = below.split(|b| *b == b'/').next().unwrap_or_default();
            let whole = &file[..start.len() + name.len()];
            let (node, count) = if name.len() == below.len() {
                (self.tree.node(name, handle.clone(), &built), 1)
            } else {
                // All that lies in this directory is one entry.
                let inside = [whole, b"/"].concat();
                let count = rest.partition_point(|(_, path, _)| path.starts_with(&inside));
                (self.directory(name, *layer, whole), count)
            };
            entries.push((Name::Owned(name.to_vec()), node));
            rest = &rest[count.max(1)..];
        }
        Ok(entries)
    }

    fn target(&self, _: Seat) -> Result<Target> {
        fail!(Invalid, "a directory is no symbolic link")
    }

    fn open(&self, _: Seat) -> Result<Opened> {
        fail!(IsDirectory, "a directory")
    }

    fn xattrs(&self, _: Seat) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }
}
