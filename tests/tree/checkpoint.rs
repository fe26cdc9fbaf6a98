//! `containers checkpoint` and `containers restore`: images of containers, which `ctr` makes and reads, too.

use crate::common::{World, eventually};
use serde_json::Value;
use std::time::Duration;

const SPEC: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";

/// A container that has changed something, by ctrfs or by `ctr`.
fn changed(world: &World, tiny: &str) -> String {
    let id = world.new_id("changed");
    world.order("", &format!("run --env A=1 {tiny} {id} sh -c 'echo mine > /changed; exec sleep 1000'"));
    let written = || world.exists(&format!("containers/{id}/rootfs/changed"));
    eventually("it has changed something", Duration::from_secs(5), written);
    id
}

/// The index of a checkpoint, with what it names by its media type.
fn index(world: &World, image: &str) -> (Value, Vec<(String, String)>) {
    let index = world.json(&format!("images/{image}/index.json"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let parts = index["manifests"].as_array().cloned().unwrap_or_default();
    (index["annotations"].clone(), parts.iter().map(|p| (text(&p["mediaType"]), text(&p["digest"]))).collect())
}

/// Of the same container, ours says and holds what `ctr`'s does, and the spec, without which there is no restoring.
fn as_ctr_writes(world: &World) {
    let tiny = world.tiny();
    let id = changed(world, tiny);
    for flags in ["", "--image", "--image --rw"] {
        let n = flags.len();
        let (ours, theirs) = (format!("docker.io/library/ours:{n}"), format!("docker.io/library/theirs:{n}"));
        world.order("", &format!("containers checkpoint {flags} {id} {ours}"));
        world.containerd.try_ctr_line(&world.namespace, &format!("containers checkpoint {flags} {id} {theirs}")).ok();
        let ((said, mut parts), (expected, theirs)) = (index(world, &ours), index(world, &theirs));
        assert_eq!(said, expected);
        let spec = parts.pop().unwrap();
        assert_eq!(spec.0, SPEC);
        // From 1.7 on it leaves out options of the runtime that are all defaults.
        if !theirs.iter().any(|part| part.0.contains("runtime.options")) {
            parts.retain(|part| !part.0.contains("runtime.options"));
        }
        // Two archives of the same files need not be the same bytes.
        let same = |parts: &[(String, String)]| {
            let cut = |(kind, digest): &(String, String)| {
                (kind.clone(), if kind.contains("layer") { String::new() } else { digest.clone() })
            };
            parts.iter().map(cut).collect::<Vec<_>>()
        };
        assert_eq!(same(&parts), same(&theirs), "{flags}");
    }
    assert_eq!(world.value(&format!("containers/{id}/task/status")), "running");
    assert_eq!(world.containerd.rpc().leases(&world.namespace).len(), 0);
    assert_eq!(world.refused("", &format!("containers checkpoint {id} docker.io/library/ours:0")), libc::EEXIST);
    assert_eq!(world.refused("", &format!("containers checkpoint {id}")), libc::EINVAL);
    assert_eq!(world.refused("", "containers checkpoint nobody x/y:1"), libc::ENOENT);
    // What `ctr` made without --task nobody can restore; the sentence says why.
    assert_eq!(world.refused("", "containers restore r docker.io/library/theirs:7"), libc::EINVAL);
    assert!(world.read("error").contains("no spec"), "{}", world.read("error"));
    assert_eq!(world.refused("", "containers restore --rw r docker.io/library/ours:0"), libc::EINVAL);
    assert_eq!(world.refused("", "containers restore --live r docker.io/library/ours:0"), libc::EINVAL);
    assert_eq!(world.refused("", &format!("containers restore r {tiny}")), libc::EUCLEAN);
    assert_eq!(world.ls("containers"), [id.as_str()]);
}

/// A checkpoint of ours without the state of processes is restored by us and by `ctr`.
fn ours_is_restored(world: &World) {
    let tiny = world.tiny();
    let id = changed(world, tiny);
    world.order("", &format!("containers checkpoint --image --rw {id} docker.io/library/ck:1"));
    world.order("", &format!("containers delete -f {id}"));
    let (ours, theirs) = (world.new_id("ours"), world.new_id("theirs"));
    world.order("", &format!("containers restore --rw {ours} docker.io/library/ck:1"));
    let line = format!("containers restore --rw {theirs} docker.io/library/ck:1");
    assert_eq!(world.containerd.try_ctr_line(&world.namespace, &line).code, Some(0));
    for id in [&ours, &theirs] {
        let dir = format!("containers/{id}");
        eventually("it is here", Duration::from_secs(5), || world.exists(&format!("{dir}/task/status")));
        assert_eq!(world.value(&format!("{dir}/task/status")), "running");
        assert_eq!(world.read(&format!("{dir}/rootfs/changed")), "mine\n");
        assert!(world.json(&format!("{dir}/spec.json"))["process"]["env"].to_string().contains("A=1"));
    }
    world.order("", &format!("containers delete -f {ours}"));
    world.order("", &format!("containers restore {ours} docker.io/library/ck:1"));

    assert_eq!(world.containerd.rpc().leases(&world.namespace).len(), 0);
    assert_eq!(world.refused("", &format!("containers restore {ours} docker.io/library/ck:1")), libc::EEXIST);
}

/// With CRIU the state of processes comes along, from `ctr` to us and from us to `ctr`; without it the errno says so.
fn live(world: &World) {
    let tiny = world.tiny();
    let id = world.new_id("counts");
    let counts = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.05; done";
    world.order("", &format!("run --null-io {tiny} {id} sh -c '{counts}'"));
    let count = |id: &str| world.read(&format!("containers/{id}/rootfs/count")).trim().parse::<u64>().unwrap_or(0);
    eventually("it counts", Duration::from_secs(5), || world.exists(&format!("containers/{id}/rootfs/count")));
    eventually("it counts on", Duration::from_secs(20), || count(&id) > 40);
    if !world.containerd.has_criu() {
        let refused = world.refused("", &format!("containers checkpoint --task {id} docker.io/library/live:1"));
        assert_eq!(refused, libc::EOPNOTSUPP, "{}", world.read("error"));
        assert_eq!(world.value(&format!("containers/{id}/task/status")), "running");
        return eprintln!("NOT TESTED: no CRIU here that goes with this kernel: run contrib/setup");
    }
    let (by_us, by_ctr) = ("docker.io/library/live:us", "docker.io/library/live:ctr");
    world.order("", &format!("containers checkpoint --image --rw --task {id} {by_us}"));
    world.order("", &format!("containers delete -f {id}"));
    let (first, second) = (world.new_id("first"), world.new_id("second"));
    // ours, by us
    world.order("", &format!("containers restore --rw --live --null-io {first} {by_us}"));
    eventually("it goes on counting", Duration::from_secs(10), || count(&first) > 60);
    world.containerd.try_ctr_line(&world.namespace, &format!("images rm --sync {by_us}")).ok();
    let line = format!("containers checkpoint --image --rw --task {first} {by_ctr}");
    let done = world.containerd.try_ctr_line(&world.namespace, &line);
    assert_eq!(done.code, Some(0), "{done:?}");
    let at = count(&first);
    world.order("", &format!("containers delete -f {first}"));
    // ctr's, by us
    world.order("", &format!("containers restore --rw --live --null-io {second} {by_ctr}"));
    assert!(at > 60);
    eventually("it goes on counting", Duration::from_secs(10), || count(&second) > at);
}

crate::each_version!(as_ctr_writes, ours_is_restored, live);
