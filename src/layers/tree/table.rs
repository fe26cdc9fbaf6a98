//! The index of names: an open-addressed hash table that holds only their numbers, four bytes each.
//! The hash is keyed at random: names are the layer author's choice, and must not be able to collide on purpose.

use std::hash::{BuildHasher, RandomState};

const EMPTY: u32 = u32::MAX;
const REMOVED: u32 = u32::MAX - 1;

#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<u32>,
    /// Slots that are not empty, removed ones included.
    used: usize,
    state: RandomState,
}

fn hash(state: &RandomState, dir: u32, name: &[u8]) -> u64 {
    state.hash_one((dir, name))
}

impl Table {
    pub(super) fn find(&self, dir: u32, name: &[u8], is: impl Fn(u32) -> bool) -> Option<u32> {
        self.slot(dir, name, is).map(|slot| self.slots[slot])
    }

    fn slot(&self, dir: u32, name: &[u8], is: impl Fn(u32) -> bool) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash(&self.state, dir, name) as usize & mask;
        loop {
            match self.slots[slot] {
                EMPTY => return None,
                REMOVED => {}
                number if is(number) => return Some(slot),
                _ => {}
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Adds a name that is not there. `rehash` hashes a name by its number, for the day the table grows.
    pub(super) fn insert(
        &mut self,
        dir: u32,
        name: &[u8],
        number: u32,
        rehash: impl Fn(u32, &dyn Fn(u32, &[u8]) -> u64) -> u64,
    ) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            let live = self.slots.iter().filter(|&&n| n < REMOVED).count();
            let size = ((live + 1) * 2).next_power_of_two().max(16);
            let old = std::mem::replace(&mut self.slots, vec![EMPTY; size]);
            self.used = live;
            for number in old.into_iter().filter(|&n| n < REMOVED) {
                let hash = rehash(number, &|dir, name| hash(&self.state, dir, name));
                self.place(hash, number);
            }
        }
        self.used += 1;
        self.place(hash(&self.state, dir, name), number);
    }

    fn place(&mut self, hash: u64, number: u32) {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = number;
    }

    pub(super) fn remove(&mut self, dir: u32, name: &[u8], number: u32) {
        if let Some(slot) = self.slot(dir, name, |n| n == number) {
            self.slots[slot] = REMOVED;
        }
    }
}
