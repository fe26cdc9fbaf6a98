//! `snapshots/`: every loaded snapshotter's, with parents, children and usage as `ctr snapshots …` prints them.

use crate::common::{World, eventually};
use std::time::Duration;

/// Every snapshotter that is loaded has a directory, and no other.
fn snapshotters(world: &World) {
    let plugins = world.ctr(&["plugins", "ls"]);
    let rows = plugins
        .lines()
        .filter(|line| line.starts_with("io.containerd.snapshotter.v1") && line.trim_end().ends_with(" ok"));
    let mut loaded: Vec<&str> = rows.map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    loaded.sort();
    assert_eq!(world.ls("snapshots"), loaded, "{plugins}");
}

/// Keys, parents and kinds are those of `ctr snapshots ls`.
fn are_listed(world: &World) {
    let id = world.sleeper(world.debian(), &[]);
    let table = world.ctr(&["snapshots", "ls"]);
    let mut keys = Vec::new();
    for line in table.lines().skip(1) {
        let row: Vec<&str> = line.split_whitespace().collect();
        let (key, parent, kind) = (row[0], if row.len() == 3 { row[1] } else { "" }, row[row.len() - 1]);
        let dir = format!("snapshots/overlayfs/{key}");
        assert_eq!(world.value(&format!("{dir}/name")), key);
        assert!(world.value(&format!("{dir}/kind")).eq_ignore_ascii_case(kind), "{key}");
        if parent.is_empty() {
            assert!(!world.exists(&format!("{dir}/parent")));
        } else {
            assert_eq!(world.resolved(&format!("{dir}/parent")), format!("snapshots/overlayfs/{parent}"));
            assert_eq!(world.resolved(&format!("snapshots/overlayfs/{parent}/children/{key}")), dir);
        }
        keys.push(key.to_owned());
    }
    keys.sort();
    assert_eq!(world.ls("snapshots/overlayfs"), keys);
    assert!(keys.contains(&id) && keys.len() == 4, "{keys:?}");
}

/// `usage` has the size that `ctr snapshots usage -b` prints; `info.json` and `mounts.json` are JSON.
fn usage(world: &World) {
    world.debian();
    let table = world.ctr(&["snapshots", "usage", "-b"]);
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let dir = format!("snapshots/overlayfs/{}", row[0]);
        let text = world.read(&format!("{dir}/usage"));
        assert!(text.split(|c: char| !c.is_ascii_digit()).any(|word| word == row[1]), "{text} lacks {}", row[1]);
        assert_eq!(world.json(&format!("{dir}/info.json"))["name"], row[0]);
        assert!(!world.exists(&format!("{dir}/mounts.json")), "a committed snapshot has no mounts");
    }
}

/// An active snapshot's mounts are those of `ctr snapshots mounts`.
fn mounts(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    eventually("it is here", Duration::from_secs(2), || world.exists(&format!("snapshots/overlayfs/{id}")));
    let line = world.ctr(&["snapshots", "mounts", "/target", &id]);
    let mounts = world.json(&format!("snapshots/overlayfs/{id}/mounts.json"));
    let options = line.rsplit(" -o ").next().unwrap().trim();
    let upper = options.split(',').find(|option| option.starts_with("upperdir=")).unwrap();
    assert!(mounts.to_string().contains(upper), "{mounts} lacks {upper}");
}

/// Any key is reached, also with slashes, newlines and dots.
fn keys_from_hell(world: &World) {
    let rpc = world.containerd.rpc();
    let long = "k".repeat(5000);
    let hashed = format!("%h{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&long)));
    let cases = [
        ("a key/with slashes", "a key%2Fwith slashes"),
        ("line\nbreak", "line%0Abreak"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("/", "%2F"),
        ("50%", "50%25"),
        (&long, &hashed),
    ];
    for (key, _) in &cases {
        rpc.prepare_snapshot(&world.namespace, "overlayfs", key, "", &[]);
    }
    eventually("they are here", Duration::from_secs(2), || world.ls("snapshots/overlayfs").len() == cases.len());
    for (key, path) in &cases {
        assert_eq!(world.read(&format!("snapshots/overlayfs/{path}/name")), format!("{key}\n"), "{path}");
    }
}

/// Snapshots that come and go, and their labels, are told; a view and a second snapshotter too.
fn live(world: &World) {
    let rpc = world.containerd.rpc();
    let ns = &world.namespace;
    assert!(world.ls("snapshots/native").is_empty());
    rpc.prepare_snapshot(ns, "native", "one", "", &[("colour", "blue")]);
    eventually("it is here", Duration::from_secs(2), || world.exists("snapshots/native/one"));
    assert_eq!(world.value("snapshots/native/one/kind").to_lowercase(), "active");
    assert!(world.read("snapshots/native/one/labels").lines().any(|line| line == "colour=blue"));
    assert_eq!(world.xattr("snapshots/native/one", "user.label.colour"), Ok("blue".into()));
    rpc.commit_snapshot(ns, "native", "one", "base");
    eventually("it is committed", Duration::from_secs(2), || {
        world.exists("snapshots/native/base") && !world.exists("snapshots/native/one")
    });
    rpc.view_snapshot(ns, "native", "view", "base");
    eventually("the view is here", Duration::from_secs(2), || world.exists("snapshots/native/view"));
    assert_eq!(world.value("snapshots/native/view/kind").to_lowercase(), "view");
    assert_eq!(world.ls("snapshots/native/base/children"), ["view"]);
    world.ctr(&["snapshots", "--snapshotter", "native", "rm", "view"]);
    eventually("the view is gone", Duration::from_secs(2), || !world.exists("snapshots/native/view"));
    assert!(world.ls("snapshots/overlayfs").is_empty());
}

crate::each_version!(snapshotters, are_listed, usage, mounts, keys_from_hell, live);
