//! `/namespaces/<namespace>/ctl`: `run`, `containers …`, `tasks …`, and what a container's own `ctl` does.

use super::{Ns, pairs};
use crate::containerd::Namespace;
use crate::error::{Error, Kind, Result};
use crate::fail;
use crate::node::Object;
use crate::node::command::Command;
use crate::node::verb::{Verb, verb};
use crate::run::create::{self, Words};
use crate::run::{Engine, checkpoint, control, exec, task, update};
use std::sync::Arc;

/// Something that has a task: a container, or the task itself.
pub trait Tasked: Object {
    fn ns(&self) -> &Ns;
    fn id(&self) -> &str;
}

#[derive(Debug, Default, clap::Parser)]
#[command(no_binary_name = true)]
pub struct Force {
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct Delete {
    #[arg(long)]
    keep_snapshot: bool,
    #[arg(short, long)]
    force: bool,
    ids: Vec<String>,
}

#[derive(Debug, clap::Parser)]
#[command(no_binary_name = true)]
struct DeleteTask {
    #[arg(short, long)]
    force: bool,
    #[arg(long)]
    exec_id: Option<String>,
    ids: Vec<String>,
}

pub const VERBS: &[Verb<Ns>] = &[
    verb(
        "run",
        "[FLAGS] IMAGE ID [COMMAND…]",
        "Makes a container and starts it; its output is its stdout.",
        |ns: &Ns, command| {
            let args: task::RunArgs = command.parse()?;
            let engine = &ns.shared.engine;
            ns.job(command, |namespace, progress| task::run(engine, namespace, &args, progress).map(drop))
        },
    ),
    verb("containers create", "[FLAGS] IMAGE ID [COMMAND…]", "Makes a container.", |ns: &Ns, command| {
        let args: task::CreateCommand = command.parse()?;
        let words = Words::of(&args.create, &args.words)?;
        if args.create.pid_file.is_some() {
            return fail!(Unsupported, "--pid-file is not supported here; nothing runs yet: give it to `tasks start`");
        }
        let engine = &ns.shared.engine;
        ns.job(command, |namespace, progress| {
            create::create(engine, namespace, (&args.create, &words), progress, &mut || Ok(()))
        })
    }),
    verb(
        "containers delete",
        "[--keep-snapshot] [-f] ID…",
        "Deletes containers; -f ends what runs in them.",
        |ns: &Ns, command| {
            let args: Delete = command.parse()?;
            let engine = &ns.shared.engine;
            let one = |id: &String| task::delete(engine, &ns.namespace, id, args.keep_snapshot, args.force);
            each(&args.ids, one)
        },
    )
    .or(&["containers rm", "containers remove", "containers del"]),
    verb(
        "containers checkpoint",
        "[--rw] [--image] [--task] ID IMAGE",
        "Makes an image of a container; --task needs CRIU.",
        |ns: &Ns, command| {
            let args = command.parse()?;
            ns.job(command, |namespace, progress| checkpoint::checkpoint(namespace, &args, progress))
        },
    ),
    verb(
        "containers restore",
        "[--rw] [--live] ID IMAGE",
        "Makes a container of such an image and starts it; --live needs CRIU.",
        |ns: &Ns, command| {
            let args = command.parse()?;
            let engine = &ns.shared.engine;
            ns.job(command, |namespace, progress| checkpoint::restore(engine, namespace, &args, progress))
        },
    ),
    verb(
        "containers label",
        "ID LABEL=VALUE…",
        "Sets labels of a container; `LABEL=` takes one away.",
        |ns: &Ns, command| {
            let Some((id, words)) = command.words.split_first() else { return fail!(Invalid, "{ID}") };
            ns.namespace.label_container(&id.text, &pairs(command, words)?)
        },
    ),
    verb("tasks start", "[FLAGS] ID", "Starts a container.", |ns: &Ns, command| {
        let (id, command) = last(command)?;
        task::start(&ns.shared.engine, &ns.namespace, &id, &command.parse()?).map(drop)
    }),
    verb(
        "tasks stop",
        "[-t SECONDS] ID",
        "Ends a task: its stop signal, a time of grace, KILL.",
        |ns: &Ns, command| {
            let (id, command) = last(command)?;
            control::stop(&ns.namespace, &id, &command.parse()?)
        },
    ),
    verb("tasks kill", "[-s SIGNAL] [-a] [--exec-id EXEC] ID", "Sends a signal to a task.", |ns: &Ns, command| {
        let (id, command) = last(command)?;
        control::kill(&ns.namespace, &id, "", &command.parse()?)
    })
    .or(&["tasks k"]),
    verb("tasks pause", "ID", "Stops all processes of a task where they are.", |ns: &Ns, command| {
        ns.namespace.pause(command.one("id")?)
    }),
    verb("tasks resume", "ID", "Lets them go on.", |ns: &Ns, command| ns.namespace.resume(command.one("id")?)),
    verb(
        "tasks exec",
        "[--exec-id EXEC] [FLAGS] ID COMMAND…",
        "Starts a further process in a task.",
        |ns: &Ns, command| {
            let mut args: exec::ExecArgs = command.parse()?;
            if args.words.is_empty() {
                return fail!(Invalid, "{ID}");
            }
            let id = args.words.remove(0);
            exec::exec(&ns.shared.engine, &ns.namespace, &id, &args).map(drop)
        },
    ),
    verb(
        "tasks delete",
        "[-f] [--exec-id EXEC] ID…",
        "Deletes tasks that have ended; -f ends them.",
        |ns: &Ns, command| {
            let args: DeleteTask = command.parse()?;
            each(&args.ids, |id| delete_task(&ns.shared.engine, &ns.namespace, id, &args))
        },
    )
    .or(&["tasks rm", "tasks remove", "tasks del"]),
    verb(
        "tasks checkpoint",
        "[--exit] --image-path DIR ID",
        "Writes down a task's state, where CRIU is.",
        |ns: &Ns, command| {
            let (id, command) = last(command)?;
            control::checkpoint(&ns.namespace, &id, &command.parse()?)
        },
    ),
];

const ID: &str = "container id must be provided";

fn each(ids: &[String], one: impl Fn(&String) -> Result<()>) -> Result<()> {
    if ids.is_empty() { fail!(Invalid, "{ID}") } else { ids.iter().try_for_each(one) }
}

fn delete_task(engine: &Engine, ns: &Namespace, id: &str, args: &DeleteTask) -> Result<()> {
    match args.exec_id.as_deref().filter(|exec_id| !exec_id.is_empty()) {
        Some(exec_id) => exec::delete(engine, ns, id, exec_id, args.force),
        None => task::delete_task(ns, id, args.force),
    }
}

/// The id, which is the last word, and the command without it.
fn last(command: &Command) -> Result<(String, Command)> {
    let mut command = command.clone();
    match command.words.pop() {
        Some(word) if !word.text.starts_with('-') => Ok((word.text, command)),
        _ => Err(Error::new(Kind::Invalid, ID).at(&command.line, command.line.len())),
    }
}

fn engine<T: Tasked>(object: &T) -> &Arc<Engine> {
    &object.ns().shared.engine
}

/// `start` of a container.
pub const fn start<T: Tasked>() -> Verb<T> {
    verb("start", "[--log-uri URI] [--null-io]", "Starts it.", |object: &T, command| {
        task::start(engine(object), &object.ns().namespace, object.id(), &command.parse()?).map(drop)
    })
}

/// `stop`: the stop signal, a time of grace, KILL.
pub const fn stop<T: Tasked>() -> Verb<T> {
    verb("stop", "[-t SECONDS]", "Ends its task: the stop signal, a time of grace, KILL.", |object: &T, command| {
        control::stop(&object.ns().namespace, object.id(), &command.parse()?)
    })
}

/// `kill` in all its spellings.
pub const fn kill<T: Tasked>() -> Verb<T> {
    verb(
        "kill",
        "[-s SIGNAL | SIGNAL] [-a]",
        "Sends its task a signal: by default its stop signal.",
        |object: &T, command| control::kill(&object.ns().namespace, object.id(), "", &command.parse()?),
    )
}

/// `pause`.
pub const fn pause<T: Tasked>() -> Verb<T> {
    verb("pause", "", "Stops all of its processes where they are.", |object: &T, command| {
        command.bare()?;
        object.ns().namespace.pause(object.id())
    })
}

/// `resume`.
pub const fn resume<T: Tasked>() -> Verb<T> {
    verb("resume", "", "Lets them go on.", |object: &T, command| {
        command.bare()?;
        object.ns().namespace.resume(object.id())
    })
}

/// `exec`.
pub const fn exec<T: Tasked>() -> Verb<T> {
    verb(
        "exec",
        "[--exec-id ID] [FLAGS] COMMAND…",
        "Starts a further process in it: task/exec/<id>.",
        |object: &T, command| {
            exec::exec(engine(object), &object.ns().namespace, object.id(), &command.parse()?).map(drop)
        },
    )
}

/// `resize`.
pub const fn resize<T: Tasked>() -> Verb<T> {
    verb("resize", "COLUMNS ROWS", "Tells its terminal its size.", |object: &T, command| {
        let words: Vec<String> = command.texts().into_iter().map(str::to_owned).collect();
        control::resize(&object.ns().namespace, object.id(), "", &words)
    })
}

/// `close-stdin`.
pub const fn close_stdin<T: Tasked>() -> Verb<T> {
    verb("close-stdin", "", "Ends its input.", |object: &T, command| {
        command.bare()?;
        object.ns().namespace.close_stdin(object.id(), "")
    })
}

/// `update`.
pub const fn update<T: Tasked>() -> Verb<T> {
    verb("update", "--memory-limit BYTES --cpus N …", "Changes what it may use.", |object: &T, command| {
        update::update(&object.ns().namespace, object.id(), &command.parse()?)
    })
}

/// `checkpoint`.
pub const fn checkpoint<T: Tasked>() -> Verb<T> {
    verb("checkpoint", "[--exit] --image-path DIR", "Writes down its state, where CRIU is.", |object: &T, command| {
        control::checkpoint(&object.ns().namespace, object.id(), &command.parse()?)
    })
}

/// `delete` of a task.
pub const fn delete_task_verb<T: Tasked>() -> Verb<T> {
    verb("delete", "[-f]", "Deletes the task and leaves the container; -f ends it before.", |object: &T, command| {
        let args: Force = command.parse()?;
        task::delete_task(&object.ns().namespace, object.id(), args.force)
    })
    .or(&["rm"])
}

/// `delete` of a container.
pub const fn delete<T: Tasked>() -> Verb<T> {
    verb("delete", "[--keep-snapshot] [-f]", "Deletes it; -f ends what runs in it before.", |object: &T, command| {
        let args: Delete = command.parse()?;
        if let Some(word) = args.ids.first() {
            return fail!(Invalid, "{word}: this is the ctl of {}", object.id());
        }
        task::delete(engine(object), &object.ns().namespace, object.id(), args.keep_snapshot, args.force)
    })
    .or(&["rm"])
}

/// What `cat ctl` says of the processes that were added.
pub fn note<T: Tasked>(object: &T) -> Result<String> {
    let last = engine(object).last_exec(object.ns().namespace.name(), object.id());
    Ok(last.map(|exec_id| format!("The last exec is task/exec/{exec_id}.\n")).unwrap_or_default())
}
