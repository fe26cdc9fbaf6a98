//! From a command to what containerd does: specs, processes, images in and out.

pub mod archive;
pub mod content;
pub mod convert;
pub mod export;
pub mod fetch;
pub mod held;
pub mod image;
pub mod import;
pub mod jobs;
pub mod layout;
pub mod parallel;
pub mod platforms;
pub mod progress;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod spec;
pub mod unpack;
