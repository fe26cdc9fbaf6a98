//! Views: the one change that reading may cause, where nothing else tells of the layers (DESIGN 5.3).

use super::sources::{known, rich};
use super::*;
use crate::common::{Mount, Version, eventually};
use ctrfs::containerd::{Client, Config, Views};
use std::time::{Duration, Instant};

/// Removes the blobs of an image's layers from the namespace.
pub fn discard(world: &World, digests: &[String]) {
    for digest in digests {
        world.ctr(&["content", "rm", digest]);
    }
}

/// What ctrfs made in the namespace: views and leases.
fn made(world: &World, snapshotter: &str) -> (Vec<String>, Vec<String>) {
    let rpc = world.containerd.rpc();
    let views = rpc.snapshots(&world.namespace, snapshotter).into_iter().map(|s| s.name);
    let leases = rpc.leases(&world.namespace).into_iter().filter(|lease| lease.labels.contains_key("ctrfs"));
    (views.filter(|name| name.starts_with("ctrfs-view-")).collect(), leases.map(|lease| lease.id).collect())
}

fn nothing() -> (Vec<String>, Vec<String>) {
    Default::default()
}

/// Where the blobs are gone and no mount tells, a look inside makes one view, which goes with the mount.
fn one_view(world: &World) {
    let (manifest, digests) = rich(world);
    let (blobs, inodes) = known(world.mount(), world, &manifest);
    discard(world, &digests);
    let dir = world.path(&format!("manifests/{}", oci::hex_of(&manifest)));
    let chain = world.value(&format!("manifests/{}/layers/01/chain_id", oci::hex_of(&manifest)));
    let fs = world.path(&format!("snapshots/overlayfs/{chain}/fs"));

    let mount = Mount::new(&world.containerd, &[]);
    assert!(mount.ls(&dir).contains(&"rootfs".to_owned()) && mount.exists(&fs));
    assert_eq!(made(world, "overlayfs"), nothing(), "only a look inside makes anything");
    let (ours, same) = known(&mount, world, &manifest);
    blobs.assert_shown(&ours, NEVER);
    assert_eq!(same, inodes);
    assert!(mount.ls(&format!("{fs}/opt")).contains(&"gone".to_owned()), "the snapshot below");
    let (views, leases) = made(world, "overlayfs");
    assert_eq!((views.len(), leases.len()), (1, 1), "{views:?} {leases:?}");
    assert_eq!(world.containerd.rpc().lease_resources(&world.namespace, &leases[0])[0].id, views[0]);
    drop(mount);
    eventually("view and lease are gone", Duration::from_secs(10), || made(world, "overlayfs") == nothing());
    // No trace: the chain can be removed, the topmost first.
    for layer in ["02", "01", "00"] {
        let chain = world.value(&format!("manifests/{}/layers/{layer}/chain_id", oci::hex_of(&manifest)));
        let done = world.containerd.try_ctr(&world.namespace, &["snapshots", "rm", &chain]);
        // The garbage collector, which each removal calls, may be first.
        assert!(done.code == Some(0) || done.err.contains("not found"), "{done:?}");
    }
}

/// `-o ro` makes nothing: what could not be had without a view is absent.
fn passive(world: &World) {
    let (manifest, digests) = rich(world);
    discard(world, &digests);
    let dir = world.path(&format!("manifests/{}", oci::hex_of(&manifest)));
    let chain = world.value(&format!("manifests/{}/layers/02/chain_id", oci::hex_of(&manifest)));
    let mount = Mount::new(&world.containerd, &["-o", "ro"]);
    assert!(!mount.ls(&dir).contains(&"rootfs".to_owned()) && !mount.exists(&format!("{dir}/rootfs")));
    let snapshot = world.path(&format!("snapshots/overlayfs/{chain}"));
    assert!(mount.exists(&snapshot) && !mount.exists(&format!("{snapshot}/fs")));
    assert_eq!(made(world, "overlayfs"), nothing());
}

/// What a ctrfs leaves that is killed, the next one gives back; that of one that lives it leaves alone.
fn killed(world: &World) {
    let (manifest, digests) = rich(world);
    discard(world, &digests);
    let look = |mount: &Mount| {
        let rootfs = world.path(&format!("manifests/{}/rootfs/opt/x", oci::hex_of(&manifest)));
        assert_eq!(mount.read(&rootfs), "replaced");
    };
    let first = Mount::new(&world.containerd, &[]);
    look(&first);
    let left = made(world, "overlayfs");
    let second = Mount::new(&world.containerd, &[]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(made(world, "overlayfs"), left, "its ctrfs lives");
    first.kill();
    drop((first, second));
    assert_eq!(made(world, "overlayfs"), left, "nobody was there to give it back");
    let _third = Mount::new(&world.containerd, &[]);
    eventually("the next one gives it back", Duration::from_secs(10), || made(world, "overlayfs") == nothing());
}

/// Leases are renewed before they end, and what they hold outlives a garbage collection.
fn renewed(world: &World) {
    let (manifest, digests) = rich(world);
    let chain = world.value(&format!("manifests/{}/layers/02/chain_id", oci::hex_of(&manifest)));
    discard(world, &digests);
    let client = Client::new(Config {
        address: world.containerd.address().into(),
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        cache_bytes: 1 << 20,
    });
    let client = client.unwrap();
    let views = Views::new(client.clone(), Duration::from_secs(4));
    let namespace = client.namespace(&world.namespace).unwrap().unwrap();
    let mounts = views.of(&namespace, "overlayfs", &chain).unwrap();
    assert_eq!(views.of(&namespace, "overlayfs", &chain).unwrap(), mounts);
    let (view, mut seen) = (made(world, "overlayfs").0, std::collections::BTreeSet::new());
    let until = Instant::now() + Duration::from_secs(9);
    while Instant::now() < until {
        seen.extend(made(world, "overlayfs").1);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(seen.len() >= 3, "{seen:?}");
    world.containerd.rpc().create_lease(&world.namespace, "passing", &[]);
    world.ctr(&["leases", "rm", "--sync", "passing"]);
    assert_eq!(made(world, "overlayfs").0, view, "the garbage was collected twice the lease's life later");
    assert_eq!(views.of(&namespace, "overlayfs", &chain).unwrap(), mounts);
    views.end();
    assert_eq!(made(world, "overlayfs"), nothing());
}

/// Only the native snapshotter has the image, and the blobs are gone: all of it is in directories that copy.
fn native_only(world: &World) {
    let (manifest, digests) = super::sources::rich_unpacked(world, &["--no-unpack"]);
    let (blobs, inodes) = known(world.mount(), world, &manifest);
    let file = world.containerd.dir.join(format!("{}.tar", world.namespace));
    match world.version() {
        Version::V1_6 => {
            let native = ["images", "import", "--snapshotter", "native", "--base-name", "docker.io/library/rich"];
            world.ctr(&[&native[..], &[file.to_str().unwrap()]].concat());
        }
        _ => {
            let mounted = ctr_mount(world, super::sources::RICH, &["--snapshotter", "native"]).unwrap();
            let key = mounted.0.to_str().unwrap().to_owned();
            drop(mounted);
            world.ctr(&["snapshots", "--snapshotter", "native", "rm", &key]);
        }
    }
    assert!(world.containerd.rpc().snapshots(&world.namespace, "overlayfs").is_empty());
    discard(world, &digests);
    let passive = Mount::new(&world.containerd, &["-o", "ro"]);
    assert!(!passive.exists(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&manifest)))));
    let mount = Mount::new(&world.containerd, &[]);
    let (ours, same) = known(&mount, world, &manifest);
    blobs.assert_shown(&ours, NEVER);
    // Which layers had a directory that they only implied, a copy does not tell; of files it tells.
    let files = |all: Vec<(Vec<u8>, u64, String)>| -> Vec<_> {
        let files = all.into_iter().filter(|(path, ..)| blobs.files[path].kind != 'd');
        files.map(|(path, _, layer)| (String::from_utf8(path).unwrap(), layer)).collect()
    };
    assert_eq!(files(same), files(inodes));
    drop(mount);
    eventually("all is given back", Duration::from_secs(10), || made(world, "native") == nothing());
}

/// Snapshots that are no directories: images of disks (blockfile) and of layers (erofs), mounted for ctrfs alone.
fn no_directories(world: &World) {
    let plugins = world.containerd.ctr("default", &["plugins", "ls"]);
    let works = |name: &str| {
        plugins.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.starts_with(&["io.containerd.snapshotter.v1", name]) && words.last() == Some(&"ok")
        })
    };
    let tried: Vec<&str> = ["blockfile", "erofs"].into_iter().filter(|name| works(name)).collect();
    let kernel = std::fs::read_to_string("/proc/filesystems").unwrap().contains("\terofs\n");
    let expected: &[&str] = match world.version() {
        Version::V1_6 => &[],
        Version::V2 if kernel => &["blockfile", "erofs"],
        Version::V1_7 | Version::V2 => &["blockfile"],
    };
    if !kernel {
        eprintln!("NOT TESTED: erofs, which this kernel does not have");
    }
    assert_eq!(tried, expected, "{plugins}");
    for snapshotter in tried {
        let (manifest, digests) = super::sources::rich_unpacked(world, &["--no-unpack"]);
        let blobs = known(world.mount(), world, &manifest).0;
        let mounted = ctr_mount(world, super::sources::RICH, &["--snapshotter", snapshotter]).unwrap();
        let right = read(&mounted.0);
        let key = mounted.0.to_str().unwrap().to_owned();
        drop(mounted);
        world.ctr(&["snapshots", "--snapshotter", snapshotter, "rm", &key]);
        discard(world, &digests);
        let mount = Mount::new(&world.containerd, &[]);
        let root = mount.at_path(&world.path(&format!("manifests/{}/rootfs", oci::hex_of(&manifest))));
        let ours = read(&root);
        let names: Vec<_> = right.files.keys().filter(|name| **name != b"/lost+found").collect();
        assert!(ours.files.keys().filter(|name| **name != b"/lost+found").eq(names.iter().copied()), "{snapshotter}");
        for (path, file) in blobs.files.iter().filter(|(path, _)| !path.is_empty()) {
            assert_eq!(Some(file), ours.files.get(path), "{snapshotter}: {}", path.escape_ascii());
        }
        // Each of the lower snapshots, too; and nobody else sees a mount.
        for layer in ["00", "01"] {
            let chain = world.value(&format!("manifests/{}/layers/{layer}/chain_id", oci::hex_of(&manifest)));
            let fs = world.path(&format!("snapshots/{snapshotter}/{chain}/fs/etc/passwd"));
            assert!(mount.read(&fs).contains("root"), "{snapshotter}, layer {layer}");
        }
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", mount.pid())).unwrap();
        // What containerd itself mounts for erofs is its own.
        assert!(!mounts.lines().any(|line| line.starts_with("/dev/loop") && line.contains(" ext4 ")), "{mounts}");
        drop(mount);
        eventually("all is given back", Duration::from_secs(10), || made(world, snapshotter) == nothing());
        world.ctr(&["images", "rm", "--sync", super::sources::RICH]);
    }
}

crate::each_version!(one_view, passive, killed, renewed, native_only);
crate::each_version_of!(crate::common::World::blocks; no_directories);
