//! Integration tests: the real binary on real containerds, a file for each directory of the tree.
//!
//! One program, so that it is linked once and its tests share their containerds:
//! `cargo test --release --test tree -- images::` runs those of one file.

#![allow(clippy::type_complexity, reason = "cases are tables of functions")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

mod auth;
mod blobs;
mod checkpoint;
mod containers;
mod content;
mod control;
mod engine;
mod events;
mod export;
mod harness;
mod hidden;
mod images;
mod import;
mod killed;
mod life;
mod namespaces;
mod oci;
mod parity;
mod peers;
mod pull;
mod push;
mod root;
mod rootfs;
mod run;
mod scale;
mod scripts;
mod slow;
mod snapshots;
mod status;
mod stdio;
mod tag;
mod texts;
mod walk;
