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

/// Under `-o allow_delete`, `mv` renames an image within its directory: at once the old name is gone and the new one shows
/// the image. A name that is taken stays, and nothing leaves its directory.
fn moved(world: &World) {
    let digest = stored(world, "h/a:1");
    world.order("", "images tag h/a:1 h/taken:1 h/long/er:1 top:1");
    world.order("", "images label h/a:1 colour=blue");
    let closed = world.sh("mv images/h/a:1 images/h/b:1", 10);
    assert!(closed.code != Some(0) && closed.err.contains("not permitted"), "{closed:?}");
    let mount = crate::common::Mount::new(&world.containerd, &["-o", "allow_delete"]);
    let images = |script: &str| mount.sh(&format!("cd $M/{} && {script}", world.path("images")), 30);
    eventually("it is here", Duration::from_secs(3), || images("ls h/a:1/digest top:1/digest").code == Some(0));
    // The kernel knows the old directory and what is in it, and the new name as none.
    images("cat h/a:1/digest; ls -lR h/a:1 >/dev/null; ls h/b:1");
    let moved = images("mv h/a:1 h/b:1 && cat h/b:1/name h/b:1/digest h/b:1/labels && ls h");
    assert_eq!(moved.out, format!("h/b:1\n{digest}\ncolour=blue\nb:1\nlong\ntaken:1\n"), "{moved:?}");
    assert!(images("cat h/a:1/name || ls -d h/a:1").code != Some(0));
    let names = || world.ctr(&["images", "ls", "-q"]);
    assert!(names().contains("h/b:1\n") && !names().contains("h/a:1\n"), "{}", names());
    // There and back again, as fast as it goes: what is shown is never the one before.
    let script = "cd h; for n in 1 2 3 4 5 6 7 8 9; do mv b:1 c:1 && cat c:1/name && ! test -e b:1 && \
        mv c:1 b:1 && cat b:1/name && ! test -e c:1 || exit 1; done";
    let many = images(script).ok();
    assert_eq!(many, "h/c:1\nh/b:1\n".repeat(9));
    images("mv top:1 'the top' && mv 'h%2Fb%3A1' x");
    assert!(names().contains("the top\n") && names().contains("h/b:1\n"), "a link to an image is not it: {}", names());
    for (script, why) in [
        ("mv -T h/b:1 h/taken:1", "File exists"),
        ("mv h/b:1 h/long", "not permitted"),
        ("mv h/b:1 b:1", "not permitted"),
        ("mv h/b:1 ../x", "not permitted"),
        ("mv h/long h/longer", "not permitted"),
        ("mv h/b:1/labels h/b:1/l", "not permitted"),
        ("mv h/b:1 h/%41", "cannot move"),
        ("mv h/b:1 h/x%2Fy", "cannot move"),
        ("mv ../leases ../l", "not permitted"),
    ] {
        let before = names();
        let refused = images(script);
        assert!(refused.code != Some(0) && refused.err.contains(why), "{script}: {refused:?}");
        assert_eq!(names(), before, "{script}");
    }
    let log = mount.read(".ctrfs/error_log");
    for why in ["not how the last part", "stays in its directory", "is there already", "a part of some"] {
        assert!(log.contains(why), "{why}: {log}");
    }
}

/// `images prune --all` leaves the images that containers were made from, running or not, and nothing else; without
/// the flag nothing happens.
fn prune(world: &World) {
    let image = world.tiny();
    stored(world, "h/idle:1");
    world.order("", &format!("images tag {image} used/twice:1 unused/again:1"));
    world.order("", &format!("run {image} {} sleep 1000", world.new_id("runs")));
    world.order("", &format!("containers create used/twice:1 {} true", world.new_id("is")));
    let names = || world.ctr(&["images", "ls", "-q"]).lines().map(str::to_owned).collect::<Vec<_>>();
    let before = names();
    assert_eq!(before.len(), 4, "{before:?}");
    assert_eq!(world.refused("", "images prune"), libc::EINVAL);
    assert!(world.read("error").contains("--all"), "{}", world.read("error"));
    assert_eq!(world.refused("", "images prune --all h/idle:1"), libc::EINVAL);
    assert_eq!(names(), before);
    world.order("", "ctr i prune --all");
    assert_eq!(names(), [image, "used/twice:1"]);
    assert!(!world.exists("images/h") && !world.exists("images/unused") && world.exists("images/used/twice:1"));
    world.order("", "images prune --all");
    assert_eq!(names(), [image, "used/twice:1"]);
    let ro = crate::common::Mount::new(&world.containerd, &["-o", "ro"]);
    let passive = ro.sh(&format!("echo images prune --all > $M/{}", world.path("ctl")), 10);
    assert!(passive.err.contains("Read-only"), "{passive:?}");
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

crate::each_version!(tag, by_name, moved, prune, label, delete, unpack);
