//! What a shard enforces, and how it changes.
//!
//! An update is enforced in full when [`Shard::apply`] returns. Another segment or another session is a
//! clean cut: keys, flows and endpoints of the old one are gone before the new one has its first packet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use partywall_proto::ids::AgentId;
use partywall_proto::overlay::{self, OverlayConfig, Peer};

use super::{Frame, Outbox, Role, Shard};
use crate::filter::{Party, RuleTable};
use crate::packet::Address;
use crate::peers::PeerChange;

/// A change of what a shard enforces.
#[derive(Debug, Clone)]
pub enum Update {
    /// All of it. For another segment or another session, everything held is dropped first.
    Replace {
        /// The config. One for the other role is not carried: then the shard carries nothing.
        config: Arc<OverlayConfig>,
        /// Its rules, compiled.
        rules: Arc<RuleTable>,
    },
    /// A peer is new or changed. Without a config, this changes nothing.
    PeerSet(Box<Peer>),
    /// A peer is gone, and every flow of it.
    PeerGone(AgentId),
    /// The rules are these now. Open flows are judged anew at their next packet.
    RulesSet(Arc<RuleTable>),
    /// Carry nothing.
    Clear,
}

impl Shard {
    /// Changes what is enforced; what is to be said at once (a call to a new peer) goes to `out`.
    pub fn apply(&mut self, update: &Update, now: Instant, out: &mut Outbox) {
        match update {
            Update::Replace { config, rules } => self.replace(config, rules, now, out),
            Update::PeerSet(peer) if self.frame.is_some() => self.set_peer(peer, now, out),
            Update::PeerGone(agent) => self.remove_peer(agent),
            Update::RulesSet(rules) if self.frame.is_some() => {
                self.filter.set_rules(Arc::clone(rules));
            }
            Update::PeerSet(_) | Update::RulesSet(_) => {}
            Update::Clear => self.clear(),
        }
    }

    fn replace(
        &mut self,
        config: &OverlayConfig,
        rules: &Arc<RuleTable>,
        now: Instant,
        out: &mut Outbox,
    ) {
        let Some(frame) = Frame::of(config, self.settings.role) else {
            self.clear();
            return;
        };
        if !self.frame.as_ref().is_some_and(|held| held.goes_on_as(&frame)) {
            self.clear();
        }
        let kept: BTreeSet<_> = config.peers.iter().map(|peer| &peer.agent).collect();
        let held = self.peers.agents();
        let gone: Vec<AgentId> = held.filter(|agent| !kept.contains(agent)).cloned().collect();
        for agent in &gone {
            self.remove_peer(agent);
        }
        self.filter.set_rules(Arc::clone(rules));
        if let Some(session) = &frame.session {
            let session = Some(session.id.clone());
            self.peers.set_own(Party { agent: config.agent.clone(), session });
        }
        self.frame = Some(frame);
        for peer in &config.peers {
            self.set_peer(peer, now, out);
        }
    }

    fn set_peer(&mut self, peer: &Peer, now: Instant, out: &mut Outbox) {
        let Some(change) = self.peers.set(peer) else { return };
        match change {
            PeerChange::None => {}
            PeerChange::Changed(_) => self.filter.judge_anew(),
            PeerChange::OtherSession(number) => {
                self.filter.cut_peer(number);
                self.filter.judge_anew();
            }
            PeerChange::Left(number) => self.cut(number),
            PeerChange::New(number) => {
                self.cut(number);
                // At once and not at the first packet: by then the person is waiting.
                if self.settings.role == Role::Device {
                    self.call_new(number, now, out);
                }
            }
        }
    }

    fn remove_peer(&mut self, agent: &AgentId) {
        if let Some(number) = self.peers.remove(agent) {
            self.cut(number);
        }
    }

    /// Forgets the flows of the peer that had this number, and what waited for its tunnel.
    fn cut(&mut self, number: u32) {
        self.filter.cut_peer(number);
        self.waiting.take(number);
    }

    fn clear(&mut self) {
        self.frame = None;
        self.peers.clear();
        self.filter.clear();
        self.waiting.clear();
        self.repetitions.clear();
        self.deadlines.clear();
    }
}

impl Frame {
    /// The frame of a config; none if it is for the other role.
    fn of(config: &OverlayConfig, role: Role) -> Option<Self> {
        let session = match (&config.role, role) {
            (overlay::Role::Device { session, .. }, Role::Device) => Some(session.clone()),
            (overlay::Role::Gateway { .. }, Role::Gateway) => None,
            (overlay::Role::Device { .. }, Role::Gateway)
            | (overlay::Role::Gateway { .. }, Role::Device) => return None,
        };
        let addresses = config.interface.addresses.iter().map(|&address| Address::from(address));
        Some(Self {
            segment: config.segment.clone(),
            session,
            addresses: addresses.collect(),
            mtu: config.interface.mtu,
        })
    }

    /// Whether `next` is the same segment and the same session of the same person; how long that
    /// session lasts may differ.
    fn goes_on_as(&self, next: &Frame) -> bool {
        let session = |frame: &Frame| {
            frame.session.as_ref().map(|session| (session.id.clone(), session.user.clone()))
        };
        self.segment == next.segment && session(self) == session(next)
    }
}
