//! `images export` and `images convert`: as `ctr` of the same version writes and makes them.

use super::pull::unique;
use crate::common::holdings::{collect, holdings};
use crate::common::registry::{Kind, Registry};
use crate::common::{Version, World, eventually, images, oci, sh};
use std::time::Duration;

/// The archive is byte for byte that of `ctr`: of one image and of several, for one platform and for all.
fn as_ctr_exports(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (mut many, here) = unique(world, 10);
    let other = many.image("linux/s390x", &[oci::Layer::gzip(vec![0; 2048])]);
    let index = many.index(&[other, here.clone()]);
    let pulled = registry.put(&many, &index, "a/many:1");
    world.order("", &format!("images pull --all-platforms {pulled}"));
    many.store(&world.containerd, &world.namespace, "h/one:1", &here);
    let dir = world.containerd.dir.join(format!("{}-export", world.namespace));
    std::fs::create_dir_all(&dir).unwrap();
    let (ours, theirs) = (dir.join("ours.tar"), dir.join("theirs.tar"));
    let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    for (flags, names) in [
        ("", "h/one:1"),
        ("--all-platforms", &*pulled),
        ("", &pulled),
        ("--platform linux/s390x", &pulled),
        ("--skip-manifest-json", &pulled),
        ("--skip-non-distributable --all-platforms", &format!("h/one:1 {pulled}")),
    ] {
        // Twice the same image in Docker's list: its order is that of a Go map.
        // And 1.6 writes the list all the same, of what is no index.
        if names.contains(' ') && world.version() == Version::V1_6 {
            continue;
        }
        let skip = if names.contains(' ') { "--skip-manifest-json" } else { "" };
        world.order("", &format!("images export {flags} {skip} {ours} {names}"));
        // From 2.0 on `ctr` asks the server, and often ends before the last bytes have come.
        let local = if world.version() == Version::V2 { "--local" } else { "" };
        let words = format!("images export {local} {flags} {skip} {theirs} {names}");
        world.ctr(&words.split_whitespace().collect::<Vec<_>>());
        let same = sh("cmp $O $T", &[("O", ours), ("T", theirs)], 10);
        let listed = sh(
            "diff <(tar -tvf $O) <(tar -tvf $T); tar -xOf $O index.json; echo; tar -xOf $T index.json",
            &[("O", ours), ("T", theirs)],
            10,
        );
        assert_eq!(same.code, Some(0), "{flags} {names}: {same:?}\n{}", listed.out);
    }
    world.order("images/h/one:1", &format!("export {ours}"));
    world.order("", &format!("images delete --sync h/one:1 {pulled}"));
    world.order("", &format!("images import --tag h/back:1 {ours}"));
    assert_eq!(world.value("images/h/back:1/digest"), here["digest"].as_str().unwrap());
    for (line, errno) in [
        (format!("images export {ours} h/none:1"), libc::ENOENT),
        (format!("images export --platform linux/arm64 {ours} h/half:1"), libc::ENOENT),
        (format!("images export {ours}"), libc::EINVAL),
        ("images export relative.tar h/back:1".into(), libc::EINVAL),
        ("images export /does/not/exist.tar h/back:1".into(), libc::ENOENT),
    ] {
        assert_eq!(world.refused("", &line), errno, "{line}");
    }
}

/// Layers are unpacked as by `ctr`; gzip and zstd come back to the same; what is made runs.
fn convert(world: &World) {
    let (layout, target) = unique(world, 300);
    for other in [world, &World::new(world.version())] {
        layout.store(&other.containerd, &other.namespace, "h/src:1", &target);
    }
    let theirs = World::new(world.version());
    layout.store(&theirs.containerd, &theirs.namespace, "h/src:1", &target);
    theirs.ctr(&["images", "convert", "--uncompress", "--oci", "h/src:1", "h/plain:1"]);
    world.order("", "images convert --uncompress --oci h/src:1 h/plain:1");
    let image = |w: &World| holdings(w).remove("image h/plain:1").unwrap();
    assert_eq!(image(world), image(&theirs));
    world.order("images/h/plain:1", "convert --zstd h/zstd:1");
    world.order("", "images convert --gzip h/zstd:1 h/gzip:1");
    world.order("", "images convert --uncompress h/gzip:1 h/again:1");
    assert_eq!(world.value("images/h/again:1/digest"), world.value("images/h/plain:1/digest"));
    assert!(world.read("images/h/zstd:1/layers/00/media_type").ends_with("+zstd\n"));
    collect(world);
    for name in ["plain", "zstd", "gzip"] {
        world.order("", &format!("images unpack h/{name}:1"));
        world.ctr(&["run", "--rm", &format!("h/{name}:1"), &world.new_id("of"), "true"]);
    }
    assert_eq!(world.refused("", "images convert h/src:1 h/x:1"), libc::EINVAL);
    assert_eq!(world.refused("", "images convert --gzip --zstd h/src:1 h/x:1"), libc::EINVAL);
    assert_eq!(world.refused("", "images convert --gzip h/none:1 h/x:1"), libc::ENOENT);
    let (layout, index, ..) = images::half_pulled();
    layout.store(&world.containerd, &world.namespace, "h/half:1", &index);
    eventually("the image is here", Duration::from_secs(3), || world.exists("images/h/half:1"));
    world.order("", "images convert --zstd h/half:1 h/whole:1");
    assert_eq!(world.ls("images/h/whole:1/manifests").len(), 1, "what is not here is not in it");
}

crate::each_version!(as_ctr_exports, convert);
