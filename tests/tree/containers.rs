//! `containers/`: records as `ctr containers info` prints them, tasks as `ctr tasks …` does.

use crate::common::{World, eventually};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The containers are those of `ctr containers ls`, each with its runtime, snapshotter and times.
fn records(world: &World) {
    let tiny = world.tiny();
    let id = world.sleeper(tiny, &["--label", "a.b/c=two words"]);
    eventually("the container is here", Duration::from_secs(2), || world.exists(&format!("containers/{id}")));
    let mut listed: Vec<String> = world.ctr(&["containers", "ls", "-q"]).lines().map(str::to_owned).collect();
    listed.sort();
    assert_eq!(world.ls("containers"), listed);
    let info: serde_json::Value = serde_json::from_str(&world.ctr(&["containers", "info", &id])).unwrap();
    let dir = format!("containers/{id}");
    assert_eq!(world.value(&format!("{dir}/runtime")), info["Runtime"]["Name"].as_str().unwrap());
    assert_eq!(world.value(&format!("{dir}/snapshotter")), info["Snapshotter"].as_str().unwrap());
    let second = |time: &str| time.split('.').next().unwrap().trim_end_matches('Z').to_owned();
    for (ours, theirs) in [("created", "CreatedAt"), ("updated", "UpdatedAt")] {
        assert_eq!(second(&world.value(&format!("{dir}/{ours}"))), second(info[theirs].as_str().unwrap()));
    }
    let labels = world.read(&format!("{dir}/labels"));
    for (key, value) in info["Labels"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        assert!(labels.lines().any(|line| line == format!("{key}={value}")), "{labels} lacks {key}");
        assert_eq!(world.xattr(&dir, &format!("user.label.{key}")), Ok(value.to_owned()));
    }
}

/// `info.json` and `spec.json` are what `ctr containers info` prints, the specification in its own file.
fn info_and_spec(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    let info: serde_json::Value = serde_json::from_str(&world.ctr(&["containers", "info", &id])).unwrap();
    assert_eq!(world.json(&format!("containers/{id}/spec.json")), info["Spec"]);
    let ours = world.json(&format!("containers/{id}/info.json"));
    assert!(ours.get("Spec").is_none() && ours.get("spec").is_none(), "it does not repeat the specification");
    for (key, theirs) in
        [("id", "ID"), ("image", "Image"), ("snapshot_key", "SnapshotKey"), ("snapshotter", "Snapshotter")]
    {
        assert_eq!(ours[key], info[theirs], "{key} of {ours}");
    }
}

/// A container leads to its image and its snapshot, and both lead back.
fn relations(world: &World) {
    let tiny = world.tiny();
    let id = world.sleeper(tiny, &[]);
    let dir = format!("containers/{id}");
    assert_eq!(world.resolved(&format!("{dir}/image")), format!("images/{tiny}"));
    assert_eq!(world.resolved(&format!("{dir}/snapshot")), format!("snapshots/overlayfs/{id}"));
    assert_eq!(world.ls(&format!("images/{tiny}/containers")), [id.as_str()]);
    assert_eq!(world.resolved(&format!("images/{tiny}/containers/{id}")), dir);
    assert_eq!(world.resolved(&format!("snapshots/overlayfs/{id}/containers/{id}")), dir);
    assert!(!world.exists(&format!("{dir}/sandbox")), "it has none");
}

/// A relation whose other end is not there is absent, not a link that leads nowhere.
fn no_dangling_links(world: &World) {
    let spec = serde_json::json!({"ociVersion": "1.0.2"});
    world.containerd.rpc().create_container(&world.namespace, "bare", &[], &spec);
    eventually("the container is here", Duration::from_secs(2), || world.exists("containers/bare"));
    for name in ["image", "snapshot", "task"] {
        assert!(!world.exists(&format!("containers/bare/{name}")), "{name}");
    }
    let dangling = world.sh("find . -xtype l", 20).ok();
    assert_eq!(dangling, "");
}

/// A running task's pid, status and processes are those of `ctr tasks ls` and `ps`.
fn task(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    let dir = format!("containers/{id}/task");
    eventually("the task is here", Duration::from_secs(2), || world.exists(&dir));
    let table = world.ctr(&["tasks", "ls"]);
    let row: Vec<&str> = table.lines().find(|line| line.starts_with(&id)).unwrap().split_whitespace().collect();
    assert_eq!(world.value(&format!("{dir}/pid")), row[1]);
    assert!(world.value(&format!("{dir}/status")).eq_ignore_ascii_case(row[2]));
    assert!(world.read(&format!("{dir}/processes")).contains(row[1]));
    assert!(!world.exists(&format!("{dir}/exit_status")), "it has not ended");
    assert_eq!(
        std::fs::read_link(world.mount().at_path(&world.path(&format!("{dir}/root")))).unwrap().to_str().unwrap(),
        format!("/proc/{}/root", row[1])
    );
    assert!(world.read(&format!("{dir}/cgroup")).contains(&world.namespace));
    let metrics = world.json(&format!("{dir}/metrics.json"));
    assert!(metrics.to_string().contains("memory") && metrics.to_string().contains("pids"), "{metrics}");
}

/// A task that starts, is paused or dies is told at once.
fn task_lives(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    let dir = format!("containers/{id}/task");
    let status = || world.value(&format!("{dir}/status")).to_lowercase();
    let soon = Duration::from_millis(500);
    eventually("it runs", soon, || world.exists(&dir) && status() == "running");
    world.ctr(&["tasks", "pause", &id]);
    eventually("it is paused", soon, || status() == "paused");
    world.ctr(&["tasks", "resume", &id]);
    eventually("it runs again", soon, || status() == "running");
    world.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]);
    eventually("it is stopped", Duration::from_secs(2), || status() == "stopped");
    assert_eq!(world.value(&format!("{dir}/exit_status")), "137");
    assert!(world.value(&format!("{dir}/exited_at")).starts_with("20"));
    assert!(!world.exists(&format!("{dir}/root")), "a dead process has no root");
    world.ctr(&["tasks", "rm", &id]);
    let took = eventually("it is gone", Duration::from_secs(5), || !world.exists(&dir));
    assert!(took < soon, "it is gone only after {took:?}");
    world.ctr(&["containers", "rm", &id]);
    eventually("the container is gone", soon, || !world.exists(&format!("containers/{id}")));
}

/// A container that is made again under its name is another one: another inode, and the old handle is not its.
fn made_again(world: &World) {
    let tiny = world.tiny();
    let id = world.new_id("again");
    let make = || world.ctr(&["containers", "create", tiny, &id, "sleep", "1"]);
    let path = world.mount().at_path(&world.path(&format!("containers/{id}")));
    make();
    eventually("it is here", Duration::from_secs(2), || path.exists());
    let first = std::fs::metadata(&path).unwrap().ino();
    world.ctr(&["containers", "rm", &id]);
    make();
    eventually("it is another one", Duration::from_secs(2), || {
        std::fs::metadata(&path).is_ok_and(|meta| meta.ino() != first)
    });
}

/// What is open does not change under its reader.
fn open_stays(world: &World) {
    use std::os::unix::fs::FileExt;
    let id = world.sleeper(world.tiny(), &[]);
    let path = world.mount().at_path(&world.path(&format!("containers/{id}/labels")));
    eventually("it is here", Duration::from_secs(2), || path.exists());
    let file = std::fs::File::open(&path).unwrap();
    let mut before = vec![0; 65536];
    let length = file.read_at(&mut before, 0).unwrap();
    world.ctr(&["containers", "label", &id, "aaaa=new"]);
    eventually("the label is here", Duration::from_secs(2), || {
        std::fs::read_to_string(&path).unwrap().contains("aaaa=new")
    });
    let mut after = vec![0; 65536];
    let again = file.read_at(&mut after, 0).unwrap();
    assert_eq!(before[..length], after[..again]);
}

/// The figures of cgroups of version 2 are shown under their own names. On a host that keeps its controllers in version 1
/// they are zeros, as they are for `ctr`.
fn metrics_of_cgroup2(world: &World) {
    let (tiny, id) = (world.tiny(), world.new_id("unified"));
    // `run` would set shares of the processor, which need a controller.
    world.order("", &format!("containers create {tiny} {id} sleep 1000"));
    world.order(&format!("containers/{id}"), "start --null-io");
    let metrics = world.json(&format!("containers/{id}/task/metrics.json"));
    let theirs = world.ctr(&["tasks", "metrics", &id]);
    for (ours, name) in [
        ("/memory/usage_limit", "memory.usage_limit"),
        ("/memory/swap_limit", "memory.swap_limit"),
        ("/pids/limit", "pids.limit"),
    ] {
        let line =
            theirs.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{theirs}"));
        let value = line.split_whitespace().last().unwrap();
        assert_eq!(metrics.pointer(ours).map(serde_json::Value::to_string).as_deref(), Some(value), "{metrics:#}");
    }
    assert!(metrics.pointer("/cpu/usage_usec").is_some(), "{metrics:#}");
    world.order("", &format!("containers delete -f {id}"));
}

crate::each_version_of!(crate::common::World::unified; metrics_of_cgroup2);
crate::each_version!(records, info_and_spec, relations, no_dangling_links, task, task_lives, made_again, open_stays);
