//! `rootfs/`: the merged root filesystem of an image is what `ctr images mount` shows.

mod debian;
mod identity;
mod integrity;
mod live;
mod nasty;
mod restart;
mod sources;
mod uses;
mod views;

use crate::common::compare::{File, NEVER, Time, Tree};
use crate::common::oci::Layer;
use crate::common::{World, mount, oci};
use crate::support::tarball;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What `ctr images mount` mounted, until it is dropped.
struct Reference(PathBuf);

impl Drop for Reference {
    fn drop(&mut self) {
        mount::unmount(&self.0);
    }
}

/// Mounts an image as `ctr images mount` does, unpacking it first if need be; or why that fails.
fn ctr_mount(world: &World, image: &str, more: &[&str]) -> Result<Reference, String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let dir = world.containerd.dir.join(format!("reference{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&dir).unwrap();
    let command = [&["images", "mount"], more, &[image, dir.to_str().unwrap()]].concat();
    let done = world.containerd.try_ctr(&world.namespace, &command);
    match done.code {
        Some(0) => Ok(Reference(dir)),
        _ => Err(done.err.trim().to_owned()),
    }
}

/// What `ctr images mount` shows.
#[track_caller]
fn reference(world: &World, image: &str) -> Tree {
    let mounted = ctr_mount(world, image, &[]).unwrap_or_else(|error| panic!("ctr images mount {image}: {error}"));
    Tree::read(&mounted.0).unwrap()
}

/// The root directory of a manifest, as ctrfs shows it. Whether a blob is here may be known for a second, so it is waited
/// for a little.
fn rootfs_path(world: &World, manifest: &serde_json::Value) -> PathBuf {
    let path = world.mount().at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(manifest))));
    let last = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while !path.exists() && std::time::Instant::now() < last {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    path
}

/// What ctrfs shows of a manifest.
#[track_caller]
fn shown(world: &World, manifest: &serde_json::Value) -> Tree {
    let path = rootfs_path(world, manifest);
    read(&path)
}

#[track_caller]
fn read(path: &Path) -> Tree {
    Tree::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The errno of listing a directory.
#[track_caller]
fn refused(path: &Path) -> i32 {
    match std::fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>()) {
        Ok(_) => panic!("{} can be listed", path.display()),
        Err(error) => error.raw_os_error().unwrap(),
    }
}

/// The file of a blob in containerd's content store.
fn blob_file(world: &World, digest: &str) -> PathBuf {
    world.containerd.dir.join("root/io.containerd.content.v1.content/blobs").join(digest.replace(':', "/"))
}

/// The time before which nothing that is compared was made.
fn start() -> Time {
    crate::common::compare::now()
}

/// Something that no other test has: content stores are shared by namespaces.
fn unique(world: &World) -> tarball::Member {
    tarball::f("unique", format!("{} {:?}", world.namespace, std::time::Instant::now()))
}

/// A gzip layer of these members and something unique.
fn unique_layer(world: &World, members: &[tarball::Member]) -> Layer {
    Layer::gzip(tarball::tar(&[members, &[unique(world)]].concat()))
}

/// The file at a path of a tree.
#[track_caller]
fn file<'a>(tree: &'a Tree, path: &str) -> &'a File {
    tree.files.get(path.as_bytes()).unwrap_or_else(|| panic!("no {path} in {:?}", tree.files.keys()))
}
