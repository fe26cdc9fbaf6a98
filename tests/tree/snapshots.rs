//! `snapshots/`: every loaded snapshotter's, with parents, children and usage as `ctr snapshots …` prints them.

use crate::common::holdings::collect;
use crate::common::{Mount, World, eventually};
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

/// `diff.tar` is what `ctr snapshots diff` writes, of active and of committed snapshots; the verb writes the same into a file
/// or keeps it as a blob; nothing else stays behind.
fn diff(world: &World) {
    let image = world.debian();
    let id = world.new_id("diff");
    world.order(
        "",
        &format!("run {image} {id} sh -c 'echo new >/etc/new; rm /etc/hostname /etc/issue; ln -s x /l; sleep 1000'"),
    );
    let dir = format!("snapshots/overlayfs/{id}");
    eventually("it has written", Duration::from_secs(5), || world.exists(&format!("containers/{id}/rootfs/l")));
    let file = |name: &str| world.containerd.dir.join(format!("{}-{name}", world.namespace)).display().to_string();
    let (theirs, ours) = (file("theirs"), file("ours"));
    let by_ctr = |keys: &str, to: &str| {
        let done = world.containerd.try_ctr_line(&world.namespace, &format!("snapshots diff {keys} >{to}"));
        assert_eq!(done.code, Some(0), "{done:?}");
    };
    let parent = world.resolved(&format!("{dir}/parent")).rsplit('/').next().unwrap().to_owned();
    let blobs = || world.ctr(&["content", "ls", "-q"]);
    collect(world);
    let before = blobs();
    // Whiteouts have the time at which the archive was made: of them the names count.
    let shown = |cat: &str| {
        let list = format!(
            "{cat} | tar --full-time -tvf - | sed -E 's/ [-0-9]{{10}} [:.0-9]{{8,}} (.*[.]wh[.])/ \\1/'; {cat} | tar -xOf - | sha256sum"
        );
        world.sh(&list, 60).ok()
    };
    for key in [id.as_str(), &parent] {
        by_ctr(key, &theirs);
        let tar = format!("snapshots/overlayfs/{key}/diff.tar");
        let listed = shown(&format!("cat {tar}"));
        assert_eq!(listed, shown(&format!("gzip -dc {theirs}")));
        assert!(listed.lines().count() > 3, "{listed}");
        if key == id {
            assert!(listed.contains(" etc/new\n") && listed.contains(" etc/.wh.issue\n"), "{listed}");
        }
        // A part of it, as a program that seeks reads it: the name of the first entry.
        let name = |of: &str| world.sh(&format!("dd if={of} bs=1 count=100 status=none | tr -d '\\0'"), 20).ok();
        let magic = world.sh(&format!("dd if={tar} bs=1 skip=257 count=5 status=none"), 20).ok();
        assert_eq!((magic.as_str(), name(&tar).is_empty()), ("ustar", false));
    }
    assert!(!world.ls(&dir).contains(&"diff.tar".to_owned()), "a crawler does not find it");
    world.order("", &format!("snapshots diff --output {ours} {id}"));
    by_ctr(&id, &theirs);
    let same = || {
        assert_eq!(shown(&format!("gzip -dc {ours}")), shown(&format!("gzip -dc {theirs}")));
        std::fs::remove_file(&ours).unwrap();
    };
    same();
    by_ctr(&format!("{parent} {id}"), &theirs);
    world.order("", &format!("ctr snapshot diff -o {ours} {parent} {id}"));
    same();
    world.order(&format!("snapshots/overlayfs/{parent}"), &format!("diff --output {ours} {id}"));
    same();
    // What was made on the way goes; what is kept stays.
    let rpc = world.containerd.rpc();
    eventually("no lease stays", Duration::from_secs(5), || rpc.leases(&world.namespace).is_empty());
    assert!(rpc.snapshots(&world.namespace, "overlayfs").iter().all(|s| !s.name.contains("ctrfs-diff")));
    collect(world);
    assert_eq!(blobs(), before, "no blob stays");
    world.order(
        "",
        &format!("snapshots diff --keep --label a=b --media-type application/vnd.oci.image.layer.v1.tar {id}"),
    );
    let job = world.ls("jobs").into_iter().max_by_key(|n| n.parse::<u32>().unwrap()).unwrap();
    let progress = world.value(&format!("jobs/{job}/progress"));
    let hex = progress.split("sha256:").nth(1).unwrap_or_else(|| panic!("{progress}")).get(..64).unwrap();
    assert_eq!(world.xattr(&format!("blobs/sha256/{hex}"), "user.label.a"), Ok("b".into()));
    assert_eq!(shown(&format!("cat blobs/sha256/{hex}")), shown(&format!("cat {dir}/diff.tar")));
    for (line, errno) in [
        (format!("snapshots diff {id}"), libc::EINVAL),
        ("snapshots diff --keep".into(), libc::EINVAL),
        (format!("snapshots diff --keep {id} {id} {id}"), libc::EINVAL),
        ("snapshots diff --keep nosuch".into(), libc::ENOENT),
        (format!("snapshots diff --output relative {id}"), libc::EINVAL),
        (format!("snapshots diff --keep --snapshotter nosuch {id}"), libc::ENOENT),
    ] {
        assert_eq!(world.refused("", &line), errno, "{line}: {}", world.read("error"));
    }
    let passive = Mount::new(&world.containerd, &["-o", "ro"]);
    assert!(!passive.exists(&world.path(&format!("{dir}/diff.tar"))) && passive.exists(&world.path(&dir)));
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

crate::each_version!(snapshotters, are_listed, usage, mounts, diff, keys_from_hell, live);
