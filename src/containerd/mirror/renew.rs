//! A list that is in use is asked for again before it is too old.
//!
//! What no event covers is believed for a second. Whoever walks ten thousand images would wait once a second for the list
//! of the blobs, and on the threads that must not wait everything would stop with him; so another thread asks in time,
//! as long as the list is used, and ends when it is not. While it does, it can be promised that a change will be told.

use super::{Keyed, SECOND, Source, lock};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long nothing is promised after a change: where blobs come and go, telling costs more than asking.
const QUIET: Duration = Duration::from_secs(10);

/// What was promised to those who rely on the list.
#[derive(Default)]
pub(super) struct Promise {
    /// Since when something has been promised without a gap, and until when.
    made: Option<(Instant, Instant)>,
    /// Nothing is promised until then.
    quiet: Option<Instant>,
    /// The version of the collection that the promises are about.
    version: u64,
}

impl Promise {
    fn is_due(&self) -> bool {
        self.made.is_some_and(|(_, until)| until > Instant::now())
    }

    /// Whether a change has to be told; then nothing is promised any more.
    fn is_broken(&mut self, version: u64) -> bool {
        let broken = self.version != version;
        self.version = version;
        let told = broken && self.is_due();
        if told {
            self.made = None;
            self.quiet = Some(Instant::now() + QUIET);
        }
        told
    }
}

impl<K: Ord + Hash + Clone, R: Clone + PartialEq> Keyed<K, R> {
    /// Whether the list is used so much that it is worth asking for it again before it is too old; true for one who
    /// then calls [`Keyed::renew`].
    pub fn claim_renewal(&self) -> bool {
        let mut state = lock(&self.state);
        let busy = !state.renewing && state.is_much(state.used);
        state.renewing |= busy;
        if busy {
            state.promise.version = state.version;
        }
        busy
    }

    /// Promises that a change within `time` will be told, and says whether that holds: only for what was begun after the
    /// first promise, so what is asked and answered meanwhile is covered.
    pub fn promise(&self, time: Duration) -> bool {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if !state.renewing || !state.valid || state.promise.quiet.is_some_and(|until| until > now) {
            return false;
        }
        let since = state.promise.made.filter(|(_, until)| *until > now).map_or(now, |(since, _)| since);
        // A little longer: the thread that looks has to come round.
        state.promise.made = Some((since, now + time + SECOND));
        now - since >= SECOND
    }

    /// Asks for the list again and again as long as it is used or something is promised, each time before it is too old,
    /// so that none of its users ever waits. `changed` is called for what was promised. For a thread of its own.
    pub fn renew(&self, source: &impl Source<K, R>, changed: impl Fn()) {
        loop {
            let state = lock(&self.state);
            let short = state.short();
            let due = (state.asked + short).checked_sub(state.took * 2 + short / 10).unwrap_or(state.asked);
            drop(state);
            std::thread::sleep(due.saturating_duration_since(Instant::now()).max(SECOND / 10));
            let (mut state, link) = (lock(&self.state), source.link());
            if !state.is_much(state.used) && !state.promise.is_due() {
                state.renewing = false;
                return;
            }
            if !state.listing {
                // Both ways give up the lock.
                let failed = match link.away {
                    true => {
                        drop(state);
                        true
                    }
                    false => self.load(state, source, link).is_err(),
                };
                state = lock(&self.state);
                // Nobody looks after it any more: that is a change, too.
                state.version += u64::from(failed);
                state.renewing = !failed;
            }
            let version = state.version;
            let (broken, done) = (state.promise.is_broken(version), !state.renewing);
            drop(state);
            if broken {
                changed();
            }
            if done {
                return;
            }
        }
    }

    /// Nobody renews it.
    pub fn abandon_renewal(&self) {
        lock(&self.state).renewing = false;
    }
}
