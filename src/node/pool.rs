//! The threads on which a request may wait for containerd or a disk.
//!
//! They are started when work comes and no thread is idle, up to a bound, and end when they were idle for a while: an
//! idle ctrfs has none.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(10);

/// A bounded pool of threads.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    /// A pool of at most `most` threads.
    pub fn new(most: usize) -> Pool {
        Pool(Arc::new(Shared { state: Mutex::default(), work: Condvar::new(), most }))
    }

    /// Runs `job` on a thread of the pool, as soon as one is free. A job that panics ends its thread's work on it and
    /// nothing else: what it owned is dropped.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        state.queue.push_back(Box::new(job));
        if state.idle >= state.queue.len() || state.threads >= self.0.most {
            drop(state);
            self.0.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        let started = std::thread::Builder::new().name("ctrfs-pool".into()).spawn(move || shared.serve());
        if started.is_err() {
            // No thread is to be had: the job waits for one of those that run. If none runs, nobody would ever take
            // it, and dropping it answers its caller.
            let mut state = self.0.lock();
            state.threads -= 1;
            let nobodys = if state.threads == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
            drop(state);
            drop(nobodys);
        }
    }

    /// How many jobs wait for a thread.
    pub fn waiting(&self) -> usize {
        self.0.lock().queue.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                // What a panic leaves half done is dropped with the job; no lock of ours is held across it.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (woken, timeout) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_in_parallel_up_to_the_bound_and_a_panic_ends_only_its_job() {
        let pool = Pool::new(2);
        let (send, receive) = mpsc::channel();
        pool.run(|| panic!("this job fails, as the test wants it"));
        let barrier = Arc::new(std::sync::Barrier::new(2));
        for n in 0..2 {
            let (send, barrier) = (send.clone(), Arc::clone(&barrier));
            pool.run(move || {
                barrier.wait();
                send.send(n).unwrap();
            });
        }
        let mut got: Vec<i32> = (0..2).map(|_| receive.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1]);
    }
}
