//! One collection of the mirror: loaded by a list, kept true by events, re-asked where events do not tell.
//!
//! An event does not say what an object is now, only that it changed, so a change marks a name and the next reader of
//! that name asks for it; a collection that nobody reads costs nothing. What an event marks while a list is under way
//! stays marked after it, so an answer that was overtaken is never believed. The lock is never held across a call.

use super::rpc::lock;
use crate::error::{Kind, Result};
use crate::{fail, wait};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod renew;

/// How old an answer may be where no event would tell that it is wrong.
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A collection that is believed so long is listed when one of its objects is asked for: the next come for nothing.
const WHOLE: Duration = Duration::from_secs(60);

/// So many changed names are asked for one by one; more, by a list.
const REFRESH_EACH: usize = 32;

/// So many changed names are remembered; beyond, the whole map is not believed.
const CHANGED: usize = 4096;

/// So many single answers are kept beside a list.
const SINGLES: usize = 8192;

/// So many questions within a second are asked one by one, even if a list would take less.
const QUESTIONS: u32 = 8;

/// What a question takes, roughly: a list that takes as long as so many of them is asked for instead.
const QUESTION: Duration = Duration::from_millis(1);

/// How the connection is, for somebody who wants to know whether to believe what he has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// The number of the event stream that is alive; 0 while there is none.
    pub epoch: u64,
    /// containerd is not there or does not answer: what is in memory has to do.
    pub away: bool,
}

/// Where a collection comes from.
pub(super) trait Source<K, R> {
    /// How the connection is.
    fn link(&self) -> Link;
    /// How long an answer is believed while events tell of changes.
    fn trust(&self) -> Duration;
    /// Waits while events are about to be heard: a list that is asked for before would have to be asked for again.
    fn hear(&self) {}
    /// The whole collection.
    fn list(&self) -> Result<BTreeMap<K, R>>;
    /// One object of it.
    fn get(&self, key: &K) -> Result<Option<R>>;
}

/// A collection of records by name.
pub(super) struct Keyed<K, R> {
    state: Mutex<State<K, R>>,
    done: Condvar,
}

struct State<K, R> {
    map: Option<Arc<BTreeMap<K, R>>>,
    /// When the list that made `map` was asked for, how long it took, and in which epoch.
    asked: Instant,
    took: Duration,
    epoch: u64,
    /// Whether `map` may be believed at all.
    valid: bool,
    /// Names whose record in `map` is no longer believed, with the tick of the change.
    dirty: HashMap<K, u64>,
    /// Single answers, for a collection whose list is too old or was never asked.
    /// Without a time where a change was told since: believed no more, but what we have if containerd goes away.
    singles: HashMap<K, (Option<Instant>, Option<R>)>,
    /// Counts changes.
    ticks: u64,
    /// Counts what made the whole map unbelievable.
    resets: u64,
    /// Counts what may have made the map another one; a list that says the same again does not count.
    version: u64,
    /// Single questions since a time at most a second ago.
    questions: (Instant, u32),
    /// Answers out of `map` since it was asked for.
    used: u32,
    /// Somebody asks for the list again before it is too old.
    renewing: bool,
    promise: renew::Promise,
    listing: bool,
    asking: HashSet<K>,
}

impl<K, R> Default for Keyed<K, R> {
    fn default() -> Self {
        let state = State {
            map: None,
            asked: Instant::now(),
            took: Duration::ZERO,
            epoch: 0,
            valid: false,
            dirty: HashMap::new(),
            singles: HashMap::new(),
            ticks: 0,
            resets: 0,
            version: 0,
            questions: (Instant::now(), 0),
            used: 0,
            renewing: false,
            promise: renew::Promise::default(),
            listing: false,
            asking: HashSet::new(),
        };
        Keyed { state: Mutex::new(state), done: Condvar::new() }
    }
}

impl<K: Ord + Hash + Clone, R: Clone> State<K, R> {
    /// How long a list is believed of which no event tells. One that takes long is believed longer, or it would be old
    /// before anybody used it.
    fn short(&self) -> Duration {
        SECOND.max(self.took * 4)
    }

    /// Whether the map, apart from the names in `dirty`, is what containerd would answer.
    fn is_fresh(&self, link: Link, trust: Duration) -> bool {
        let by_events = self.epoch != 0 && self.epoch == link.epoch;
        let age = self.asked.elapsed();
        self.valid && self.map.is_some() && age < if by_events { trust.max(self.short()) } else { self.short() }
    }

    /// Whether so many questions cost more than a list.
    fn is_much(&self, questions: u32) -> bool {
        questions > QUESTIONS && QUESTION * questions > self.took
    }

    /// Whether so much is asked that one list costs less. Counts the question.
    fn is_worth_a_list(&mut self) -> bool {
        if self.questions.0.elapsed() >= SECOND {
            self.questions = (Instant::now(), 0);
        }
        self.questions.1 += 1;
        let lately = self.asked.elapsed() < self.short() * 3;
        self.is_much(self.questions.1) || (lately && self.is_much(self.used))
    }

    fn distrust(&mut self) {
        self.valid = false;
        self.resets += 1;
        self.version += 1;
        self.dirty.clear();
        self.singles.clear();
    }

    /// The answer out of memory, if there is one to be believed.
    fn single(&mut self, key: &K, link: Link, trust: Duration) -> Option<Option<R>> {
        if let Some(map) = &self.map
            && (link.away || (self.is_fresh(link, trust) && !self.dirty.contains_key(key)))
        {
            self.used = self.used.saturating_add(1);
            return Some(map.get(key).cloned());
        }
        let (asked, record) = self.singles.get(key)?;
        (link.away || asked.is_some_and(|asked| asked.elapsed() < SECOND)).then(|| record.clone())
    }

    /// Puts an answer that was asked for at `tick` where later readers find it, unless it was overtaken.
    fn keep(&mut self, key: &K, record: &Option<R>, tick: u64, resets: u64, asked: Instant) {
        if self.resets != resets || self.dirty.get(key).is_some_and(|changed| *changed > tick) {
            return;
        }
        if self.dirty.remove(key).is_some()
            && let Some(map) = &mut self.map
        {
            let map = Arc::make_mut(map);
            self.version += 1;
            match record {
                Some(record) => drop(map.insert(key.clone(), record.clone())),
                None => drop(map.remove(key)),
            }
        }
        if self.singles.len() >= SINGLES {
            self.singles.clear();
        }
        self.singles.insert(key.clone(), (Some(asked), record.clone()));
    }
}

impl<K: Ord + Hash + Clone, R: Clone + PartialEq> Keyed<K, R> {
    /// The whole collection.
    pub fn all(&self, source: &impl Source<K, R>) -> Result<Arc<BTreeMap<K, R>>> {
        let mut heard = false;
        let mut state = lock(&self.state);
        loop {
            let link = source.link();
            let fresh = state.is_fresh(link, source.trust());
            if let Some(map) = &state.map
                && (link.away || (fresh && state.dirty.is_empty()))
            {
                return Ok(map.clone());
            }
            let deadline = wait::deadline()?;
            if state.listing {
                state = self.wait(state, deadline)?;
                continue;
            }
            let each = fresh && state.dirty.len() <= REFRESH_EACH;
            if !each && !heard && source.trust() >= WHOLE {
                drop(state);
                source.hear();
                heard = true;
                state = lock(&self.state);
                continue;
            }
            return if each { self.refresh(state, source) } else { self.load(state, source, link) };
        }
    }

    /// One object of it.
    pub fn one(&self, key: &K, source: &impl Source<K, R>) -> Result<Option<R>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(record) = state.single(key, source.link(), source.trust()) {
                return Ok(record);
            }
            let deadline = wait::deadline()?;
            let link = source.link();
            let whole = source.trust() >= WHOLE && link.epoch != 0;
            // Under way already, or soon cheaper than the questions that come.
            let many = state.listing || state.is_worth_a_list();
            if (whole || many) && !state.is_fresh(link, source.trust()) {
                drop(state);
                match self.all(source) {
                    // A list that cannot be had does not stand in the way of the one.
                    Err(error) if matches!(error.kind(), Kind::TooLong | Kind::Io) => return source.get(key),
                    answer => return Ok(answer?.get(key).cloned()),
                }
            }
            if !state.asking.insert(key.clone()) {
                state = self.wait(state, deadline)?;
                continue;
            }
            let (tick, resets, asked) = (state.ticks, state.resets, Instant::now());
            drop(state);
            let claim = Claim { keyed: self, key: Some(key) };
            let answer = source.get(key);
            let mut state = lock(&self.state);
            if let Ok(record) = &answer {
                state.keep(key, record, tick, resets, asked);
            }
            let single = || state.singles.get(key).map(|(_, record)| record.clone());
            let stale = state.map.as_ref().map(|map| map.get(key).cloned()).or_else(single);
            drop(state);
            drop(claim);
            return or_stale(answer, stale);
        }
    }

    /// A number that stays as long as what a list would say stays; `None` while nobody knows that without asking.
    pub fn version(&self, source: &impl Source<K, R>) -> Option<u64> {
        let state = lock(&self.state);
        (state.is_fresh(source.link(), source.trust()) && state.dirty.is_empty()).then_some(state.version)
    }

    /// What is in memory, believed or not.
    pub fn peek(&self) -> Option<Arc<BTreeMap<K, R>>> {
        lock(&self.state).map.clone()
    }

    /// The record of `key` is not what it was.
    pub fn touch(&self, key: K) {
        let mut state = lock(&self.state);
        state.ticks += 1;
        state.version += 1;
        let tick = state.ticks;
        if let Some((asked, _)) = state.singles.get_mut(&key) {
            *asked = None;
        }
        if state.map.is_some() || state.listing || !state.asking.is_empty() {
            state.dirty.insert(key, tick);
        }
        if state.dirty.len() > CHANGED {
            state.distrust();
        }
    }

    /// Nothing of it is believed any more; while containerd is away it is still what we have.
    pub fn invalidate(&self) {
        lock(&self.state).distrust();
    }

    /// The collection is gone.
    pub fn clear(&self) {
        self.invalidate();
        lock(&self.state).map = None;
    }

    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State<K, R>>,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, State<K, R>>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return fail!(Deadline, "another request is still waiting for containerd");
        }
        Ok(self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Asks for the whole list.
    fn load(
        &self,
        mut state: MutexGuard<'_, State<K, R>>,
        source: &impl Source<K, R>,
        link: Link,
    ) -> Result<Arc<BTreeMap<K, R>>> {
        state.listing = true;
        let (tick, resets, asked) = (state.ticks, state.resets, Instant::now());
        let known = state.map.clone();
        drop(state);
        let claim = Claim { keyed: self, key: None };
        // Whoever made something of the map that says the same has made it once.
        let answer = source.list().map(|new| match known {
            Some(known) if *known == new => known,
            _ => Arc::new(new),
        });
        let mut state = lock(&self.state);
        let stale = state.map.clone();
        if let Ok(map) = &answer {
            state.version += u64::from(!stale.as_ref().is_some_and(|stale| Arc::ptr_eq(stale, map)));
            state.map = Some(map.clone());
            (state.asked, state.took, state.epoch) = (asked, asked.elapsed(), link.epoch);
            state.used = 0;
            state.valid = state.resets == resets;
            state.dirty.retain(|_, changed| *changed > tick);
            state.singles.clear();
        }
        drop(state);
        drop(claim);
        or_stale(answer, stale)
    }

    /// Asks for the names that changed, each.
    fn refresh(
        &self,
        mut state: MutexGuard<'_, State<K, R>>,
        source: &impl Source<K, R>,
    ) -> Result<Arc<BTreeMap<K, R>>> {
        state.listing = true;
        let (tick, resets, asked) = (state.ticks, state.resets, Instant::now());
        let names: Vec<K> = state.dirty.keys().cloned().collect();
        drop(state);
        let claim = Claim { keyed: self, key: None };
        let mut answers = Vec::with_capacity(names.len());
        for name in names {
            match source.get(&name) {
                Ok(record) => answers.push((name, record)),
                Err(error) => return or_stale(Err(error), self.peek()),
            }
        }
        let mut state = lock(&self.state);
        for (name, record) in &answers {
            state.keep(name, record, tick, resets, asked);
        }
        let mut map = state.map.clone().unwrap_or_default();
        drop(state);
        drop(claim);
        // A name that changed again meanwhile is asked for by the next reader. This one may have come before: to him what
        // was just answered is the truth, and what was known is not.
        for (name, record) in answers {
            match record {
                Some(record) if map.get(&name) != Some(&record) => drop(Arc::make_mut(&mut map).insert(name, record)),
                None if map.contains_key(&name) => drop(Arc::make_mut(&mut map).remove(&name)),
                _ => {}
            }
        }
        Ok(map)
    }
}

/// While containerd is away, what was known is the answer.
fn or_stale<T>(answer: Result<T>, stale: Option<T>) -> Result<T> {
    match (answer, stale) {
        (Err(error), Some(stale)) if matches!(error.kind(), Kind::Away | Kind::Deadline) => {
            tracing::debug!(%error, "answered from the mirror");
            Ok(stale)
        }
        (answer, _) => answer,
    }
}

/// The right to load the list, or one key; given back also when the load fails.
struct Claim<'a, K: Ord + Hash + Clone, R: Clone + PartialEq> {
    keyed: &'a Keyed<K, R>,
    key: Option<&'a K>,
}

impl<K: Ord + Hash + Clone, R: Clone + PartialEq> Drop for Claim<'_, K, R> {
    fn drop(&mut self) {
        let mut state = lock(&self.keyed.state);
        match self.key {
            Some(key) => drop(state.asking.remove(key)),
            None => state.listing = false,
        }
        drop(state);
        self.keyed.done.notify_all();
    }
}

#[cfg(test)]
#[path = "mirror_test.rs"]
mod tests;
