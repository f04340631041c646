//! Later fragments carry no ports, so they follow the verdict on their first one.
//!
//! Only a packet whose first fragment passed has an entry here. A fragment that comes before its first
//! one is dropped: holding it back would need memory that strangers fill. No part may overlap another
//! (RFC 5722, RFC 3128), or what was judged could be written over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::DropReason;
use super::flow_key::{Direction, FlowKey};
use crate::packet::{Address, Fragment};

/// Parts of one packet leave their sender together; a wait longer than this is a loss.
const LIFETIME: Duration = Duration::from_secs(10);
/// Pieces that do not touch: in-order parts are one, a reordered path makes a few.
const PIECES_MAX: usize = 8;

/// Names a fragmented packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// The tunnel that carries it.
    pub peer: u32,
    /// Which way.
    pub direction: Direction,
    /// From where.
    pub source: Address,
    /// Where to.
    pub destination: Address,
    /// Its identification.
    pub id: u32,
}

/// A packet of which the first fragment passed.
#[derive(Debug)]
struct Passed {
    /// The flow that its first fragment belongs to.
    flow: FlowKey,
    epoch: u32,
    expires_at: Instant,
    /// Parts seen, as disjoint (first byte, one past the last) in ascending order.
    pieces: [(u16, u16); PIECES_MAX],
    used: usize,
    /// Where the packet ends, once its last part was seen.
    end_bytes: Option<u16>,
}

/// The fragmented packets under way.
#[derive(Debug)]
pub struct FragmentTable {
    packets: HashMap<FragmentKey, Passed, RandomState>,
    limit: usize,
}

impl FragmentTable {
    /// An empty table for `limit` packets.
    pub fn new(limit: usize) -> Self {
        Self { packets: HashMap::with_capacity_and_hasher(limit, RandomState::default()), limit }
    }

    /// The memory that a full table takes. A hash map of so many may grow once beyond what it was
    /// made with, for the sake of places that are used up and empty.
    pub const fn worst_case_bytes(limit: usize) -> usize {
        let places = 2 * (limit * 8 / 7 + 4).next_power_of_two();
        places * (size_of::<(FragmentKey, Passed)>() + 1) + 16
    }

    /// A first fragment of `flow` passed the filter under `epoch`: its later ones may follow.
    ///
    /// # Errors
    /// Its packet is under way already, or the table is full; then it must be dropped after all.
    pub fn open(
        &mut self,
        key: FragmentKey,
        part: &Fragment,
        (flow, epoch): (FlowKey, u32),
        now: Instant,
    ) -> Result<(), DropReason> {
        if let Some(held) = self.packets.get(&key) {
            // Identifications come round again; a packet that is through makes room for the next.
            if held.expires_at > now && !held.is_complete() {
                return Err(DropReason::FragmentOverlap);
            }
        } else if self.packets.len() >= self.limit {
            self.packets.retain(|_, held| held.expires_at > now && !held.is_complete());
            if self.packets.len() >= self.limit {
                return Err(DropReason::FragmentTableFull);
            }
        }
        let mut pieces = [(0, 0); PIECES_MAX];
        pieces[0] = (part.offset_bytes, part.end_bytes);
        let expires_at = now + LIFETIME;
        let passed = Passed { flow, epoch, expires_at, pieces, used: 1, end_bytes: None };
        self.packets.insert(key, passed);
        Ok(())
    }

    /// Judges a later fragment by its first one; the flow that it belongs to.
    ///
    /// # Errors
    /// No first fragment passed under this `epoch` of late, or the part overlaps another.
    pub fn follow(
        &mut self,
        key: &FragmentKey,
        part: &Fragment,
        epoch: u32,
        now: Instant,
    ) -> Result<FlowKey, DropReason> {
        let held = self.packets.get_mut(key).filter(|held| held.expires_at > now);
        let held = held.ok_or(DropReason::FragmentWithoutFirst)?;
        let fits = held.epoch == epoch;
        let outcome = match fits {
            true => held.add(part).map(|()| held.flow),
            false => Err(DropReason::FlowCut),
        };
        if outcome.is_err() {
            // The whole packet is spoilt (RFC 5722 §4): nothing more of it passes.
            self.packets.remove(key);
        }
        outcome
    }

    /// Forgets all packets of a peer.
    pub fn remove_peer(&mut self, peer: u32) {
        self.packets.retain(|key, _| key.peer != peer);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.packets.clear();
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Takes out what has expired. The table is small: this looks at all of it.
    pub fn sweep(&mut self, now: Instant) {
        if !self.packets.is_empty() {
            self.packets.retain(|_, held| held.expires_at > now);
        }
    }
}

impl Passed {
    fn is_complete(&self) -> bool {
        self.used == 1 && self.end_bytes == Some(self.pieces[0].1)
    }

    fn add(&mut self, part: &Fragment) -> Result<(), DropReason> {
        let (first, end) = (part.offset_bytes, part.end_bytes);
        let held = &self.pieces[..self.used];
        let highest = held.last().map_or(0, |piece| piece.1);
        let past_the_end = self.end_bytes.is_some_and(|known| end > known || !part.more);
        let at = held.partition_point(|piece| piece.1 <= first);
        let overlaps = held.get(at).is_some_and(|piece| piece.0 < end);
        if overlaps || past_the_end || (!part.more && end < highest) {
            return Err(DropReason::FragmentOverlap);
        }
        if !part.more {
            self.end_bytes = Some(end);
        }
        // `at` is the first piece after this part; the one before may touch it.
        let touches_before = at > 0 && held[at - 1].1 == first;
        let touches_after = held.get(at).is_some_and(|piece| piece.0 == end);
        match (touches_before, touches_after) {
            (true, true) => {
                self.pieces[at - 1].1 = self.pieces[at].1;
                self.pieces.copy_within(at + 1..self.used, at);
                self.used -= 1;
            }
            (true, false) => self.pieces[at - 1].1 = end,
            (false, true) => self.pieces[at].0 = first,
            (false, false) if self.used == PIECES_MAX => return Err(DropReason::FragmentOverlap),
            (false, false) => {
                self.pieces.copy_within(at..self.used, at + 1);
                self.pieces[at] = (first, end);
                self.used += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::flow_key::Conversation;
    use crate::packet;
    use crate::testing::{packet, start, udp};

    fn key(id: u32) -> FragmentKey {
        let source = Address::v4([10, 0, 0, 1]);
        let destination = Address::v4([10, 0, 0, 2]);
        FragmentKey { peer: 0, direction: Direction::OutOfTunnel, source, destination, id }
    }

    fn part(offset_bytes: u16, end_bytes: u16, more: bool) -> Fragment {
        Fragment { id: 1, offset_bytes, end_bytes, more }
    }

    fn flow() -> FlowKey {
        let bytes = packet("10.0.0.1", "10.0.0.2", &udp(1, 2, 1));
        let packet = packet::parse(&bytes).unwrap();
        FlowKey::new(Direction::OutOfTunnel, 0, &packet, Conversation::Udp(1, 2))
    }

    fn opened(now: Instant) -> FragmentTable {
        let mut table = FragmentTable::new(2);
        table.open(key(1), &part(0, 1000, true), (flow(), 1), now).unwrap();
        table
    }

    #[test]
    fn parts_pass_in_any_order_once_the_first_one_did() {
        let now = start();
        let mut table = opened(now);
        table.follow(&key(1), &part(3000, 3100, false), 1, now).unwrap();
        table.follow(&key(1), &part(1000, 2000, true), 1, now).unwrap();
        table.follow(&key(1), &part(2000, 3000, true), 1, now).unwrap();
        // It is through, so its identification may be used again.
        table.open(key(1), &part(0, 1000, true), (flow(), 1), now).unwrap();
    }

    #[test]
    fn an_overlapping_part_spoils_the_whole_packet() {
        let now = start();
        for bad in [
            part(8, 1008, true),
            part(992, 1200, true),
            part(1504, 1800, true),
            part(2000, 3000, true),
        ] {
            let mut table = opened(now);
            table.follow(&key(1), &part(1400, 1600, true), 1, now).unwrap();
            table.follow(&key(1), &part(2000, 2100, false), 1, now).unwrap();
            let refused = table.follow(&key(1), &bad, 1, now);
            assert_eq!(refused, Err(DropReason::FragmentOverlap), "{bad:?}");
            let after = table.follow(&key(1), &part(1000, 1400, true), 1, now);
            assert_eq!(after, Err(DropReason::FragmentWithoutFirst));
        }
    }

    #[test]
    fn a_packet_in_too_many_pieces_is_given_up() {
        let now = start();
        let mut table = opened(now);
        let outcomes: Vec<_> = (1..=PIECES_MAX as u16)
            .map(|n| table.follow(&key(1), &part(1000 + n * 16, 1008 + n * 16, true), 1, now))
            .collect();
        assert_eq!(outcomes.last(), Some(&Err(DropReason::FragmentOverlap)));
        assert!(outcomes[..PIECES_MAX - 1].iter().all(Result::is_ok));
    }

    #[test]
    fn a_late_part_and_one_under_new_rules_do_not_pass() {
        let now = start();
        let late = opened(now).follow(&key(1), &part(1000, 1008, true), 1, now + LIFETIME);
        assert_eq!(late, Err(DropReason::FragmentWithoutFirst));
        let cut = opened(now).follow(&key(1), &part(1000, 1008, true), 2, now);
        assert_eq!(cut, Err(DropReason::FlowCut));
    }

    #[test]
    fn the_table_is_bounded_and_makes_room_when_packets_expire() {
        let now = start();
        let mut table = opened(now);
        table.open(key(2), &part(0, 8, true), (flow(), 1), now).unwrap();
        let full = table.open(key(3), &part(0, 8, true), (flow(), 1), now);
        assert_eq!(full, Err(DropReason::FragmentTableFull));
        table.open(key(3), &part(0, 8, true), (flow(), 1), now + LIFETIME).unwrap();
    }
}
