//! One load at a time of the same thing: whoever comes meanwhile waits for it instead of asking again.

use super::rpc::lock;
use crate::error::Result;
use crate::{fail, wait};
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Condvar, Mutex};
use std::time::Instant;

/// The loads under way, by what they load.
pub(super) struct Flights<K> {
    busy: Mutex<HashSet<K>>,
    landed: Condvar,
}

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Flights { busy: Mutex::default(), landed: Condvar::new() }
    }
}

impl<K: Hash + Eq + Clone> Flights<K> {
    /// What `ready` has, else what `load` brings; only one thread loads `key` at a time, the others look again when
    /// it is done. `load` has to leave its result where `ready` finds it.
    pub fn run<R>(&self, key: &K, ready: impl Fn() -> Option<R>, load: impl FnOnce() -> Result<R>) -> Result<R> {
        loop {
            if let Some(found) = ready() {
                return Ok(found);
            }
            let deadline = wait::deadline()?;
            let mut busy = lock(&self.busy);
            if busy.insert(key.clone()) {
                break;
            }
            while busy.contains(key) {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return fail!(Deadline, "another request is still waiting for containerd");
                }
                busy = self.landed.wait_timeout(busy, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
        }
        let _flight = Flight { flights: self, key };
        // It may have landed between the look and the claim.
        match ready() {
            Some(found) => Ok(found),
            None => load(),
        }
    }
}

struct Flight<'a, K: Hash + Eq + Clone> {
    flights: &'a Flights<K>,
    key: &'a K,
}

impl<K: Hash + Eq + Clone> Drop for Flight<'_, K> {
    fn drop(&mut self) {
        lock(&self.flights.busy).remove(self.key);
        self.flights.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn many_who_need_the_same_make_one_load() {
        let (flights, loads, value) = (Flights::default(), AtomicU32::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let got = flights.run(
                        &1,
                        || *lock(&value),
                        || {
                            loads.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(std::time::Duration::from_millis(20));
                            *lock(&value) = Some(7);
                            Ok(7)
                        },
                    );
                    assert_eq!(got.unwrap(), 7);
                });
            }
        });
        assert_eq!(loads.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_thread_that_must_not_wait_gets_what_is_ready_and_nothing_else() {
        let flights = Flights::default();
        let got = wait::never(|| flights.run(&1, || Some(1), || unreachable!()));
        assert_eq!(got.unwrap(), 1);
        assert!(wait::would_wait(&wait::never(|| flights.run(&1, || None::<u32>, || unreachable!()))));
    }
}
