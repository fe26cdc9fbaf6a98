//! `exec`: a further process in a task, with files of its own.

use super::detached::detached;
use super::process::{AtEnd, Process, paths};
use super::spec::edit;
use super::spec::user::set_user;
use super::store::Files;
use super::task::IoArgs;
use super::{Engine, create};
use crate::containerd::{Mount, Namespace, TaskRecord};
use crate::error::{Error, Kind, Result};
use crate::{fail, wait};
use clap::Parser;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// `ctr tasks exec`, which is always detached here.
#[derive(Debug, Clone, Default, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
pub struct ExecArgs {
    #[arg(long)]
    pub cwd: Option<String>,
    #[arg(short, long)]
    pub tty: bool,
    #[arg(short, long)]
    pub detach: bool,
    #[arg(long)]
    pub exec_id: Option<String>,
    #[arg(long)]
    pub user: Option<String>,
    /// Not ctr's: further variables
    #[arg(long)]
    pub env: Vec<String>,
    #[command(flatten)]
    pub io: IoArgs,
    /// CMD [ARG...]
    #[arg(trailing_var_arg = true)]
    pub words: Vec<String>,
}

/// A process that was added.
pub struct Added {
    pub exec_id: String,
    pub pid: u32,
    pub process: Arc<Process>,
}

/// Names that containerd takes.
fn is_id(id: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    id.len() <= 76 && id.split(['.', '_', '-']).all(part)
}

/// Starts a further process in a container's task.
pub fn exec(engine: &Arc<Engine>, ns: &Namespace, id: &str, args: &ExecArgs) -> Result<Added> {
    if args.words.is_empty() {
        return fail!(Invalid, "exec: say the command");
    }
    let Some(task) = ns.live_task(id)? else { return fail!(NotFound, "task {id}: not found") };
    let execs = engine.store.execs(ns, id, &task.stdout, task.pid)?;
    let exec_id = match &args.exec_id {
        Some(given) if !is_id(given) => {
            return fail!(Invalid, "--exec-id {given}: letters, digits, and one of . _ - between them");
        }
        Some(given) => given.clone(),
        None => unused(&execs),
    };
    let process = process(engine, ns, id, args)?;
    let dir = execs.join(&exec_id);
    let (stdio, files) = args.io.stdio(args.tty, || {
        let made = Files::make(dir.clone());
        made.map_err(|e| if e.kind() == Kind::Exists { exists(id, &exec_id) } else { e })
    })?;
    if let Some(files) = &files {
        let note = json!({"args": args.words, "cwd": process["cwd"], "terminal": args.tty});
        files.note("process.json", &note.to_string())?;
    }
    let bytes =
        serde_json::to_vec(&process).map_err(|e| Error::caused(Kind::Io, "the process cannot be written", e))?;
    let (engine, ns, id, pid) = (Arc::clone(engine), ns.clone(), id.to_owned(), task.pid);
    let (ns2, id2) = (ns.clone(), id.clone());
    detached(
        "ctrfs-exec",
        move || {
            let forget = |_: &Error| files.iter().for_each(Files::remove);
            ns.create_exec(&id, &exec_id, bytes, &stdio).inspect_err(forget)?;
            let outputs = files.as_ref().map(|files| paths(files, stdio.terminal)).unwrap_or_default();
            let at_end = putting_away(&id, &exec_id, files.clone());
            let started = engine
                .processes
                .track(&engine.store, &ns, (&id, &exec_id, pid), outputs, Some(at_end))
                .and_then(|process| Ok((started_pid(&ns, &id, &exec_id)?, process)));
            match started {
                Ok((pid, process)) => {
                    engine.note_exec(ns.name(), &id, &exec_id);
                    files.iter().for_each(|files| drop(files.note("pid", &pid.to_string())));
                    Ok(Added { exec_id, pid, process })
                }
                Err(error) => {
                    drop(ns.delete_process(&id, &exec_id));
                    forget(&error);
                    Err(error)
                }
            }
        },
        move |added: Added| {
            let killed = ns2.kill(&id2, &added.exec_id, libc::SIGKILL.unsigned_abs(), false);
            tracing::debug!(exec = added.exec_id, ok = killed.is_ok(), "the process of a cancelled exec is killed");
        },
    )
}

/// Starts the process; its number. One that ends at once may be put away before containerd looks for its number (it asks
/// after the start, `plugins/services/tasks/local.go`): it ran, and its number is not known any more.
fn started_pid(ns: &Namespace, id: &str, exec_id: &str) -> Result<u32> {
    match ns.start_process(id, exec_id) {
        Err(error) if error.to_string().contains("process does not exist") => Ok(0),
        started => started,
    }
}

fn exists(id: &str, exec_id: &str) -> Error {
    Error::new(Kind::Exists, format!("exec {exec_id} of task {id}: already exists"))
}

/// The first number that no process has.
fn unused(execs: &Path) -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    loop {
        let id = format!("exec-{}", LAST.fetch_add(1, Ordering::Relaxed) + 1);
        if !execs.join(&id).exists() {
            return id;
        }
    }
}

/// The process as a spec has it: the container's own with another command.
fn process(engine: &Engine, ns: &Namespace, id: &str, args: &ExecArgs) -> Result<Value> {
    let mut spec = ns.container_spec(id)?.json();
    if let Some(user) = args.user.as_deref().filter(|user| !user.is_empty()) {
        let container = ns.container(id)?;
        let mounts: Vec<Mount> = match container.filter(|c| !c.snapshot_key.is_empty()) {
            Some(c) => ns.snapshot_mounts(&c.snapshotter, &c.snapshot_key)?,
            None => Vec::new(),
        };
        set_user(&mut spec, user, &|path| (engine.read)(&mounts, path))?;
    }
    let mut process = spec.get_mut("process").map(Value::take).unwrap_or_default();
    match args.tty {
        true => edit::set(&mut process, &["terminal"], true),
        false => edit::remove(&mut process, &["terminal"]),
    }
    edit::set(&mut process, &["args"], args.words.clone());
    if let Some(cwd) = args.cwd.as_deref().filter(|cwd| !cwd.is_empty()) {
        edit::set(&mut process, &["cwd"], cwd);
    }
    for word in &args.env {
        super::spec::flags::pair("--env", word, '=')?;
        let name = format!("{}=", word.split('=').next().unwrap_or_default());
        edit::list(&mut process, &["env"], |all| {
            all.retain(|known| !known.as_str().is_some_and(|known| known.starts_with(&name)));
            all.push(word.as_str().into());
        });
    }
    Ok(process)
}

/// When it has ended: the runtime forgets it, and its files say how it ended.
fn putting_away(id: &str, exec_id: &str, files: Option<Files>) -> AtEnd {
    let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
    Box::new(move |ns, exit| {
        let gone = wait::until(Instant::now() + create::UNDO, || ns.delete_process(&id, &exec_id));
        if let (Some(files), Some(exit)) = (files, exit.or(gone.ok()))
            && let Err(error) = files.note_exit(&exit)
        {
            tracing::warn!(id, exec_id, %error, "how the process ended is not kept");
        }
    })
}

/// Takes up the further processes that another ctrfs started.
pub fn adopt(engine: &Arc<Engine>, ns: &Namespace, id: &str, task: &TaskRecord) -> Result<()> {
    let execs = engine.store.execs(ns, id, &task.stdout, task.pid)?;
    for (exec_id, files) in Files::all(&execs) {
        if files.exit().is_none() && ns.exec(id, &exec_id)?.is_some() {
            let outputs = vec![files.stdout(), files.stderr()];
            let at_end = putting_away(id, &exec_id, Some(files));
            engine.processes.track(&engine.store, ns, (id, &exec_id, task.pid), outputs, Some(at_end))?;
        }
    }
    Ok(())
}

/// `delete` of a further process: it is killed if need be (`force`), and its files go.
pub fn delete(engine: &Engine, ns: &Namespace, id: &str, exec_id: &str, force: bool) -> Result<()> {
    let Some(task) = ns.live_task(id)? else { return fail!(NotFound, "task {id}: not found") };
    let files = Files::open(engine.store.execs(ns, id, &task.stdout, task.pid)?.join(exec_id));
    if let Some(exec) = ns.exec(id, exec_id)? {
        if exec.exited_at.is_none() && exec.pid != 0 {
            if !force {
                return fail!(Busy, "exec {exec_id} of task {id}: it is running; kill it first, or delete -f");
            }
            ns.kill(id, exec_id, libc::SIGKILL.unsigned_abs(), false)?;
            ns.wait_process(id, exec_id)?;
        }
        match ns.delete_process(id, exec_id) {
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
    } else if files.is_none() {
        return fail!(NotFound, "exec {exec_id} of task {id}: not found");
    }
    files.iter().for_each(Files::remove);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_containerd_takes() {
        for id in ["a", "exec-1", "A.b_c-9"] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", "-a", "a-", "a--b", "a/b", "..", "ä", &"a".repeat(77)] {
            assert!(!is_id(id), "{id}");
        }
    }

    #[test]
    fn what_follows_the_command_is_its_own() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let args = ExecArgs::try_parse_from(words("--exec-id x -t sh -c x --user y")).unwrap();
        assert!(args.tty && args.user.is_none());
        assert_eq!(args.words, words("sh -c x --user y"));
        assert!(ExecArgs::try_parse_from(words("--no-such sh")).is_err());
    }
}
