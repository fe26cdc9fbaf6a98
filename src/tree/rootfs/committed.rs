//! The files of a snapshot: of one that is mounted as they are now, of a committed one as they always were.

use super::source::Whole;
use super::unpacked::{self, Holder, Live};
use super::{Built, Roots, Source};
use crate::containerd::{SnapshotKind, SnapshotRecord};
use crate::error::{Kind, Result};
use crate::fail;
use crate::layers::store::Store;
use crate::node::Place;
use crate::tree::namespace::{Ns, links};
use crate::tree::text;
use std::sync::Arc;
use std::time::SystemTime;

/// The files of a snapshot as a directory called `label`, if they can be shown.
pub fn fs(ns: &Ns, snapshotter: &Arc<str>, key: &str, label: &'static str) -> Result<Option<Arc<dyn Place>>> {
    let Some(record) = ns.namespace.snapshot(snapshotter, key)? else { return Ok(None) };
    let roots: &Arc<Roots> = &ns.shared.roots;
    if record.kind != SnapshotKind::Committed {
        let live = unpacked::live(ns, snapshotter, key)?;
        return Ok(live.map(|live| super::graft(roots, Arc::new(live), label)));
    }
    let committed = Committed { ns: ns.clone(), snapshotter: Arc::clone(snapshotter), record };
    Ok(if committed.can_be_had()? { Some(super::graft(roots, Arc::new(committed), label)) } else { None })
}

/// A committed snapshot. If it is what layers of an image are unpacked to, it is those layers, wherever they are read;
/// else it is the directories that mounts tell of.
struct Committed {
    ns: Ns,
    snapshotter: Arc<str>,
    record: Arc<SnapshotRecord>,
}

impl Committed {
    /// Where a view may be made there is always a way, and no document of an image has to be read to say so.
    fn can_be_had(&self) -> Result<bool> {
        if self.ns.shared.roots.views().is_some() {
            return Ok(true);
        }
        let known = text::usable(unpacked::known(&self.ns, &self.snapshotter, &self.record.name))?.flatten();
        if known.is_some_and(|found| !found.merged) {
            return Ok(true);
        }
        self.image()?.map_or(Ok(false), |image| image.can_be_had())
    }

    /// The layers of an image that are unpacked to it.
    fn image(&self) -> Result<Option<Whole>> {
        links::chain(&self.ns, &self.record.name)
    }
}

impl Source for Committed {
    fn key(&self) -> String {
        let (name, created) = (&self.record.name, text::nanos(self.record.created));
        format!("committed {} {} {name} {created}", self.ns.name(), self.snapshotter)
    }

    fn build(&self, store: &Store) -> Result<Built> {
        if let Some(image) = self.image()? {
            match image.build(store) {
                Err(error) if error.kind() == Kind::NotLocal => {}
                built => return built,
            }
        }
        let known = unpacked::known(&self.ns, &self.snapshotter, &self.record.name)?;
        let found = match known {
            Some(known) => Some(known),
            None => unpacked::viewed(&self.ns, &self.snapshotter, &self.record.name)?,
        };
        let Some(found) = found else {
            return fail!(NotLocal, "snapshot {}: its files are in no directory of this host", self.record.name);
        };
        let holder = Holder::new(&self.ns, &self.snapshotter, &self.record.name);
        Live { name: String::new(), holder, found, created: self.record.created }.build(store)
    }

    fn created(&self) -> Option<SystemTime> {
        self.record.created
    }

    fn attribute(&self, layer: usize, name: &str) -> Result<Option<Vec<u8>>> {
        self.image()?.map_or(Ok(None), |image| image.attribute(layer, name))
    }

    fn attribute_root(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.image()?.map_or(Ok(None), |image| image.attribute_root(name))
    }
}
