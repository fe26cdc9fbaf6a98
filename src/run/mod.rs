//! From a command to what containerd does: specs, processes, images in and out.

pub mod archive;
pub mod jobs;
pub mod layout;
pub mod progress;
pub mod reference;
pub mod spec;
pub mod unpack;
