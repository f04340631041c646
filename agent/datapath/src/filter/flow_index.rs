//! Finds a flow's place by its name: a hash table of places, which lie elsewhere.
//!
//! A name is 48 bytes and is held once, beside what is known of the flow, so that an entry here is 4:
//! the place, and 8 bits of the hash that spare most looks at places of others. Linear probing at a load
//! of half at most; an entry that goes closes the gap that it leaves, so that nothing piles up. That is
//! why it is not hashbrown's `HashTable`, which marks gaps instead and, nearly full, allocates to be rid
//! of the marks.
//!
//! It doubles as flows come, up to what its limit asks: every packet reads an entry at random, and what a
//! cache holds of 64 KiB it does not hold of megabytes. A doubling reads each flow's name once (about 0.1 µs
//! each), and there are five of them in the life of a gateway with the most flows.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::flow_key::FlowKey;

/// Entries hold a place, and one more, in so many bits.
const PLACE_BITS: u32 = 24;
/// Entries that it begins with: 64 KiB.
const ENTRIES_FIRST: usize = 16_384;
/// More flows than this cannot be held.
pub(super) const PLACES_MAX: usize = (1 << PLACE_BITS) - 1;

/// Places by name. Whoever uses it says what name is at a place.
#[derive(Debug)]
pub(super) struct FlowIndex {
    /// 0 is empty.
    entries: Box<[u32]>,
    /// As many as it may grow to.
    entries_max: usize,
    used: usize,
    hash: RandomState,
}

impl FlowIndex {
    /// An empty index for `limit` flows, at most [`PLACES_MAX`].
    pub(super) fn new(limit: usize) -> Self {
        let entries_max = Self::entries(limit);
        let entries = vec![0; entries_max.min(ENTRIES_FIRST)].into_boxed_slice();
        Self { entries, entries_max, used: 0, hash: RandomState::default() }
    }

    /// The most memory that an index for `limit` flows takes: while it doubles, it is there twice.
    pub(super) const fn bytes(limit: usize) -> usize {
        let entries = Self::entries(limit);
        let former = if entries > ENTRIES_FIRST { entries / 2 } else { 0 };
        (entries + former) * size_of::<u32>()
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The place of the flow with this name.
    pub(super) fn find(
        &self,
        key: &FlowKey,
        key_at: impl Fn(u32) -> Option<FlowKey>,
    ) -> Option<u32> {
        self.position(key, key_at).map(|position| place(self.entries[position]))
    }

    /// Adds a name that is not there. There must be room: fewer than `limit` are held.
    pub(super) fn insert(
        &mut self,
        key: &FlowKey,
        place: u32,
        key_at: impl Fn(u32) -> Option<FlowKey>,
    ) {
        if self.used >= self.entries.len() / 2 && self.entries.len() < self.entries_max {
            self.double(key_at);
        }
        debug_assert!(self.used < self.entries.len() / 2 && (place as usize) < PLACES_MAX);
        self.used += 1;
        self.enter(key, place);
    }

    #[cold]
    fn double(&mut self, key_at: impl Fn(u32) -> Option<FlowKey>) {
        let entries = vec![0; 2 * self.entries.len()].into_boxed_slice();
        let former = std::mem::replace(&mut self.entries, entries);
        for place in former.iter().filter(|entry| **entry != 0).map(|entry| place(*entry)) {
            if let Some(key) = key_at(place) {
                self.enter(&key, place);
            }
        }
    }

    fn enter(&mut self, key: &FlowKey, place: u32) {
        let hash = self.hash.hash_one(key);
        let mut position = self.home(hash);
        while self.entries[position] != 0 {
            position = self.after(position);
        }
        self.entries[position] = tag(hash) | (place + 1);
    }

    /// Takes a name out; its place if it was there.
    pub(super) fn remove(
        &mut self,
        key: &FlowKey,
        key_at: impl Fn(u32) -> Option<FlowKey>,
    ) -> Option<u32> {
        let mut gap = self.position(key, &key_at)?;
        let removed = place(self.entries[gap]);
        let mut position = self.after(gap);
        while self.entries[position] != 0 {
            let home = key_at(place(self.entries[position]))
                .map_or(position, |key| self.home(self.hash.hash_one(key)));
            // It may move back into the gap unless its home lies after that.
            if self.distance(home, position) >= self.distance(gap, position) {
                self.entries[gap] = self.entries[position];
                gap = position;
            }
            position = self.after(position);
        }
        self.entries[gap] = 0;
        self.used -= 1;
        Some(removed)
    }

    /// Takes all names out.
    pub(super) fn clear(&mut self) {
        self.entries.fill(0);
        self.used = 0;
    }

    const fn entries(limit: usize) -> usize {
        // Never full, so that looking for a name comes to an end.
        if limit == 0 { 2 } else { (2 * limit).next_power_of_two() }
    }

    fn position(&self, key: &FlowKey, key_at: impl Fn(u32) -> Option<FlowKey>) -> Option<usize> {
        let hash = self.hash.hash_one(key);
        let mut position = self.home(hash);
        loop {
            let entry = self.entries[position];
            if entry == 0 {
                return None;
            }
            if entry >> PLACE_BITS == tag(hash) >> PLACE_BITS
                && key_at(place(entry)).as_ref() == Some(key)
            {
                return Some(position);
            }
            position = self.after(position);
        }
    }

    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.entries.len() - 1)
    }

    fn after(&self, position: usize) -> usize {
        (position + 1) & (self.entries.len() - 1)
    }

    /// Steps from one position to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.entries.len() - 1)
    }
}

/// The bits of a hash that an entry keeps; others than those that choose its position.
fn tag(hash: u64) -> u32 {
    ((hash >> 32) as u32) & !(PLACES_MAX as u32)
}

fn place(entry: u32) -> u32 {
    (entry & PLACES_MAX as u32) - 1
}
