//! `/namespaces/<namespace>/jobs/<n>/`: long commands that run, and those that ended lately.

use super::Ns;
use super::containers::output::Log;
use crate::containerd::Namespace;
use crate::error::Result;
use crate::fail;
use crate::node::command::Command;
use crate::node::row::{ctl, each, live, live_if, log, private, state, text};
use crate::node::verb::{Verbs, verb};
use crate::node::{Dir, Each, Member, Object, Stream};
use crate::run::jobs::Job;
use crate::run::process::Process;
use crate::run::progress::Progress;
use crate::run::store::Files;
use crate::tree::text::{self as write};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub static JOBS: Dir<Ns> = Dir {
    doc: "One directory a long command; the newest hundred that have ended are kept.",
    rows: &[each("<n>", "A command.", &Each { list: jobs, find, member: Member::Dir(&JOB) })],
};

static JOB: Dir<Shown> = Dir {
    doc: "A long command: pull, push, import, export, or a run that has to unpack first.",
    rows: &[
        text("command", "The line that was written.", |shown| write::line(&shown.job.command)),
        state("state", "`running`, `done`, `failed` or `cancelled`.", |shown| write::line(shown.job.state())),
        live("progress", "What it does now; bytes of how many; bytes a second.", |shown| {
            write::line(shown.job.progress.line())
        }),
        live_if("error", "Why it failed.", |shown| match shown.job.ended().map(|ended| ended.result) {
            Some(Err(error)) => write::line(error),
            _ => Ok(None),
        }),
        text("started", "When it began.", |shown| write::time(Some(shown.job.started))),
        live_if("finished", "When it ended.", |shown| match shown.job.ended() {
            Some(ended) => write::time(Some(ended.at)),
            None => Ok(None),
        }),
        private(log(
            "stdout",
            "The output of the process that it started; kept ten minutes after that is gone.",
            |shown| shown.log(Files::stdout),
        )),
        private(log("stderr", "The same of its standard error.", |shown| shown.log(Files::stderr))),
        live_if("exit_status", "What the process ended with that was run with `--rm`.", |shown| {
            let exit = shown.job.progress.files().and_then(Files::exit);
            exit.map_or(Ok(None), |exit| write::line(exit.status))
        }),
        ctl(&VERBS),
    ],
};

static VERBS: Verbs<Shown> =
    Verbs::new(&[&[verb("cancel", "", "Ends the command; what it began is put away.", |shown: &Shown, command| {
        command.bare()?;
        shown.job.cancel()
    })
    .when(|shown| Ok(shown.job.ended().is_none()))]]);

/// A job where the tree shows it.
#[derive(Clone)]
struct Shown {
    ns: Ns,
    job: Arc<Job>,
}

impl Shown {
    fn log(&self, path: fn(&Files) -> PathBuf) -> Result<Option<Arc<dyn Stream>>> {
        let Some(files) = self.job.progress.files() else { return Ok(None) };
        let over = files.clone();
        Log::open(&path(files), &self.ns.shared.engine.store.watch, move || match over.exit() {
            Some(exit) => Ok(Process::ended(exit)),
            None => fail!(Unsupported, "follow the task's own output"),
        })
    }
}

impl Object for Shown {
    fn component(&self) -> Cow<'_, str> {
        self.job.number.to_string().into()
    }
    fn modified(&self) -> Result<Option<SystemTime>> {
        Ok(Some(self.job.ended().map_or(self.job.started, |ended| ended.at)))
    }
}

fn jobs(ns: &Ns) -> Result<Vec<Shown>> {
    Ok(ns.shared.engine.jobs.of(ns.name()).into_iter().map(|job| Shown { ns: ns.clone(), job }).collect())
}

fn find(ns: &Ns, component: &str) -> Result<Option<Shown>> {
    let number = component.parse().ok().filter(|number: &u64| number.to_string() == component);
    Ok(number.and_then(|number| ns.shared.engine.jobs.get(ns.name(), number)).map(|job| Shown { ns: ns.clone(), job }))
}

impl Ns {
    /// Carries out a long command as a job of this namespace.
    pub fn job<R>(&self, command: &Command, work: impl FnOnce(&Namespace, &Progress) -> Result<R>) -> Result<R> {
        self.shared.engine.jobs.run(self.namespace.name(), &command.line, |progress| work(&self.namespace, progress))
    }
}
