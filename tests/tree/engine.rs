//! What commands are made of, below the mount: leases, unpacking.

use crate::common::{World, images, oci};
use ctrfs::containerd::{Client, Config, LeaseResource, Namespace};
use ctrfs::error::Kind;
use ctrfs::run::progress::Progress;
use ctrfs::run::unpack;
use std::collections::BTreeMap;
use std::time::Duration;

/// A client of the world's containerd, and its namespace.
pub fn namespace(world: &World) -> Namespace {
    let config = Config {
        address: world.containerd.address().into(),
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        cache_bytes: 1 << 20,
    };
    Client::new(config).unwrap().namespace(&world.namespace).unwrap().expect("the namespace is there")
}

/// A guard's lease holds what is made through it, and is gone when the guard is.
fn a_lease_holds_what_is_made_through_it(world: &World) {
    let ns = namespace(world);
    let lease = ns.lease(Duration::from_secs(60)).unwrap();
    lease.namespace().prepare_snapshot("overlayfs", "held", "", &BTreeMap::new()).unwrap();
    let held = LeaseResource { id: "held".into(), kind: "snapshots/overlayfs".into() };
    assert_eq!(ns.lease_resources(lease.id()).unwrap(), std::slice::from_ref(&held));
    assert!(ns.leases().unwrap()[lease.id()].labels.get("containerd.io/gc.expire").unwrap().starts_with("20"));
    ns.remove_from_lease(lease.id(), &held).unwrap();
    ns.add_to_lease(lease.id(), &held).unwrap();
    assert!(ns.snapshot("overlayfs", "held").unwrap().is_some());
    drop(lease);
    assert!(ns.leases().unwrap().is_empty());
    ns.create_lease("mine", &BTreeMap::new()).unwrap();
    ns.delete_lease("mine", true).unwrap();
    assert!(ns.snapshot("overlayfs", "held").unwrap().is_none(), "collected with the lease");
    assert_eq!(ns.delete_lease("mine", false).unwrap_err().kind(), Kind::NotFound);
}

/// A namespace that is not there is not made by writing into it.
fn no_namespace_is_made_by_the_way(world: &World) {
    let ns = namespace(world);
    world.ctr(&["namespaces", "rm", &world.namespace]);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ns.lease(Duration::from_secs(60)).err().unwrap().kind(), Kind::NotFound);
    assert!(!world.ctr(&["namespaces", "ls", "-q"]).contains(&world.namespace));
}

/// An image is unpacked to the snapshot that `ctr` would make, which is then held by the image alone.
fn unpacked_as_by_ctr(world: &World) {
    let ns = namespace(world);
    for (name, (layout, target)) in [("tiny", images::tiny_layout()), ("zstd", images::zstd())] {
        layout.store(&world.containerd, &world.namespace, name, &target);
        let digest = ctrfs::containerd::Digest::parse(target["digest"].as_str().unwrap()).unwrap();
        let lease = ns.lease(Duration::from_secs(60)).unwrap();
        let chain = unpack::unpack(lease.namespace(), &digest, "overlayfs", &Progress::default()).unwrap();
        drop(lease);
        ns.create_lease("sync", &BTreeMap::new()).unwrap();
        ns.delete_lease("sync", true).unwrap();
        assert!(unpack::is_unpacked(&ns, "overlayfs", &chain).unwrap(), "{name}: kept by its config");
        let listed = world.ctr(&["images", "check", &format!("name=={name}")]);
        assert!(listed.lines().any(|line| line.contains(name) && line.ends_with("true")), "{listed}");
        assert!(!world.ctr(&["snapshots", "ls"]).contains("extract-"));
        let said = world.ctr(&["run", "--rm", name, &world.new_id("of"), "echo", "runs"]);
        assert_eq!(said, "runs\n");
    }
}

/// A layer whose bytes are not what the config says is refused, and nothing of it stays.
fn a_layer_that_lies_is_refused(world: &World) {
    let ns = namespace(world);
    let mut layout = oci::Layout::new();
    let mut layer = oci::Layer::gzip(images::busybox_layer());
    layer.diff_id = oci::digest(b"something else");
    let target = layout.image(&images::host(), &[layer]);
    layout.store(&world.containerd, &world.namespace, "lies", &target);
    let digest = ctrfs::containerd::Digest::parse(target["digest"].as_str().unwrap()).unwrap();
    let lease = ns.lease(Duration::from_secs(60)).unwrap();
    let error = unpack::unpack(lease.namespace(), &digest, "overlayfs", &Progress::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Digest, "{error}");
    assert_eq!(ns.snapshots("overlayfs").unwrap().len(), 0);
}

crate::each_version!(
    a_lease_holds_what_is_made_through_it,
    no_namespace_is_made_by_the_way,
    unpacked_as_by_ctr,
    a_layer_that_lies_is_refused,
);
