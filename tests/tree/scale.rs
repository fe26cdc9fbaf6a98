//! Ten thousand images and ten thousand containers: listing works, and what the kernel is told of them costs memory in
//! bounds (issue figures: 150 MB after a walk of everything, no growth with further walks).

use crate::common::{Mount, Version, World, on};
use serde_json::json;
use std::fs;

const MANY: usize = 10_000;

/// Resident memory of the daemon, in MiB.
fn resident(mount: &Mount) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn furnish(world: &World) {
    let (rpc, namespace) = (world.containerd.rpc(), world.namespace.as_str());
    world.tiny();
    let target = {
        let image = rpc.images(namespace).into_iter().next().unwrap().target.unwrap();
        json!({ "mediaType": image.media_type, "digest": image.digest, "size": image.size })
    };
    let name = |n: usize| format!("registry.test/team/app:{n:05}");
    rpc.create_images(namespace, (0..MANY).map(name), &target);
    let ids = (0..MANY).map(|n| format!("{namespace}-{n:05}"));
    rpc.create_containers(namespace, ids, &[("app", "web")], &json!({ "ociVersion": "1.0.2" }));
}

/// `ls` of a directory of ten thousand lists each once; `find` walks all of them; the daemon stays small, and does not
/// grow with the walks.
fn ten_thousand(world: &World) {
    furnish(world);
    assert_eq!(world.ls("images/registry.test/team").len(), MANY);
    assert_eq!(world.ls("containers").len(), MANY);
    println!("furnished");
    let found = world.sh("find \"$N/images\" -name manifest.json -prune -o -type d -print | wc -l", 120).ok();
    assert!(found.trim().parse::<usize>().unwrap() > MANY, "{found}");
    let tables = world.sh("wc -l < \"$N/images.tsv\"; wc -l < \"$N/containers.tsv\"", 60).ok();
    assert_eq!(tables.split_whitespace().collect::<Vec<_>>(), ["10002", "10001"], "a header, and a line each");

    let walk = "find \"$N\" \\( -name rootfs -o -name fs -o -name 'oci*' \\) -prune -o -print | wc -l";
    let done = world.sh(walk, 300);
    println!("the first walk took {:?}", done.took);
    let nodes: usize = done.ok().trim().parse().unwrap();
    assert!(nodes > 20 * MANY, "{nodes}");
    let first = resident(world.mount());
    for _ in 0..3 {
        let done = world.sh(walk, 300);
        println!("another walk took {:?}", done.took);
        done.ok();
    }
    let last = resident(world.mount());
    println!("{nodes} nodes: {first} MiB after one walk, {last} MiB after four");
    assert!(first <= 150, "{first} MiB after a walk of {nodes} nodes");
    assert!(last <= first + 10, "{first} MiB after one walk, {last} MiB after four");
}

/// One version is enough: what is measured is ctrfs, and three at once would measure each other.
#[test]
fn ten_thousand_v2() {
    on(Version::V2, World::alone, ten_thousand);
}
