//! `namespaces/`: namespaces, their labels, their tables, and `leases/`, `ingests/` and `pods/` in them.

use crate::common::{World, eventually, oci};
use serde_json::json;
use std::time::Duration;

/// The columns of a table that `ctr` prints, without its header; a blank between words is no column's end.
fn rows(table: &str) -> Vec<Vec<String>> {
    let split = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    table.lines().skip(1).map(split).collect()
}

/// The namespaces are those of `ctr namespaces ls`.
fn are_listed(world: &World) {
    // Other tests make and remove namespaces meanwhile, some of them by writing into them, which no event tells: what
    // stands in both of two listings around ours, the first a second before it, has to be in ours; what stands in
    // neither must not.
    let list = || -> Vec<String> { world.ctr(&["namespaces", "ls", "-q"]).lines().map(str::to_owned).collect() };
    let before = list();
    std::thread::sleep(Duration::from_millis(1100));
    let ours = world.mount().ls("namespaces");
    let after = list();
    let stayed = before.iter().filter(|name| after.contains(name));
    assert!(stayed.clone().count() > 0 && stayed.clone().all(|name| ours.contains(name)), "{before:?} in {ours:?}");
    assert!(ours.iter().all(|name| before.contains(name) || after.contains(name)), "{ours:?} in {after:?}");
}

/// A namespace that is made or removed elsewhere is here or gone at once.
fn come_and_go(world: &World) {
    let name = world.containerd.new_namespace();
    let path = format!("namespaces/{name}");
    assert!(!world.mount().exists(&path));
    world.containerd.ctr("default", &["namespaces", "create", &name]);
    let took = eventually("the namespace is here", Duration::from_secs(2), || world.mount().exists(&path));
    assert!(took < Duration::from_millis(500), "after {took:?}");
    assert!(world.mount().ls("namespaces").contains(&name));
    world.containerd.ctr("default", &["namespaces", "rm", &name]);
    eventually("the namespace is gone", Duration::from_secs(2), || !world.mount().exists(&path));
}

/// A namespace's labels are lines of a file and attributes of its directory.
fn labels(world: &World) {
    world.ctr(&["namespaces", "label", &world.namespace, "colour=blue", "a.b/c=two words"]);
    let mut lines: Vec<String> = world.read("labels").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["a.b/c=two words", "colour=blue"]);
    assert_eq!(world.xattr("", "user.label.colour"), Ok("blue".into()));
    assert_eq!(world.mount().xattrs(&world.path("")), ["user.label.a.b/c", "user.label.colour"]);
    assert_eq!(world.xattr("", "user.label.none"), Err(libc::ENODATA));
    world.ctr(&["namespaces", "label", &world.namespace, "colour=red"]);
    eventually("the new label is here", Duration::from_secs(2), || {
        world.xattr("", "user.label.colour") == Ok("red".into())
    });
}

/// An empty namespace has all of its collections, and they are empty.
fn empty(world: &World) {
    for name in ["images", "containers", "manifests", "leases", "ingests"] {
        assert_eq!(world.ls(name), [""; 0], "{name}");
    }
    assert!(!world.exists("pods"), "there is no Kubernetes here");
    assert!(world.ls("snapshots").contains(&"overlayfs".to_owned()));
    for table in ["images.tsv", "containers.tsv", "tasks.tsv", "snapshots.tsv"] {
        assert_eq!(world.read(table).lines().count(), 1, "{table} has a header and no more");
    }
}

/// The tables say what `ctr` prints: a header, then a line an object, in columns parted by tabs.
fn tables(world: &World) {
    let tiny = world.tiny();
    let id = world.sleeper(tiny, &["--label", "a=b"]);
    let column = |table: &str, wanted: &str| -> Vec<String> {
        let text = world.read(table);
        let header: Vec<&str> = text.lines().next().unwrap().split('\t').collect();
        let at = header.iter().position(|name| name.eq_ignore_ascii_case(wanted));
        let at = at.unwrap_or_else(|| panic!("no column {wanted} in {header:?}"));
        let cell = |line: &str| line.split('\t').nth(at).unwrap_or_else(|| panic!("short line: {line}")).to_owned();
        let mut cells: Vec<String> = text.lines().skip(1).map(cell).collect();
        cells.sort();
        cells
    };
    let listed = |args: &[&str], at: usize| -> Vec<String> {
        let mut cells: Vec<String> = rows(&world.ctr(args)).into_iter().map(|row| row[at].clone()).collect();
        cells.sort();
        cells
    };
    assert_eq!(column("images.tsv", "ref"), [tiny]);
    assert_eq!(column("images.tsv", "type"), listed(&["images", "ls"], 1));
    assert_eq!(column("images.tsv", "digest"), listed(&["images", "ls"], 2));
    assert_eq!(column("containers.tsv", "container"), listed(&["containers", "ls"], 0));
    assert_eq!(column("containers.tsv", "image"), listed(&["containers", "ls"], 1));
    assert_eq!(column("containers.tsv", "runtime"), listed(&["containers", "ls"], 2));
    assert_eq!(column("tasks.tsv", "task"), std::slice::from_ref(&id));
    assert_eq!(column("tasks.tsv", "pid"), listed(&["tasks", "ls"], 1));
    assert_eq!(column("tasks.tsv", "status"), listed(&["tasks", "ls"], 2));
    assert!(column("snapshots.tsv", "key").contains(&id));
    assert_eq!(column("snapshots.tsv", "key"), listed(&["snapshots", "ls"], 0));
}

/// A lease shows when it was made, its labels, and links to what it holds.
fn leases(world: &World) {
    let rpc = world.containerd.rpc();
    let digest = oci::digest(b"held");
    rpc.write_blob(&world.namespace, &digest, b"held");
    rpc.prepare_snapshot(&world.namespace, "overlayfs", "held/key", "", &[]);
    rpc.create_lease(&world.namespace, "holder", &[("why", "test")]);
    rpc.create_lease(&world.namespace, "/mnt/a target", &[]);
    rpc.lease_resource(&world.namespace, "holder", "content", &digest);
    rpc.lease_resource(&world.namespace, "holder", "snapshots/overlayfs", "held/key");
    eventually("both leases are here", Duration::from_secs(3), || world.ls("leases").len() == 2);
    assert_eq!(world.ls("leases"), ["%2Fmnt%2Fa target", "holder"]);
    assert_eq!(world.read("leases/holder/labels"), "why=test\n");
    assert_eq!(world.xattr("leases/holder", "user.label.why"), Ok("test".into()));
    assert!(world.value("leases/holder/created").starts_with("20"));
    let found = world.sh("find leases/holder/resources -type l -exec readlink -vf {} +", 10).ok();
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(found.contains(digest.split_once(':').unwrap().1) && found.contains("overlayfs/held%2Fkey"), "{found}");
}

/// Content that is being written shows how far it is.
fn ingests(world: &World) {
    world.containerd.rpc().begin_ingest(&world.namespace, "layer/one two", b"half", 8);
    eventually("the ingest is here", Duration::from_secs(3), || !world.ls("ingests").is_empty());
    assert_eq!(world.ls("ingests"), ["layer%2Fone two"]);
    let dir = "ingests/layer%2Fone two";
    assert_eq!(world.value(&format!("{dir}/ref")), "layer/one two");
    assert_eq!(world.value(&format!("{dir}/offset")), "4");
    assert_eq!(world.value(&format!("{dir}/total")), "8");
    assert!(world.value(&format!("{dir}/started")).starts_with("20"));
}

/// The containers of pods are found by the names that Kubernetes gives them.
fn pods(world: &World) {
    let rpc = world.containerd.rpc();
    let spec = json!({"ociVersion": "1.0.2"});
    let pod = [("io.kubernetes.pod.namespace", "kube-system"), ("io.kubernetes.pod.name", "dns-1")];
    let kind = |kind| [pod.as_slice(), &[("io.cri-containerd.kind", kind)]].concat();
    rpc.create_container(&world.namespace, "0a1b", &kind("sandbox"), &spec);
    let labels = [kind("container"), vec![("io.kubernetes.container.name", "server")]].concat();
    rpc.create_container(&world.namespace, "2c3d", &labels, &spec);
    eventually("the pod is here", Duration::from_secs(2), || world.exists("pods/kube-system/dns-1/server"));
    assert_eq!(world.link("pods/kube-system/dns-1/server"), "../../../containers/2c3d");
    assert_eq!(world.ls("pods"), ["kube-system"]);
}

/// Sandboxes are shown where the server has them; 1.6 has none, and no directory for them.
fn sandboxes(world: &World) {
    let there = world.containerd.rpc().create_sandbox(&world.namespace, "pod-1", &[("app", "web")]);
    assert_eq!(there, world.version() != crate::common::Version::V1_6);
    if !there {
        return assert!(!world.exists("sandboxes"));
    }
    eventually("the sandbox is here", Duration::from_secs(3), || world.exists("sandboxes/pod-1"));
    assert_eq!(world.ls("sandboxes"), ["pod-1"]);
    assert_eq!(world.read("sandboxes/pod-1/labels"), "app=web\n");
    assert_eq!(world.value("sandboxes/pod-1/runtime"), "io.containerd.runc.v2");
    assert_eq!(world.json("sandboxes/pod-1/info.json")["id"], "pod-1");
}

crate::each_version!(sandboxes, are_listed, come_and_go, labels, empty, tables, leases, ingests, pods);
