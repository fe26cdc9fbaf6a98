//! `/namespaces/<namespace>/containers/<id>/task/exec/<exec-id>/`: a further process in a task.

use super::output::{Log, Stdin, Wait};
use super::task::Task;
use crate::error::{Error, Kind, Result};
use crate::node::row::{ctl, each, follow, live, live_if, log, outcome, private, sink, state, when};
use crate::node::verb::{Verbs, verb};
use crate::node::{Dir, Each, Lifetime, Member, Object, Stream, stable_hash};
use crate::run::process::{Process, paths};
use crate::run::store::Files;
use crate::run::{control, exec};
use crate::tree::name::{self, Decoded};
use crate::tree::namespace::verbs;
use crate::tree::text::{self as write, Text, line};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub static EXECS: Dir<Task> = Dir {
    doc: "One directory a further process that was started here, ended or not.",
    rows: &[each("<exec-id>", "A process.", &Each { list: execs, find, member: Member::Dir(&EXEC) })],
};

static EXEC: Dir<Exec> = Dir {
    doc: "A process that was added to a task.",
    rows: &[
        private(live("command", "Its words, quoted as a shell takes them.", command)),
        live_if("pid", "Its process id on the host.", |exec| exec.files.noted("pid").map_or(Ok(None), line)),
        state("status", "`running` or `stopped`.", |exec| {
            line(if exec.files.exit().is_some() { "stopped" } else { "running" })
        }),
        live_if("exit_status", "What it ended with, once it has.", |exec| {
            exec.files.exit().map_or(Ok(None), |exit| line(exit.status))
        }),
        live_if("exited_at", "When it ended.", |exec| write::time(exec.files.exit().and_then(|exit| exit.at))),
        when(
            |exec| Ok(exec.files.exit().is_none()),
            sink("stdin", "Its input; the last writer's close ends it.", |exec| {
                Stdin::open(
                    &exec.task.container.ns,
                    exec.id(),
                    &exec.exec_id,
                    Some(exec.files.clone()),
                    exec.has_terminal(),
                )
            }),
        ),
        private(log("stdout", "What it wrote.", |exec| exec.log(exec.files.stdout()))),
        private(follow("stdout.follow", "The same; a read at the end waits, until the process is gone.", |exec| {
            exec.log(exec.files.stdout())
        })),
        private(log("stderr", "What it wrote to standard error; with a terminal it is empty.", |exec| {
            exec.log(exec.files.stderr())
        })),
        private(follow("stderr.follow", "The same; a read at the end waits, until the process is gone.", |exec| {
            exec.log(exec.files.stderr())
        })),
        follow("wait", "Its exit status; a read waits for it, and for all that it wrote.", |exec| {
            let exec = exec.clone();
            Ok(Some(Wait::stream(move || exec.process())))
        }),
        ctl(&VERBS),
        outcome(),
    ],
};

static VERBS: Verbs<Exec> = Verbs::new(&[&[
    verb(
        "kill",
        "[-s SIGNAL | SIGNAL]",
        "Sends it a signal; TERM, or what the image says, if none is said.",
        |exec: &Exec, command| control::kill(exec.ns(), exec.id(), &exec.exec_id, &command.parse()?),
    )
    .when(runs),
    verb("resize", "COLUMNS ROWS", "Tells its terminal its size.", |exec: &Exec, command| {
        let words: Vec<String> = command.texts().into_iter().map(str::to_owned).collect();
        control::resize(exec.ns(), exec.id(), &exec.exec_id, &words)
    })
    .when(runs),
    verb("close-stdin", "", "Ends its input.", |exec: &Exec, command| {
        command.bare()?;
        exec.ns().close_stdin(exec.id(), &exec.exec_id)
    })
    .when(runs),
    verb("delete", "[-f]", "Removes what is left of it; with -f it is killed before.", |exec: &Exec, command| {
        let args: verbs::containers::Force = command.parse()?;
        exec::delete(&exec.task.container.ns.shared.engine, exec.ns(), exec.id(), &exec.exec_id, args.force)
    })
    .or(&["rm"]),
]]);

fn runs(exec: &Exec) -> Result<bool> {
    Ok(exec.files.exit().is_none())
}

/// A further process.
#[derive(Clone)]
struct Exec {
    task: Task,
    exec_id: Arc<str>,
    files: Files,
}

impl Exec {
    fn ns(&self) -> &crate::containerd::Namespace {
        &self.task.container.ns.namespace
    }

    fn id(&self) -> &str {
        &self.task.container.id
    }

    fn has_terminal(&self) -> bool {
        self.note()["terminal"] == true
    }

    /// What was noted of it when it was made.
    fn note(&self) -> serde_json::Value {
        serde_json::from_str(&self.files.noted("process.json").unwrap_or_default()).unwrap_or_default()
    }

    fn process(&self) -> Result<Arc<Process>> {
        if let Some(exit) = self.files.exit() {
            return Ok(Process::ended(exit));
        }
        let engine = &self.task.container.ns.shared.engine;
        let outputs = paths(&self.files, false);
        engine.processes.track(&engine.store, self.ns(), (self.id(), &self.exec_id, self.task.pid), outputs, None)
    }

    fn log(&self, path: PathBuf) -> Result<Option<Arc<dyn Stream>>> {
        let exec = self.clone();
        Log::open(&path, &self.task.container.ns.shared.engine.store.watch, move || exec.process())
    }
}

impl Object for Exec {
    fn component(&self) -> Cow<'_, str> {
        name::encode(&self.exec_id).into()
    }
    fn incarnation(&self) -> u64 {
        // The directory of another process of the same name is a later one.
        let made = self.files.dir().metadata().and_then(|meta| meta.created()).ok();
        self.task.incarnation() ^ stable_hash(&[&write::nanos(made).to_le_bytes()])
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        let meta = self.files.dir().metadata();
        let meta = meta.map_err(|_| Error::new(Kind::NotFound, format!("exec {}: gone", self.exec_id)))?;
        Ok(meta.modified().ok())
    }
    fn tag(&self) -> Option<u64> {
        self.task.tag()
    }
    fn lifetime(&self) -> Lifetime {
        Lifetime::Never
    }
}

fn directory(task: &Task) -> Result<PathBuf> {
    let record = task.record()?;
    let ns = &task.container.ns;
    ns.shared.engine.store.execs(&ns.namespace, &task.container.id, &record.stdout, record.pid)
}

fn execs(task: &Task) -> Result<Vec<Exec>> {
    let all = Files::all(&directory(task)?).into_iter();
    Ok(all.map(|(exec_id, files)| Exec { task: task.clone(), exec_id: exec_id.into(), files }).collect())
}

fn find(task: &Task, component: &str) -> Result<Option<Exec>> {
    let Some(Decoded::Name(exec_id)) = name::decode(component) else { return Ok(None) };
    if exec_id.contains('/') || exec_id.starts_with('.') {
        return Ok(None);
    }
    let files = Files::open(directory(task)?.join(&*exec_id));
    Ok(files.map(|files| Exec { task: task.clone(), exec_id: (*exec_id).into(), files }))
}

fn command(exec: &Exec) -> Text {
    let note = exec.note();
    let quoted = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let words = note["args"].as_array().into_iter().flatten().filter_map(|word| word.as_str());
    line(words.map(quoted).collect::<Vec<_>>().join(" "))
}
