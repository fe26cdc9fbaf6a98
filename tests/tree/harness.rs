//! The harness itself: what the other tests stand on, without a mount.

use crate::common::teardown::{cgroups_of, is_alive, mounts_below, shim_sockets};
use crate::common::{Containerd, Version, World, eventually, images, oci, state::snapshot_state};
use std::time::Duration;

/// Each version is the one that it says it is.
fn version(world: &World) {
    let said = world.ctr(&["version"]);
    let server = said.split("Server:").nth(1).expect("no server in it");
    let found = match world.version() {
        Version::V1_6 => server.contains(" 1.6.") || server.contains("v1.6."),
        Version::V1_7 => server.contains(" 1.7.") || server.contains("v1.7."),
        Version::V2 => server.contains(" 2.") || server.contains("v2."),
    };
    assert!(found, "{said}");
}

/// An imported image is listed and runs: the small one, and the one from Debian packages.
fn images_run(world: &World) {
    let tiny = world.tiny();
    let debian = world.debian();
    let mut listed: Vec<String> = world.ctr(&["images", "ls", "-q"]).lines().map(str::to_owned).collect();
    listed.sort();
    assert_eq!(listed, [debian, tiny]);
    let said = world.ctr(&["run", "--rm", tiny, &world.new_id("echo"), "cat", "/etc/greeting"]);
    assert_eq!(said, "hello\n");
    let said = world.ctr(&["run", "--rm", debian, &world.new_id("python")]);
    assert_eq!(said, "Hello from a layer\n");
}

/// What `ctr images import` would refuse or mend goes in over gRPC, byte for byte.
fn odd_images(world: &World) {
    let namespace = &world.namespace;
    let (layout, index, here, absent) = images::half_pulled();
    layout.store(&world.containerd, namespace, "docker.io/library/half:1", &index);
    let (layout, index, _, _) = images::attested();
    layout.store(&world.containerd, namespace, "attested", &index);
    let (layout, manifest) = images::artifact();
    layout.store(&world.containerd, namespace, "chart", &manifest);
    let (layout, manifest) = images::zstd();
    layout.store(&world.containerd, namespace, "zstd", &manifest);
    for name in [" ", "a\nb", "../x", "/", "a//b", &"x".repeat(4000)] {
        world.containerd.rpc().create_image(namespace, name, &manifest);
    }
    assert_eq!(world.containerd.rpc().images(namespace).len(), 10);
    let listed = world.ctr(&["content", "ls", "-q"]);
    assert!(listed.contains(oci::hex_of(&here)) && !listed.contains(oci::hex_of(&absent)));
    let dir = world.containerd.dir.join(format!("zstd-{namespace}"));
    std::fs::create_dir(&dir).unwrap();
    world.ctr(&["images", "mount", "zstd", dir.to_str().unwrap()]);
    assert!(dir.join("upper").exists() && !dir.join("etc/greeting").exists());
}

/// A lease holds what it is told to; an ingest is left half done; snapshots have any key.
fn records(world: &World) {
    let (rpc, namespace) = (world.containerd.rpc(), &world.namespace);
    rpc.write_blob(namespace, &oci::digest(b"abc"), b"abc");
    rpc.create_lease(namespace, "holder", &[("a", "b")]);
    rpc.lease_resource(namespace, "holder", "content", &oci::digest(b"abc"));
    assert_eq!(rpc.lease_resources(namespace, "holder").len(), 1);
    rpc.begin_ingest(namespace, "layer/one two", b"half", 8);
    assert!(world.ctr(&["content", "active"]).contains("layer/one two"));
    rpc.prepare_snapshot(namespace, "overlayfs", "a key/with slashes\nand lines", "", &[]);
    rpc.commit_snapshot(namespace, "overlayfs", "a key/with slashes\nand lines", "../base");
    rpc.view_snapshot(namespace, "overlayfs", "view", "../base");
    assert_eq!(rpc.snapshots(namespace, "overlayfs").len(), 2);
    rpc.create_container(namespace, "record", &[("x", "y")], &serde_json::json!({"ociVersion": "1.0.2"}));
    assert!(world.ctr(&["containers", "ls", "-q"]).contains("record"));
}

/// Ten thousand images are made in seconds.
fn many_images(world: &World) {
    let (layout, manifest) = images::artifact();
    layout.store(&world.containerd, &world.namespace, "first", &manifest);
    let names = (0..1000).map(|n| format!("registry.test/many/image{n}:latest"));
    world.containerd.rpc().create_images(&world.namespace, names, &manifest);
    assert_eq!(world.ctr(&["images", "ls", "-q"]).lines().count(), 1001);
}

/// A killed containerd leaves nothing: no shim, no process, no mount, no cgroup, no file; restarted ones go on.
fn leaves_nothing(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    let state = snapshot_state(&world.containerd);
    assert!(state.contains(&format!("task {id} ")), "{state}");
    world.containerd.kill();
    world.containerd.restart();
    world.containerd.stop();
    world.containerd.restart();
    assert!(!cgroups_of(&world.namespace).is_empty() && !mounts_below(&world.containerd.dir).is_empty());

    let doomed = Containerd::start(world.version());
    let (dir, namespace) = (doomed.dir.clone(), doomed.new_namespace());
    let tar = images::tiny(&dir);
    doomed.ctr(&namespace, &["images", "import", "--base-name", "tiny", tar.to_str().unwrap()]);
    let fifos = dir.join("fifo");
    let run = ["run", "-d", "--fifo-dir", fifos.to_str().unwrap(), "tiny:latest", &id, "sleep", "1000000"];
    doomed.ctr(&namespace, &run);
    let sockets = shim_sockets(&dir, &namespace);
    assert!(!sockets.is_empty() && sockets.iter().all(|socket| socket.exists()), "{sockets:?}");
    let pid = doomed.rpc().tasks(&namespace)[0].pid as i32;
    assert!(is_alive(pid));
    doomed.freeze();
    drop(doomed);
    assert!(!dir.exists() && mounts_below(&dir).is_empty() && cgroups_of(&namespace).is_empty());
    assert!(!std::path::Path::new("/run/containerd/runc").join(&namespace).exists());
    assert!(!sockets.iter().any(|socket| socket.exists()), "{sockets:?}");
    assert!(!is_alive(pid), "its container lives");
}

/// Two looks at a containerd that nobody touches are equal, and a new label is seen.
fn state_is_exact(world: &World) {
    let tiny = world.tiny();
    let mut before = snapshot_state(&world.containerd);
    // After the import containerd collects the index that no image names: then nobody touches it.
    eventually("it is left alone", Duration::from_secs(10), || {
        let last = std::mem::replace(&mut before, snapshot_state(&world.containerd));
        last == before
    });
    world.ctr(&["images", "label", tiny, "a=b"]);
    assert_ne!(before, snapshot_state(&world.containerd));
}

crate::each_version!(version, images_run, odd_images, records, many_images);
crate::each_version_alone!(leaves_nothing, state_is_exact);
