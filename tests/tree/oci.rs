//! `oci/` and `oci.tar`: what is here of an image, for other tools; the archive is the one that `ctr images export` writes.

use crate::common::{World, eventually, images, oci};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// A directory of this test alone, below the containerd's.
fn scratch(world: &World, name: &str) -> String {
    let dir = world.containerd.dir.join(format!("{}-{name}", world.namespace));
    std::fs::create_dir_all(&dir).unwrap();
    dir.to_str().unwrap().to_owned()
}

/// The path of an image without a colon, as `skopeo` and `umoci` need it.
fn plain(image: &str) -> String {
    format!("images/{}", image.replace('/', "%2F").replace(':', "%3A"))
}

/// `oci.tar` is byte for byte what `ctr images export` writes, at each read and from any offset.
fn as_ctr_exports(world: &World) {
    let image = world.debian();
    let file = format!("{}/export.tar", scratch(world, "export"));
    world.ctr(&["images", "export", "--all-platforms", &file, image]);
    let (wanted, tar) = (std::fs::read(&file).unwrap(), format!("images/{image}/oci.tar"));
    assert_eq!(std::fs::metadata(world.mount().at_path(&world.path(&tar))).unwrap().len(), wanted.len() as u64);
    assert!(world.bytes(&tar) == wanted, "oci.tar is not what ctr exports");
    world.sh(&format!("cmp {tar} {file} && cmp {tar} {file} 5000000 5000000"), 20).ok();
    world.sh(&format!("tail -c 3000 {tar} | cmp - <(tail -c 3000 {file})"), 20).ok();
    let hex = world.value(&format!("images/{image}/digest")).replace("sha256:", "");
    assert!(world.bytes(&format!("manifests/{hex}/oci.tar")) == wanted, "that of its only manifest is the same");
}

/// An index with everything that it names is exported as `ctr` exports it.
fn a_whole_index(world: &World) {
    let (mut layout, here) = images::tiny_layout();
    let other = layout.image("linux/s390x", &[oci::Layer::plain(Default::default())]);
    let index = layout.index(&[other, here.clone()]);
    let name = "registry.test/a/whole:1.0";
    layout.store(&world.containerd, &world.namespace, name, &index);
    let dir = format!("images/{name}");
    eventually("the image is here", Duration::from_secs(2), || world.exists(&format!("{dir}/oci")));
    let named = &world.json(&format!("{dir}/oci/index.json"))["manifests"];
    assert_eq!(named.as_array().unwrap().len(), 1);
    assert_eq!(named[0]["digest"], index["digest"]);
    let names = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1.0"});
    assert_eq!(named[0]["annotations"], names);
    assert_eq!(world.json(&format!("{dir}/oci/manifest.json"))[0]["RepoTags"], json!(["registry.test/a/whole:1.0"]));
    let file = format!("{}/export.tar", scratch(world, "export"));
    world.ctr(&["images", "export", "--all-platforms", &file, name]);
    assert!(world.bytes(&format!("{dir}/oci.tar")) == std::fs::read(&file).unwrap());
}

/// `tar -xf oci.tar` gives exactly `oci/`; the blobs in it are the files of `blobs/` and cost nothing.
fn layout(world: &World) {
    let image = world.tiny();
    let (dir, out) = (format!("images/{image}"), scratch(world, "untar"));
    world.sh(&format!("tar -xf {dir}/oci.tar -C {out} && diff -r {out} {dir}/oci"), 20).ok();
    assert_eq!(world.json(&format!("{dir}/oci/oci-layout")), json!({"imageLayoutVersion": "1.0.0"}));
    let stat = |path: &str| std::fs::metadata(world.mount().at_path(&world.path(path))).unwrap();
    let hexes = world.ls(&format!("{dir}/oci/blobs/sha256"));
    assert_eq!(hexes.len(), 3);
    for hex in hexes {
        let (again, home) = (stat(&format!("{dir}/oci/blobs/sha256/{hex}")), stat(&format!("blobs/sha256/{hex}")));
        assert_eq!((again.len(), again.blocks()), (home.len(), 0));
        assert!(home.blocks() > 0 && again.ino() != home.ino(), "the kernel keeps one number of blocks for each inode");
        assert_eq!(oci::digest(&world.bytes(&format!("{dir}/oci/blobs/sha256/{hex}"))), format!("sha256:{hex}"));
    }
    assert_eq!(world.sh(&format!("du -s {dir}/oci | cut -f1"), 5).ok(), "0\n");
    assert_eq!(stat(&format!("{dir}/oci.tar")).blocks(), 0);
    assert!(!world.exists(&format!("{dir}/oci/blobs/sha512")));
    assert!(!world.exists(&format!("{dir}/oci/blobs/sha256/{}", "0".repeat(64))));
}

/// What is exported here comes back elsewhere, under its name and digest.
fn round_trip(world: &World) {
    let image = world.tiny();
    let other = world.containerd.new_namespace();
    world.containerd.ctr("default", &["namespaces", "create", &other]);
    let hex = world.value(&format!("images/{image}/digest")).replace("sha256:", "");
    for tar in [format!("images/{image}/oci.tar"), format!("manifests/{hex}/oci.tar")] {
        let path = world.mount().at_path(&world.path(&tar));
        world.containerd.ctr(&other, &["images", "import", path.to_str().unwrap()]);
        let list = world.containerd.ctr(&other, &["images", "ls"]);
        let row: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[2]), (image, format!("sha256:{hex}").as_str()), "{list}");
        world.containerd.ctr(&other, &["images", "rm", "--sync", image]);
    }
}

/// Of an index of which something is missing, what is here whole is named, the host's first; the rest is left out.
fn what_is_missing_is_left_out(world: &World) {
    let (mut layout, here) = images::tiny_layout();
    let mut absent = oci::Layout::new();
    let absent = absent.image("linux/riscv64", &[oci::Layer::plain(vec![1; 1024])]);
    let whole = layout.image("linux/s390x", &[oci::Layer::plain(vec![2; 1024])]);
    let half = layout.image("linux/ppc64le", &[oci::Layer::plain(vec![3; 1024])]);
    let layer = oci::digest(&[3; 1024]);
    layout.forget(&json!({"digest": layer}));
    let index = layout.index(&[absent, half.clone(), whole.clone(), here.clone()]);
    layout.store(&world.containerd, &world.namespace, "registry.test/half:1", &index);
    let dir = "images/registry.test/half:1";
    eventually("the image is here", Duration::from_secs(2), || world.exists(&format!("{dir}/oci")));
    let named = world.json(&format!("{dir}/oci/index.json"))["manifests"].clone();
    let digests: Vec<&Value> = named.as_array().unwrap().iter().map(|manifest| &manifest["digest"]).collect();
    assert_eq!(digests, [&here["digest"], &whole["digest"]]);
    assert_eq!(named[0]["annotations"]["io.containerd.image.name"], "registry.test/half:1");
    assert_eq!(named[1]["platform"], json!({"architecture": "s390x", "os": "linux"}));
    assert!(!world.exists(&format!("{dir}/oci/blobs/{}", index["digest"].as_str().unwrap().replace(':', "/"))));
    let path = plain("registry.test/half:1");
    let inspected = world.sh(&format!("skopeo inspect --format '{{{{.Digest}}}}' oci:{path}/oci:1"), 20).ok();
    assert_eq!(inspected.trim(), here["digest"]);
    assert!(!world.exists(&format!("manifests/{}/oci.tar", oci::hex_of(&half))), "a layer of it is missing");
    let alone = world.sh(&format!("tar -xOf manifests/{}/oci.tar index.json", oci::hex_of(&whole)), 5).ok();
    let alone: Value = serde_json::from_str(&alone).unwrap();
    assert_eq!(alone["manifests"][0]["digest"], whole["digest"]);
    assert_eq!(alone["manifests"].as_array().unwrap().len(), 1);
}

/// An image that nobody could use is absent, and one that changed is another file.
fn changes(world: &World) {
    let mut layout = oci::Layout::new();
    let manifest = layout.image(&images::host(), &[oci::Layer::plain(vec![9; 1024])]);
    layout.forget(&json!({"digest": oci::digest(&[9; 1024])}));
    layout.store(&world.containerd, &world.namespace, "gone:1", &manifest);
    eventually("the image is here", Duration::from_secs(2), || world.exists("images/gone:1/manifest.json"));
    assert!(!world.exists("images/gone:1/oci") && !world.exists("images/gone:1/oci.tar"));
    world.containerd.rpc().write_blob(&world.namespace, &oci::digest(&[9; 1024]), &[9; 1024]);
    eventually("the layer came", Duration::from_secs(3), || world.exists("images/gone:1/oci.tar"));
    let image = world.tiny();
    let tar = format!("images/{image}/oci.tar");
    let (old, stat) = (world.bytes(&tar), || std::fs::metadata(world.mount().at_path(&world.path(&tar))).unwrap());
    let ino = stat().ino();
    world.ctr(&["images", "tag", "--force", "gone:1", image]);
    eventually("the name is of another image", Duration::from_secs(2), || stat().ino() != ino);
    assert_ne!(world.bytes(&tar), old);
    let name = &world.json(&format!("images/{image}/oci/index.json"))["manifests"][0]["annotations"];
    assert_eq!(name["io.containerd.image.name"], image);
}

/// An artifact is exported like an image; a name that is no reference of Docker's has no tag there.
fn odd_ones(world: &World) {
    let (layout, manifest) = images::artifact();
    for name in ["registry.test/chart:1", "sha256:abc", "no reference <&>"] {
        layout.store(&world.containerd, &world.namespace, name, &manifest);
    }
    eventually("the images are here", Duration::from_secs(2), || world.exists("images/no reference <&>/oci"));
    let index = world.read("images/no reference <&>/oci/index.json");
    assert!(index.contains(r#""org.opencontainers.image.ref.name":"no reference \u003c\u0026\u003e""#), "{index}");
    assert_eq!(world.json("images/no reference <&>/oci/manifest.json")[0]["RepoTags"], Value::Null);
    assert_eq!(world.json("images/registry.test/chart:1/oci/manifest.json")[0]["RepoTags"][0], "registry.test/chart:1");
    world.sh("for tar in images/*/oci.tar images/*/*/oci.tar manifests/*/oci.tar; do tar -tf \"$tar\"; done", 10).ok();
}

crate::each_version!(as_ctr_exports, a_whole_index, layout, round_trip, what_is_missing_is_left_out);
crate::each_version!(changes, odd_ones);
