//! `containers/<id>/task/{stdin,stdout,stderr,wait}` and the processes that `exec` adds.

use crate::common::{Mount, World, eventually};
use std::io::{Read, Write};
use std::time::Duration;

/// Starts `sh -c script` in a new container; its task's directory.
fn run(world: &World, flags: &str, script: &str) -> String {
    let id = world.new_id("io");
    let line = format!("run {flags} {} {id} sh -c '{script}'", world.tiny());
    world.sh(&format!("cat > ctl <<'X' || cat error >&2\n{line}\nX"), 30).ok();
    format!("containers/{id}/task")
}

/// What a process writes is in two files; `wait` gives its exit status when all of it is there.
fn two_outputs(world: &World) {
    let dir = run(world, "", "echo out; echo err >&2; seq 1 20000; exit 7");
    assert_eq!(world.sh(&format!("cat {dir}/wait"), 20).ok(), "7\n");
    let expected: String = std::iter::once("out\n".to_owned()).chain((1..=20000).map(|n| format!("{n}\n"))).collect();
    assert!(world.read(&format!("{dir}/stdout")) == expected, "all of it is there when wait answers");
    assert_eq!(world.read(&format!("{dir}/stderr")), "err\n");
    let size = std::fs::metadata(world.mount().at_path(&world.path(&format!("{dir}/stdout")))).unwrap().len();
    assert_eq!(size, expected.len() as u64);
    assert_eq!(world.value(&format!("{dir}/exit_status")), "7");
    let listed = world.ls(&dir);
    assert!(!listed.iter().any(|name| name.contains("follow") || name == "wait"), "{listed:?}");
    assert_eq!(world.sh(&format!("grep -r ^out$ {dir}/ | head -1"), 20).ok(), format!("{dir}/stdout:out\n"));
}

/// A follower gets each line as it is written, and the end when the process is gone.
fn follow(world: &World) {
    let dir = run(world, "", "for i in 1 2 3; do echo $i; sleep 0.3; done");
    let done = world.sh(&format!("cat {dir}/stdout.follow"), 20);
    assert!(done.took > Duration::from_millis(600), "{done:?}");
    assert_eq!(done.ok(), "1\n2\n3\n");
    let done = world.sh(&format!("timeout 2 tail -n 1 -f {dir}/stdout"), 20);
    assert_eq!(done.out, "3\n");
}

/// `stdin` is a fifo: the last writer's close ends it, and one that is held open does not.
fn feed(world: &World) {
    for shell in ["bash", "dash", "busybox sh"] {
        let dir = run(world, "", "cat; echo end");
        let script = format!("printf 'one\\ntwo\\n' > {dir}/stdin && cat {dir}/wait {dir}/stdout");
        let done = world.sh(&format!("{shell} -c \"{script}\""), 20);
        assert_eq!(done.ok(), "0\none\ntwo\nend\n", "{shell}");
        let late = world.sh(&format!("echo late > {dir}/stdin"), 20);
        assert!(late.code != Some(0) && late.err.contains("No such"), "{late:?}");
    }
    let dir = run(world, "", "cat; echo end");
    let script = format!(
        "exec 3> {dir}/stdin; echo a > {dir}/stdin; echo b >&3; sleep 0.3; cat {dir}/stdout; exec 3>&-; cat {dir}/stdout.follow"
    );
    assert_eq!(world.sh(&script, 20).ok(), "a\nb\na\nb\nend\n");
}

/// Data in, a program in a container, data out, its exit status: as a shell user would write it.
fn pipeline(world: &World) {
    let dir = run(world, "", "sed s/x/y/ | cat; exit 4");
    let script = format!(
        "seq 1 100000 | sed s/^/x/ > /tmp/in.$$; tee {dir}/stdin < /tmp/in.$$ > /dev/null & cat {dir}/stdout.follow > /tmp/out.$$;
         tr x y < /tmp/in.$$ | cmp - /tmp/out.$$; cat {dir}/wait; rm /tmp/in.$$ /tmp/out.$$"
    );
    assert_eq!(world.sh(&script, 60).ok(), "4\n");
}

/// A terminal: one output, its size told, its input echoed.
fn terminal(world: &World) {
    let dir = run(world, "--tty", "read line; echo got $line; busybox stty size 2>/dev/null; exit 5");
    world.sh(&format!("echo resize 101 37 > {dir}/ctl || cat {dir}/error >&2"), 20).ok();
    world.sh(&format!("echo hello > {dir}/stdin"), 20).ok();
    assert_eq!(world.sh(&format!("cat {dir}/wait"), 20).ok(), "5\n");
    let said = world.read(&format!("{dir}/stdout"));
    assert!(said.contains("got hello\r\n") && said.contains("37 101"), "{said:?}");
    assert!(!world.exists(&format!("{dir}/stderr")));
}

/// With `--rm` the container goes at its exit; who waits and follows gets all of it, and the job keeps it.
fn run_rm(world: &World) {
    let id = world.new_id("rm");
    let line = format!("run --rm {} {id} sh -c 'read x; echo $x; echo oops >&2; exit 6'", world.tiny());
    let dir = format!("containers/{id}/task");
    let script = format!(
        "cat > ctl <<'X'\n{line}\nX\n (cat {dir}/wait | sed s/^/status=/) & (cat {dir}/stdout.follow) & sleep 0.5; echo said > {dir}/stdin; wait"
    );
    let done = world.sh(&script, 30).ok();
    let mut lines: Vec<&str> = done.lines().collect();
    lines.sort();
    assert_eq!(lines, ["said", "status=6"]);
    eventually("the container is gone", Duration::from_secs(5), || !world.exists(&format!("containers/{id}")));
    assert!(!world.ctr(&["snapshots", "ls"]).contains(&id));
    let job = world.ls("jobs").pop().unwrap();
    assert_eq!(world.read(&format!("jobs/{job}/stdout")), "said\n");
    assert_eq!(world.read(&format!("jobs/{job}/stderr")), "oops\n");
    assert_eq!(world.value(&format!("jobs/{job}/exit_status")), "6");
}

/// A further process is a directory beside the task's own files.
fn exec(world: &World) {
    let dir = run(world, "--env A=task", "sleep 1000");
    let say = |words: &str| {
        world.sh(&format!("cat > {dir}/ctl <<'X' || cat {dir}/error >&2\nexec {words}\nX"), 20).ok();
    };
    say("--exec-id one --cwd /tmp sh -c 'echo $A $PWD; cat; exit 9'");
    let one = format!("{dir}/exec/one");
    assert_eq!(world.value(&format!("{one}/status")), "running");
    assert_eq!(world.value(&format!("{one}/command")), "sh -c 'echo $A $PWD; cat; exit 9'");
    world.sh(&format!("echo fed > {one}/stdin"), 20).ok();
    assert_eq!(
        world.sh(&format!("cat {one}/wait {one}/stdout {one}/exit_status {one}/status"), 20).ok(),
        "9\ntask /tmp\nfed\n9\nstopped\n"
    );
    let again = world.sh(&format!("echo 'exec --exec-id one true' > {dir}/ctl"), 20);
    assert!(again.err.contains("File exists"), "{again:?}");
    say("sh -c 'echo unnamed >&2'");
    let help = world.read(&format!("{dir}/ctl"));
    let last = help.lines().last().unwrap().rsplit('/').next().unwrap().trim_end_matches('.').to_owned();
    assert_eq!(world.sh(&format!("cat {dir}/exec/{last}/wait {dir}/exec/{last}/stderr"), 20).ok(), "0\nunnamed\n");
    let mut listed = world.ls(&format!("{dir}/exec"));
    listed.retain(|name| name != "one" && *name != last);
    assert!(listed.is_empty(), "{listed:?}");
    say("--exec-id long sleep 1000");
    let long = format!("{dir}/exec/long");
    let busy = world.sh(&format!("echo delete > {long}/ctl"), 20);
    assert!(busy.err.contains("busy"), "{busy:?}");
    world.sh(&format!("echo kill 9 > {long}/ctl; cat {long}/wait"), 20).ok();
    world.sh(&format!("echo delete > {long}/ctl || cat {long}/error >&2"), 20).ok();
    assert!(!world.exists(&long));
    let bad = world.sh(&format!("echo 'exec --exec-id bad /no/such' > {dir}/ctl"), 20);
    assert!(bad.err.contains("No such file") && !world.exists(&format!("{dir}/exec/bad")), "{bad:?}");
}

/// A container that `ctr` started into files shows them, and its exit can be waited for.
fn started_by_others(world: &World) {
    let (tiny, id) = (world.tiny(), world.new_id("theirs"));
    let log = world.containerd.dir.join(format!("{id}.log"));
    let uri = format!("file://{}", log.display());
    world.ctr(&["run", "-d", "--log-uri", &uri, tiny, &id, "sh", "-c", "echo theirs; sleep 1; exit 2"]);
    let dir = format!("containers/{id}/task");
    eventually("it is here", Duration::from_secs(5), || world.exists(&dir));
    assert_eq!(world.sh(&format!("cat {dir}/stdout.follow {dir}/wait"), 20).ok(), "theirs\n2\n");
    assert!(!world.exists(&format!("{dir}/stdin")));
}

/// ctrfs is killed while a process runs: the next one shows all that it wrote, and takes up `--rm` and `exec`.
fn survives_ctrfs(world: &World) {
    let dir = run(world, "--rm", "echo before; read x; echo $x");
    world.sh(&format!("echo 'exec --exec-id e sh -c \"sleep 2; exit 8\"' > {dir}/ctl"), 20).ok();
    let first = Mount::new(&world.containerd, &[]);
    drop(first);
    world.mount().kill();
    let next = Mount::new(&world.containerd, &[]);
    let at = |path: &str| next.at_path(&world.path(path));
    let read = |path: &str| std::fs::read_to_string(at(path)).unwrap_or_default();
    assert_eq!(read(&format!("{dir}/stdout")), "before\n");
    let mut wait = std::fs::File::open(at(&format!("{dir}/exec/e/wait"))).unwrap();
    let mut text = String::new();
    wait.read_to_string(&mut text).unwrap();
    assert_eq!(text, "8\n");
    let mut follower = std::fs::File::open(at(&format!("{dir}/stdout.follow"))).unwrap();
    let mut stdin = std::fs::OpenOptions::new().write(true).open(at(&format!("{dir}/stdin"))).unwrap();
    stdin.write_all(b"after\n").unwrap();
    drop(stdin);
    text.clear();
    follower.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before\nafter\n");
    let container = dir.trim_end_matches("/task").to_owned();
    eventually("--rm is kept", Duration::from_secs(5), || !at(&container).exists());
}

/// containerd is killed and comes back: the process lives on, its output too, and `wait` still answers.
fn survives_containerd(world: &World) {
    let dir = run(world, "", "echo before; read x; echo $x; read y; echo $y; exit 5");
    let home = world.mount().at_path(&world.path(""));
    let waiting = std::process::Command::new("cat")
        .arg(home.join(&dir).join("wait"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = std::fs::OpenOptions::new().write(true).open(home.join(&dir).join("stdin")).unwrap();
    let written = |text: &str| {
        eventually("its output comes", Duration::from_secs(5), || world.read(&format!("{dir}/stdout")) == text);
    };
    written("before\n");
    world.containerd.kill();
    stdin.write_all(b"meanwhile\n").unwrap();
    written("before\nmeanwhile\n");
    let refused = world.sh(&format!("echo kill > {dir}/ctl"), 40);
    assert!(refused.err.contains("Host is down"), "{refused:?}");
    world.containerd.restart();
    stdin.write_all(b"after\n").unwrap();
    let out = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "5\n");
    written("before\nmeanwhile\nafter\n");
}

/// Where as many writes are being carried out as there may be, one more is refused with EAGAIN and a sentence; nothing of
/// it stays stuck, and the same open file can be written to when others have ended.
fn too_many_writers(world: &World) {
    let dir = run(world, "", "while ! test -e /go; do sleep 0.1; done; cat | wc -c");
    let open =
        |path: &str| std::fs::OpenOptions::new().write(true).open(world.mount().at_path(&world.path(path))).unwrap();
    let stdin = format!("{dir}/stdin");
    // The first fills the pipe, so that the others find no room.
    let mut writers: Vec<_> = (0..512)
        .map(|n| {
            let (mut file, bytes) = (open(&stdin), vec![b'x'; if n == 0 { 1 << 20 } else { 1 }]);
            let writer = std::thread::Builder::new().stack_size(64 << 10).spawn(move || file.write_all(&bytes));
            if n == 0 {
                std::thread::sleep(Duration::from_millis(500));
            }
            writer.unwrap()
        })
        .collect();
    let waiting = || {
        let metrics = world.mount().read(".ctrfs/metrics");
        let parked = metrics.lines().find_map(|line| line.strip_prefix("ctrfs_parked "));
        parked.expect("a gauge of those who wait").parse::<u32>().unwrap()
    };
    eventually("all of them wait", Duration::from_secs(20), || waiting() >= 512);
    let (mut late, mut control) = (open(&stdin), open(&format!("{dir}/ctl")));
    for (file, bytes, beside) in [(&mut late, "late", &dir), (&mut control, "kill 9", &dir)] {
        let began = std::time::Instant::now();
        let refused = file.write(bytes.as_bytes()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN), "{refused}");
        assert!(began.elapsed() < Duration::from_secs(5));
        let said = world.read(&format!("{beside}/error"));
        assert!(said.contains("512 writes") && said.contains("temporarily unavailable"), "{said}");
    }
    let id = dir.split('/').nth(1).unwrap();
    world.ctr(&["tasks", "exec", "--exec-id", "go", id, "touch", "/go"]);
    writers.drain(..).for_each(|writer| writer.join().unwrap().unwrap());
    late.write_all(b"late").unwrap();
    drop(late);
    assert_eq!(world.sh(&format!("cat {dir}/stdout.follow"), 20).ok().trim(), ((1 << 20) + 511 + 4).to_string());
    control.write_all(b"delete").unwrap();
    eventually("nothing waits any more", Duration::from_secs(5), || waiting() == 0);
}

crate::each_version!(too_many_writers);
crate::each_version!(two_outputs, follow, feed, pipeline, terminal, run_rm, exec, started_by_others);
crate::each_version_alone!(survives_ctrfs, survives_containerd);
