//! What is done to a task that runs: signals, `stop`, `checkpoint`, `resize`.

use super::create::{STOP_SIGNAL, UNDO};
use super::signal;
use super::task::record;
use crate::containerd::{CheckpointOptions, Namespace, Status, TaskRecord};
use crate::error::{Kind, Result};
use crate::{fail, wait};
use clap::Parser;
use std::time::{Duration, Instant};

/// `kill`: `9`, `TERM`, `-s SIGTERM -a`; the image's stop signal if none is said.
#[derive(Debug, Clone, Default, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct KillArgs {
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    #[arg(short, long)]
    pub all: bool,
    #[arg(long)]
    pub exec_id: Option<String>,
    /// The signal without -s
    #[arg(allow_hyphen_values = true)]
    pub word: Option<String>,
}

impl KillArgs {
    /// The signal that was said, if one was.
    fn said(&self) -> Result<Option<u32>> {
        match (&self.signal, &self.word) {
            (Some(_), Some(word)) => fail!(Invalid, "{word}: the signal was said already"),
            (said, word) => {
                let said = said.as_deref().or(word.as_deref().map(|word| word.trim_start_matches('-')));
                said.map(signal::parse).transpose()
            }
        }
    }
}

/// Sends a signal to a task, or to the process `exec_id` in it.
pub fn kill(ns: &Namespace, id: &str, exec_id: &str, args: &KillArgs) -> Result<()> {
    let exec_id = args.exec_id.as_deref().unwrap_or(exec_id);
    if args.all && !exec_id.is_empty() {
        return fail!(Invalid, "-a is for all processes, --exec-id for one");
    }
    let signal = match args.said()? {
        Some(signal) => signal,
        None => stop_signal(ns, id)?,
    };
    ns.kill(id, exec_id, signal, args.all)
}

/// What the image says stops it, else TERM.
fn stop_signal(ns: &Namespace, id: &str) -> Result<u32> {
    match record(ns, id)?.labels.get(STOP_SIGNAL) {
        Some(word) => signal::parse(word),
        None => Ok(libc::SIGTERM.unsigned_abs()),
    }
}

/// `stop`: the stop signal, a time of grace, KILL.
#[derive(Debug, Clone, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct StopArgs {
    /// Seconds of grace
    #[arg(short, long, default_value_t = 10.0)]
    pub time: f64,
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
}

/// Ends a task's process; the task stays, with its exit status and its output.
pub fn stop(ns: &Namespace, id: &str, args: &StopArgs) -> Result<()> {
    if !(0.0..=86_400.0).contains(&args.time) {
        return fail!(Invalid, "--time {}: seconds, a day at most", args.time);
    }
    let kill = KillArgs { signal: args.signal.clone(), ..KillArgs::default() };
    match ns.live_task(id)? {
        None => return fail!(NotFound, "task {id}: not found"),
        Some(task) if task.status == Status::Stopped => return fail!(Already, "task {id}: it has ended already"),
        Some(task) if task.status == Status::Paused => ns.resume(id)?,
        Some(_) => {}
    }
    match self::kill(ns, id, "", &kill) {
        Err(error) if error.kind() != Kind::Gone => return Err(error),
        _ => {}
    }
    let grace = Instant::now() + Duration::from_secs_f64(args.time);
    while Instant::now() < grace {
        wait::check()?;
        if ns.task(id)?.is_none_or(|task| task.status == Status::Stopped) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    match ns.kill(id, "", libc::SIGKILL.unsigned_abs(), true) {
        Err(error) if error.kind() != Kind::Gone => Err(error),
        _ => ns.wait_process(id, "").map(drop),
    }
}

/// `checkpoint` of a task into files on containerd's host, where that has CRIU.
#[derive(Debug, Clone, Default, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct CheckpointArgs {
    /// End the task after it
    #[arg(long)]
    pub exit: bool,
    #[arg(long)]
    pub image_path: Option<String>,
    #[arg(long)]
    pub work_path: Option<String>,
}

/// Writes down the state of a task's processes.
pub fn checkpoint(ns: &Namespace, id: &str, args: &CheckpointArgs) -> Result<()> {
    let Some(task) = ns.live_task(id)? else { return fail!(NotFound, "task {id}: not found") };
    let paths = [("--image-path", &args.image_path), ("--work-path", &args.work_path)];
    for (flag, path) in paths {
        if let Some(path) = path.as_ref().filter(|path| !path.starts_with('/')) {
            return fail!(Invalid, "{flag} {path}: say the whole path; ctrfs does not stand where you stand");
        }
    }
    if args.image_path.is_none() {
        return fail!(Invalid, "--image-path DIR is missing: where the state is to be written");
    }
    let options = CheckpointOptions {
        exit: args.exit,
        image_path: args.image_path.clone().unwrap_or_default(),
        work_path: args.work_path.clone().unwrap_or_default(),
        ..CheckpointOptions::default()
    };
    if args.exit {
        return ns.checkpoint_task(id, Some(&options.document())).map(drop);
    }
    paused(ns, id, Some(&task), || ns.checkpoint_task(id, Some(&options.document())).map(drop))
}

/// Does something while the processes of a task, if there is one that runs, stand still.
pub(super) fn paused<R>(
    ns: &Namespace,
    id: &str,
    task: Option<&TaskRecord>,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    if task.is_none_or(|task| task.status != Status::Running) {
        return work();
    }
    ns.pause(id)?;
    let done = work();
    let resumed = wait::until(Instant::now() + UNDO, || ns.resume(id));
    done.and_then(|done| resumed.map(|()| done))
}

/// `resize WIDTH HEIGHT` or `resize WIDTHxHEIGHT`.
pub fn resize(ns: &Namespace, id: &str, exec_id: &str, words: &[String]) -> Result<()> {
    let parts: Vec<&str> = words.iter().flat_map(|word| word.split('x')).collect();
    let numbers: Vec<u32> = parts.iter().filter_map(|part| part.parse().ok()).collect();
    match (&numbers[..], parts.len()) {
        (&[width, height], 2) => ns.resize(id, exec_id, width, height),
        _ => fail!(Invalid, "write the columns and the rows, as in resize 80 24"),
    }
}
