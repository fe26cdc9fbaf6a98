//! `run`, `start`, `stop`, `kill`, `delete` and their kin: a container's task from its making to its end.

use super::Engine;
use super::create::{self, UNDO, Words};
use super::detached::detached;
use super::pid_file::PidFile;
use super::process::{AtEnd, Process, paths};
use super::progress::Progress;
use super::spec::flags::CreateArgs;
use super::store::Files;
use super::unfinished::Note;
use crate::containerd::{
    ContainerRecord, Descriptor, Exit, Namespace, NewTask, RuncOptions, Status, Stdio, TaskRecord,
};
use crate::error::{Kind, Result};
use crate::{fail, wait};
use clap::{Args, Parser};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What `ctr run` asks for, and `ctr containers create` does not.
const CPU_SHARES: i64 = 1024;

/// How long containerd may take to put away a task whose maker was killed; it gives the shim five seconds.
const PUT_AWAY: Duration = Duration::from_secs(10);

/// How often it is tried meanwhile.
const TURN: Duration = Duration::from_millis(200);

/// `ctr run`, which is always detached here.
#[derive(Debug, Clone, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct RunArgs {
    #[arg(long)]
    pub rm: bool,
    #[arg(short, long)]
    pub detach: bool,
    #[command(flatten)]
    pub io: IoArgs,
    #[command(flatten)]
    pub container: CreateCommand,
}

/// `ctr containers create`.
#[derive(Debug, Clone, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct CreateCommand {
    #[command(flatten)]
    pub create: CreateArgs,
    /// Image|RootFS ID [COMMAND] [ARG...]
    #[arg(trailing_var_arg = true)]
    pub words: Vec<String>,
}

/// `start` of a container.
#[derive(Debug, Clone, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct StartArgs {
    #[arg(short, long)]
    pub detach: bool,
    #[arg(long)]
    pub no_pivot: bool,
    /// Write the pid of the task into this file of the host
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    #[command(flatten)]
    pub io: IoArgs,
}

/// Where input and output of a process are to be.
#[derive(Debug, Clone, Default, Args)]
pub struct IoArgs {
    /// Send all IO to /dev/null
    #[arg(long)]
    pub null_io: bool,
    /// Log uri
    #[arg(long)]
    pub log_uri: Option<String>,
    #[arg(long)]
    pub fifo_dir: Option<String>,
}

/// A task that was started.
pub struct Started {
    pub pid: u32,
    /// Its files, where they are ours.
    pub files: Option<Files>,
    /// It, for who wants to wait.
    pub process: Arc<Process>,
}

/// Makes a container and starts it.
pub fn run(engine: &Arc<Engine>, ns: &Namespace, args: &RunArgs, progress: &Progress) -> Result<Started> {
    let mut create = args.container.create.clone();
    let words = Words::of(&create, &args.container.words)?;
    args.io.check(create.tty)?;
    let pid_file = create.pid_file.as_deref().map(PidFile::new).transpose()?;
    create.limits.cpu_shares.get_or_insert(CPU_SHARES);
    let mut note = engine.store.begin(ns, words.id)?;
    if let Err(error) = create::create(engine, ns, (&create, &words), progress, &mut || note.creating()) {
        note.failed(&error);
        return Err(error);
    }
    progress.say(format!("starting container {}", words.id));
    let how = How { io: &args.io, no_pivot: create.no_pivot, rm: args.rm, checkpoint: None };
    let started = start_with(engine, ns, words.id, how, note);
    // As with ctr, a container whose command cannot be started stays to be looked at, unless it was to go anyway.
    if let Err(error) = &started
        && (args.rm || error.kind() == Kind::Interrupted)
    {
        let undone = wait::until(Instant::now() + UNDO, || remove(engine, ns, words.id, false));
        if let Err(error) = undone {
            tracing::warn!(id = words.id, %error, "a container that was not started stays behind");
        }
    }
    let started = started?;
    pid_file.map_or(Ok(()), |file| file.write(started.pid))?;
    started.files.iter().for_each(|files| progress.started(files));
    Ok(started)
}

/// Starts a container that is there.
pub fn start(engine: &Arc<Engine>, ns: &Namespace, id: &str, args: &StartArgs) -> Result<Started> {
    let pid_file = args.pid_file.as_deref().map(PidFile::new).transpose()?;
    let note = engine.store.begin(ns, id)?;
    let how = How { io: &args.io, no_pivot: args.no_pivot, rm: false, checkpoint: None };
    let started = start_with(engine, ns, id, how, note)?;
    pid_file.map_or(Ok(()), |file| file.write(started.pid))?;
    Ok(started)
}

impl IoArgs {
    /// Refuses what shims do not take: some of it would crash them, some wait for ever.
    pub fn check(&self, terminal: bool) -> Result<()> {
        if self.fifo_dir.is_some() {
            return fail!(
                Unsupported,
                "--fifo-dir is not supported here; input and output are files of the task: task/stdin, stdout, stderr"
            );
        }
        let Some(uri) = &self.log_uri else { return Ok(()) };
        if terminal {
            return fail!(Invalid, "--log-uri does not go with a terminal");
        }
        match uri.split_once("://") {
            Some(("file" | "binary", path)) if path.starts_with('/') => Ok(()),
            _ => fail!(Invalid, "--log-uri {uri}: write file:///path or binary:///path?key=value"),
        }
    }

    /// Input and output of a new process; `files` makes those that it gets where nothing else was said.
    pub fn stdio(&self, terminal: bool, files: impl FnOnce() -> Result<Files>) -> Result<(Stdio, Option<Files>)> {
        self.check(terminal)?;
        if let Some(uri) = &self.log_uri {
            // Both streams, or the shim dies.
            let (stdout, stderr) = (uri.clone(), uri.clone());
            return Ok((Stdio { stdin: String::new(), stdout, stderr, terminal }, None));
        }
        if self.null_io {
            let null = || if terminal { "/dev/null".to_owned() } else { String::new() };
            return Ok((Stdio { stdin: String::new(), stdout: null(), stderr: null(), terminal }, None));
        }
        let files = files()?;
        Ok((files.stdio(terminal), Some(files)))
    }
}

/// The record of a container that has to be there.
pub fn record(ns: &Namespace, id: &str) -> Result<Arc<ContainerRecord>> {
    if let Some(record) = ns.container(id)? {
        return Ok(record);
    }
    // What is remembered is not all that there is: containerd itself says so, or is away.
    ns.container_now(id)
}

/// How a task is to be made.
pub(super) struct How<'a> {
    /// Where its input and output are to be.
    pub io: &'a IoArgs,
    /// Its root is not to be pivoted.
    pub no_pivot: bool,
    /// The container goes at its end.
    pub rm: bool,
    /// The state that its processes begin with.
    pub checkpoint: Option<Descriptor>,
}

pub(super) fn start_with(engine: &Arc<Engine>, ns: &Namespace, id: &str, how: How<'_>, note: Note) -> Result<Started> {
    let (new, files) = match new_task(engine, ns, id, &how) {
        Ok(new) => new,
        Err(error) => {
            note.failed(&error);
            return Err(error);
        }
    };
    let (engine, ns, id, rm) = (Arc::clone(engine), ns.clone(), id.to_owned(), how.rm);
    let (ns2, id2) = (ns.clone(), id.clone());
    detached(
        "ctrfs-start",
        move || make_and_start(&engine, &ns, &id, &new, (files, rm), note),
        move |started: Started| {
            drop(end(&ns2, &id2));
            started.files.iter().for_each(Files::remove);
        },
    )
}

/// The task to be made, and its files where they are ours.
fn new_task(engine: &Engine, ns: &Namespace, id: &str, how: &How<'_>) -> Result<(NewTask, Option<Files>)> {
    let record = record(ns, id)?;
    let spec = ns.container_spec(id)?.json();
    let terminal = spec.pointer("/process/terminal").and_then(serde_json::Value::as_bool).unwrap_or(false);
    if ns.live_task(id)?.is_some() {
        return fail!(Exists, "task {id}: already exists; delete it first, or delete the container");
    }
    let mut new = NewTask { checkpoint: how.checkpoint.clone(), ..NewTask::default() };
    if !record.snapshot_key.is_empty() {
        new.mounts = ns.snapshot_mounts(&record.snapshotter, &record.snapshot_key)?;
    }
    if how.no_pivot {
        let options = ns.container_info(id)?.runtime_options;
        let mut options = options.as_ref().map(RuncOptions::of).unwrap_or_default();
        options.no_pivot_root = true;
        new.options = Some(options.document());
    }
    let (stdio, files) = how.io.stdio(terminal, || engine.store.make(ns, id))?;
    new.stdio = stdio;
    if how.rm
        && let Some(files) = &files
    {
        files.note("rm", "")?;
    }
    Ok((new, files))
}

/// Makes a task. Where containerd is still putting away a half one, whose maker was killed, the directory of it is there
/// for some seconds, and then the runtime's own.
fn create_task(ns: &Namespace, id: &str, new: &NewTask) -> Result<u32> {
    let (last, mut is_put_away) = (Instant::now() + PUT_AWAY, false);
    loop {
        match ns.create_task(id, new) {
            Err(error) if error.kind() == Kind::Exists && Instant::now() < last => {
                is_put_away |= error.to_string().contains("mkdir ");
                if !is_put_away {
                    return Err(error);
                }
                std::thread::sleep(TURN);
            }
            made => return made,
        }
    }
}

fn make_and_start(
    engine: &Arc<Engine>,
    ns: &Namespace,
    id: &str,
    new: &NewTask,
    (files, rm): (Option<Files>, bool),
    mut note: Note,
) -> Result<Started> {
    let pid = match create_task(ns, id, new) {
        Ok(pid) => pid,
        Err(error) => {
            files.iter().for_each(Files::remove);
            note.failed(&error);
            return Err(error);
        }
    };
    let at_end = rm.then(|| removal(engine, id, files.clone()));
    let outputs = files.as_ref().map(|files| paths(files, new.stdio.terminal)).unwrap_or_default();
    let started = engine
        .processes
        .track(&engine.store, ns, (id, "", pid), outputs, at_end)
        .and_then(|process| note.starting().map(|()| process))
        .and_then(|process| ns.start_process(id, "").map(|_| process));
    match started {
        Ok(process) => {
            note.done();
            // What was just made is known from now on, also if containerd goes away before anybody looks.
            drop((ns.container(id), ns.task(id)));
            Ok(Started { pid, files, process })
        }
        Err(error) => {
            // It may run, if containerd went away with the answer: then it keeps its files.
            match end(ns, id) {
                Err(error) if error.kind() != Kind::NotFound => note.failed(&error),
                _ => {
                    files.iter().for_each(Files::remove);
                    note.done();
                }
            }
            Err(error)
        }
    }
}

/// What `--rm` does when the process has ended and all of its output is there.
fn removal(engine: &Arc<Engine>, id: &str, files: Option<Files>) -> AtEnd {
    let (engine, id) = (Arc::clone(engine), id.to_owned());
    Box::new(move |ns, exit| {
        let gone =
            ns.delete_task(&id).map(Some).or_else(|e| if e.kind() == Kind::NotFound { Ok(None) } else { Err(e) });
        if let Some(files) = &files {
            let exit = exit.or_else(|| gone.as_ref().ok().copied().flatten());
            if let Some(Err(error)) = exit.map(|exit| files.note_exit(&exit)) {
                tracing::warn!(id, %error, "how the process ended is not kept");
            }
        }
        let removed = gone.and_then(|_| remove_record(ns, &id, false));
        if let Err(error) = removed
            && error.kind() != Kind::NotFound
        {
            tracing::warn!(id, %error, "the container stays though it was run with --rm");
        }
        drop(engine);
    })
}

impl Engine {
    /// Takes up what another ctrfs left: what is half made, containers to be removed at their end, further processes to be
    /// put away.
    pub fn adopt(self: &Arc<Engine>, ns: &Namespace) -> Result<()> {
        self.finish_others(ns)?;
        for (id, files) in self.store.sweep(ns)? {
            let Some(task) = ns.task(&id)? else { continue };
            if self.store.of(&task.stdout).is_none_or(|own| own != files) {
                continue;
            }
            if files.noted("rm").is_some() {
                let at_end = removal(self, &id, Some(files.clone()));
                let outputs = paths(&files, task.terminal);
                self.processes.track(&self.store, ns, (&id, "", task.pid), outputs, Some(at_end))?;
            }
            super::exec::adopt(self, ns, &id, &task)?;
        }
        Ok(())
    }
}

impl Namespace {
    /// The task of a container as it is at this moment, not as it was known.
    pub fn live_task(&self, id: &str) -> Result<Option<Arc<TaskRecord>>> {
        self.exec(id, "")
    }
}

/// Kills a task, waits for its end and deletes it.
fn end(ns: &Namespace, id: &str) -> Result<Exit> {
    match ns.kill(id, "", libc::SIGKILL.unsigned_abs(), true) {
        Err(error) if !matches!(error.kind(), Kind::Gone | Kind::NotFound) => return Err(error),
        _ => {}
    }
    ns.wait_process(id, "")?;
    ns.delete_task(id)
}

fn is_over(task: &TaskRecord) -> bool {
    matches!(task.status, Status::Stopped | Status::Created | Status::Unknown)
}

/// `delete` of a task: its container stays.
pub fn delete_task(ns: &Namespace, id: &str, force: bool) -> Result<()> {
    let Some(task) = ns.live_task(id)? else { return fail!(NotFound, "task {id}: not found") };
    if force && task.status != Status::Stopped {
        return end(ns, id).map(drop);
    }
    if !is_over(&task) {
        return fail!(Busy, "task {id}: it is {}; stop it first, or delete -f", task.status.word());
    }
    ns.delete_task(id).map(drop)
}

/// `delete` of a container with its snapshot. containerd would delete the record under a running task, which then
/// nobody could reach.
pub fn delete(engine: &Engine, ns: &Namespace, id: &str, keep_snapshot: bool, force: bool) -> Result<()> {
    record(ns, id)?;
    match ns.live_task(id)? {
        Some(task) if !is_over(&task) && !force => {
            fail!(Busy, "container {id}: its task is {}; stop it first, or delete -f", task.status.word())
        }
        Some(_) => delete_task(ns, id, force).and_then(|()| remove(engine, ns, id, keep_snapshot)),
        None => delete_unseen(ns, id).and_then(|()| remove(engine, ns, id, keep_snapshot)),
    }
}

/// Deletes a task that containerd does not show: one whose making was cut short has a shim that knows nothing of it, and
/// without its container's record nobody could reach it any more.
pub(super) fn delete_unseen(ns: &Namespace, id: &str) -> Result<()> {
    match ns.delete_task(id) {
        Err(error) if error.kind() != Kind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn remove(engine: &Engine, ns: &Namespace, id: &str, keep_snapshot: bool) -> Result<()> {
    remove_record(ns, id, keep_snapshot)?;
    engine.store.forget(ns, id);
    Ok(())
}

/// Removes snapshot and record, in this order: without its record, a snapshot would be left to the garbage collection,
/// which forgets to tell its parent.
fn remove_record(ns: &Namespace, id: &str, keep_snapshot: bool) -> Result<()> {
    let record = record(ns, id)?;
    if !keep_snapshot && !record.snapshot_key.is_empty() && !record.snapshotter.is_empty() {
        match ns.remove_snapshot(&record.snapshotter, &record.snapshot_key) {
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
    }
    ns.delete_container(id)
}
