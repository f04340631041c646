//! Which refusals were told of late, so that a program that goes on trying is told of once.
//!
//! Each flow has one place, found by a keyed hash; another flow that falls there takes it, and the
//! former may be told of again. So it is bounded, and forgetting costs nothing but a repetition.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::flow_event::Party;
use super::flow_key::{FlowKey, Side};

/// A connection's first packet is repeated for about a minute (Linux tcp_syn_retries).
const QUIET: Duration = Duration::from_secs(60);
/// Places for each event of the log: at a load of a quarter few flows share one.
const PLACES_PER_EVENT: usize = 4;

/// Refusals of late.
#[derive(Debug)]
pub(super) struct Told {
    places: Box<[Place]>,
    hash: RandomState,
    begun_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The bits of the hash that did not choose the place.
    tag: u32,
    /// Seconds since the first one; 0 is nobody.
    until_s: u32,
}

impl Told {
    /// An empty table beside a log of `limit` events.
    pub(super) fn new(limit: usize) -> Self {
        let places = vec![Place::default(); Self::places(limit)].into_boxed_slice();
        Self { places, hash: RandomState::default(), begun_at: None }
    }

    /// The memory that it takes.
    pub(super) const fn bytes(limit: usize) -> usize {
        Self::places(limit) * size_of::<Place>()
    }

    /// Whether the refusal of this flow was told a short while ago. In another session it is another flow.
    pub(super) fn is_recent(
        &mut self,
        key: &FlowKey,
        originator: Side,
        party: &Party,
        now: Instant,
    ) -> bool {
        let (at, tag) = self.place(key, originator, party);
        let now_s = self.seconds(now);
        self.places.get(at).is_some_and(|place| place.tag == tag && now_s < place.until_s)
    }

    /// It is being told now.
    pub(super) fn note(&mut self, key: &FlowKey, originator: Side, party: &Party, now: Instant) {
        let (at, tag) = self.place(key, originator, party);
        let until_s = self.seconds(now + QUIET);
        if let Some(place) = self.places.get_mut(at) {
            *place = Place { tag, until_s };
        }
    }

    const fn places(limit: usize) -> usize {
        if limit == 0 { 0 } else { (limit * PLACES_PER_EVENT).next_power_of_two() }
    }

    fn place(&self, key: &FlowKey, originator: Side, party: &Party) -> (usize, u32) {
        let hash = self.hash.hash_one((key, originator == Side::Local, &party.session));
        (hash as usize & self.places.len().saturating_sub(1), (hash >> 32) as u32)
    }

    fn seconds(&mut self, now: Instant) -> u32 {
        let begun_at = *self.begun_at.get_or_insert(now);
        // Good for a century.
        now.saturating_duration_since(begun_at).as_secs() as u32
    }
}
