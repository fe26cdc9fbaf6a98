//! `containers/<id>/rootfs` and `changes`: a container as it is now.

use super::*;
use std::time::Duration;

/// Runs a script in a container.
#[track_caller]
fn exec(world: &World, id: &str, script: &str) {
    let fifos = world.containerd.dir.join("fifo");
    let fifo = ["tasks", "exec", "--fifo-dir", fifos.to_str().unwrap(), "--exec-id", &world.new_id("exec"), id];
    world.ctr(&[&fifo[..], &["sh", "-c", script]].concat());
}

/// What the container writes is there at the next read; what it removes is gone.
fn now(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    let at = |path: &str| format!("containers/{id}/rootfs/{path}");
    crate::common::eventually("it is here", Duration::from_secs(5), || world.exists(&at("etc")));
    assert_eq!(world.read(&at("etc/greeting")), "hello\n");
    for n in 0..3 {
        exec(world, &id, &format!("echo {n} > /new; echo more >> /etc/greeting"));
        assert_eq!(world.read(&at("new")), format!("{n}\n"), "what was just written");
    }
    assert_eq!(world.read(&at("etc/greeting")), "hello\nmore\nmore\nmore\n");
    assert!(world.ls(&at("")).contains(&"new".to_owned()));
    exec(world, &id, "rm /new /etc/greeting");
    assert!(!world.exists(&at("new")) && !world.exists(&at("etc/greeting")));
    assert!(!world.ls(&at("etc")).contains(&"greeting".to_owned()));
    // An empty name that was asked for before it was there.
    exec(world, &id, "mkdir /new; echo x > /new/x");
    assert_eq!(world.ls(&at("new")), ["x"]);
    assert_eq!(world.ls(&format!("snapshots/overlayfs/{id}/fs/new")), ["x"]);
    world.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]);
    crate::common::eventually("it has ended", Duration::from_secs(5), || {
        world.value(&format!("containers/{id}/task/status")) == "stopped"
    });
    assert_eq!(world.read(&at("new/x")), "x\n", "it is stopped, and its files are here");
}

/// The live view is what is mounted for the container.
fn as_mounted(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    exec(world, &id, "rm /etc/group; ln -s x /link; mkdir -m 700 /dir; echo y > /dir/y; rm -r /tmp; echo t > /tmp");
    let mounted = format!("state/io.containerd.runtime.v2.task/{}/{id}/rootfs", world.namespace);
    let right = read(&world.containerd.dir.join(mounted));
    let ours = read(&world.mount().at_path(&world.path(&format!("containers/{id}/rootfs"))));
    // Times are those of the upper directory: all of them agree, also the root's.
    right.assert_shown(&ours, NEVER);
}

/// `changes` are lines as `docker diff` has them.
fn changes(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    let path = format!("containers/{id}/changes");
    crate::common::eventually("it is here", Duration::from_secs(5), || world.exists(&path));
    let before = world.read(&path);
    exec(world, &id, "echo x > /new; echo x >> /etc/passwd; rm /etc/greeting; mkdir /d; echo y > /d/y; rm -r /tmp");
    let lines = world.read(&path);
    let mut after: Vec<&str> = lines.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    after.sort();
    assert_eq!(after, ["A /d", "A /d/y", "A /new", "C /etc", "C /etc/passwd", "D /etc/greeting", "D /tmp"], "{lines}");
}

/// Links, and what became another type. A file that was only copied up, to be linked, is as it was.
fn changes_of_types(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    let path = format!("containers/{id}/changes");
    crate::common::eventually("it is here", Duration::from_secs(5), || world.exists(&path));
    let before = world.read(&path);
    exec(
        world,
        &id,
        "rm -r /tmp; echo t > /tmp; ln -s x /link; ln /etc/group /etc/hard; mkdir /d; mkdir /d/e; rm -r /d/e",
    );
    let lines = world.read(&path);
    let mut after: Vec<&str> = lines.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    after.sort();
    assert_eq!(after, ["A /d", "A /etc/hard", "A /link", "C /etc", "C /tmp"], "{lines}");
}

crate::each_version!(now, as_mounted, changes, changes_of_types);
