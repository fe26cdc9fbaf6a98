//! The rootfs engine and what it stands on, without the rest of ctrfs.

#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/layers/mod.rs"]
pub mod layers;
#[path = "../../src/wait.rs"]
pub mod wait;
