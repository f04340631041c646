//! The flows that are open: bounded in all and for each peer, found with one hash lookup.
//!
//! A flow is held only while its idle timeout runs; an expired one is never returned, whether or not
//! the sweep has come by. Nothing is allocated after the table is made but what fills it up to its bound.

use std::time::{Duration, Instant};

use partywall_proto::flows::Traffic;
use partywall_proto::nets::Protocol;

use super::flow_index::{FlowIndex, PLACES_MAX};
use super::flow_key::{FlowKey, Side};
use super::tcp_state::TcpState;

/// A query is answered soon or not at all (Linux nf_conntrack_udp_timeout).
const UDP_UNANSWERED: Duration = Duration::from_secs(30);
/// RFC 4787 REQ-5: at least 2 minutes, 5 recommended.
const UDP_ANSWERED: Duration = Duration::from_secs(5 * 60);
/// RFC 5508 REQ-2: at least 60 seconds.
const ECHO: Duration = Duration::from_secs(60);
/// Flows that an insertion into a full table looks at for an expired one.
const SWEEP_WHEN_FULL: usize = 64;

/// What is known of a flow beyond its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowState {
    /// A TCP connection.
    Tcp(TcpState),
    /// UDP, and whether the responder was heard.
    Udp {
        /// It was.
        answered: bool,
    },
    /// Echo requests and their replies.
    Echo,
}

impl FlowState {
    fn idle_timeout(self) -> Duration {
        match self {
            Self::Tcp(state) => state.idle_timeout(),
            Self::Udp { answered: false } => UDP_UNANSWERED,
            Self::Udp { answered: true } => UDP_ANSWERED,
            Self::Echo => ECHO,
        }
    }
}

/// A tracked conversation. Two cache lines, each touched by every packet: no entry may lie across three.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub struct Flow {
    /// Its name.
    pub key: FlowKey,
    /// The end that opened it.
    pub originator: Side,
    /// The rule that allowed it: its position in the rule table of `epoch`.
    pub rule: u32,
    /// The version of the rule set that allowed it.
    pub epoch: u32,
    /// How far it has come.
    pub state: FlowState,
    /// What events of it are known by.
    pub number: u64,
    /// What passed from this side of the tunnel.
    pub from_local: Traffic,
    /// What passed from beyond the tunnel.
    pub from_remote: Traffic,
    expires_at: Instant,
}

impl Flow {
    /// A flow that was just allowed.
    pub fn new(
        key: FlowKey,
        originator: Side,
        rule: u32,
        epoch: u32,
        state: FlowState,
        now: Instant,
    ) -> Self {
        debug_assert_eq!(matches!(state, FlowState::Tcp(_)), key.protocol() == Protocol::Tcp);
        Self {
            key,
            originator,
            rule,
            epoch,
            state,
            number: 0,
            from_local: Traffic::default(),
            from_remote: Traffic::default(),
            expires_at: now + state.idle_timeout(),
        }
    }

    /// New rules allow it too.
    pub fn allowed_again(&mut self, rule: u32, epoch: u32) {
        self.rule = rule;
        self.epoch = epoch;
    }

    /// Counts what this end sent.
    pub fn count(&mut self, sender: Side, load: Traffic) {
        let sum = match sender {
            Side::Local => &mut self.from_local,
            Side::Remote => &mut self.from_remote,
        };
        sum.packets += load.packets;
        sum.bytes += load.bytes;
    }

    /// Whether it is over by what its ends said, and not only for want of packets.
    pub fn is_closed(&self) -> bool {
        self.state == FlowState::Tcp(TcpState::Closed)
    }

    /// A packet passed: the idle timeout of `state` starts anew.
    pub fn touch(&mut self, state: FlowState, now: Instant) {
        // What is closed stays so for its short while, however much comes after.
        if self.is_closed() && state == self.state {
            return;
        }
        self.state = state;
        self.expires_at = now + state.idle_timeout();
    }
}

/// Place of a flow that was found; good until the table changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowSlot(u32);

/// The table, or this peer's share of it, is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the flow table, or this peer's share of it, is full")]
pub struct FlowTableFull;

/// All open flows.
#[derive(Debug)]
pub struct FlowTable {
    index: FlowIndex,
    slots: Vec<Option<Flow>>,
    free: Vec<u32>,
    by_peer: Vec<u32>,
    limit: usize,
    limit_per_peer: usize,
    swept_to: usize,
}

impl FlowTable {
    /// An empty table for `limit` flows, `limit_per_peer` of them for each peer.
    pub fn new(limit: usize, limit_per_peer: usize) -> Self {
        let limit = limit.min(PLACES_MAX);
        Self {
            index: FlowIndex::new(limit),
            slots: Vec::with_capacity(limit),
            free: Vec::with_capacity(limit),
            by_peer: Vec::new(),
            limit,
            limit_per_peer,
            swept_to: 0,
        }
    }

    /// The memory that a full table takes, but for a counter of 4 bytes for each peer.
    pub const fn worst_case_bytes(limit: usize) -> usize {
        FlowIndex::bytes(limit) + limit * (size_of::<Option<Flow>>() + size_of::<u32>())
    }

    /// Where the live flow of this name is.
    pub fn find(&self, key: &FlowKey, now: Instant) -> Option<FlowSlot> {
        let slot = self.index.find(key, key_in(&self.slots))?;
        let flow = self.slots.get(slot as usize)?.as_ref();
        flow.filter(|flow| flow.expires_at > now).map(|_| FlowSlot(slot))
    }

    /// The flow that [`find`](Self::find) just found.
    ///
    /// # Panics
    /// If flows were taken out since.
    pub fn at(&mut self, slot: FlowSlot) -> &mut Flow {
        self.slots[slot.0 as usize].as_mut().expect("the table was not changed since `find`")
    }

    /// Adds a flow, in the place of one of the same name if there is one; `gone` is told of that, and of
    /// those that expired and make room.
    ///
    /// # Errors
    /// [`FlowTableFull`]; what is open stays open.
    pub fn insert(
        &mut self,
        flow: Flow,
        now: Instant,
        mut gone: impl FnMut(&Flow),
    ) -> Result<(), FlowTableFull> {
        if let Some(slot) = self.index.find(&flow.key, key_in(&self.slots)) {
            if let Some(former) = self.slots[slot as usize].replace(flow) {
                gone(&former);
            }
            return Ok(());
        }
        let peer = flow.key.peer() as usize;
        if self.index.len() >= self.limit || self.held_by(peer) >= self.limit_per_peer {
            self.sweep(SWEEP_WHEN_FULL, now, &mut gone);
        }
        if self.index.len() >= self.limit || self.held_by(peer) >= self.limit_per_peer {
            return Err(FlowTableFull);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // The limit is far below 2^32.
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(flow);
        self.index.insert(&flow.key, slot, key_in(&self.slots));
        if self.by_peer.len() <= peer {
            self.by_peer.resize(peer + 1, 0);
        }
        self.by_peer[peer] += 1;
        Ok(())
    }

    /// Takes a flow out.
    pub fn remove(&mut self, key: &FlowKey) -> Option<Flow> {
        let slot = self.index.find(key, key_in(&self.slots))?;
        self.vacate(slot as usize)
    }

    /// Takes out all flows of a peer; `gone` is told of each.
    pub fn remove_peer(&mut self, peer: u32, mut gone: impl FnMut(&Flow)) {
        for slot in 0..self.slots.len() {
            if self.held_by(peer as usize) == 0 {
                break;
            }
            if self.slots[slot].is_some_and(|flow| flow.key.peer() == peer)
                && let Some(flow) = self.vacate(slot)
            {
                gone(&flow);
            }
        }
    }

    /// Takes out all flows; `gone` is told of each.
    pub fn clear(&mut self, gone: impl FnMut(&Flow)) {
        self.slots.iter().flatten().for_each(gone);
        self.index.clear();
        self.slots.clear();
        self.free.clear();
        self.by_peer.clear();
        self.swept_to = 0;
    }

    /// Looks at the next `count` places and takes out what has expired; `gone` is told of each.
    pub fn sweep(&mut self, count: usize, now: Instant, mut gone: impl FnMut(&Flow)) {
        for _ in 0..count.min(self.slots.len()) {
            self.swept_to = (self.swept_to + 1) % self.slots.len();
            if self.slots[self.swept_to].is_some_and(|flow| flow.expires_at <= now)
                && let Some(flow) = self.vacate(self.swept_to)
            {
                gone(&flow);
            }
        }
    }

    /// How many places a whole round of [`sweep`](Self::sweep) looks at.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// How many flows are held, expired ones that were not swept yet included.
    pub fn held(&self) -> usize {
        self.index.len()
    }

    fn held_by(&self, peer: usize) -> usize {
        self.by_peer.get(peer).copied().unwrap_or(0) as usize
    }

    fn vacate(&mut self, slot: usize) -> Option<Flow> {
        let flow = self.slots[slot]?;
        self.index.remove(&flow.key, key_in(&self.slots));
        self.slots[slot] = None;
        self.by_peer[flow.key.peer() as usize] -= 1;
        self.free.push(slot as u32);
        Some(flow)
    }
}

fn key_in(slots: &[Option<Flow>]) -> impl Fn(u32) -> Option<FlowKey> {
    |slot| slots.get(slot as usize)?.as_ref().map(|flow| flow.key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::filter::flow_key::{Conversation, Direction};
    use crate::packet;
    use crate::testing::{packet, start, udp};

    /// A UDP flow of a peer, told from others by its port.
    fn flow(peer: u32, port: u16, now: Instant) -> Flow {
        let bytes = packet("10.0.0.1", "10.0.0.2", &udp(port, 53, 1));
        let packet = packet::parse(&bytes).unwrap();
        let key = FlowKey::new(Direction::OutOfTunnel, peer, &packet, Conversation::Udp(port, 53));
        Flow::new(key, Side::Remote, 0, 0, FlowState::Udp { answered: false }, now)
    }

    #[test]
    fn a_flow_fills_two_cache_lines_and_no_more() {
        assert_eq!((size_of::<Option<Flow>>(), align_of::<Flow>()), (128, 64));
    }

    #[test]
    fn one_peer_cannot_use_up_the_table() {
        let now = start();
        let mut table = FlowTable::new(10, 4);
        let mut held = |peer| {
            (0..9).filter(|p| table.insert(flow(peer, *p, now), now, |_| {}).is_ok()).count()
        };
        assert_eq!((held(1), held(2), held(3)), (4, 4, 2));
    }

    #[test]
    fn an_expired_flow_is_not_found_and_makes_room() {
        let now = start();
        let mut table = FlowTable::new(4, 4);
        let flows: Vec<_> = (0..4).map(|port| flow(1, port, now)).collect();
        flows.iter().for_each(|flow| table.insert(*flow, now, |_| {}).unwrap());
        let later = now + UDP_UNANSWERED;
        assert!(table.find(&flows[0].key, now).is_some());
        assert!(table.find(&flows[0].key, later).is_none());
        table.insert(flow(1, 9, later), later, |_| {}).unwrap();
        assert_eq!(table.held(), 1);
    }

    #[test]
    fn removing_a_peer_leaves_the_others_and_its_place_can_be_used_again() {
        let now = start();
        let mut table = FlowTable::new(8, 8);
        for (peer, port) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            table.insert(flow(peer, port, now), now, |_| {}).unwrap();
        }
        let mut gone = 0;
        table.remove_peer(1, |flow| gone += flow.key.peer());
        assert_eq!(gone, 2);
        assert_eq!(table.held(), 2);
        assert!(table.find(&flow(1, 1, now).key, now).is_none());
        assert!(table.find(&flow(2, 2, now).key, now).is_some());
        table.insert(flow(1, 1, now), now, |_| {}).unwrap();
        assert!(table.find(&flow(1, 1, now).key, now).is_some());
    }

    #[test]
    fn what_is_closed_is_not_kept_by_what_comes_after() {
        let now = start();
        let closed = FlowState::Tcp(TcpState::Closed);
        let mut flow = flow(1, 1, now);
        flow.touch(closed, now);
        let ends = flow.expires_at;
        flow.touch(closed, now + Duration::from_secs(5));
        assert_eq!(flow.expires_at, ends);
    }

    #[test]
    fn a_full_table_takes_no_more_than_it_says() {
        let now = start();
        // Enough for the index to double.
        let limit = 20_000;
        let flows: Vec<_> = (0..21_000).map(|port| flow(1, port, now)).collect();
        let allocated = allocation_counter::measure(|| {
            let mut table = FlowTable::new(limit, limit);
            let opened = flows.iter().filter(|flow| table.insert(**flow, now, |_| {}).is_ok());
            assert_eq!(opened.count(), limit);
            // What is given up is used again.
            table.sweep(limit, now + UDP_UNANSWERED, |_| {});
            assert_eq!(table.held(), 0);
            flows[..limit].iter().for_each(|flow| table.insert(*flow, now, |_| {}).unwrap());
        });
        let peers = 4 * size_of::<u32>() as u64;
        assert!(allocated.bytes_max <= FlowTable::worst_case_bytes(limit) as u64 + peers);
    }

    #[test]
    fn flows_are_found_however_often_the_index_has_doubled() {
        let now = start();
        let mut table = FlowTable::new(60_000, 60_000);
        let name = |port| flow(1, port, now);
        let odd = |port: &u16| port % 2 == 1;
        (0..60_000).for_each(|port| table.insert(name(port), now, |_| {}).unwrap());
        (0..60_000).filter(odd).for_each(|port| assert!(table.remove(&name(port).key).is_some()));
        for port in 0..60_000 {
            assert_eq!(table.find(&name(port).key, now).is_none(), odd(&port), "{port}");
        }
        assert_eq!(table.held(), 30_000);
    }

    proptest! {
        /// Few names and few places, so that they meet.
        #[test]
        fn what_was_inserted_and_not_removed_is_found_and_nothing_else(
            steps in prop::collection::vec((any::<bool>(), 0_u16..64), 1..400)
        ) {
            let now = start();
            let mut table = FlowTable::new(32, 32);
            let mut model = BTreeMap::new();
            for (step, (insert, port)) in steps.into_iter().enumerate() {
                let mut flow = flow(1, port, now);
                flow.rule = step as u32;
                if !insert {
                    table.remove(&flow.key);
                    model.remove(&port);
                } else if table.insert(flow, now, |_| {}).is_ok() {
                    model.insert(port, flow.rule);
                }
                prop_assert_eq!(table.held(), model.len());
            }
            for port in 0..64 {
                let found = table.find(&flow(1, port, now).key, now);
                let rule = found.map(|slot| table.at(slot).rule);
                prop_assert_eq!(rule, model.get(&port).copied());
            }
        }
    }
}
