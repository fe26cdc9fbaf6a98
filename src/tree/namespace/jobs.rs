//! `/namespaces/<namespace>/jobs/<n>/`: long commands that run, and those that ended lately.

use super::Ns;
use crate::containerd::Namespace;
use crate::error::Result;
use crate::node::command::Command;
use crate::node::row::{ctl, each, live, live_if, text};
use crate::node::verb::{Verbs, verb};
use crate::node::{Dir, Each, Member, Object};
use crate::run::jobs::Job;
use crate::run::progress::Progress;
use crate::tree::text::{self as write};
use std::borrow::Cow;
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
        live("state", "`running`, `done`, `failed` or `cancelled`.", |shown| write::line(shown.job.state())),
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
    job: Arc<Job>,
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
    Ok(ns.shared.jobs.of(ns.name()).into_iter().map(|job| Shown { job }).collect())
}

fn find(ns: &Ns, component: &str) -> Result<Option<Shown>> {
    let number = component.parse().ok().filter(|number: &u64| number.to_string() == component);
    Ok(number.and_then(|number| ns.shared.jobs.get(ns.name(), number)).map(|job| Shown { job }))
}

impl Ns {
    /// Carries out a long command as a job of this namespace.
    pub fn job<R>(&self, command: &Command, work: impl FnOnce(&Namespace, &Progress) -> Result<R>) -> Result<R> {
        self.shared.jobs.run(self.namespace.name(), &command.line, |progress| work(&self.namespace, progress))
    }
}
