//! A whole image: its layers applied, each in its role, and merged; and what is shown where overlayfs refuses.

use super::{Layer, Options, Rootfs};
use crate::error::{Kind, Result};
use crate::layers::Entry;
use crate::layers::apply::{self, Role, apply, native_chain};
use crate::layers::dir::{DirLayer, Unpacked};
use crate::layers::tar::Limits;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// A layer of which the archive is known.
#[derive(Debug, Clone, Copy)]
pub struct TarLayer<'a> {
    /// The digest that names it in identities.
    pub digest: &'a str,
    /// Its members, in the order of the archive.
    pub entries: &'a [Entry],
}

/// A layer that was unpacked into a directory.
#[derive(Debug, Clone, Copy)]
pub struct UnpackedLayer<'a> {
    /// The digest that names it in identities.
    pub digest: &'a str,
    pub path: &'a Path,
    /// overlayfs's marks in it are `user.overlay.*`.
    pub user_xattr: bool,
    /// When the snapshot was begun, if the directory does not tell.
    pub begun: Option<SystemTime>,
}

/// The directory of a layer that is unpacked into a copy of what lies below.
#[derive(Debug, Clone)]
pub struct Copy {
    pub digest: String,
    pub path: PathBuf,
    /// When the snapshot was begun, if the directory does not tell.
    pub begun: Option<SystemTime>,
}

/// A layer of a chain: an archive, the directory that it was unpacked to, or something that is a tree already.
pub enum ChainLayer<'a> {
    Tar(TarLayer<'a>),
    Unpacked(UnpackedLayer<'a>),
    Ready(Arc<dyn Layer>),
}

/// Builds root filesystems from chains of layers, base first.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain {
    /// When the image was created: the mtime of the root, and of directories that nothing describes.
    pub created: (i64, u32),
    pub limits: Limits,
}

impl Chain {
    /// What `ctr images mount` shows. Where overlayfs refuses the chain and the native snapshotter accepts it, what
    /// that shows (LAYERS.md 0.2); where both refuse, the overlay's reason.
    pub fn build(&self, layers: &[ChainLayer<'_>]) -> Result<Rootfs> {
        let refusal = match self.overlay(layers) {
            Err(error) if error.kind() == Kind::Corrupt && layers.len() > 1 => error,
            answer => return answer,
        };
        let tars = layers.iter().map(|layer| match layer {
            ChainLayer::Tar(layer) => Some(*layer),
            ChainLayer::Unpacked(_) | ChainLayer::Ready(_) => None,
        });
        // Of a layer that is only a directory, the archive that the native way would need is not known.
        let Some(tars) = tars.collect::<Option<Vec<TarLayer>>>() else { return Err(refusal) };
        self.native(&tars).map_err(|_| refusal)
    }

    /// What overlayfs shows: the base applied to a real tree, each layer above to a directory of its own.
    pub fn overlay(&self, layers: &[ChainLayer<'_>]) -> Result<Rootfs> {
        let mut built: Vec<Arc<dyn Layer>> = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            let layer = match layer {
                ChainLayer::Ready(layer) => layer.clone(),
                ChainLayer::Unpacked(UnpackedLayer { digest, path, user_xattr, begun }) => {
                    let lowers = built.iter().rev().cloned().collect();
                    let unpacked = Unpacked::new(path, self.created, lowers, *begun);
                    Arc::new(DirLayer::unpacked(digest, *user_xattr, unpacked)?)
                }
                ChainLayer::Tar(TarLayer { digest, entries }) => {
                    let role = if number == 0 { Role::Base } else { Role::Upper };
                    let lowers: Vec<&dyn Layer> = built.iter().rev().map(|layer| &**layer).collect();
                    Arc::new(apply(digest, entries, role, &lowers, &self.options(number))?)
                }
            };
            built.push(layer);
        }
        built.reverse();
        Rootfs::new(built, self.shown())
    }

    /// What the native snapshotter shows: every layer applied to the same tree. A file's identity is of this chain
    /// alone, for a later layer may have altered what an earlier one made.
    pub fn native(&self, layers: &[TarLayer<'_>]) -> Result<Rootfs> {
        let id = format!("native:{}", joined(layers.iter().map(|layer| layer.digest)));
        let entries: Vec<&[Entry]> = layers.iter().map(|layer| layer.entries).collect();
        let tree = native_chain(&id, &entries, &self.options(0))?;
        Rootfs::new(vec![Arc::new(tree)], self.shown())
    }

    /// What a snapshotter shows that unpacks each layer into a copy of what lies below: the topmost directory. `copies`
    /// are the digests and directories of the layers, base first; of those below the topmost some may be unknown. A
    /// file's identity is of this chain alone: two copies of a file may differ in nothing but what they hold.
    pub fn copies(&self, copies: &[Option<Copy>]) -> Result<Rootfs> {
        let id = format!("copy:{}", joined(copies.iter().flatten().map(|copy| copy.digest.as_str())));
        let (mut built, mut numbers): (Vec<Arc<dyn Layer>>, Vec<usize>) = Default::default();
        for (number, copy) in (0..).zip(copies).filter_map(|(n, copy)| Some((n, copy.as_ref()?))) {
            let lowers = built.iter().rev().cloned().collect();
            let unpacked = Unpacked::new(&copy.path, self.created, lowers, copy.begun)
                .copied(number, numbers.iter().rev().copied().collect());
            numbers.push(number);
            built.push(Arc::new(DirLayer::unpacked(&id, false, unpacked)?));
        }
        Rootfs::new(built.pop().into_iter().collect(), self.shown())
    }

    /// One layer by itself, whiteouts as the archive names them.
    pub fn alone(&self, layer: TarLayer<'_>) -> Result<Rootfs> {
        let tree = apply(layer.digest, layer.entries, Role::Alone, &[], &self.options(0))?;
        Rootfs::new(vec![Arc::new(tree)], self.shown())
    }

    fn shown(&self) -> Options {
        Options { root_mtime: Some(self.created), ..Options::default() }
    }

    fn options(&self, number: usize) -> apply::Options {
        apply::Options { created: self.created, layer: number as u16, limits: self.limits }
    }
}

/// What names a chain of layers in identities, where one of them does not.
fn joined<'a>(digests: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for digest in digests {
        hash.update(digest);
        hash.update(b"\n");
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}
