//! Points 3 and 4: whiteouts and opaque markers, told by the last part of a name alone (containerd's
//! `validateWhiteout`, `OverlayConvertWhiteout`, and the naive converter inside `applyNaive`).

use super::path::{MAX_NAME, show};
use super::{Applier, Role};
use crate::error::Result;
use crate::layers::tree::{Inode, LayerTree, Type};

const PREFIX: &[u8] = b".wh.";
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

impl Applier<'_> {
    /// Carries out what `base` in the directory `parent` asks for, if it is a whiteout; false if it is not.
    pub(super) fn whiteout(&mut self, parent: u32, base: &[u8]) -> Result<bool> {
        if base == OPAQUE {
            match self.role {
                Role::Base => self.clear(parent)?,
                // The root of a layer is never looked up by name, so overlayfs never sees that it is opaque.
                _ if parent == LayerTree::ROOT => {}
                _ => self.tree.inode_mut(parent).opaque = true,
            }
            return Ok(true);
        }
        let Some(name) = base.strip_prefix(PREFIX) else { return Ok(false) };
        if matches!(name, b"" | b"." | b"..") {
            return crate::fail!(Corrupt, "invalid whiteout name: {}: invalid archive", show(base));
        }
        let failed = |why: &str| {
            let base = show(base);
            crate::fail!(Corrupt, "failed to convert whiteout file {base:?}: {why}")
        };
        if name.len() > MAX_NAME {
            return failed("file name too long");
        }
        if self.role == Role::Base {
            self.remove(parent, name)?;
        } else if self.tree.find(parent, name).is_some() {
            return failed("file exists");
        } else {
            self.tree.create(parent, name, Inode::new(Type::Char, self.number))?;
        }
        Ok(true)
    }

    /// An opaque marker on a real tree: removes below `dir` what no member of this layer made. A directory that the
    /// layer only implies goes with what is in it.
    fn clear(&mut self, dir: u32) -> Result<()> {
        let mut dirs = vec![(dir, self.tree.path(dir))];
        while let Some((dir, path)) = dirs.pop() {
            let names: Vec<(Vec<u8>, u32)> = self.tree.list(dir).map(|(name, inode)| (name.to_vec(), inode)).collect();
            self.work.step(1 + names.len() as u64)?;
            for (name, inode) in names {
                let place = [&path[..], b"/", &name].concat();
                if !self.unpacked.as_ref().is_some_and(|unpacked| unpacked.contains(&place)) {
                    self.remove(dir, &name)?;
                } else if self.is_dir(inode) {
                    dirs.push((inode, place));
                }
            }
        }
        Ok(())
    }
}
