//! Blobs and unpacked snapshots show the same, and one does for the other.

use super::*;
use crate::common::{Mount, oci::Layout};
use crate::common::{Version, eventually, images};
use crate::support::tarball::{c, d, f, h, member, s, tar};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

/// An image with most of what a file system can have, in three layers, that can run.
pub fn rich(world: &World) -> (serde_json::Value, Vec<String>) {
    rich_unpacked(world, &[])
}

/// The same, imported with these options.
pub fn rich_unpacked(world: &World, options: &[&str]) -> (serde_json::Value, Vec<String>) {
    let base = images::busybox_layer();
    let middle = tar(&[
        d("opt/").mode(0o750).owner(3, 4).mtime(1_600_000_000),
        d("opt/gone/"),
        f("opt/gone/x", "x"),
        f("opt/suid", "s").mode(0o4755).pax("mtime", "1600000000.123456789"),
        h("opt/linked", "opt/suid"),
        s("opt/link", "../etc/passwd").owner(7, 8),
        member(b'6', "opt/fifo"),
        c("opt/null", 1, 3),
        f("opt/x", "x").xattr("user.colour", "blue"),
        d("opaque/"),
        f("opaque/below", "b"),
        unique(world),
    ]);
    let top = tar(&[
        f("opt/.wh.gone", ""),
        f("etc/.wh.greeting", ""),
        d("opaque/"),
        f("opaque/.wh..wh..opq", ""),
        f("opaque/above", "a"),
        f("opt/x", "replaced"),
        f("implied/dir/file", "f"),
        unique(world),
    ]);
    let layers = [Layer::gzip(base), Layer::gzip(middle), Layer::zstd(top)];
    let digests = layers.iter().map(|layer| oci::digest(&layer.blob)).collect();
    let mut layout = Layout::new();
    let manifest = layout.image(&images::host(), &layers);
    let file = world.containerd.dir.join(format!("{}.tar", world.namespace));
    layout.save_all(&[("latest".into(), manifest.clone())], &file);
    let import = ["images", "import", "--base-name", "docker.io/library/rich"];
    world.ctr(&[&import[..], options, &[file.to_str().unwrap()]].concat());
    (manifest, digests)
}

pub const RICH: &str = "docker.io/library/rich:latest";

/// Where the blobs of unpacked layers were discarded, all or some of them, the snapshots show the same.
fn discarded_blobs(world: &World) {
    let since = start();
    let (manifest, digests) = rich(world);
    let right = reference(world, RICH);
    let blobs = shown(world, &manifest);
    right.assert_shown(&blobs, since);
    // A running container keeps the chain, and its mounts tell where it is.
    let id = world.sleeper(RICH, &[]);
    for n in [1, 0, 2] {
        world.ctr(&["content", "rm", &digests[n]]);
        eventually("the blob is gone", Duration::from_secs(5), || {
            !world.exists(&format!("blobs/{}", digests[n].replace(':', "/")))
        });
        let mount = Mount::new(&world.containerd, &[]);
        let path = mount.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&manifest))));
        let ours = read(&path);
        let lines = right.differences(&ours, since);
        assert!(lines.is_empty(), "also without the blob of layer {n}:\n  {}", lines.join("\n  "));
    }
    world.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]);
}

/// Everything of a tree with what tells its files: the directory, its inode numbers, and where each file came from.
pub fn known(mount: &Mount, world: &World, manifest: &serde_json::Value) -> (Tree, Vec<(Vec<u8>, u64, String)>) {
    let path = mount.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(manifest))));
    let tree = read(&path);
    let file = |name: &Vec<u8>| {
        let file = path.join(std::str::from_utf8(name).unwrap().trim_start_matches('/'));
        let inode = std::fs::symlink_metadata(&file).unwrap().ino();
        // The kernel has no user.* of links and devices.
        let layer = match std::fs::symlink_metadata(&file).unwrap().file_type() {
            kind if kind.is_file() || kind.is_dir() => {
                let below = file.strip_prefix(&mount.path).unwrap().to_str().unwrap().to_owned();
                mount.xattr(&below, "user.ctrfs.layer").unwrap()
            }
            _ => String::new(),
        };
        (name.clone(), inode, layer)
    };
    let files = tree.files.keys().map(file).collect();
    (tree, files)
}

/// Where a layer is unpacked, its directory is read and not its blob; and nothing that can be seen is another.
fn directories_win(world: &World) {
    let (manifest, digests) = rich(world);
    let (blobs, inodes) = known(world.mount(), world, &manifest);
    assert!(blobs.files.contains_key(&b"/implied/dir/file"[..]));
    let reference = ctr_mount(world, RICH, &[]).unwrap();
    // Content stores are shared by namespaces, and other tests use the base.
    for digest in &digests[1..] {
        let file = std::fs::File::options().write(true).open(blob_file(world, digest)).unwrap();
        file.write_all_at(&vec![0; file.metadata().unwrap().len() as usize], 0).unwrap();
    }
    let mount = Mount::new(&world.containerd, &[]);
    let (directories, same) = known(&mount, world, &manifest);
    // Also the times of directories that were made by unpacking.
    blobs.assert_shown(&directories, NEVER);
    assert_eq!(same, inodes);
    drop(reference);
}

/// Snapshots may go at any moment. What was looked at goes on from the blobs.
fn directories_go(world: &World) {
    let (manifest, _) = rich(world);
    let (blobs, inodes) = known(world.mount(), world, &manifest);
    let reference = ctr_mount(world, RICH, &[]).unwrap();
    let mount = Mount::new(&world.containerd, &[]);
    let root = mount.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&manifest))));
    assert_eq!(std::fs::read_to_string(root.join("opt/x")).unwrap(), "replaced");
    let held = std::fs::File::open(root.join("opaque/above")).unwrap();
    drop(reference);
    let mut names = world.containerd.rpc().snapshots(&world.namespace, "overlayfs");
    while let Some(at) = (0..names.len()).find(|at| !names.iter().any(|child| child.parent == names[*at].name)) {
        let leaf = names.remove(at);
        let done = world.containerd.try_ctr(&world.namespace, &["snapshots", "rm", &leaf.name]);
        // The garbage collector, which each removal calls, may be first.
        assert!(done.code == Some(0) || done.err.contains("not exist") || done.err.contains("not found"), "{done:?}");
    }
    // What was not looked at before, what was, and what is open.
    let (after, same) = known(&mount, world, &manifest);
    blobs.assert_shown(&after, NEVER);
    assert_eq!(same, inodes);
    let mut byte = [0];
    held.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(&byte, b"a");
}

/// The native snapshotter's directories hold what lies below as well. They are no layers: what a layer removed is not
/// to be seen in them, and must not come back.
fn native_directories(world: &World) {
    let since = start();
    let (manifest, digests) = rich(world);
    let right = reference(world, RICH);
    // Only 1.6 unpacks natively while it imports, and only 1.6 does not while it mounts.
    let file = world.containerd.dir.join(format!("{}.tar", world.namespace));
    match world.version() {
        Version::V1_6 => {
            let native = ["images", "import", "--snapshotter", "native", "--base-name", "docker.io/library/rich"];
            world.ctr(&[&native[..], &[file.to_str().unwrap()]].concat());
        }
        _ => drop(ctr_mount(world, RICH, &["--snapshotter", "native"]).unwrap()),
    }
    let top = world.value(&format!("manifests/{}/layers/02/chain_id", oci::hex_of(&manifest)));
    let all = world.containerd.rpc().snapshots(&world.namespace, "native").into_iter().map(|snapshot| snapshot.name);
    let chains: Vec<String> = all.filter(|name| name.starts_with("sha256:")).collect();
    assert!(chains.contains(&top), "{chains:?}");
    for (n, chain) in chains.iter().enumerate() {
        world.containerd.rpc().view_snapshot(&world.namespace, "native", &format!("view{n}"), chain);
    }
    // It copies, and its directories have the time of that: the names have to agree.
    let copied = read(&world.mount().at_path(&world.path(&format!("snapshots/native/{top}/fs"))));
    assert!(copied.files.keys().eq(right.files.keys()), "{:?}", right.differences(&copied, since));
    world.ctr(&["content", "rm", &digests[2]]);
    let mount = Mount::new(&world.containerd, &[]);
    let path = mount.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&manifest))));
    match Tree::read(&path) {
        Ok(ours) => right.assert_shown(&ours, since),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
    }
}

/// A committed snapshot's `fs/` is what the layers up to it make; the whole chain's is the image.
fn snapshots(world: &World) {
    let since = start();
    let (manifest, _) = rich(world);
    let id = world.sleeper(RICH, &[]);
    let dir = format!("manifests/{}/layers", oci::hex_of(&manifest));
    let fs = |layer: &str| {
        let chain = world.value(&format!("{dir}/{layer}/chain_id"));
        world.mount().at_path(&world.path(&format!("snapshots/overlayfs/{chain}/fs")))
    };
    reference(world, RICH).assert_shown(&read(&fs("02")), since);
    let middle = read(&fs("01"));
    assert!(middle.files.contains_key(&b"/opt/gone/x"[..]) && !middle.files.contains_key(&b"/implied"[..]));
    assert_eq!(read(&fs("00")).files.len(), middle.files.len() - 12, "the base alone");
    world.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]);
}

/// A layer alone shows its whiteouts as its archive names them.
fn layer_alone(world: &World) {
    let (manifest, _) = rich(world);
    let path = |n: u32| format!("manifests/{}/layers/0{n}/fs", oci::hex_of(&manifest));
    assert_eq!(world.ls(&path(2)), ["etc", "implied", "opaque", "opt", "unique"]);
    assert_eq!(world.ls(&format!("{}/opt", path(2))), [".wh.gone", "x"]);
    assert_eq!(world.ls(&format!("{}/opaque", path(2))), [".wh..wh..opq", "above"]);
    assert_eq!(world.ls(&format!("{}/opt/gone", path(1))), ["x"]);
    assert_eq!(world.read(&format!("{}/opt/x", path(1))), "x");
}

crate::each_version!(discarded_blobs, directories_win, directories_go, native_directories, snapshots, layer_alone);
