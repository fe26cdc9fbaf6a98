//! Images as names: tag, rename, label, unpack, delete.

use super::pull::unique;
use crate::common::{World, eventually, oci};
use std::time::Duration;

fn stored(world: &World, name: &str) -> String {
    let (layout, target) = unique(world, 1);
    let tar = world.containerd.dir.join(format!("{}.tar", world.namespace));
    layout.save(&target, "x", &tar);
    world.order("", &format!("images import --no-unpack --tag {name} {}", tar.display()));
    target["digest"].as_str().unwrap().to_owned()
}

/// An image is known by further names; a name that is taken stays, unless it is forced.
fn tag(world: &World) {
    let digest = stored(world, "h/a:1");
    world.order("", "images tag h/a:1 h/b:1 h/c:1");
    world.order("images/h/a:1", "tag h/d:1");
    for name in ["b", "c", "d"] {
        assert_eq!(world.value(&format!("images/h/{name}:1/digest")), digest);
    }
    assert_eq!(world.refused("", "images tag h/a:1 h/b:1"), libc::EEXIST);
    world.order("", "ctr i tag --force h/a:1 h/b:1");
    assert_eq!(world.refused("", "images tag h/nothing:1 h/x:1"), libc::ENOENT);
    assert_eq!(world.refused("", "images tag h/a:1"), libc::EINVAL);
    assert_eq!(world.refused("", "images tag"), libc::EINVAL);
    world.order("images/h/a:1", "rename h/e:1");
    world.order("", "images rename h/b:1 'h/with space:1'");
    assert_eq!(world.ls("images/h"), ["c:1", "d:1", "e:1", "with space:1"]);
    assert_eq!(world.refused("", "images rename h/c:1 h/d:1"), libc::EEXIST);
    assert_eq!(world.refused("", "images rename h/c:1 h/c:1"), libc::EALREADY);
}

/// Under `-o allow_delete`, `rmdir` deletes an image.
fn by_name(world: &World) {
    stored(world, "h/a:1");
    let mount = crate::common::Mount::new(&world.containerd, &["-o", "allow_delete", "-n", &world.namespace]);
    mount.sh("cd $M && rmdir images/h/a:1", 10).ok();
    assert!(!world.ctr(&["images", "ls", "-q"]).contains("h/a:1"));
}

/// Labels are set and taken away.
fn label(world: &World) {
    stored(world, "h/a:1");
    world.order("", "images label h/a:1 one=1 two='2 3'");
    world.order("images/h/a:1", "label three=3");
    assert_eq!(world.read("images/h/a:1/labels"), "one=1\nthree=3\ntwo=2 3\n");
    world.order("", "images label h/a:1 one=");
    assert_eq!(world.read("images/h/a:1/labels"), "three=3\ntwo=2 3\n");
    world.order("", "images label --replace-all h/a:1 only=this");
    assert_eq!(world.read("images/h/a:1/labels"), "only=this\n");
    assert_eq!(world.refused("", "images label h/a:1"), libc::EINVAL);
    assert_eq!(world.refused("", "images label h/x:1 a=b"), libc::ENOENT);
}

/// What is deleted is gone, and with `--sync` so is its content.
fn delete(world: &World) {
    let digest = stored(world, "h/a:1");
    world.order("", "images tag h/a:1 h/b:1");
    world.order("images/h/b:1", "delete");
    assert!(!world.exists("images/h/b:1") && world.exists("images/h/a:1"));
    let blob = format!("blobs/sha256/{}", oci::hex_of(&serde_json::json!({"digest": digest})));
    assert!(world.exists(&blob));
    world.order("", "images rm --sync h/a:1");
    assert!(!world.exists("images/h/a:1"));
    // Of what the collection takes nobody is told: the kernel believes in it for a second.
    eventually("the content is gone", Duration::from_secs(3), || !world.exists(&blob) && !world.exists("images/h"));
    assert_eq!(world.refused("", "images delete h/a:1"), libc::ENOENT);
    assert_eq!(world.refused("", "images delete"), libc::EINVAL);
}

/// An image is unpacked by the word for it, once.
fn unpack(world: &World) {
    stored(world, "h/a:1");
    assert!(world.read("images/h/a:1/check").contains("unpacked=false"));
    world.order("images/h/a:1", "unpack");
    assert!(world.read("images/h/a:1/check").contains("unpacked=true"));
    world.order("", "images unpack h/a:1");
    assert_eq!(world.refused("", "images unpack h/x:1"), libc::ENOENT);
    assert_ne!(world.refused("", "images unpack --snapshotter nope h/a:1"), 0);
    assert_eq!(world.containerd.rpc().leases(&world.namespace).len(), 0);
}

crate::each_version!(tag, by_name, label, delete, unpack);
