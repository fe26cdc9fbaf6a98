//! Long commands: how far they are, how they ended, and how to end them.

use super::progress::Progress;
use crate::error::{Error, Kind, Result};
use crate::wait::{self, Cancel};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How many finished jobs are kept (DESIGN 4).
const KEPT: usize = 100;

/// All jobs of a mount. They end with it.
#[derive(Default)]
pub struct Jobs(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of the newest job; numbers are not used again.
    last: u64,
    jobs: BTreeMap<u64, Arc<Job>>,
}

/// One long command.
pub struct Job {
    pub number: u64,
    /// The namespace that it works in.
    pub namespace: Arc<str>,
    /// The line that was written.
    pub command: String,
    pub started: SystemTime,
    pub progress: Progress,
    cancel: Cancel,
    ended: Mutex<Option<Ended>>,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub at: SystemTime,
    pub result: Result<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> Option<Ended> {
        lock(&self.ended).clone()
    }

    /// `running`, `done`, `failed` or `cancelled`.
    pub fn state(&self) -> &'static str {
        match self.ended().map(|ended| ended.result) {
            None => "running",
            Some(Ok(())) => "done",
            Some(Err(e)) if e.kind() == Kind::Interrupted => "cancelled",
            Some(Err(_)) => "failed",
        }
    }

    /// Ends it before its time. It takes a moment, for what was begun is put away.
    pub fn cancel(&self) -> Result<()> {
        match self.ended() {
            None => {
                self.cancel.cancel();
                Ok(())
            }
            Some(_) => Err(Error::new(Kind::Already, format!("job {}: it has ended already", self.number))),
        }
    }
}

impl Jobs {
    /// Carries out a long command as a job. Runs on the thread of the command, and what cancels that cancels the job.
    pub fn run<R>(&self, namespace: &Arc<str>, command: &str, work: impl FnOnce(&Progress) -> Result<R>) -> Result<R> {
        let job = self.begin(namespace, command);
        // A panic must not leave a job that runs for ever.
        let end = End { jobs: self, job: &job };
        let result = work(&job.progress);
        let told = result.as_ref().map(|_| ()).map_err(Error::clone);
        end.with(told);
        result
    }

    fn begin(&self, namespace: &Arc<str>, command: &str) -> Arc<Job> {
        let mut state = lock(&self.0);
        state.last += 1;
        let job = Arc::new(Job {
            number: state.last,
            namespace: Arc::clone(namespace),
            command: command.to_owned(),
            started: SystemTime::now(),
            progress: Progress::default(),
            cancel: wait::cancel().unwrap_or_default(),
            ended: Mutex::default(),
        });
        state.jobs.insert(job.number, Arc::clone(&job));
        job
    }

    /// The jobs of a namespace, by number.
    pub fn of(&self, namespace: &str) -> Vec<Arc<Job>> {
        lock(&self.0).jobs.values().filter(|job| *job.namespace == *namespace).cloned().collect()
    }

    /// One job of a namespace.
    pub fn get(&self, namespace: &str, number: u64) -> Option<Arc<Job>> {
        lock(&self.0).jobs.get(&number).filter(|job| *job.namespace == *namespace).cloned()
    }

    /// Ends all that run, because the mount ends, and waits at most so long until they have put away what they began.
    pub fn end(&self, limit: Duration) {
        lock(&self.0).jobs.values().for_each(|job| job.cancel.cancel());
        let last = Instant::now() + limit;
        while self.running() > 0 && Instant::now() < last {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many run.
    fn running(&self) -> usize {
        lock(&self.0).jobs.values().filter(|job| job.ended().is_none()).count()
    }

    /// Forgets the oldest of those that have ended, beyond the number that is kept.
    fn trim(&self) {
        let mut state = lock(&self.0);
        let ended: Vec<u64> = state.jobs.values().filter(|job| job.ended().is_some()).map(|job| job.number).collect();
        for number in ended.iter().rev().skip(KEPT) {
            state.jobs.remove(number);
        }
    }
}

/// Sees to it that a job ends.
struct End<'a> {
    jobs: &'a Jobs,
    job: &'a Job,
}

impl End<'_> {
    fn with(self, result: Result<()>) {
        *lock(&self.job.ended) = Some(Ended { at: SystemTime::now(), result });
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut ended = lock(&self.job.ended);
        if ended.is_none() {
            let error = Error::new(Kind::Io, "ctrfs has a bug here: its standard error says where");
            *ended = Some(Ended { at: SystemTime::now(), result: Err(error) });
        }
        drop(ended);
        self.jobs.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_seen_while_it_runs_and_after_it_ended_however_it_ended() {
        let jobs = Jobs::default();
        let ns: Arc<str> = "a".into();
        let seen = jobs.run(&ns, "pull x", |_| Ok((jobs.running(), jobs.of("a")[0].state(), jobs.of("b").len())));
        assert_eq!(seen.unwrap(), (1, "running", 0));
        assert_eq!(jobs.get("a", 1).unwrap().state(), "done");
        let stop = Cancel::default();
        let cancelled = wait::command(&stop, || {
            jobs.run(&ns, "pull y", |_| {
                jobs.get("a", 2).unwrap().cancel()?;
                wait::check()
            })
        });
        assert_eq!(cancelled.unwrap_err().kind(), Kind::Interrupted);
        assert_eq!(jobs.get("a", 2).unwrap().state(), "cancelled");
        assert_eq!(jobs.get("a", 2).unwrap().cancel().unwrap_err().kind(), Kind::Already);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            jobs.run(&ns, "bug", |_| -> Result<()> { panic!("on purpose") })
        }));
        assert!(panicked.is_err());
        assert_eq!(jobs.get("a", 3).unwrap().state(), "failed");
    }

    #[test]
    fn a_hundred_that_have_ended_are_kept_and_numbers_go_on() {
        let jobs = Jobs::default();
        let ns: Arc<str> = "a".into();
        for _ in 0..2 * KEPT {
            jobs.run(&ns, "x", |_| Ok(())).unwrap();
        }
        assert_eq!(jobs.of("a").len(), KEPT);
        assert_eq!(jobs.of("a").last().unwrap().number, 2 * KEPT as u64);
    }
}
