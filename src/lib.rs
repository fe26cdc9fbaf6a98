//! containerd as a filesystem. `docs/architecture.md` is the map.

pub mod attach;
pub mod cli;
pub mod containerd;
pub mod daemon;
pub mod error;
pub mod invalidate;
pub mod layers;
pub mod mount;
pub mod node;
pub mod run;
pub mod tree;
pub mod wait;
