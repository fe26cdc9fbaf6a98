//! What upper layers deleted or replaced: it is still in the image, in the layer that had it, and whoever has the image
//! can read it. The merge of [`super::merge`], asked the other way round.

use super::merge::{Attr, Handle, Place, Rootfs};
use super::tree::Type;
use crate::error::Result;

/// A path beyond this is not followed: each level holds its own copy.
const MAX_PATH: usize = 16 << 10;

/// Something that a layer has and the root filesystem does not show. Of a directory that is hidden whole, only the
/// directory is told; what is in it can be seen through the handle.
#[derive(Debug, Clone)]
pub struct Hidden {
    /// The layer that has it, counted from the base, which is 0.
    pub layer: usize,
    /// Its path, with a slash before each part.
    pub path: Vec<u8>,
    pub attr: Attr,
    /// The file itself, in its layer alone.
    pub handle: Handle,
    /// The layer that hides it: the nearest above that does.
    pub by: usize,
    pub how: How,
}

/// In which way something was hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A whiteout or an opaque directory took it away.
    Deleted,
    /// A file of the same name stands above it.
    Replaced,
}

/// A directory of one layer with the directories above that merge with it, nearest first.
struct Level {
    place: Place,
    above: Vec<Above>,
    path: Vec<u8>,
}

#[derive(Clone)]
struct Above {
    place: Place,
    /// It, or a directory that it is in, hides all that lies below.
    opaque: bool,
}

impl Rootfs {
    /// Tells everything that is hidden, layer by layer from the base. Only directories that several layers have are
    /// looked into, so the time depends on what the layers share.
    pub fn hidden(&self, each: &mut dyn FnMut(Hidden) -> Result<()>) -> Result<()> {
        let roots: Vec<Place> = (0..).zip(self.layers()).map(|(i, l)| Place { layer: i, at: l.root() }).collect();
        for i in (1..roots.len()).rev() {
            // overlayfs never looks at the opaque mark of a root.
            let above = roots[..i].iter().rev().map(|place| Above { place: place.clone(), opaque: false }).collect();
            let mut levels = vec![Level { place: roots[i].clone(), above, path: Vec::new() }];
            while let Some(level) = levels.pop() {
                self.hidden_in(&level, &mut levels, each)?;
            }
        }
        Ok(())
    }

    fn hidden_in(
        &self,
        level: &Level,
        levels: &mut Vec<Level>,
        each: &mut dyn FnMut(Hidden) -> Result<()>,
    ) -> Result<()> {
        let number = self.number(&level.place);
        for (name, found) in self.at(&level.place).list(&level.place.at)? {
            if self.hides(&found) {
                continue;
            }
            let path = [&level.path[..], b"/", &name].concat();
            let place = Place { layer: level.place.layer, at: found.at };
            match self.fate(level, &name, found.attr.kind == Type::Dir)? {
                Fate::Hidden(above, how) => each(Hidden {
                    layer: number,
                    path,
                    attr: found.attr,
                    handle: Handle::alone(place),
                    by: self.number(&above),
                    how,
                })?,
                Fate::Merged(above) if !above.is_empty() && path.len() < MAX_PATH => {
                    levels.push(Level { place, above, path });
                }
                Fate::Merged(_) => {}
            }
        }
        Ok(())
    }

    /// What the layers above make of a name.
    fn fate(&self, level: &Level, name: &[u8], is_dir: bool) -> Result<Fate> {
        let mut merged = Vec::new();
        for above in &level.above {
            match self.at(&above.place).find(&above.place.at, name)? {
                Some(found) if self.hides(&found) => return Ok(Fate::Hidden(above.place.clone(), How::Deleted)),
                Some(found) if is_dir && found.attr.kind == Type::Dir => merged.push(Above {
                    place: Place { layer: above.place.layer, at: found.at },
                    opaque: found.opaque || above.opaque,
                }),
                Some(_) => return Ok(Fate::Hidden(above.place.clone(), How::Replaced)),
                None if above.opaque => return Ok(Fate::Hidden(above.place.clone(), How::Deleted)),
                None => {}
            }
        }
        Ok(Fate::Merged(merged))
    }
}

enum Fate {
    Hidden(Place, How),
    /// It shows, and if it is a directory these merge with it.
    Merged(Vec<Above>),
}
