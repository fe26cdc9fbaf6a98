//! The root filesystem of a chain of layers, merged as overlayfs merges them (kernel Documentation/filesystems/
//! overlayfs.rst; LAYERS.md, section 4).
//!
//! A merged directory is nothing but the list of the layers' directories that make it up, top first. A lookup walks
//! that list: a whiteout ends it, a file ends it, a directory is collected, an opaque one collected last. Nothing is
//! merged ahead of time. Names that overlayfs lists and cannot find (a whiteout inside a directory that only one layer
//! has) are not shown.

mod chain;
mod layer;

pub use chain::{Chain, ChainLayer, Copy, TarLayer, UnpackedLayer};
pub use layer::{At, Attr, Found, Identity, Layer, Source, Xattr};

use super::tree::Type;
use crate::error::Result;
use std::collections::HashSet;
use std::sync::Arc;

/// How a chain is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The mtime of the root directory, instead of the one that the top layer has: the image's creation. An unpacked
    /// layer has the time of the unpacking there.
    pub root_mtime: Option<(i64, u32)>,
    /// Devices 0:0 are whiteouts even if there is only one layer: below a container's upper directory they are.
    pub overlay: bool,
}

/// A merged root filesystem.
pub struct Rootfs {
    /// Top first.
    layers: Vec<Arc<dyn Layer>>,
    options: Options,
    live: bool,
}

/// A file in a [`Rootfs`]. Cheap to copy, and good for as long as the Rootfs is; where the top layer is live it holds
/// the path, and every use looks at what is there now.
#[derive(Debug, Clone)]
pub struct Handle {
    top: Place,
    /// Of a merged directory: the directories below the top one.
    below: Option<Arc<[Place]>>,
    path: Option<Arc<[u8]>>,
}

/// A place in one of the layers.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Counted from the top.
    pub layer: u16,
    pub at: At,
}

/// A name of a directory with what it stands for.
pub type Named = (Vec<u8>, Handle, Attr);

impl Rootfs {
    /// Merges `layers`, top first. A single layer is shown as it is, with devices 0:0 visible, for containerd mounts
    /// it as a bind and not as an overlay.
    pub fn new(layers: Vec<Arc<dyn Layer>>, options: Options) -> Result<Rootfs> {
        if layers.is_empty() || layers.len() > usize::from(u16::MAX) {
            return crate::fail!(Invalid, "a root filesystem cannot have {} layers", layers.len());
        }
        let live = layers.iter().any(|layer| layer.is_live());
        Ok(Rootfs { layers, options, live })
    }

    /// The number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// There is always a layer.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The layers, top first.
    pub(super) fn layers(&self) -> &[Arc<dyn Layer>] {
        &self.layers
    }

    /// A layer by its number, counted from the base, which is 0.
    pub fn layer(&self, number: usize) -> Option<&Arc<dyn Layer>> {
        self.layers.get(self.layers.len().checked_sub(number + 1)?)
    }

    /// The root directory.
    pub fn root(&self) -> Handle {
        let mut places = self.layers.iter().enumerate().map(|(i, layer)| Place { layer: i as u16, at: layer.root() });
        let top = places.next().unwrap_or(Place { layer: 0, at: At::Node(0) });
        let below: Vec<Place> = places.collect();
        Handle { top, below: (!below.is_empty()).then(|| below.into()), path: self.live.then(|| (&b""[..]).into()) }
    }

    /// The file `name` of a directory, links not followed; `None` if it has none.
    pub fn lookup(&self, dir: &Handle, name: &[u8]) -> Result<Option<(Handle, Attr)>> {
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
            return Ok(None);
        }
        let dir = self.current(dir)?;
        self.resolve(dir.places(), name, self.child_path(&dir, name))
    }

    /// Everything in a directory, each name once: what the top layer has first, each layer in the order of its archive.
    pub fn readdir(&self, dir: &Handle) -> Result<Vec<Named>> {
        let dir = self.current(dir)?;
        let places: Vec<&Place> = dir.places().collect();
        let mut all = Vec::new();
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        for (i, place) in places.iter().enumerate() {
            for (name, found) in self.at(place).list(&place.at)? {
                if seen.contains(&name) {
                    continue;
                }
                if i + 1 < places.len() {
                    seen.insert(name.clone());
                }
                if self.hides(&found) {
                    continue;
                }
                let path = self.child_path(&dir, &name);
                let (handle, attr) = self.collect(place.layer, found, &places[i + 1..], &name, path)?;
                all.push((name, handle, attr));
            }
        }
        Ok(all)
    }

    /// The attributes of a file, those of its topmost layer.
    pub fn attr(&self, handle: &Handle) -> Result<Attr> {
        let handle = self.current(handle)?;
        let mut attr = self.at(&handle.top).attr(&handle.top.at)?;
        if let Some(mtime) = self.options.root_mtime
            && self.is_root(&handle)
        {
            attr.mtime = mtime;
        }
        Ok(attr)
    }

    /// Where a symlink points, as the layer has it.
    pub fn readlink(&self, handle: &Handle) -> Result<Vec<u8>> {
        let handle = self.current(handle)?;
        self.at(&handle.top).readlink(&handle.top.at)
    }

    /// The names of the extended attributes of a file: the topmost layer's, for overlayfs merges none.
    pub fn xattr_list(&self, handle: &Handle) -> Result<Vec<Vec<u8>>> {
        let handle = self.current(handle)?;
        self.at(&handle.top).xattr_list(&handle.top.at)
    }

    /// The value of an extended attribute, `None` if the file has none of that name.
    pub fn xattr_get(&self, handle: &Handle, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let handle = self.current(handle)?;
        self.at(&handle.top).xattr_get(&handle.top.at, name)
    }

    /// Where the bytes of a regular file are.
    pub fn source(&self, handle: &Handle) -> Result<Source> {
        let handle = self.current(handle)?;
        self.at(&handle.top).source(&handle.top.at, self.number(&handle.top))
    }

    /// The number of the layer that a file comes from, counted from the base, which is 0.
    pub fn layer_of(&self, handle: &Handle) -> Result<usize> {
        let handle = self.current(handle)?;
        Ok(self.at(&handle.top).origin(&handle.top.at).unwrap_or_else(|| self.number(&handle.top)))
    }

    /// What tells a file that is no directory from all others, in this image and every other one.
    pub fn identity(&self, handle: &Handle) -> Result<Identity> {
        let handle = self.current(handle)?;
        let layer = self.at(&handle.top);
        Ok(Identity { layer: layer.id().clone(), path: layer.first_name(&handle.top.at)? })
    }

    /// Finds out what [`Rootfs::identity`] of this file has to know, where it fails with
    /// [`crate::error::Kind::NotYet`] until then.
    pub fn settle(&self, handle: &Handle) {
        self.at(&handle.top).settle();
    }

    /// Whether all layers are still there ([`Layer::is_whole`]).
    pub fn is_whole(&self) -> bool {
        self.layers.iter().all(|layer| layer.is_whole())
    }

    /// The file at a path from the root, links not followed.
    pub fn walk(&self, path: &[u8]) -> Result<Option<(Handle, Attr)>> {
        let mut at = self.root();
        let mut attr = self.attr(&at)?;
        for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            if attr.kind != Type::Dir {
                return Ok(None);
            }
            match self.resolve(at.places(), part, self.child_path(&at, part))? {
                Some(found) => (at, attr) = found,
                None => return Ok(None),
            }
        }
        Ok(Some((at, attr)))
    }

    /// The handle as it is now. Only a live layer makes a difference: a directory that it did not have may have been
    /// copied up since, so the whole path is walked again.
    fn current(&self, handle: &Handle) -> Result<Handle> {
        match &handle.path {
            Some(path) if !path.is_empty() => match self.walk_live(path)? {
                Some(handle) => Ok(handle),
                None => crate::fail!(NotFound, "the file is no longer there"),
            },
            _ => Ok(handle.clone()),
        }
    }

    fn walk_live(&self, path: &[u8]) -> Result<Option<Handle>> {
        Ok(self.walk(path)?.map(|(handle, _)| handle))
    }

    fn child_path(&self, dir: &Handle, name: &[u8]) -> Option<Arc<[u8]>> {
        dir.path.as_ref().map(|path| [path, &b"/"[..], name].concat().into())
    }

    /// Finds `name` in the directories `places`, top first.
    fn resolve<'a>(
        &'a self,
        places: impl Iterator<Item = &'a Place>,
        name: &[u8],
        path: Option<Arc<[u8]>>,
    ) -> Result<Option<(Handle, Attr)>> {
        let places: Vec<&Place> = places.collect();
        for (i, place) in places.iter().enumerate() {
            let Some(found) = self.at(place).find(&place.at, name)? else { continue };
            if self.hides(&found) {
                return Ok(None);
            }
            return self.collect(place.layer, found, &places[i + 1..], name, path).map(Some);
        }
        Ok(None)
    }

    /// The handle of what layer `layer` has as `name`; if it is a directory, with the directories of that name in
    /// `below` that it merges with.
    fn collect(
        &self,
        layer: u16,
        found: Found,
        below: &[&Place],
        name: &[u8],
        path: Option<Arc<[u8]>>,
    ) -> Result<(Handle, Attr)> {
        let mut places = Vec::new();
        if found.attr.kind == Type::Dir && !found.opaque {
            for place in below {
                let Some(lower) = self.at(place).find(&place.at, name)? else { continue };
                if lower.attr.kind != Type::Dir {
                    break;
                }
                places.push(Place { layer: place.layer, at: lower.at });
                if lower.opaque {
                    break;
                }
            }
        }
        let below = (!places.is_empty()).then(|| places.into());
        Ok((Handle { top: Place { layer, at: found.at }, below, path }, found.attr))
    }

    pub(super) fn hides(&self, found: &Found) -> bool {
        (self.options.overlay || self.layers.len() > 1) && found.is_whiteout()
    }

    pub(super) fn at(&self, place: &Place) -> &dyn Layer {
        &*self.layers[usize::from(place.layer).min(self.layers.len() - 1)]
    }

    pub(super) fn number(&self, place: &Place) -> usize {
        (self.layers.len() - 1).saturating_sub(usize::from(place.layer))
    }

    fn is_root(&self, handle: &Handle) -> bool {
        handle.top.layer == 0 && handle.top.at == self.layers[0].root()
    }
}

impl Handle {
    /// A file of one layer, without what lies below it.
    pub(super) fn alone(place: Place) -> Handle {
        Handle { top: place, below: None, path: None }
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.top).chain(self.below.iter().flat_map(|below| below.iter()))
    }
}
