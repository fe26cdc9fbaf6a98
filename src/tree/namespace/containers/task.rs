//! `/namespaces/<namespace>/containers/<id>/task/`: what runs, or ran, in a container.

use super::container::Container;
use super::exec::EXECS;
use super::output::{Log, Stdin, Wait};
use crate::containerd::TaskRecord;
use crate::error::{Error, Kind, Result};
use crate::node::row::{ctl, dir, follow, link, live, log, outcome, private, sink, state, text, when};
use crate::node::verb::Verbs;
use crate::node::{Dir, Lifetime, Object, Stream, Target};
use crate::run::process::{Process, outputs};
use crate::run::store::Files;
use crate::tree::namespace::Ns;
use crate::tree::namespace::verbs::containers::{self, Tasked};
use crate::tree::text::{self as write, Text, line};
use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub static TASK: Dir<Task> = Dir {
    doc: "A task: the container's process, as far as its runtime tells.",
    rows: &[
        text("pid", "Its process id on the host.", |task| match task.record()?.pid {
            0 => Ok(None),
            pid => line(pid),
        }),
        state("status", "`created`, `running`, `paused`, `pausing` or `stopped`.", |task| {
            line(task.record()?.status.word())
        }),
        text("exit_status", "What it ended with, once it has.", |task| {
            let record = task.record()?;
            if record.exited_at.is_none() { Ok(None) } else { line(record.exit_status) }
        }),
        text("exited_at", "When it ended.", |task| write::time(task.record()?.exited_at)),
        live("processes", "Every process in it: pid, and the exec that it belongs to (`ctr tasks ps`).", processes),
        live("metrics.json", "The figures of its cgroup (`ctr tasks metrics`).", |task| {
            let metrics = task.container.ns.namespace.task_metrics(&task.container.id)?;
            write::json(&metrics)
        }),
        text("cgroup", "Its cgroup, one line a hierarchy, as the kernel tells it.", cgroup),
        link("root", "Its root directory, as it sees it.", root),
        when(
            |task| Ok(task.files()?.is_some_and(|files| files.stdin().exists())),
            sink("stdin", "Its input; the last writer's close ends it.", |task| {
                Stdin::open(&task.container.ns, &task.container.id, "", task.files()?, task.record()?.terminal)
            }),
        ),
        private(log("stdout", "What it wrote, where that goes to a file.", |task| task.log(0))),
        private(follow("stdout.follow", "The same; a read at the end waits, until the process is gone.", |task| {
            task.log(0)
        })),
        private(log("stderr", "What it wrote to standard error; with a terminal it is not there.", |task| task.log(1))),
        private(follow("stderr.follow", "The same; a read at the end waits, until the process is gone.", |task| {
            task.log(1)
        })),
        follow("wait", "Its exit status; a read waits for it, and for all that it wrote.", |task| {
            let task = task.clone();
            Ok(Some(Wait::stream(move || task.process())))
        }),
        dir("exec", &EXECS),
        ctl(&VERBS),
        outcome(),
    ],
};

static VERBS: Verbs<Task> = Verbs {
    groups: &[&[
        containers::kill(),
        containers::stop(),
        containers::pause(),
        containers::resume(),
        containers::exec(),
        containers::resize(),
        containers::close_stdin(),
        containers::update(),
        containers::checkpoint(),
        containers::delete_task_verb(),
    ]],
    words: |_, _| Ok(()),
    note: containers::note,
};

/// A task. A container's next task is another one.
#[derive(Clone)]
pub struct Task {
    pub container: Container,
    pub pid: u32,
}

impl Task {
    pub fn new(container: &Container, record: &TaskRecord) -> Task {
        Task { container: container.clone(), pid: record.pid }
    }

    /// Its files, where ctrfs started it.
    fn files(&self) -> Result<Option<Files>> {
        Ok(self.container.ns.shared.engine.store.of(&self.record()?.stdout))
    }

    /// Its process, to wait for.
    fn process(&self) -> Result<Arc<Process>> {
        let record = self.record()?;
        let engine = &self.container.ns.shared.engine;
        let outputs = outputs(&record).into_iter().flatten().collect();
        let names = (&*self.container.id, "", self.pid);
        engine.processes.track(&engine.store, &self.container.ns.namespace, names, outputs, None)
    }

    /// Its output, 0, or what it wrote to standard error, 1.
    fn log(&self, number: usize) -> Result<Option<Arc<dyn Stream>>> {
        let Some(Some(path)) = outputs(&*self.record()?).into_iter().nth(number) else { return Ok(None) };
        let task = self.clone();
        Log::open(&path, &self.container.ns.shared.engine.store.watch, move || task.process())
    }

    pub fn record(&self) -> Result<Arc<TaskRecord>> {
        let record = self.container.ns.namespace.task(&self.container.id)?;
        let same = record.filter(|record| record.pid == self.pid);
        same.ok_or_else(|| Error::new(Kind::NotFound, format!("task {}: gone", self.container.id)))
    }
}

impl Tasked for Task {
    fn ns(&self) -> &Ns {
        &self.container.ns
    }
    fn id(&self) -> &str {
        &self.container.id
    }
}

impl Object for Task {
    fn component(&self) -> Cow<'_, str> {
        "task".into()
    }
    fn incarnation(&self) -> u64 {
        self.container.incarnation() ^ u64::from(self.pid)
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        match self.record()?.exited_at {
            Some(exited) => Ok(Some(exited)),
            None => self.container.modified(),
        }
    }
    fn tag(&self) -> Option<u64> {
        self.container.tag()
    }
    /// A lookup that is under way while the task goes would leave its name behind for a second: it is never kept.
    fn lifetime(&self) -> Lifetime {
        Lifetime::Never
    }
}

fn processes(task: &Task) -> Text {
    task.record()?;
    let mut text = String::from("PID\tEXEC\n");
    let processes = match task.container.ns.namespace.task_processes(&task.container.id) {
        // A task that has ended has none, and runc says so in several ways.
        Err(e) if matches!(e.kind(), Kind::Gone | Kind::NotFound) => Vec::new(),
        processes => processes?,
    };
    for process in processes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\t{}", process.pid, write::field(&process.exec_id));
    }
    Ok(Some(text.into_bytes()))
}

/// The task's process in our /proc, if it is alive and /proc shows it: containerd may be in another pid namespace.
fn process(task: &Task) -> Result<Option<String>> {
    let record = task.record()?;
    let path = format!("/proc/{}", record.pid);
    let there = record.pid != 0 && record.exited_at.is_none() && Path::new(&path).join("root").read_link().is_ok();
    Ok(there.then_some(path))
}

fn cgroup(task: &Task) -> Text {
    let Some(path) = process(task)? else { return Ok(None) };
    // A process that has just ended has none.
    Ok(std::fs::read(format!("{path}/cgroup")).ok())
}

fn root(task: &Task) -> Result<Option<Target>> {
    Ok(process(task)?.map(|path| Target::Verbatim(format!("{path}/root").into_bytes())))
}
