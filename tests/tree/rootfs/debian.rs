//! An image of three layers from Debian packages: the same in every compression, for every platform.

use super::*;
use crate::common::oci::Layout;
use crate::common::{Mount, images, sh};
use serde_json::Value;

/// The demo image as a layout on disk.
fn unpacked_layout() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tar = images::debian();
    sh("tar -C \"$D\" -xf \"$T\"", &[("D", dir.path().to_str().unwrap()), ("T", tar.to_str().unwrap())], 60).ok();
    dir
}

/// A document of a layout on disk.
fn document(layout: &Path, digest: &Value) -> Value {
    let path = layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Its archives, uncompressed.
fn archives() -> Vec<Vec<u8>> {
    let layout = unpacked_layout();
    let index: Value = serde_json::from_slice(&std::fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let manifest = document(layout.path(), &index["manifests"][0]["digest"]);
    let layers = manifest["layers"].as_array().unwrap().iter();
    let unpack = |layer: &Value| {
        let path = layout.path().join("blobs").join(layer["digest"].as_str().unwrap().replace(':', "/"));
        std::process::Command::new("gzip").arg("-dc").arg(path).output().unwrap().stdout
    };
    layers.map(unpack).collect()
}

/// What ctrfs shows of the gzip image and of the same layers as zstd and uncompressed is what `ctr images mount` shows.
fn golden(world: &World) {
    let since = start();
    let image = world.debian();
    // Of the blobs, for nothing tells yet where they are unpacked.
    let blobs = read(&world.mount().at_path(&world.path(&format!("images/{image}/rootfs"))));
    let mut compressed = Vec::new();
    for (name, pack) in [("zstd", Layer::zstd as fn(Vec<u8>) -> Layer), ("plain", Layer::plain)] {
        let mut layout = Layout::new();
        let layers: Vec<Layer> = archives().into_iter().map(pack).collect();
        let manifest = layout.image(&images::host(), &layers);
        layout.store(&world.containerd, &world.namespace, &format!("docker.io/library/{name}:1"), &manifest);
        compressed.push(shown(world, &manifest));
    }
    let right = reference(world, image);
    assert!(right.files.len() > 500, "only {} files", right.files.len());
    for ours in [&blobs].into_iter().chain(&compressed) {
        right.assert_shown(ours, since);
    }
    // And of the directories, which are known now: of all three images, for their chain is one.
    let mount = Mount::new(&world.containerd, &[]);
    for image in [image, "docker.io/library/zstd:1", "docker.io/library/plain:1"] {
        let unpacked = read(&mount.at_path(&world.path(&format!("images/{image}/rootfs"))));
        blobs.assert_shown(&unpacked, NEVER);
    }
}

/// An image for another processor is what `umoci unpack` makes of it, and `ctr images mount --platform`.
fn foreign(world: &World) {
    let since = start();
    let layout = unpacked_layout();
    let script = "set -e; cd \"$D\"; umoci config --image .:latest --tag foreign --architecture arm64
        umoci unpack --image .:foreign bundle; mkdir tar; mv blobs index.json oci-layout tar; tar -C tar -cf image.tar .";
    let done = sh(script, &[("D", layout.path().to_str().unwrap())], 60);
    assert_eq!(done.code, Some(0), "{done:?}");
    let file = layout.path().join("image.tar");
    let import = ["images", "import", "--no-unpack", "--all-platforms", "--base-name", "docker.io/library/arm"];
    world.ctr(&[&import[..], &[file.to_str().unwrap()]].concat());
    let dir = "images/docker.io/library/arm:foreign";
    assert_eq!(world.ls(&format!("{dir}/platforms")), ["linux-arm64"]);
    let ours = read(&world.mount().at_path(&world.path(&format!("{dir}/platforms/linux-arm64/rootfs"))));
    // umoci writes no time into directories that a layer only implies: all of them have to agree.
    read(&layout.path().join("bundle/rootfs")).assert_shown(&ours, since);
    let platform = ["--platform", "linux/arm64"];
    let mounted = ctr_mount(world, "docker.io/library/arm:foreign", &platform).unwrap();
    read(&mounted.0).assert_shown(&ours, since);
}

crate::each_version!(golden, foreign);
