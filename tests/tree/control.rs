//! Control files: what shells send, what is refused and how it is told, and that nothing is changed by accident.

use crate::common::{Mount, World, eventually, sh};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

fn errno(result: std::io::Result<()>) -> i32 {
    result.err().and_then(|e| e.raw_os_error()).unwrap_or(0)
}

/// One write to a file of the namespace, as a program makes it; its errno, or 0.
fn write(world: &World, path: &str, bytes: &[u8]) -> i32 {
    errno(OpenOptions::new().write(true).open(full(world, path)).and_then(|mut f| f.write_all(bytes)))
}

/// Where a file of the namespace is on this host.
fn full(world: &World, path: &str) -> String {
    world.mount().at_path(&world.path(path)).to_str().unwrap().to_owned()
}

/// bash, dash and busybox write commands in their own ways: all of them are understood, and a refusal is their status.
fn shells(world: &World) {
    let ctl = full(world, "ctl");
    for (n, shell) in ["bash", "dash", "busybox sh"].iter().enumerate() {
        let run = |script: &str| sh(&format!("{shell} -c '{script}'"), &[("CTL", &ctl)], 20);
        run(&format!("echo leases create --id a{n} >$CTL")).ok();
        run(&format!("echo ctr leases create --id b{n} >>$CTL")).ok();
        run(&format!("printf \"leases create --id c{n}\" >$CTL")).ok();
        run(&format!("printf \"%s\\n\" \"leases create --id d{n}\" \"leases create --id e{n} \\\"k=v w\\\"\" >$CTL"))
            .ok();
        run(&format!("cat >$CTL <<X\nleases create --id f{n}\n\nleases create --id g{n}\nX\n")).ok();
        run(": >$CTL").ok();
        run("printf \"\" >$CTL").ok();
        run("printf \"\\n\" >$CTL").ok();
        run("touch $CTL").ok();
        for letter in "abcdefg".chars() {
            assert!(world.exists(&format!("leases/{letter}{n}")), "{shell}: {letter}");
        }
        assert!(world.read(&format!("leases/e{n}/labels")).contains("k=v w\n"));
        let refused = run("echo leases creat >$CTL");
        assert_ne!(refused.code, Some(0), "{shell}");
        assert!(world.read("error").starts_with("leases creat: no such verb"), "{}", world.read("error"));
        run(&format!("echo leases delete a{n} >$CTL")).ok();
        assert_eq!(world.read("error"), "ok\n");
        assert!(!world.exists(&format!("leases/a{n}")));
    }
}

/// The kernel keeps a listing, but not beyond what was written here: leases, of which no event tells. What others make without
/// one, and the jobs that begin behind their writers, are there a second later, also for one who looks all the time.
fn what_was_written_is_listed(world: &World) {
    let listings = || world.mount().requests()["readdir"];
    let mut kept = 0;
    for n in 0..10 {
        let leases = world.ls("leases").len();
        let before = listings();
        assert_eq!(world.ls("leases").len(), leases);
        kept += u32::from(listings() == before);
        world.sh(&format!("echo leases create --id l{n} > ctl"), 20).ok();
        assert_eq!(world.ls("leases").len(), leases + 1, "round {n}");
    }
    assert!(kept > 5, "the kernel kept {kept} of ten");
    assert!(world.ls("jobs").is_empty());
    world.sh("echo 'images pull localhost:1/no/such &' > ctl", 20).ok();
    eventually("the job is listed", Duration::from_secs(3), || world.ls("jobs").len() == 1);
    world.ctr(&["leases", "create", "--id", "theirs"]);
    eventually("the lease of ctr is listed", Duration::from_secs(3), || {
        world.ls("leases").contains(&"theirs".to_owned())
    });
}

/// The first line that fails stops the others, in one write and in several, and its reason stays.
fn stops_at_the_first_failure(world: &World) {
    let lines = "leases create --id one\nleases create --id two extra words\nleases create --id three\n";
    let mut file = OpenOptions::new().write(true).open(full(world, "ctl")).unwrap();
    // The bytes before the failing line are taken, as sysfs does; the next write hears why.
    assert_eq!(file.write(lines.as_bytes()).unwrap(), "leases create --id one\n".len());
    assert_eq!(file.write(b"leases create --id four\n").unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(file.write(b"leases create --id five\n").unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    drop(file);
    assert_eq!(world.ls("leases"), ["one"]);
    assert!(world.read("error").contains("extra: a label is KEY=VALUE"), "{}", world.read("error"));
    // bash writes line by line and goes on after an error.
    let ctl = full(world, "ctl");
    let bash = sh("printf 'leases create --id x\\nnonsense\\nleases create --id y\\n' >$CTL", &[("CTL", &ctl)], 20);
    assert_eq!(bash.code, Some(1));
    assert_eq!(world.ls("leases"), ["one", "x"], "{bash:?}, {}", world.read("error"));
    assert!(world.read("error").starts_with("nonsense: no such verb"), "{}", world.read("error"));
}

/// What cannot be a command is refused with its errno, and a sentence that points at the fault.
fn bad_input(world: &World) {
    let cases: &[(&[u8], i32, &str)] = &[
        (b"leases create --id \"x", libc::EINVAL, "quote is not closed"),
        (b"leases create \\", libc::EINVAL, "backslash"),
        (b"leases create \0", libc::EINVAL, "NUL"),
        (b"leases \xff", libc::EINVAL, "UTF-8"),
        (b"leases create --nope", libc::EINVAL, "--nope"),
        (b"leases delete", libc::EINVAL, "an id must be given"),
        (b"leases delete nosuch", libc::ENOENT, "nosuch"),
        (b"leases create --expires 1y", libc::EINVAL, "1y"),
        (b"namespaces remove other", libc::EINVAL, "namespaces/other/ctl"),
        (b"ctr -n elsewhere leases create", libc::EINVAL, "namespaces/elsewhere/ctl"),
        (b"snapshots prepare --snapshotter nope k", libc::ENOENT, "not loaded"),
        (b"snapshots commit new nosuch", libc::ENOENT, "nosuch"),
    ];
    for (line, code, why) in cases {
        assert_eq!(write(world, "ctl", line), *code, "{}", String::from_utf8_lossy(line));
        let error = world.read("error");
        assert!(error.contains(why), "{}: {error}", String::from_utf8_lossy(line));
    }
    assert_eq!(write(world, "ctl", &[b' '; (64 << 10) + 1]), libc::EFBIG);
    assert_eq!(write(world, "ctl", &[b' '; 64 << 10]), 0);
    assert_eq!(write(world, "ctl", b"leases create --id there"), 0);
    assert_eq!(write(world, "ctl", b"leases create --id there"), libc::EEXIST);
    // The word at fault is pointed at.
    write(world, "ctl", b"leases create --nope x");
    let error = world.read("error");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!((lines[1], lines[2]), ("leases create --nope x", "              ^"), "{error}");
    // And it is found in the log of the daemon, and by the process that wrote.
    assert!(world.mount().read(".ctrfs/error_log").contains("              ^"));
    let own = world.sh("echo nonsense >ctl 2>/dev/null; cat ../../.ctrfs/errors/$$", 10);
    assert!(own.out.contains("nonsense: no such verb"), "{own:?}");
}

/// Reading `ctl` tells the verbs; a file that is open for both tells them to its reader, too.
fn tells_its_verbs(world: &World) {
    let verbs = world.read("ctl");
    for verb in ["leases create", "snapshots prepare", "namespaces remove", "label KEY=VALUE"] {
        assert!(verbs.contains(verb), "{verb} in {verbs}");
    }
    let mut both = OpenOptions::new().read(true).write(true).open(full(world, "ctl")).unwrap();
    let mut text = String::new();
    both.read_to_string(&mut text).unwrap();
    assert_eq!(text, verbs);
    // What cannot be done now is not shown: a committed snapshot is not committed again.
    let rpc = world.containerd.rpc();
    rpc.prepare_snapshot(&world.namespace, "overlayfs", "active", "", &[]);
    eventually("the snapshot is here", Duration::from_secs(3), || world.exists("snapshots/overlayfs/active"));
    assert!(world.read("snapshots/overlayfs/active/ctl").contains("commit NAME"));
    assert_eq!(write(world, "snapshots/overlayfs/active/ctl", b"commit done"), 0);
    assert!(!world.read("snapshots/overlayfs/done/ctl").contains("commit NAME"));
}

/// Labels are set by a word, by `setfattr`, and seen by ctr.
fn labels(world: &World) {
    assert_eq!(write(world, "ctl", b"label colour=blue 'a.b/c=two words'"), 0);
    assert_eq!(world.read("labels"), "a.b/c=two words\ncolour=blue\n");
    world.sh("setfattr -n user.label.colour -v red . && setfattr -x user.label.a.b/c .", 10).ok();
    assert_eq!(world.read("labels"), "colour=red\n");
    assert!(world.ctr(&["namespaces", "ls"]).contains("colour=red"));
    let image = world.tiny();
    let path = format!("images/{image}");
    eventually("the image is here", Duration::from_secs(2), || world.exists(&path));
    world.sh(&format!("setfattr -n user.label.why -v because {path}"), 10).ok();
    assert!(world.read(&format!("{path}/labels")).contains("why=because\n"));
    assert!(world.ctr(&["images", "ls"]).contains("why=because"));
    let missing = world.sh(&format!("setfattr -x user.label.nosuch {path}"), 10);
    assert_ne!(missing.code, Some(0));
    let strange = world.sh(&format!("setfattr -n user.other -v x {path}"), 10);
    assert!(strange.err.contains("Operation not permitted"), "{strange:?}");
}

/// A namespace is made by `mkdir` and by its word, and removed by its word if it is empty.
fn namespaces(world: &World) {
    let name = world.containerd.new_namespace();
    let dir = world.mount().at_path("namespaces").join(&name);
    std::fs::create_dir(&dir).unwrap();
    assert!(world.containerd.ctr("default", &["namespaces", "ls", "-q"]).lines().any(|line| line == name));
    assert_eq!(errno(std::fs::create_dir(&dir)), libc::EEXIST);
    assert_eq!(errno(std::fs::create_dir(dir.join("x"))), libc::EPERM);
    let remove = |path: &std::path::Path| {
        errno(OpenOptions::new().write(true).open(path.join("ctl")).and_then(|mut f| f.write_all(b"namespaces rm")))
    };
    let empty = serde_json::json!({"mediaType": "x/y", "digest": format!("sha256:{}", "0".repeat(64)), "size": 1});
    world.containerd.rpc().create_image(&name, "keeps", &empty);
    assert_eq!(remove(&dir), libc::ENOTEMPTY);
    world.containerd.ctr(&name, &["images", "rm", "keeps"]);
    assert_eq!(remove(&dir), 0);
    assert!(!dir.exists());
    let bad = world.mount().at_path("namespaces").join("-bad-");
    assert_eq!(errno(std::fs::create_dir(bad)), libc::EINVAL);
}

/// `rm -rf`, `find -delete` and `mv` change nothing, on any part, and say why.
fn nothing_by_accident(world: &World) {
    let image = world.tiny();
    let id = world.sleeper(image, &[]);
    eventually("the container is here", Duration::from_secs(3), || world.exists(&format!("containers/{id}")));
    world.containerd.rpc().create_lease(&world.namespace, "kept", &[]);
    let nouns = ["images", "containers", "leases", "snapshots", "content", "tasks"];
    let names = |noun: &str| -> BTreeSet<String> {
        let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        world.ctr(&[noun, "ls"]).lines().map(first).collect()
    };
    let state = || nouns.map(names);
    let before = state();
    for script in ["rm -rf ./*", "find . -xdev -delete", "mv images/docker.io images/x", "rmdir leases/kept"] {
        let shell = world.sh(script, 300);
        assert!(shell.code != Some(0) && shell.err.contains("not permitted"), "{script}: {:.400}", shell.err);
    }
    assert_eq!(state(), before);
    assert!(world.mount().read(".ctrfs/error_log").contains("`ctl` says what can be done"));
}

/// Under `-o allow_delete`, `rmdir` takes an object and nothing inside of one.
fn deletes_where_allowed(world: &World) {
    let mount = Mount::new(&world.containerd, &["-o", "allow_delete", "-n", &world.namespace]);
    let rpc = world.containerd.rpc();
    rpc.create_lease(&world.namespace, "gone", &[]);
    rpc.prepare_snapshot(&world.namespace, "overlayfs", "gone", "", &[]);
    eventually("both are here", Duration::from_secs(3), || {
        mount.exists("leases/gone") && mount.exists("snapshots/overlayfs/gone")
    });
    let inside = mount.sh("cd $M; rm leases/gone/labels; rm -rf leases/gone/resources; rmdir leases", 10);
    assert_eq!(inside.err.matches("not permitted").count(), 3, "{inside:?}");
    mount.sh("cd $M; rmdir leases/gone snapshots/overlayfs/gone", 10).ok();
    assert!(rpc.leases(&world.namespace).is_empty());
    assert!(rpc.snapshots(&world.namespace, "overlayfs").is_empty());
}

/// A read-only mount is passive: every change is EROFS.
fn read_only(world: &World) {
    world.containerd.rpc().create_lease(&world.namespace, "kept", &[]);
    let mount = Mount::new(&world.containerd, &["-o", "ro", "-n", &world.namespace]);
    eventually("the lease is here", Duration::from_secs(3), || mount.exists("leases/kept"));
    for script in [
        "echo delete >leases/kept/ctl",
        "mkdir x",
        "rmdir leases/kept",
        "mv leases/kept leases/x",
        "setfattr -n user.label.a -v b .",
        "touch ctl",
    ] {
        let shell = mount.sh(&format!("cd $M; {script}"), 10);
        assert!(shell.code != Some(0) && shell.err.contains("Read-only file system"), "{script}: {shell:?}");
    }
    assert_eq!(world.containerd.rpc().leases(&world.namespace).len(), 1);
}

/// Somebody who holds `ctl` open, or whose command takes long, keeps nobody else from writing.
fn writers_do_not_wait_for_each_other(world: &World) {
    let open = |flags: i32| OpenOptions::new().write(true).custom_flags(flags).open(full(world, "ctl")).unwrap();
    let mut held: Vec<_> = (0..8).map(|n| open(if n % 2 == 0 { libc::O_APPEND } else { libc::O_TRUNC })).collect();
    for (n, file) in held.iter_mut().enumerate() {
        file.write_all(format!("leases create --id held{n}\n").as_bytes()).unwrap();
    }
    world.sh("for n in 1 2 3 4 5 6 7 8; do echo leases create --id many$n >ctl & done; wait", 20).ok();
    assert_eq!(world.ls("leases").len(), 16);
    drop(held);
    // Idle again, the file has the number that it always has.
    let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(full(world, path)).unwrap());
    assert_eq!(inode("ctl"), inode("ctl"));
}

/// A handle never acts on a successor: what was deleted meanwhile is ESTALE.
fn successors(world: &World) {
    let rpc = world.containerd.rpc();
    rpc.create_lease(&world.namespace, "l", &[]);
    eventually("the lease is here", Duration::from_secs(3), || world.exists("leases/l"));
    let mut file = OpenOptions::new().write(true).open(full(world, "leases/l/ctl")).unwrap();
    world.ctr(&["leases", "rm", "l"]);
    std::thread::sleep(Duration::from_millis(1100));
    rpc.create_lease(&world.namespace, "l", &[]);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(file.write(b"delete\n").unwrap_err().raw_os_error(), Some(libc::ESTALE));
    assert_eq!(rpc.leases(&world.namespace).len(), 1);
}

/// What leases hold and how long they last is said by their words.
fn leases(world: &World) {
    let digest = format!("sha256:{}", "0".repeat(64));
    assert_eq!(write(world, "ctl", b"ctr leases create --id l --expires 90m k=v"), 0);
    assert_eq!(write(world, "leases/l/ctl", format!("add content {digest}").as_bytes()), 0);
    assert!(world.read("leases/l/resources.tsv").contains(&digest));
    assert_eq!(write(world, "leases/l/ctl", format!("remove content {digest}").as_bytes()), 0);
    assert!(!world.read("leases/l/resources.tsv").contains(&digest));
    assert!(world.read("leases/l/labels").contains("containerd.io/gc.expire=20"));
    assert!(world.ctr(&["leases", "ls"]).contains("k=v"));
    assert_eq!(write(world, "ctl", b"leases rm --sync l"), 0);
    assert!(world.ls("leases").is_empty());
}

/// Snapshots are made, committed and deleted; one that somebody stands on is not.
fn snapshots(world: &World) {
    assert_eq!(write(world, "ctl", b"snapshots prepare base"), 0);
    assert_eq!(write(world, "snapshots/overlayfs/base/ctl", b"commit done"), 0);
    assert_eq!(write(world, "ctl", b"snapshots view eye done"), 0);
    assert_eq!(world.value("snapshots/overlayfs/eye/kind"), "view");
    assert_eq!(world.link("snapshots/overlayfs/eye/parent"), "../done");
    assert_eq!(write(world, "snapshots/overlayfs/done/ctl", b"delete"), libc::EBUSY);
    assert_eq!(write(world, "ctl", b"snapshots label done a=b"), 0);
    assert_eq!(world.xattr("snapshots/overlayfs/done", "user.label.a"), Ok("b".into()));
    assert_eq!(write(world, "ctl", b"snapshots rm eye done"), 0);
    assert!(world.ls("snapshots/overlayfs").is_empty());
    // A running container's root file system stays, whatever containerd would do.
    let id = world.sleeper(world.tiny(), &[]);
    let snapshot = format!("snapshots/overlayfs/{id}/ctl");
    eventually("its snapshot is here", Duration::from_secs(3), || world.exists(&snapshot));
    assert_eq!(write(world, &snapshot, b"delete"), libc::EBUSY);
    assert!(world.read(&format!("snapshots/overlayfs/{id}/error")).contains(&id));
}

/// What `ctr images prune --all` does is a pipeline: images that no container was made from are deleted.
fn prunes_by_pipeline(world: &World) {
    let image = world.tiny();
    world.sleeper(image, &[]);
    world.ctr(&["images", "tag", image, "unused:1"]);
    let path = format!("images/{image}/containers");
    eventually("all is here", Duration::from_secs(3), || {
        world.exists("images/unused:1") && !world.ls(&path).is_empty()
    });
    let script =
        "find images -type d -name containers -empty | while read c; do echo delete > ${c%containers}ctl; done";
    world.sh(script, 20).ok();
    assert_eq!(world.ctr(&["images", "ls", "-q"]).trim(), image);
}

crate::each_version!(
    what_was_written_is_listed,
    prunes_by_pipeline,
    shells,
    stops_at_the_first_failure,
    bad_input,
    tells_its_verbs,
    labels,
    namespaces,
    nothing_by_accident,
    deletes_where_allowed,
    read_only,
    writers_do_not_wait_for_each_other,
    successors,
    leases,
    snapshots,
);
