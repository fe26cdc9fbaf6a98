//! Odd layers, and what containerd shows of them: each case was run through containerd 1.6, 1.7 and 2.1 with the
//! overlayfs and the native snapshotter.
#![allow(dead_code, reason = "each test uses its part of this")]

pub mod layers;
pub mod members;
pub mod names;
pub mod tars;

use super::tarball::*;

/// A chain of archives, base first, with what overlayfs shows of it, and native where that differs.
pub struct Case {
    pub name: &'static str,
    pub layers: Vec<Vec<u8>>,
    pub overlay: String,
    pub native: Option<String>,
}

pub fn case(name: &'static str, layers: &[&[Member]], overlay: &str) -> Case {
    raw(name, layers.iter().map(|members| tar(members)).collect(), overlay)
}

/// A case of archives that are already bytes.
pub fn raw(name: &'static str, layers: Vec<Vec<u8>>, overlay: &str) -> Case {
    Case { name, layers, overlay: overlay.into(), native: None }
}

impl Case {
    pub fn native(mut self, native: &str) -> Case {
        self.native = Some(native.into());
        self
    }
}

/// Layer 1 of many cases.
pub fn base() -> Vec<Member> {
    vec![
        d("etc/"),
        f("etc/passwd", "root"),
        f("etc/hosts", "h"),
        d("d/"),
        f("d/a", "1"),
        f("d/b", "2"),
        d("d/sub/"),
        f("d/sub/s", "3"),
        f("top", "t"),
    ]
}

/// All of them.
pub fn all() -> Vec<Case> {
    let sections: [fn() -> Vec<Case>; 15] = [
        layers::whiteouts,
        layers::opaque,
        layers::literal_devices,
        members::types,
        members::duplicates,
        members::hard_links,
        names::paths,
        names::long_names,
        names::symlinks,
        names::metadata,
        names::xattrs,
        names::devices,
        tars::formats,
        tars::pax,
        tars::sparse,
    ];
    sections.into_iter().flat_map(|section| section()).collect()
}
