//! A list that is in use is asked for again before it is too old.
//!
//! What no event covers is believed for a second. Whoever walks ten thousand images would wait once a second for the list
//! of the blobs, and on the threads that must not wait everything would stop with him; so another thread asks in time,
//! as long as the list is used, and ends when it is not.

use super::{Keyed, SECOND, Source, lock};
use std::hash::Hash;
use std::time::Instant;

impl<K: Ord + Hash + Clone, R: Clone + PartialEq> Keyed<K, R> {
    /// Whether the list is used so much that it is worth asking for it again before it is too old; true for one who
    /// then calls [`Keyed::renew`].
    pub fn claim_renewal(&self) -> bool {
        let mut state = lock(&self.state);
        let busy = !state.renewing && state.is_much(state.used);
        state.renewing |= busy;
        busy
    }

    /// Asks for the list again and again as long as it is used, each time before it is too old, so that none of its
    /// users ever waits. For a thread of its own.
    pub fn renew(&self, source: &impl Source<K, R>) {
        loop {
            let state = lock(&self.state);
            let short = state.short();
            let due = (state.asked + short).checked_sub(state.took * 2 + short / 10).unwrap_or(state.asked);
            drop(state);
            std::thread::sleep(due.saturating_duration_since(Instant::now()).max(SECOND / 10));
            let (mut state, link) = (lock(&self.state), source.link());
            if state.listing {
                continue;
            }
            let used = state.is_much(state.used) && !link.away;
            if !used {
                state.renewing = false;
                return;
            }
            if self.load(state, source, link).is_err() {
                return self.abandon_renewal();
            }
        }
    }

    /// Nobody renews it.
    pub fn abandon_renewal(&self) {
        lock(&self.state).renewing = false;
    }
}
