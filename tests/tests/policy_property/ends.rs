//! The real filter at both ends of every tunnel of a segment, fed with real packets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use partywall_controller::domain::policy::Opening;
use partywall_datapath::RuleTable;
use partywall_datapath::filter::{Direction, Filter, Party, PeerView, Verdict};
use partywall_datapath::packet;
use partywall_datapath::shard::{Limits, Role};
use partywall_proto::nets::Protocol;
use partywall_proto::overlay::OverlayConfig;
use partywall_proto::rules::{ClassId, Opener};
use partywall_tests::hostile::packet::{Packet, SYN};

use crate::world::Segment;

/// Opener's ports from here, so that they are never the responder's by chance alone.
const PORT_FIRST: u16 = 1024;
/// Before a port would be used again, which would be the same flow once more, all flows are forgotten.
const ROUND: u16 = 1000;

/// The filters of a segment's agents.
pub(crate) struct Ends<'a> {
    segment: &'a Segment,
    gateway: Filter,
    devices: Vec<Filter>,
    gateway_rules: Arc<RuleTable>,
    device_rules: Vec<Arc<RuleTable>>,
    party: Arc<Party>,
    now: Instant,
    tried: u16,
}

/// What the two ends say to one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) device: bool,
    pub(crate) gateway: bool,
}

impl<'a> Ends<'a> {
    pub(crate) fn of(segment: &'a Segment) -> Self {
        let limits = Limits {
            flows: 2 * usize::from(ROUND),
            flows_per_peer: 2 * usize::from(ROUND),
            fragments: 1,
            ..Limits::for_role(Role::Device)
        };
        let rules = |config: &OverlayConfig| Arc::new(RuleTable::compile(&config.rules));
        let gateway_rules = rules(&segment.gateway);
        let device_rules: Vec<_> = segment.devices.iter().map(rules).collect();
        let filter = |role, rules: &Arc<RuleTable>| {
            let mut filter = Filter::new(role, &limits);
            filter.set_rules(rules.clone());
            filter
        };
        Self {
            segment,
            gateway: filter(Role::Gateway, &gateway_rules),
            devices: device_rules.iter().map(|rules| filter(Role::Device, rules)).collect(),
            gateway_rules,
            device_rules,
            party: Arc::new(Party { agent: segment.gateway.agent.clone(), session: None }),
            now: Instant::now(),
            tried: 0,
        }
    }

    /// Whether the first packet of this flow passes the person's device and the gateway.
    pub(crate) fn judge(&mut self, person: usize, opening: &Opening) -> Verdicts {
        if self.tried == ROUND {
            self.forget_flows();
        }
        self.tried += 1;
        let device = &self.segment.devices[person];
        let bytes = first_packet(device, opening, PORT_FIRST + self.tried);
        let packet = packet::parse(&bytes).unwrap();
        let (at_device, at_gateway) = match opening.opener {
            Opener::Device => (Direction::IntoTunnel, Direction::OutOfTunnel),
            Opener::Network => (Direction::OutOfTunnel, Direction::IntoTunnel),
        };
        let (now, party) = (self.now, &self.party);
        let view = |number: usize, classes| PeerView {
            number: u32::try_from(number).unwrap(),
            classes,
            connected_at: None,
            party,
        };
        let passes = |filter: &mut Filter, direction, peer: PeerView<'_>| {
            filter.verdict(direction, &packet, &peer, now) == Verdict::Pass
        };
        let own = &device.peers[0].classes;
        Verdicts {
            device: passes(&mut self.devices[person], at_device, view(0, own)),
            gateway: passes(
                &mut self.gateway,
                at_gateway,
                view(person, self.segment.classes(person)),
            ),
        }
    }

    fn forget_flows(&mut self) {
        self.tried = 0;
        let filters = self.devices.iter_mut().zip(&self.device_rules);
        for (filter, rules) in filters.chain([(&mut self.gateway, &self.gateway_rules)]) {
            filter.clear();
            filter.set_rules(rules.clone());
        }
    }
}

impl Segment {
    /// The classes of a person's device, as the gateway is told.
    pub(crate) fn classes(&self, person: usize) -> &[ClassId] {
        let agent = &self.devices[person].agent;
        &self.gateway.peers.iter().find(|peer| peer.agent == *agent).unwrap().classes
    }
}

/// What opens the flow: a SYN, a datagram or an echo request, from a port of its own.
fn first_packet(device: &OverlayConfig, opening: &Opening, port: u16) -> Vec<u8> {
    let far = opening.far;
    let same_family = |it: &&std::net::IpAddr| it.is_ipv4() == far.address().is_ipv4();
    let own = *device.interface.addresses.iter().find(same_family).unwrap();
    // The named port is the responder's: the far side's where the device opens, else the device's own.
    let (from, to) = match opening.opener {
        Opener::Device => (SocketAddr::new(own, port), SocketAddr::new(far.address(), far.port())),
        Opener::Network => (SocketAddr::new(far.address(), port), SocketAddr::new(own, far.port())),
    };
    let packet = match far.protocol() {
        Protocol::Tcp => Packet::tcp(from, to, SYN),
        Protocol::Udp => Packet::udp(from, to, &[]),
        Protocol::Icmp => {
            let kind = if from.is_ipv4() { 8 } else { 128 };
            let [high, low] = port.to_be_bytes();
            Packet::icmp(from.ip(), to.ip(), kind, 0, &[high, low, 0, 1])
        }
    };
    packet.bytes()
}
