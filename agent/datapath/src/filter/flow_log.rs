//! Events of flows on their way out of the filter: a ring that is allocated once and never overwritten.
//!
//! Where it is full, an event is dropped and counted: what is told about traffic never delays it. A log
//! with no room is off, and costs nothing. A device's log has refusals alone: what it lets out is told by the
//! gateway that it comes to, and would be told twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall_proto::flows::{DEVICE_FLOW_STEP_S, DEVICE_FLOWS_AT_ONCE, Traffic};

use super::DropReason;
use super::flow_event::{FlowEnd, FlowEvent, Happening, Judgement, Party};
use super::flow_key::{FlowKey, Side};
use super::flow_table::Flow;
use super::told::Told;
use crate::pace::Pace;
use crate::settings::Role;

/// Refusals told at once, and then one more in each step: a thousand a second. A scan is told of in
/// part, and does not crowd out what became of real conversations.
const REFUSALS_AT_ONCE: u32 = 2048;
const REFUSAL_STEP: Duration = Duration::from_millis(1);
/// A device tells no more than its controller takes.
const DEVICE_REFUSAL_STEP: Duration = Duration::from_secs(DEVICE_FLOW_STEP_S as u64);

/// What is to be told about flows.
#[derive(Debug)]
pub(super) struct FlowLog {
    events: VecDeque<FlowEvent>,
    limit: usize,
    lost: u64,
    numbered: u64,
    /// By number of the peer, whose its flows are: as of the last one opened. Another session of a peer
    /// begins only after every flow of the one before was cut.
    parties: Vec<Option<Arc<Party>>>,
    told: Told,
    refusals: Pace,
    role: Role,
}

impl FlowLog {
    /// An empty log with room for `limit` events.
    pub(super) fn new(role: Role, limit: usize) -> Self {
        let (at_once, step) = match role {
            Role::Device => (DEVICE_FLOWS_AT_ONCE, DEVICE_REFUSAL_STEP),
            Role::Gateway => (REFUSALS_AT_ONCE, REFUSAL_STEP),
        };
        Self {
            events: VecDeque::with_capacity(limit),
            limit,
            lost: 0,
            numbered: 0,
            parties: Vec::new(),
            told: Told::new(limit),
            refusals: Pace::new(at_once, step),
            role,
        }
    }

    /// The memory that it takes, but for 8 bytes for each peer.
    pub(super) const fn worst_case_bytes(limit: usize) -> usize {
        limit * size_of::<FlowEvent>() + Told::bytes(limit)
    }

    /// Whether refusals are told.
    pub(super) fn tells_refusals(&self) -> bool {
        self.limit > 0
    }

    /// Whether it is told what becomes of a flow that is allowed.
    pub(super) fn tells_flows(&self) -> bool {
        self.limit > 0 && self.role == Role::Gateway
    }

    /// The next event, oldest first.
    pub(super) fn poll(&mut self) -> Option<FlowEvent> {
        self.events.pop_front()
    }

    /// Events dropped since the log was made.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// A number for a new flow.
    pub(super) fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// A flow opened.
    pub(super) fn opened(&mut self, flow: &Flow, judgement: Judgement, party: &Arc<Party>) {
        let peer = flow.key.peer() as usize;
        if self.parties.len() <= peer {
            self.parties.resize(peer + 1, None);
        }
        let held = &mut self.parties[peer];
        if !held.as_ref().is_some_and(|held| Arc::ptr_eq(held, party)) {
            *held = Some(Arc::clone(party));
        }
        self.push(flow, Happening::Opened, Some(judgement));
    }

    /// A flow ended.
    pub(super) fn ended(&mut self, flow: &Flow, why: FlowEnd, judgement: Option<Judgement>) {
        if self.tells_flows() {
            self.push(flow, Happening::Ended(why), judgement);
        }
    }

    /// A flow was refused. It is told once for a while.
    pub(super) fn refused(
        &mut self,
        (key, originator): (FlowKey, Side),
        reason: DropReason,
        judgement: Judgement,
        party: &Arc<Party>,
        now: Instant,
    ) {
        if self.told.is_recent(&key, originator, party, now) {
            return;
        }
        if self.events.len() >= self.limit || !self.refusals.admit(now) {
            self.lost += 1;
            return;
        }
        self.told.note(&key, originator, party, now);
        let number = self.number();
        self.events.push_back(FlowEvent {
            number,
            happening: Happening::Refused(reason),
            party: Arc::clone(party),
            device: self.role.device_side(),
            key,
            originator,
            judgement: Some(judgement),
            from_local: Traffic::default(),
            from_remote: Traffic::default(),
        });
    }

    /// The peer of this number is gone, or another.
    pub(super) fn forget(&mut self, peer: u32) {
        if let Some(party) = self.parties.get_mut(peer as usize) {
            *party = None;
        }
    }

    /// All peers are gone.
    pub(super) fn forget_all(&mut self) {
        self.parties.clear();
    }

    fn push(&mut self, flow: &Flow, happening: Happening, judgement: Option<Judgement>) {
        let party = self.parties.get(flow.key.peer() as usize).and_then(Option::as_ref);
        let Some(party) = party.filter(|_| self.events.len() < self.limit) else {
            self.lost += 1;
            return;
        };
        self.events.push_back(FlowEvent {
            number: flow.number,
            happening,
            party: Arc::clone(party),
            device: self.role.device_side(),
            key: flow.key,
            originator: flow.originator,
            judgement,
            from_local: flow.from_local,
            from_remote: flow.from_remote,
        });
    }
}
