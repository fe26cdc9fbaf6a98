//! `run`, `start`, `kill`, `stop`, `delete` and their kin, written to `ctl`.

use crate::common::tar::Tar;
use crate::common::{World, eventually, images, oci};
use serde_json::Value;
use std::time::Duration;

/// An image that says all that an image can say of its process, with links on the way to its users.
fn opinionated(world: &World) -> &'static str {
    let mut layout = oci::Layout::new();
    let upper = Tar::new()
        .dir("etc/")
        .symlink("etc/passwd", "/usr/lib/users")
        .file("etc/group", "root:x:0:\nadm:x:4:root,web\nweb:x:33:web\nextra:x:77:other,web\n")
        .dir("usr/")
        .dir("usr/lib/")
        .file("usr/lib/users", "root:x:0:0:root:/:/bin/sh\nweb:x:33:33::/:/bin/sh\n")
        .finish();
    let layers = [oci::Layer::gzip(images::busybox_layer()), oci::Layer::plain(upper)];
    let architecture = images::host().trim_start_matches("linux/").to_owned();
    let config = serde_json::json!({
        "os": "linux", "architecture": architecture,
        "config": {"User": "web", "Env": ["PATH=/bin", "A=image", "B=image"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id"],
            "WorkingDir": "/tmp", "StopSignal": "SIGINT", "Labels": {"from": "image"}},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id.clone()).collect::<Vec<_>>()},
        "history": [],
    });
    let config = layout.json(oci::CONFIG, &config);
    let layers: Vec<Value> = layers.iter().map(|layer| layout.blob(&layer.media_type, layer.blob.clone())).collect();
    let manifest =
        serde_json::json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": layers});
    let manifest = layout.json(oci::MANIFEST, &manifest);
    layout.store(&world.containerd, &world.namespace, "opinionated", &manifest);
    "opinionated"
}

/// The command of a spec comparison, without image and id.
const SPECS: &[(&str, &str)] = &[
    ("", ""),
    ("--env A=1 --env B=2 --env PATH=/x", "env"),
    ("--cwd /tmp --tty --read-only", "echo 'a b' c"),
    ("--cpu-quota 5000 --cpu-period 10000", "true"),
    ("--net-host --label a.b/c=d --label e --annotation x=y", "true"),
    ("--privileged", "true"),
    ("--cap-add CAP_SYS_ADMIN --cap-add CAP_SYS_NICE --cap-drop CAP_CHOWN --seccomp", "true"),
    ("--seccomp --allow-new-privs", "true"),
    ("--mount type=bind,src=/tmp,dst=/host,options=rbind:ro --mount type=tmpfs,dst=/run", "true"),
    ("--with-ns network:/proc/1/ns/net --with-ns user:/proc/1/ns/user --rootfs-propagation shared", "true"),
    ("--device /dev/null --apparmor-profile some --rdt-class c", "true"),
];

/// Words that only `run` takes.
const RUNS: &[(&str, &str)] = &[
    ("", "true"),
    ("--memory-limit 67108864 --cpus 1.5 --cpu-shares 512 --platform linux/amd64", "true"),
    ("--privileged --seccomp --env-file /etc/os-release", "true"),
    ("--cpu-quota 50000 --cpu-period 100000 --cpu-shares 0 --cgroup /somewhere-else", "true"),
];

/// The same since 1.7.
const SPECS_1_7: &[(&str, &str)] = &[
    ("--user root --hostname name", "true"),
    ("--user 1000:1001", "true"),
    ("--user web", "true"),
    ("--user 33:adm", "true"),
    ("--user 0", "true"),
];

/// What ctr's and our command make of the same words, with the ids in them alike.
fn both(world: &World, verb: &str, image: &str, (flags, command): (&str, &str)) -> (Value, Value) {
    let (theirs, ours) = (world.new_id("theirs"), world.new_id("ours"));
    let platform = format!("linux/{}", crate::common::images::host().trim_start_matches("linux/"));
    let line = format!("{verb} {flags} {image}").replace("linux/amd64", &platform);
    let ctr = world.containerd.try_ctr_line(&world.namespace, &format!("{line} {theirs} {command}"));
    assert_eq!(ctr.code, Some(0), "{line}: {}", ctr.err);
    world.sh(&format!("echo \"{line} {ours} {command}\" > ctl || cat error >&2"), 20).ok();
    let info = |id: &str| {
        let text = world.ctr(&["containers", "info", id]).replace(id, "ID");
        let mut info: Value = serde_json::from_str(&text).unwrap();
        info.as_object_mut().unwrap().retain(|key, _| key != "CreatedAt" && key != "UpdatedAt");
        info
    };
    (info(&theirs), info(&ours))
}

fn compare(path: &str, theirs: &Value, ours: &Value, wrong: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let none = &Value::Null;
                compare(&format!("{path}/{key}"), a.get(key).unwrap_or(none), b.get(key).unwrap_or(none), wrong);
            }
        }
        _ if theirs != ours => wrong.push(format!("{path}: ctr has {theirs}, we have {ours}")),
        _ => {}
    }
}

/// A container that we make equals `ctr`'s for the same words, field by field.
fn equals_ctrs(world: &World) {
    let mut wrong = Vec::new();
    let newer = if world.version() == crate::common::Version::V1_6 { &[] } else { SPECS_1_7 };
    for image in [world.tiny(), world.debian(), opinionated(world)] {
        let creates = SPECS.iter().chain(newer).map(|words| ("containers create", words));
        let knows_web = |words: &str| image == "opinionated" || !(words.contains("web") || words.contains("adm"));
        let creates = creates.filter(|(_, words)| knows_web(words.0));
        for (verb, words) in creates.chain(RUNS.iter().map(|words| ("run -d --null-io", words))) {
            let (theirs, ours) = both(world, verb, image, *words);
            compare(&format!("{} {image}", words.0), &theirs, &ours, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{:#?}", wrong);
}

/// A container is run, and goes with a word.
fn run_and_delete(world: &World) {
    let tiny = world.tiny();
    let id = world.new_id("run");
    world.sh(&format!("echo 'run -d {tiny} {id} sleep 1000' > ctl || cat error >&2"), 20).ok();
    assert_eq!(world.value(&format!("containers/{id}/task/status")), "running");
    assert!(world.ctr(&["tasks", "ls"]).contains(&id));
    let refused = world.sh(&format!("echo delete > containers/{id}/ctl; cat containers/{id}/error"), 20);
    assert!(refused.err.contains("Device or resource busy") && refused.out.contains("running"), "{refused:?}");
    world.sh(&format!("echo kill > containers/{id}/ctl || cat containers/{id}/error >&2"), 20).ok();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(world.value(&format!("containers/{id}/task/status")), "running", "the first process ignores TERM");
    world.sh(&format!("echo kill 9 > containers/{id}/ctl"), 20).ok();
    assert_eq!(world.sh(&format!("timeout 10 cat containers/{id}/task/wait"), 20).ok(), "137\n");
    world.sh(&format!("echo delete > containers/{id}/ctl || cat containers/{id}/error >&2"), 20).ok();
    assert!(!world.exists(&format!("containers/{id}")));
    assert!(!world.ctr(&["snapshots", "ls"]).contains(&id));
    assert!(world.containerd.rpc().leases(&world.namespace).is_empty());
    let left = std::fs::read_dir(world.containerd.dir.join("ctrfs-state")).unwrap();
    for server in left.flatten() {
        assert!(!server.path().join(&world.namespace).join(&id).exists());
    }
    eventually("its snapshot is gone here, too", Duration::from_secs(2), || {
        !world.exists(&format!("snapshots/overlayfs/{id}"))
    });
}

/// `--pid-file` holds the pid once the task runs, as `ctr` writes it, and is not there if nothing runs.
fn pid_file(world: &World) {
    let image = world.tiny();
    let dir = world.containerd.dir.join(format!("{}-pids", world.namespace));
    std::fs::create_dir(&dir).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let id = world.new_id("pid");
    world.order("", &format!("run --pid-file {} {image} {id} sleep 1000", at("one")));
    let pid = world.value(&format!("containers/{id}/task/pid"));
    assert_eq!(std::fs::read_to_string(at("one")).unwrap(), pid);
    let second = world.new_id("pid");
    world.order("", &format!("containers create {image} {second} sleep 1000"));
    world.order("", &format!("tasks start --pid-file {} {second}", at("two")));
    let pid = world.value(&format!("containers/{second}/task/pid"));
    assert_eq!(std::fs::read_to_string(at("two")).unwrap(), pid);
    assert_ne!(world.refused("", &format!("run --pid-file {} {image} {id} true", at("three"))), 0);
    assert_ne!(world.refused("", &format!("run --rm --pid-file {} {image} {id}x /no/such", at("three"))), 0);
    let mut left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["one", "two"]);
}

/// A flag that is not supported is refused by name, and what is missing is said.
fn refused_by_name(world: &World) {
    let tiny = world.tiny();
    for (line, errno, said) in [
        (format!("run --cni {tiny} x true"), "Operation not supported", "--cni is not supported"),
        (format!("run --gpus 0 {tiny} x true"), "Operation not supported", "--gpus is not supported"),
        (format!("run --fifo-dir /tmp {tiny} x true"), "Operation not supported", "--fifo-dir is not supported"),
        (format!("run --sync-fs {tiny} x true"), "Operation not supported", "run `sync`"),
        (format!("containers create --pid-file /tmp/x {tiny} x true"), "Operation not supported", "`tasks start`"),
        (format!("run --pid-file x {tiny} x true"), "Invalid argument", "say the whole path"),
        (format!("run --pid-file /no/such/dir/x {tiny} x true"), "No such file or directory", "--pid-file"),
        ("images pull --tlscert /x h/x:1".to_owned(), "Operation not supported", "skopeo copy"),
        ("images pull --tlskey /x h/x:1".to_owned(), "Operation not supported", "skopeo copy"),
        ("images push --refresh t0ken h/x:1".to_owned(), "Operation not supported", "--user-file"),
        ("images pull --sync-fs h/x:1".to_owned(), "Operation not supported", "run `sync`"),
        ("images import --sync-fs /etc/passwd".to_owned(), "Operation not supported", "run `sync`"),
        (format!("run --no-such {tiny} x true"), "Invalid argument", "--no-such"),
        (format!("run {tiny}"), "Invalid argument", "container id must be provided"),
        ("run".to_owned(), "Invalid argument", "image ref must be provided"),
        ("run no/such:image x true".to_owned(), "No such file or directory", "image no/such:image: not found"),
        (format!("run --user nobody-here {tiny} x true"), "No such file or directory", "nobody-here"),
        (format!("run --log-uri fifo:///x {tiny} x true"), "Invalid argument", "--log-uri"),
        (format!("run --cap-add SYS_ADMIN {tiny} x true"), "Invalid argument", "CAP_"),
        ("run --config relative.json x".to_owned(), "Invalid argument", "say the whole path"),
        (format!("run --platform linux/s390x {tiny} x true"), "No such file or directory", "no manifest"),
        ("tasks kill nobody".to_owned(), "No such file or directory", "nobody"),
    ] {
        let done = world.sh(&format!("printf '%s\\n' '{line}' > ctl; echo $?; cat error"), 20);
        assert!(
            done.err.contains(errno) && done.out.starts_with("1\n") && done.out.contains(said),
            "{line}: {done:#?}"
        );
    }
    assert!(world.ls("containers").is_empty(), "nothing was made");
    assert!(!world.ctr(&["snapshots", "ls"]).lines().any(|line| line.contains("Active")));
    assert!(world.containerd.rpc().leases(&world.namespace).is_empty());
}

/// A command that cannot be started: the errno says so, and the container stays as with ctr, but goes with `--rm`.
fn a_bad_command(world: &World) {
    let tiny = world.tiny();
    let (stays, goes) = (world.new_id("stays"), world.new_id("goes"));
    for (flags, id) in [("", &stays), ("--rm", &goes)] {
        let done = world.sh(&format!("echo 'run {flags} {tiny} {id} /no/such' > ctl; cat error"), 20);
        assert!(done.err.contains("No such file") && done.out.contains("/no/such"), "{done:#?}");
    }
    assert_eq!(world.ls("containers"), [stays.as_str()]);
    assert!(!world.exists(&format!("containers/{stays}/task")));
    world.sh(&format!("echo delete > containers/{stays}/ctl"), 20).ok();
    assert!(world.ls("containers").is_empty());
}

/// pause, resume, stop, start, update, label: each is what `ctr` sees next.
fn a_life(world: &World) {
    let tiny = world.tiny();
    let id = world.new_id("life");
    let dir = format!("containers/{id}");
    let say = |words: &str| world.sh(&format!("echo '{words}' > {dir}/ctl || cat {dir}/error >&2"), 30).ok();
    let status = || world.value(&format!("{dir}/task/status"));
    let script = r#"trap "echo ended; exit 3" TERM; echo began; while :; do sleep 0.1; done"#;
    world.sh(&format!("cat > ctl <<'X' || cat error >&2\ncontainers create {tiny} {id} sh -c '{script}'\nX"), 20).ok();
    assert!(!world.exists(&format!("{dir}/task")));
    say("start");
    eventually("it began", Duration::from_secs(5), || world.read(&format!("{dir}/task/stdout")) == "began\n");
    let again = world.sh(&format!("echo start > {dir}/ctl"), 20);
    assert!(again.err.contains("File exists"), "{again:?}");
    say("pause");
    assert_eq!(status(), "paused");
    let again = world.sh(&format!("echo pause > {dir}/ctl"), 20);
    assert!(again.err.contains("Operation already in progress"), "{again:?}");
    say("resume");
    assert_eq!(status(), "running");
    say("update --memory-limit 50331648 --pids-limit 33");
    assert_eq!(world.json(&format!("{dir}/spec.json"))["linux"]["resources"]["memory"]["limit"], 50331648);
    let metrics = world.json(&format!("{dir}/task/metrics.json")).to_string();
    assert!(metrics.contains("50331648"), "{metrics}");
    say("label a=b");
    assert!(world.read(&format!("{dir}/labels")).contains("a=b\n"));
    say("stop");
    assert_eq!((status().as_str(), world.value(&format!("{dir}/task/exit_status")).as_str()), ("stopped", "3"));
    assert_eq!(world.read(&format!("{dir}/task/stdout")), "began\nended\n");
    world.sh(&format!("echo delete > {dir}/task/ctl"), 20).ok();
    assert!(!world.exists(&format!("{dir}/task")));
    say("start");
    eventually("it began again", Duration::from_secs(5), || world.read(&format!("{dir}/task/stdout")) == "began\n");
    say("kill KILL");
    assert_eq!(world.sh(&format!("cat {dir}/task/wait"), 20).ok(), "137\n");
    say("delete");
    assert!(!world.exists(&dir));
}

/// A checkpoint is written where CRIU is; without it the errno says that it cannot be, and the container lives on.
fn checkpoint(world: &World) {
    let id = world.sleeper(world.tiny(), &[]);
    let dir = format!("containers/{id}");
    eventually("it is here", Duration::from_secs(3), || world.exists(&format!("{dir}/task")));
    let to = tempfile::tempdir().unwrap();
    let done = world.sh(&format!("echo checkpoint --image-path {}/c > {dir}/ctl", to.path().display()), 60);
    if world.containerd.has_criu() {
        assert!(done.code == Some(0) && to.path().join("c").exists(), "{done:?}");
    } else {
        assert!(done.err.contains("not supported"), "{done:?}: {}", world.read(&format!("{dir}/error")));
    }
    assert_eq!(world.value(&format!("{dir}/task/status")), "running");
}

/// `stop` of what ignores TERM ends after its time of grace; `delete -f` needs no stop.
fn no_mercy(world: &World) {
    let tiny = world.tiny();
    let id = world.new_id("deaf");
    world.sh(&format!("echo 'run {tiny} {id} sleep 1000' > ctl || cat error >&2"), 20).ok();
    let done = world.sh(&format!("echo 'stop -t 0.5' > containers/{id}/ctl"), 20);
    assert!(done.took > Duration::from_millis(400) && done.took < Duration::from_secs(15), "{done:?}");
    assert_eq!(world.value(&format!("containers/{id}/task/exit_status")), "137");
    world.sh(&format!("echo 'tasks delete {id}' > ctl; echo 'tasks start {id}' > ctl || cat error >&2"), 20).ok();
    world.sh(&format!("echo 'c rm -f {id}' > ctl || cat error >&2"), 20).ok();
    assert!(!world.exists(&format!("containers/{id}")) && !world.ctr(&["tasks", "ls"]).contains(&id));
}

/// Ten containers are started and killed at once, by three shells.
fn ten_at_once(world: &World) {
    let tiny = world.tiny();
    let script = format!(
        r#"
        for i in 1 2 3 4 5 6 7 8 9 10; do
            case $((i % 3)) in 0) sh=bash;; 1) sh=dash;; *) sh="busybox sh";; esac
            $sh -c 'echo "run {tiny} ten-$1 sh -c \"echo out $1; sleep 1000\"" > ctl && echo kill 9 > containers/ten-$1/ctl &&
                cat containers/ten-$1/task/wait && echo delete > containers/ten-$1/ctl' x $i &
        done
        wait
        "#
    );
    let done = world.sh(&script, 120);
    assert_eq!(done.out, "137\n".repeat(10), "{done:#?}");
    assert!(done.err.is_empty(), "{}", done.err);
    assert!(world.ls("containers").is_empty());
    assert!(!world.ctr(&["snapshots", "ls"]).contains("ten-"));
}

crate::each_version!(
    checkpoint,
    equals_ctrs,
    run_and_delete,
    pid_file,
    refused_by_name,
    a_bad_command,
    a_life,
    no_mercy,
    ten_at_once
);
