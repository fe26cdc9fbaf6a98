//! Running commands with a deadline, and waiting for something to become true.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a command did.
#[derive(Debug)]
pub struct Shell {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Shell {
    /// The output of a command that must succeed and say nothing on stderr.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == Some(0) && self.err.is_empty(), "{self:#?}");
        self.out
    }
}

/// Runs a shell script with variables in its environment. One that does not end in `seconds` is killed, and the test fails.
#[track_caller]
pub fn sh(script: &str, variables: &[(&str, &str)], seconds: u64) -> Shell {
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).envs(variables.iter().copied());
    run(&mut command, seconds)
}

/// Runs a command as [`sh`] does. Its output goes to files, so that a process stuck in the kernel does not hold the test.
#[track_caller]
pub fn run(command: &mut Command, seconds: u64) -> Shell {
    let (out, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let file = |f: &tempfile::NamedTempFile| Stdio::from(File::options().append(true).open(f.path()).unwrap());
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).spawn().expect("cannot run");
    let deadline = started + Duration::from_secs(seconds);
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("not done after {seconds} s: {command:?}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    let text = |f: &tempfile::NamedTempFile| String::from_utf8_lossy(&std::fs::read(f.path()).unwrap()).into_owned();
    Shell { code: status.code(), out: text(&out), err: text(&err), took: started.elapsed() }
}

/// Waits until `condition` holds, at most `limit`; says how long it took.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}
