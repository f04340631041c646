//! Judges packets: first the flow table, and on a miss the rules.
//!
//! A flow that passed costs one hash lookup; only its first packet, and its next one after a change of
//! rules, costs a walk through the rule table. What becomes of flows is told in a log, of which a device has
//! the refusals alone; whether anybody reads it changes no verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall_proto::flows::Traffic;
use partywall_proto::nets::Protocol;
use partywall_proto::rules::{ClassId, Opener};

use super::DropReason;
use super::flow_event::{FlowEnd, FlowEvent, Party};
use super::flow_key::{Conversation, Direction, FlowKey, Side};
use super::flow_log::FlowLog;
use super::flow_table::{Flow, FlowSlot, FlowState, FlowTable};
use super::fragments::{FragmentKey, FragmentTable};
use super::in_force::RulesInForce;
use super::rule_table::{Opening, RuleTable};
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
    /// Who it is, for events. Another session is another value, and cuts the flows of the one before.
    pub party: &'a Arc<Party>,
}

/// The rules, and the flows that they allowed.
#[derive(Debug)]
pub struct Filter {
    role: Role,
    rules: RulesInForce,
    flows: FlowTable,
    fragments: FragmentTable,
    log: FlowLog,
}

/// What passes, beyond what names its flow.
#[derive(Clone, Copy)]
struct Passing<'a> {
    sender: Side,
    load: Traffic,
    peer: &'a PeerView<'a>,
    now: Instant,
}

/// Why a flow is not opened, and the rule that says so.
struct Refusal {
    reason: DropReason,
    rule: Option<u32>,
}

impl Filter {
    /// A filter that lets nothing pass.
    pub fn new(role: Role, limits: &Limits) -> Self {
        Self {
            role,
            rules: RulesInForce::default(),
            flows: FlowTable::new(limits.flows, limits.flows_per_peer),
            fragments: FragmentTable::new(limits.fragments),
            log: FlowLog::new(role, limits.flow_events),
        }
    }

    /// The most memory that it takes, but for the rules.
    pub const fn worst_case_bytes(limits: &Limits) -> usize {
        FlowTable::worst_case_bytes(limits.flows)
            + FragmentTable::worst_case_bytes(limits.fragments)
            + FlowLog::worst_case_bytes(limits.flow_events)
    }

    /// Replaces the rules. Open flows are judged anew at their next packet.
    pub fn set_rules(&mut self, rules: Arc<RuleTable>) {
        self.rules.replace(rules);
    }

    /// Has every open flow judged anew at its next packet, because a peer's classes changed.
    pub fn judge_anew(&mut self) {
        self.rules.judge_anew();
    }

    /// Cuts every flow of a peer.
    pub fn cut_peer(&mut self, peer: u32) {
        let Self { rules, flows, log, .. } = self;
        flows.remove_peer(peer, |flow| log.ended(flow, FlowEnd::Session, rules.judged(flow)));
        log.forget(peer);
        self.fragments.remove_peer(peer);
    }

    /// Cuts every flow and forgets the rules.
    pub fn clear(&mut self) {
        let Self { rules, flows, log, .. } = self;
        flows.clear(|flow| log.ended(flow, FlowEnd::Shutdown, rules.judged(flow)));
        log.forget_all();
        self.fragments.clear();
        self.set_rules(Arc::default());
    }

    /// The next event of a flow, oldest first.
    pub fn poll_event(&mut self) -> Option<FlowEvent> {
        self.log.poll()
    }

    /// Events that were dropped because nobody asked for them in time, or too many flows were refused.
    pub fn events_lost(&self) -> u64 {
        self.log.lost()
    }

    /// The version of the rule set.
    pub fn epoch(&self) -> u32 {
        self.rules.epoch()
    }

    /// The rules in force.
    pub fn rules(&self) -> &RuleTable {
        self.rules.table()
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
        let Self { rules, flows, log, .. } = self;
        flows.sweep(SWEEP, now, |flow| log.ended(flow, expiry(flow), rules.judged(flow)));
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
        let load = Traffic { packets: 1, bytes: packet.bytes.len() as u64 };
        self.verdict_for(load, direction, packet, peer, now)
    }

    /// The same for a packet that stands for `load`: several of one flow, or one that was counted
    /// before.
    pub fn verdict_for(
        &mut self,
        load: Traffic,
        direction: Direction,
        packet: &Packet<'_>,
        peer: &PeerView<'_>,
        now: Instant,
    ) -> Verdict {
        let passing = Passing { sender: direction.sender(), load, peer, now };
        match self.judge(direction, packet, passing) {
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
        self.rules.decide(opening, classes)
    }

    fn judge(
        &mut self,
        direction: Direction,
        packet: &Packet<'_>,
        passing: Passing<'_>,
    ) -> Result<(), DropReason> {
        let Passing { peer, now, .. } = passing;
        let whole = packet.fragment.is_none();
        let name = |conversation| FlowKey::new(direction, peer.number, packet, conversation);
        let key = match packet.payload {
            Payload::LaterFragment => {
                let (key, part) =
                    fragment(direction, packet, peer).ok_or(DropReason::FragmentWithoutFirst)?;
                let flow = self.fragments.follow(&key, &part, self.rules.epoch(), now)?;
                if let Some(at) = self.flows.find(&flow, now) {
                    self.flows.at(at).count(passing.sender, passing.load);
                }
                return Ok(());
            }
            Payload::Tcp(tcp) => {
                let key = name(Conversation::Tcp(tcp.source_port, tcp.destination_port));
                self.judge_tcp(key, tcp, passing)?;
                key
            }
            Payload::Udp(udp) => {
                let key = name(Conversation::Udp(udp.source_port, udp.destination_port));
                self.judge_udp(key, passing)?;
                key
            }
            Payload::Icmp(Icmp::EchoRequest { identifier }) => {
                let key = name(Conversation::Echo(identifier, true));
                self.judge_echo_request(key, passing)?;
                key
            }
            Payload::Icmp(Icmp::EchoReply { identifier }) => {
                let key = name(Conversation::Echo(identifier, false));
                let flow = self.live(&key, peer, now)?.ok_or(DropReason::IcmpNoFlow)?;
                flow.passed(FlowState::Echo, passing);
                key
            }
            // Errors fit the smallest MTU (RFC 1812 §4.3.2.3, RFC 4443 §2.4): none comes in parts.
            Payload::Icmp(Icmp::Error { quoted }) if whole => {
                return self.judge_error(direction, packet, quoted.as_ref(), peer, now);
            }
            Payload::Icmp(Icmp::Error { .. } | Icmp::Other) => return Err(DropReason::IcmpType),
        };
        match fragment(direction, packet, peer) {
            Some((packet, part)) => {
                self.fragments.open(packet, &part, (key, self.rules.epoch()), now)
            }
            None => Ok(()),
        }
    }

    fn judge_tcp(
        &mut self,
        key: FlowKey,
        tcp: Tcp,
        passing: Passing<'_>,
    ) -> Result<(), DropReason> {
        let Passing { sender, peer, now, .. } = passing;
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
                flow.passed(FlowState::Tcp(state), passing);
                return Ok(());
            }
        }
        if flags.opens() {
            return self.open_or_tell(key, FlowState::Tcp(TcpState::Opening), passing);
        }
        // From the middle of a connection. It is picked up only where the rules would let its
        // originator open it, and only a plain segment does it: what a stack that does not know the
        // connection answers is a reset, so that nothing can be delivered this way.
        if flags.syn() || flags.fin() || flags.rst() {
            return Err(DropReason::TcpNoFlow);
        }
        let state = |originator| FlowState::Tcp(TcpState::PickedUp { originator });
        let just_connected = peer.connected_at.is_some_and(|at| now < at + PICK_UP);
        let picked_up = match self.open(key, sender, state(true), passing) {
            Err(Refusal { reason: DropReason::NoRule | DropReason::Denied, .. })
                if just_connected =>
            {
                self.open(key, sender.other(), state(false), passing)
            }
            outcome => outcome,
        };
        picked_up.map_err(|refusal| tcp_refusal(refusal.reason))
    }

    fn judge_udp(&mut self, key: FlowKey, passing: Passing<'_>) -> Result<(), DropReason> {
        if let Some(flow) = self.live(&key, passing.peer, passing.now)? {
            let before = flow.state == FlowState::Udp { answered: true };
            let answered = before || flow.originator != passing.sender;
            flow.passed(FlowState::Udp { answered }, passing);
            return Ok(());
        }
        self.open_or_tell(key, FlowState::Udp { answered: false }, passing)
    }

    fn judge_echo_request(&mut self, key: FlowKey, passing: Passing<'_>) -> Result<(), DropReason> {
        if let Some(flow) = self.live(&key, passing.peer, passing.now)? {
            flow.passed(FlowState::Echo, passing);
            return Ok(());
        }
        self.open_or_tell(key, FlowState::Echo, passing)
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
        if self.flows.at(at).epoch != self.rules.epoch() {
            self.judge_flow_anew(at, key, peer)?;
        }
        Ok(Some(self.flows.at(at)))
    }

    // Kept out of the way of the packets of flows that the rules in force allowed.
    #[cold]
    fn judge_flow_anew(
        &mut self,
        at: FlowSlot,
        key: &FlowKey,
        peer: &PeerView<'_>,
    ) -> Result<(), DropReason> {
        let opening = opening(self.role, key, self.flows.at(at).originator);
        match self.rules.decide(&opening, peer.classes) {
            Ok(rule) => {
                self.flows.at(at).allowed_again(rule, self.rules.epoch());
                Ok(())
            }
            Err((_, rule)) => {
                if let Some(flow) = self.flows.remove(key) {
                    let judgement = self.rules.refusal(rule);
                    self.log.ended(&flow, FlowEnd::Policy, Some(judgement));
                }
                Err(DropReason::FlowCut)
            }
        }
    }

    /// Opens a flow from whoever sends, and tells of it if it is refused.
    fn open_or_tell(
        &mut self,
        key: FlowKey,
        state: FlowState,
        passing: Passing<'_>,
    ) -> Result<(), DropReason> {
        let Passing { sender, peer, now, .. } = passing;
        self.open(key, sender, state, passing).map_err(|Refusal { reason, rule }| {
            if self.log.tells_refusals() {
                let opening = opening(self.role, &key, sender);
                let judgement = self.rules.judgement(rule, &opening, peer.classes);
                self.log.refused((key, sender), reason, judgement, peer.party, now);
            }
            reason
        })
    }

    fn open(
        &mut self,
        key: FlowKey,
        originator: Side,
        state: FlowState,
        passing: Passing<'_>,
    ) -> Result<(), Refusal> {
        let Passing { sender, load, peer, now } = passing;
        let opening = opening(self.role, &key, originator);
        let decided = self.rules.decide(&opening, peer.classes);
        let rule = decided.map_err(|(reason, rule)| Refusal { reason, rule })?;
        let mut flow = Flow::new(key, originator, rule, self.rules.epoch(), state, now);
        flow.count(sender, load);
        if self.log.tells_flows() {
            flow.number = self.log.number();
        }
        let Self { rules, flows, log, .. } = self;
        let gone = |flow: &Flow| log.ended(flow, expiry(flow), rules.judged(flow));
        if flows.insert(flow, now, gone).is_err() {
            return Err(Refusal { reason: DropReason::FlowTableFull, rule: Some(rule) });
        }
        if self.log.tells_flows() {
            let judgement = self.rules.judgement(Some(rule), &opening, peer.classes);
            self.log.opened(&flow, judgement, peer.party);
        }
        Ok(())
    }
}

impl Role {
    /// The side that the device is on: a device's own side is local; at a gateway the devices are beyond
    /// the tunnel.
    pub(super) fn device_side(self) -> Side {
        match self {
            Self::Device => Side::Local,
            Self::Gateway => Side::Remote,
        }
    }
}

impl Flow {
    /// A packet of it passed.
    fn passed(&mut self, state: FlowState, passing: Passing<'_>) {
        self.count(passing.sender, passing.load);
        self.touch(state, passing.now);
    }
}

/// Why a flow that expired is over.
fn expiry(flow: &Flow) -> FlowEnd {
    if flow.is_closed() { FlowEnd::Closed } else { FlowEnd::Idle }
}

/// The flow in the words of rules, if this end opened it.
fn opening(role: Role, key: &FlowKey, originator: Side) -> Opening {
    let device = role.device_side();
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
