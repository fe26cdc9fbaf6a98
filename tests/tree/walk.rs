//! A walk over everything: it ends, reports no error, changes nothing, and what it sees is consistent.

use crate::common::state::{settle, snapshot_state};
use crate::common::{Mount, World, images, oci};
use std::collections::BTreeMap;

/// One of everything that a containerd can hold.
fn furnish(world: &World) {
    let (containerd, namespace, rpc) = (&world.containerd, &world.namespace, world.containerd.rpc());
    let id = world.sleeper(world.debian(), &["--label", "a=b"]);
    world.sleeper(world.tiny(), &[]);
    world.ctr(&["containers", "create", world.tiny(), &format!("{id}-created"), "true"]);
    let store = |(layout, target): (oci::Layout, serde_json::Value), name: &str| {
        layout.store(containerd, namespace, name, &target);
    };
    let (layout, index, ..) = images::half_pulled();
    store((layout, index), "docker.io/library/half:1");
    let (layout, index, ..) = images::attested();
    store((layout, index), "docker.io/library/attested:1");
    store(images::artifact(), "registry.test/chart:1");
    store(images::zstd(), "odd name/../with\nlines");
    rpc.create_lease(namespace, "/a lease", &[("x", "y")]);
    rpc.lease_resource(namespace, "/a lease", "snapshots/overlayfs", &id);
    rpc.begin_ingest(namespace, "half/done", b"half", 8);
    rpc.prepare_snapshot(namespace, "native", "a/b", "", &[]);
    containerd.ctr("default", &["namespaces", "create", &containerd.new_namespace()]);
    settle(containerd);
}

/// `find`, `ls -lR`, `grep -r`, `tar`, `du` and `cp -a` over the whole mount end, say no word on stderr and change nothing.
fn changes_nothing(world: &World) {
    furnish(world);
    let before = snapshot_state(&world.containerd);
    for (script, codes) in [
        ("find \"$M\" -ls > /dev/null", &[0][..]),
        ("ls -lR \"$M\" > /dev/null", &[0]),
        ("find \"$M\" -type f -exec cat {} + > /dev/null", &[0]),
        ("grep -r some-words-that-are-nowhere \"$M\" > /dev/null", &[1]),
        ("tar -C \"$M\" --xattrs -cf - . | cat > /dev/null; exit ${PIPESTATUS[0]}", &[0]),
        ("du -s \"$M\" > /dev/null", &[0]),
        // What an image has inside it is the image's, dangling links too.
        ("find \"$M\" \\( -name rootfs -o -name fs -o -name hidden \\) -prune -o -xtype l -print", &[0]),
        ("getfattr -R -P -h -d -m - \"$M\" > /dev/null", &[0]),
    ] {
        let done = world.mount().sh(script, 60);
        assert!(codes.contains(&done.code.unwrap_or(-1)), "{script}: {done:#?}");
        let err: Vec<&str> = done.err.lines().filter(|line| !line.contains("Removing leading")).collect();
        assert!(err.is_empty(), "{script}: {err:#?}");
        eprintln!("{:?} {script}", done.took);
        assert!(!script.contains("-xtype") || done.out.is_empty(), "links that lead nowhere: {}", done.out);
    }
    assert_eq!(before, snapshot_state(&world.containerd));
    assert!(!world.mount().said().contains("panicked"), "{}", world.mount().said());
}

/// Path, type, inode number and size of everything, as `find` sees it.
fn listing(mount: &Mount) -> BTreeMap<String, (String, u64, u64)> {
    let script = "cd \"$M\" && find . -path ./events -prune -o -path ./.ctrfs -prune -o -printf '%P\\t%y\\t%i\\t%s\\0'";
    let out = mount.sh(script, 60).ok();
    let entry = |text: &str| {
        let fields: Vec<&str> = text.split('\t').collect();
        let [path, kind, inode, size] = fields[..] else { panic!("{text}") };
        (path.to_owned(), (kind.to_owned(), inode.parse().unwrap(), size.parse().unwrap()))
    };
    out.split_terminator('\0').map(entry).collect()
}

/// Inode numbers are the same in another mount, and no two directories share one.
fn inodes_are_stable(world: &World) {
    furnish(world);
    let first = listing(world.mount());
    let second = listing(&Mount::new(&world.containerd, &[]));
    let numbers = |all: &BTreeMap<String, (String, u64, u64)>| -> BTreeMap<String, u64> {
        all.iter().map(|(path, (_, inode, _))| (path.clone(), *inode)).collect()
    };
    let (first_numbers, second_numbers) = (numbers(&first), numbers(&second));
    for (path, inode) in &first_numbers {
        assert_eq!(second_numbers.get(path), Some(inode), "{path}");
    }
    let mut seen: BTreeMap<u64, &String> = BTreeMap::new();
    for (path, (kind, inode, _)) in &first {
        if kind == "d"
            && let Some(other) = seen.insert(*inode, path)
        {
            panic!("{path} and {other} are both inode {inode}");
        }
    }
}

/// What `readdir` says of an entry is what `stat` says, and a file's size is the number of bytes that it gives.
fn sizes_and_types_are_true(world: &World) {
    furnish(world);
    let script = r#"
import os, sys
root = sys.argv[1]
wrong = []
for directory, _, _ in os.walk(root):
    for entry in os.scandir(directory):
        path = entry.path
        if "/rootfs/" in path or "/fs/" in path or path.endswith(("/events", "/metrics")):
            continue
        kind = lambda e: (e.is_dir(follow_symlinks=False), e.is_file(follow_symlinks=False), e.is_symlink())
        stat = os.lstat(path)
        if entry.inode() != stat.st_ino:
            wrong.append(f"{path}: readdir says inode {entry.inode()}, stat {stat.st_ino}")
        if entry.is_file(follow_symlinks=False):
            with open(path, "rb") as file:
                before = os.fstat(file.fileno()).st_size
                length = len(file.read())
            if length != before:
                wrong.append(f"{path}: fstat says {before}, read gives {length}")
            if entry.is_symlink():
                wrong.append(f"{path}: both file and link")
print("\n".join(wrong), end="")
"#;
    let done = world.mount().sh(&format!("python3 -c '{}' \"$M\"", script.replace('\'', "'\\''")), 60);
    assert_eq!((done.code, done.err.as_str(), done.out.as_str()), (Some(0), "", ""));
}

/// Eight walkers at once see what one sees.
fn many_walkers(world: &World) {
    furnish(world);
    let script = r#"
# What is there only while a layer is being indexed comes and goes.
walk() { find "$M/namespaces" -printf '%P %y %i\n' 2> /dev/null | grep -v '/progress f ' | sort > "$T/$1"; }
T=$(mktemp -d)
for n in 1 2 3 4 5 6 7 8; do walk $n & done
wait
walk 0
for n in 1 2 3 4 5 6 7 8; do diff "$T/0" "$T/$n" | head -n 10; done
rm -r "$T""#;
    let differences = world.mount().sh(script, 120).ok();
    assert!(differences.is_empty(), "{differences}");
}

/// The daemon's memory does not grow with the number of walks.
fn memory_is_bounded(world: &World) {
    furnish(world);
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", world.mount().pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let walk =
        || world.mount().sh("find \"$M\" -path '*/rootfs' -prune -o -type f -print0 | xargs -0 cat > /dev/null", 60);
    for _ in 0..3 {
        walk();
    }
    let early = resident();
    for _ in 0..10 {
        walk();
    }
    let late = resident();
    assert!(late < early + early / 5 + 4096, "{early} kB after 3 walks, {late} kB after 13");
}

crate::each_version_alone!(
    changes_nothing,
    inodes_are_stable,
    sizes_and_types_are_true,
    many_walkers,
    memory_is_bounded
);
