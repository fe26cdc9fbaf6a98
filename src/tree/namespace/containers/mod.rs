//! `/namespaces/<namespace>/containers/`: containers, running or not.

mod container;
mod exec;
pub mod output;
mod task;

use super::{Ns, links};
use crate::error::Result;
use crate::node::row::{each, link as link_row};
use crate::node::{Dir, Each, Member, Row, Target};
use crate::tree::name::{self, Decoded};
use std::sync::Arc;

pub use container::Container;

pub static CONTAINERS: Dir<Ns> = Dir {
    doc: "One directory a container.",
    rows: &[each("<id>", "A container.", &Each { list: containers, find, member: Member::Dir(&container::CONTAINER) })],
};

/// A link to a container, in whatever directory lists it.
pub static LINK: Row<Container> = link_row("<id>", "A container.", |container| link(&container.ns, &container.id));

fn containers(ns: &Ns) -> Result<Vec<Container>> {
    Ok(ns.namespace.containers()?.values().map(|record| Container::new(ns, record)).collect())
}

fn find(ns: &Ns, component: &str) -> Result<Option<Container>> {
    // Ids of containers need no encoding; a name that does is none.
    let Some(Decoded::Name(id)) = name::decode(component) else { return Ok(None) };
    Ok(ns.namespace.container(&id)?.map(|record| Container::new(ns, &record)))
}

/// The containers of these ids.
pub fn of(ns: &Ns, ids: Option<&Vec<Arc<str>>>) -> Result<Vec<Container>> {
    let containers = ns.namespace.containers()?;
    let records = ids.into_iter().flatten().filter_map(|id| containers.get(id));
    Ok(records.map(|record| Container::new(ns, record)).collect())
}

/// The path of a container, if there is one of this id.
pub fn link(ns: &Ns, id: &str) -> Result<Option<Target>> {
    if ns.namespace.container(id)?.is_none() {
        return Ok(None);
    }
    crate::tree::link(["namespaces", ns.name(), "containers", id])
}

/// The containers that were made from an image.
pub fn made_from(ns: &Ns, image: &str) -> Result<Vec<Container>> {
    of(ns, links::users(ns)?.get(image))
}
