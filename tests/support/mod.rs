//! What the tests of several parts share.

pub mod nasty;
pub mod tarball;
