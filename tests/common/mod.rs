//! What every integration test stands on: real containerds, images made without a network, the real binary mounted.
//!
//! A test is a function of a [`World`]: a containerd of one version, a containerd namespace of its own, and a mount of it.
//! [`each_version!`] makes one `#[test]` a version of it:
//!
//! ```ignore
//! /// An image's `digest` is its target's.
//! fn digest(world: &World) {
//!     let image = world.tiny();
//!     assert_eq!(world.read(&format!("images/{image}/digest")), …);
//! }
//! each_version!(digest);
//! ```
//!
//! Nothing here is skipped in silence: without root, `/dev/fuse` or a version of containerd the tests fail and say what to do.
#![allow(dead_code)] // a kit: the tests of each time use a part of it

mod command;
pub mod compare;
pub mod containerd;
pub mod holdings;
pub mod images;
pub mod mount;
pub mod oci;
pub mod registry;
pub mod rpc;
pub mod shell;
pub mod slow;
pub mod state;
pub mod tar;
pub mod teardown;
mod world;

pub use containerd::{Containerd, Version};
pub use mount::Mount;
pub use shell::{eventually, sh};
pub use world::World;

/// Runs a test in a new world of a version.
pub fn on(version: Version, make: fn(Version) -> World, test: fn(&World)) {
    if version.is_left_out() {
        return eprintln!("NOT TESTED: no containerd {version:?} here, and CTRFS_ALLOW_MISSING=1");
    }
    test(&make(version));
}

/// One `#[test]` for each version of containerd of each function of a [`World`] named.
#[macro_export]
macro_rules! each_version {
    ($($name:ident),+ $(,)?) => { $crate::each_version_of!($crate::common::World::new; $($name),+); };
}

/// The same with a containerd that no other test uses: for tests that kill it, or look at all of it.
#[macro_export]
macro_rules! each_version_alone {
    ($($name:ident),+ $(,)?) => { $crate::each_version_of!($crate::common::World::alone; $($name),+); };
}

#[macro_export]
#[doc(hidden)]
macro_rules! each_version_of {
    ($make:path; $($name:ident),+) => { $(
        mod $name {
            use $crate::common::{Version, on};
            #[test]
            fn v1_6() {
                on(Version::V1_6, $make, super::$name);
            }
            #[test]
            fn v1_7() {
                on(Version::V1_7, $make, super::$name);
            }
            #[test]
            fn v2() {
                on(Version::V2, $make, super::$name);
            }
        }
    )+ };
}
