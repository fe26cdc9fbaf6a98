//! `contrib/ctrfs-run`, `ctrfs-exec` and `ctrfs-attach`, under the shells that people have.

use crate::common::{World, eventually, shell};
use std::time::Duration;

const SHELLS: [&str; 3] = ["bash", "dash", "busybox sh"];

/// Runs a script with the path of contrib/ as `$C` and the namespace's directory as `$CTRFS`.
fn sh(world: &World, script: &str, seconds: u64) -> shell::Shell {
    let home = world.mount().at_path(&world.path(""));
    let contrib = format!("{}/contrib", env!("CARGO_MANIFEST_DIR"));
    shell::sh(script, &[("C", &contrib), ("CTRFS", home.to_str().unwrap())], seconds)
}

/// Input, both outputs and the exit status are passed on; words arrive as they are; nothing stays.
fn runs_in_the_foreground(world: &World) {
    let tiny = world.tiny();
    for shell in SHELLS {
        let id = world.new_id("fore");
        let script = format!(
            r#"printf 'a\nb\n' | {shell} $C/ctrfs-run --rm --env "A=it's" -- {tiny} {id} sh -c 'cat; echo "$A"; echo oops >&2; exit 3'"#
        );
        let done = sh(world, &script, 30);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(3), "a\nb\nit's\n", "oops\n"), "{shell}");
        assert!(world.ls("containers").is_empty(), "{shell}");
        // Whoever stands in a namespace means that one; where there is none, what to do is said.
        let run = format!("{shell} $C/ctrfs-run {tiny} {id} sh -c 'exit 3' </dev/null");
        let here = sh(world, &format!("cd $CTRFS/images; unset CTRFS; {run}"), 30);
        assert_eq!(here.code, Some(3), "{here:?}");
        let nowhere = sh(world, &format!("cd /proc; CTRFS=/proc; {run}"), 30);
        assert!(nowhere.code == Some(125) && nowhere.err.contains("set CTRFS"), "{nowhere:?}");
        let bad = sh(world, &format!("{shell} $C/ctrfs-run {tiny} {id} /no/such </dev/null"), 30);
        assert!(bad.code == Some(125) && bad.err.contains("/no/such"), "{bad:?}");
        world.sh(&format!("echo delete > containers/{id}/ctl"), 20).ok();
    }
}

/// Ctrl-C is the container's, which may do with it what it wants.
fn passes_signals_on(world: &World) {
    let tiny = world.tiny();
    for shell in SHELLS {
        let id = world.new_id("signal");
        let script = format!(
            r#"{shell} $C/ctrfs-run {tiny} {id} sh -c 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.1; done' < /dev/null &
            pid=$!; for i in $(seq 100); do grep -q ready $CTRFS/containers/{id}/task/stdout 2>/dev/null && break; sleep 0.05; done
            sleep 0.2; kill -INT $pid; wait $pid; echo status $?"#
        );
        let done = sh(world, &format!("set -m; {script}"), 30);
        assert_eq!(done.out, "ready\ncaught\nstatus 9\n", "{shell}: {done:?}");
        eventually("nothing stays", Duration::from_secs(5), || world.ls("containers").is_empty());
    }
}

/// A further process, in the foreground.
fn exec_in_the_foreground(world: &World) {
    let tiny = world.tiny();
    let id = world.new_id("exec");
    world.sh(&format!("echo 'run {tiny} {id} sleep 1000' > ctl || cat error >&2"), 20).ok();
    for shell in SHELLS {
        let script =
            format!("echo in | {shell} $C/ctrfs-exec --cwd /tmp -- {id} sh -c 'cat; pwd; echo oops >&2; exit 4'");
        let done = sh(world, &script, 30);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(4), "in\n/tmp\n", "oops\n"), "{shell}");
        assert!(world.ls(&format!("containers/{id}/task/exec")).is_empty());
    }
}

/// A terminal is attached to a terminal: its size is told, its keys go in, and it ends with the process.
fn a_terminal(world: &World) {
    let tiny = world.tiny();
    let id = world.new_id("tty");
    let script = format!(
        r#"(sleep 2; echo hello; sleep 1) | script -qec "stty rows 31 cols 99; $C/ctrfs-run -t -- {tiny} {id} sh -c 'sleep 1; read x; echo got \$x; busybox stty size; exit 6'" /dev/null; echo status $?"#
    );
    let done = sh(world, &script, 40);
    assert!(done.out.contains("got hello\r\n31 99\r\n") && done.out.ends_with("status 6\n"), "{done:?}");
    eventually("nothing stays", Duration::from_secs(5), || world.ls("containers").is_empty());
}

crate::each_version!(runs_in_the_foreground, passes_signals_on, exec_in_the_foreground, a_terminal);
