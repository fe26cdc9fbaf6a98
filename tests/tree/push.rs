//! `images push`: what is pushed can be pulled, and nothing is sent that the registry has.

use super::pull::unique;
use crate::common::registry::{Kind, Registry, USER};
use crate::common::{World, images, oci, sh};

fn stored(world: &World, name: &str) -> (oci::Layout, serde_json::Value) {
    let (layout, target) = unique(world, 300);
    layout.store(&world.containerd, &world.namespace, name, &target);
    (layout, target)
}

/// What `skopeo` finds in the registry.
fn found(registry: &Registry, name: &str) -> String {
    let creds = if registry.kind == Kind::Closed { format!("--creds={USER}") } else { String::new() };
    let script = "skopeo inspect --tls-verify=false --format '{{.Digest}}' $A docker://$R";
    let done = sh(script, &[("R", &registry.reference(name)), ("A", &creds)], 20);
    done.out.trim().to_owned()
}

/// Pushed images are in the registry byte for byte, also to closed ones and ones with TLS; a second push sends no blob.
fn push(world: &World) {
    let (_, target) = stored(world, "h/mine:1");
    let digest = target["digest"].as_str().unwrap();
    for kind in [Kind::Plain, Kind::Closed, Kind::Tls] {
        let registry = Registry::start(kind);
        let remote = registry.reference("a/b:1");
        let user = if kind == Kind::Closed { format!("--user {USER} ") } else { String::new() };
        if kind == Kind::Closed {
            assert_eq!(world.refused("", &format!("images push {remote} h/mine:1")), libc::EACCES);
        }
        world.order("", &format!("images push {user}{remote} h/mine:1"));
        assert_eq!(found(&registry, "a/b:1"), digest, "{kind:?}");
        let sent = registry.log().matches("\"PUT /v2/a/b/blobs/uploads").count();
        assert!(sent > 0 || registry.log().contains("PUT"), "{}", registry.log());
        world.order("images/h/mine:1", &format!("push {user}{}", registry.reference("a/b:2")));
        assert_eq!(found(&registry, "a/b:2"), digest);
        let again = registry.log().matches("\"PUT /v2/a/b/blobs/uploads").count();
        assert_eq!(sent, again, "no blob is sent twice");
        // And back again.
        world.order("", &format!("images pull --all-platforms --no-unpack {user}{remote}"));
        assert_eq!(world.value(&format!("images/{remote}/digest")), digest);
    }
    assert_eq!(world.refused("", "images push 127.0.0.1:1/a:1 h/mine:1"), libc::EHOSTDOWN);
    assert_eq!(world.refused("", "images push 127.0.0.1:1/a:1 h/none:1"), libc::ENOENT);
    assert_eq!(world.refused("", "images push"), libc::EINVAL);
}

/// A whole index is pushed with all that it names; of a part of one only the platform that is here.
fn an_index(world: &World) {
    let registry = Registry::start(Kind::Plain);
    let (layout, index, ..) = images::attested();
    layout.store(&world.containerd, &world.namespace, "h/whole:1", &index);
    world.order("", &format!("images push {} h/whole:1", registry.reference("whole:1")));
    world.order("", &format!("images pull --all-platforms --no-unpack {}", registry.reference("whole:1")));
    let (layout, index, here, _) = images::half_pulled();
    layout.store(&world.containerd, &world.namespace, "h/half:1", &index);
    let remote = registry.reference("half:1");
    assert_eq!(world.refused("", &format!("images push {remote} h/half:1")), libc::ENODATA);
    world.order("", &format!("images push --platform {} {remote} h/half:1", images::host()));
    assert_eq!(found(&registry, "half:1"), here["digest"].as_str().unwrap());
}

crate::each_version!(push, an_index);
