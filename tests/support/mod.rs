//! What the tests of several parts share.

pub mod merged;
pub mod nasty;
pub mod tarball;
