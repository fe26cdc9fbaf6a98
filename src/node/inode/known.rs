//! What is kept of a node that the kernel knows.

use crate::node::{Name, Node, Place, Seat};
use std::sync::Arc;

/// A node that the kernel knows, in 32 bytes: there may be a million of them.
pub(super) struct Known {
    pub place: Arc<dyn Place>,
    pub parent: u64,
    pub lookups: u32,
    pub seat: Seat,
    /// It was opened since the kernel knows it.
    pub begun: bool,
}

const _: () = assert!(size_of::<Known>() == 32);

impl Known {
    pub fn new(node: &Node, parent: u64) -> Known {
        Known { place: Arc::clone(&node.place), parent, lookups: 1, seat: node.seat, begun: false }
    }

    pub fn node(&self) -> Node {
        Node { place: Arc::clone(&self.place), seat: self.seat }
    }

    pub fn name(&self) -> Name {
        self.place.name(self.seat)
    }
}
