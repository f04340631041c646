//! Judges packets: first the flow table, and on a miss the rules.
//!
//! A flow that passed costs one hash lookup; only its first packet, and its next one after a change of
//! rules, costs a walk through the rule table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall_proto::nets::Protocol;
use partywall_proto::rules::{Action, ClassId, Opener};

use super::DropReason;
use super::flow_key::{Conversation, Direction, FlowKey, Side};
use super::flow_table::{Flow, FlowState, FlowTable};
use super::fragments::{FragmentKey, FragmentTable};
use super::rule_table::{Decision, Opening, RuleTable};
use super::tcp_state::TcpState;
use crate::packet::{Fragment, Icmp, Packet, Payload, Quoted, Tcp};
use crate::settings::{Limits, Role};

/// After a peer's tunnel came up, how long connections are picked up from their responder's packets
/// too. A transfer in one direction goes on after a failover only if its sender is heard; later
/// than this the receiver's own acknowledgement or keepalive picks it up.
const PICK_UP: Duration = Duration::from_secs(120);
/// Flows that each call of [`Filter::sweep`] looks at.
const SWEEP: usize = 4096;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on its way.
    Pass,
    /// It is dropped and counted.
    Drop(DropReason),
}

/// What the filter needs to know about the peer whose tunnel a packet came through or goes into.
#[derive(Debug, Clone, Copy)]
pub struct PeerView<'a> {
    /// Its number in this shard, below [`PEERS_MAX`](super::PEERS_MAX).
    pub number: u32,
    /// Its classes. On a device, those of the device itself, as its config gives them.
    pub classes: &'a [ClassId],
    /// When its tunnel came up; none while it is down.
    pub connected_at: Option<Instant>,
}

/// The rules, and the flows that they allowed.
#[derive(Debug)]
pub struct Filter {
    role: Role,
    rules: Arc<RuleTable>,
    epoch: u32,
    flows: FlowTable,
    fragments: FragmentTable,
}

impl Filter {
    /// A filter that lets nothing pass.
    pub fn new(role: Role, limits: &Limits) -> Self {
        Self {
            role,
            rules: Arc::default(),
            epoch: 0,
            flows: FlowTable::new(limits.flows, limits.flows_per_peer),
            fragments: FragmentTable::new(limits.fragments),
        }
    }

    /// The most memory that it takes, but for the rules.
    pub const fn worst_case_bytes(limits: &Limits) -> usize {
        FlowTable::worst_case_bytes(limits.flows)
            + FragmentTable::worst_case_bytes(limits.fragments)
    }

    /// Replaces the rules. Open flows are judged anew at their next packet.
    pub fn set_rules(&mut self, rules: Arc<RuleTable>) {
        self.rules = rules;
        self.judge_anew();
    }

    /// Has every open flow judged anew at its next packet, because a peer's classes changed.
    pub fn judge_anew(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Cuts every flow of a peer.
    pub fn cut_peer(&mut self, peer: u32) {
        self.flows.remove_peer(peer);
        self.fragments.remove_peer(peer);
    }

    /// Cuts every flow and forgets the rules.
    pub fn clear(&mut self) {
        self.flows.clear();
        self.fragments.clear();
        self.set_rules(Arc::default());
    }

    /// The version of the rule set.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The rules in force.
    pub fn rules(&self) -> &RuleTable {
        &self.rules
    }

    /// Flows held.
    pub fn flows(&self) -> usize {
        self.flows.held()
    }

    /// Whether no flow and no fragmented packet is held.
    pub fn is_empty(&self) -> bool {
        self.flows.held() == 0 && self.fragments.is_empty()
    }

    /// Takes out some of what has expired; the share of the flows that it looked at, from 0 to 1.
    pub fn sweep(&mut self, now: Instant) -> f64 {
        self.fragments.sweep(now);
        let places = self.flows.places();
        self.flows.sweep(SWEEP, now);
        SWEEP as f64 / places.max(SWEEP) as f64
    }

    /// Judges a packet whose addresses were found to be right.
    pub fn verdict(
        &mut self,
        direction: Direction,
        packet: &Packet<'_>,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Verdict {
        match self.judge(direction, packet, peer, now) {
            Ok(()) => Verdict::Pass,
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// What the rules say to a flow that a device of these classes, or the network, opens.
    ///
    /// # Errors
    /// [`DropReason::Denied`] or [`DropReason::NoRule`], and the rule if there is one.
    pub fn decide(
        &self,
        opening: &Opening,
        classes: &[ClassId],
    ) -> Result<u32, (DropReason, Option<u32>)> {
        match self.rules.decide(opening, classes) {
            Some(Decision { rule, action: Action::Allow }) => Ok(rule),
            Some(Decision { rule, action: Action::Deny }) => Err((DropReason::Denied, Some(rule))),
            None => Err((DropReason::NoRule, None)),
        }
    }

    fn judge(
        &mut self,
        direction: Direction,
        packet: &Packet<'_>,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let whole = packet.fragment.is_none();
        let name = |conversation| FlowKey::new(direction, peer.number, packet, conversation);
        let sender = direction.sender();
        match packet.payload {
            Payload::LaterFragment => {
                let (key, part) =
                    fragment(direction, packet, peer).ok_or(DropReason::FragmentWithoutFirst)?;
                return self.fragments.follow(&key, &part, self.epoch, now);
            }
            Payload::Tcp(tcp) => {
                let key = name(Conversation::Tcp(tcp.source_port, tcp.destination_port));
                self.judge_tcp(key, sender, tcp, peer, now)?;
            }
            Payload::Udp(udp) => {
                let key = name(Conversation::Udp(udp.source_port, udp.destination_port));
                self.judge_udp(key, sender, peer, now)?;
            }
            Payload::Icmp(Icmp::EchoRequest { identifier }) => {
                let key = name(Conversation::Echo(identifier, true));
                self.judge_echo_request(key, sender, peer, now)?;
            }
            Payload::Icmp(Icmp::EchoReply { identifier }) => {
                let key = name(Conversation::Echo(identifier, false));
                let flow = self.live(&key, peer, now)?.ok_or(DropReason::IcmpNoFlow)?;
                flow.touch(FlowState::Echo, now);
            }
            // Errors fit the smallest MTU (RFC 1812 §4.3.2.3, RFC 4443 §2.4): none comes in parts.
            Payload::Icmp(Icmp::Error { quoted }) if whole => {
                self.judge_error(direction, packet, quoted.as_ref(), peer, now)?;
            }
            Payload::Icmp(Icmp::Error { .. } | Icmp::Other) => return Err(DropReason::IcmpType),
        }
        match fragment(direction, packet, peer) {
            Some((key, part)) => self.fragments.open(key, &part, self.epoch, now),
            None => Ok(()),
        }
    }

    fn judge_tcp(
        &mut self,
        key: FlowKey,
        sender: Side,
        tcp: Tcp,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let flags = tcp.flags;
        if !flags.make_sense() {
            return Err(DropReason::TcpBadFlags);
        }
        if let Some(flow) = self.live(&key, peer, now)?
            && let FlowState::Tcp(state) = flow.state
        {
            // A finished connection's ports may be used again, by either end.
            if !(state == TcpState::Closed && flags.opens()) {
                let state = state
                    .after(flow.originator == sender, flags)
                    .map_err(|_| DropReason::TcpBadFlags)?;
                flow.touch(FlowState::Tcp(state), now);
                return Ok(());
            }
        }
        if flags.opens() {
            return self.open(key, sender, FlowState::Tcp(TcpState::Opening), peer, now);
        }
        // From the middle of a connection. It is picked up only where the rules would let its
        // originator open it, and only a plain segment does it: what a stack that does not know the
        // connection answers is a reset, so that nothing can be delivered this way.
        if flags.syn() || flags.fin() || flags.rst() {
            return Err(DropReason::TcpNoFlow);
        }
        let state = |originator| FlowState::Tcp(TcpState::PickedUp { originator });
        let just_connected = peer.connected_at.is_some_and(|at| now < at + PICK_UP);
        match self.open(key, sender, state(true), peer, now) {
            Err(DropReason::NoRule | DropReason::Denied) if just_connected => {
                let picked_up = self.open(key, sender.other(), state(false), peer, now);
                picked_up.map_err(tcp_refusal)
            }
            outcome => outcome.map_err(tcp_refusal),
        }
    }

    fn judge_udp(
        &mut self,
        key: FlowKey,
        sender: Side,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if let Some(flow) = self.live(&key, peer, now)? {
            let before = flow.state == FlowState::Udp { answered: true };
            flow.touch(FlowState::Udp { answered: before || flow.originator != sender }, now);
            return Ok(());
        }
        self.open(key, sender, FlowState::Udp { answered: false }, peer, now)
    }

    fn judge_echo_request(
        &mut self,
        key: FlowKey,
        sender: Side,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if let Some(flow) = self.live(&key, peer, now)? {
            flow.touch(FlowState::Echo, now);
            return Ok(());
        }
        self.open(key, sender, FlowState::Echo, peer, now)
    }

    fn judge_error(
        &mut self,
        direction: Direction,
        packet: &Packet<'_>,
        quoted: Option<&Quoted>,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        // An error goes to whoever sent the packet that it is about (RFC 1122 §3.2.2).
        let quoted = quoted.filter(|quoted| quoted.source == packet.destination);
        let quoted = quoted.ok_or(DropReason::IcmpNoFlow)?;
        let key = FlowKey::quoted(direction, peer.number, quoted);
        // It keeps nothing alive: whoever forges one gains no time.
        self.live(&key, peer, now)?.ok_or(DropReason::IcmpNoFlow).map(|_| ())
    }

    /// The live flow of this name, judged anew if the rules changed since.
    fn live(
        &mut self,
        key: &FlowKey,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Result<Option<&mut Flow>, DropReason> {
        let Some(at) = self.flows.find(key, now) else { return Ok(None) };
        let Flow { epoch, originator, .. } = *self.flows.at(at);
        if epoch != self.epoch {
            let opening = opening(self.role, key, originator);
            let Ok(rule) = self.decide(&opening, peer.classes) else {
                self.flows.remove(key);
                return Err(DropReason::FlowCut);
            };
            self.flows.at(at).allowed_again(rule, self.epoch);
        }
        Ok(Some(self.flows.at(at)))
    }

    fn open(
        &mut self,
        key: FlowKey,
        originator: Side,
        state: FlowState,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let opening = opening(self.role, &key, originator);
        let rule = self.decide(&opening, peer.classes).map_err(|(reason, _)| reason)?;
        let flow = Flow::new(key, originator, rule, self.epoch, state, now);
        self.flows.insert(flow, now).map_err(|_| DropReason::FlowTableFull)
    }
}

/// The flow in the words of rules, if this end opened it.
fn opening(role: Role, key: &FlowKey, originator: Side) -> Opening {
    // A device's own side is local; on a gateway the devices are beyond the tunnel.
    let device = match role {
        Role::Device => Side::Local,
        Role::Gateway => Side::Remote,
    };
    let opener = if originator == device { Opener::Device } else { Opener::Network };
    let protocol = key.protocol();
    let port = match protocol {
        Protocol::Tcp | Protocol::Udp => key.port(originator.other()),
        Protocol::Icmp => 0,
    };
    Opening { opener, network: key.address(device.other()), protocol, port }
}

fn fragment(
    direction: Direction,
    packet: &Packet<'_>,
    peer: &PeerView<'_>,
) -> Option<(FragmentKey, Fragment)> {
    let part = packet.fragment?;
    let Packet { source, destination, .. } = *packet;
    let key = FragmentKey { peer: peer.number, direction, source, destination, id: part.id };
    Some((key, part))
}

/// A packet from the middle of a connection that is not picked up has no flow, whatever the rules say.
fn tcp_refusal(reason: DropReason) -> DropReason {
    if matches!(reason, DropReason::NoRule | DropReason::Denied) {
        return DropReason::TcpNoFlow;
    }
    reason
}
