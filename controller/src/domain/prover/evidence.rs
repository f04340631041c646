//! What is proved about: what agents would enforce, and nothing of what somebody meant.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use partywall_proto::ids::{AgentId, SegmentId};
use partywall_proto::nets::{PortRange, Prefix, Protocol};
use partywall_proto::overlay::{OverlayConfig, Peer};
use partywall_proto::rules::{ClassId, Rule};

/// Everything that a proof is about.
#[derive(Debug, Default)]
pub struct Evidence<'a> {
    /// Every segment, those included whose policy did not change.
    pub segments: Vec<SegmentFacts<'a>>,
    /// The live publications.
    pub publications: &'a [Publication],
}

/// A segment and its agents.
#[derive(Debug)]
pub struct SegmentFacts<'a> {
    /// Its name.
    pub segment: &'a SegmentId,
    /// Its overlay addresses.
    pub pools: &'a [Prefix],
    /// The networks behind its gateways.
    pub prefixes: &'a [Prefix],
    /// Its gateways, and the devices that have a session in it.
    pub agents: Vec<AgentFacts<'a>>,
}

/// What one agent would enforce.
#[derive(Debug)]
pub struct AgentFacts<'a> {
    /// Which agent.
    pub agent: &'a AgentId,
    /// Its own overlay addresses.
    pub addresses: &'a [IpAddr],
    /// Its rules.
    pub rules: RuleList<'a>,
    /// The other ends of its tunnels.
    pub peers: Vec<PeerFacts<'a>>,
}

/// An agent's rules: the first match decides, no match is a drop.
pub enum RuleList<'a> {
    /// They are at hand.
    Listed(&'a [Rule]),
    /// They are made when they are looked at: the lists of ten thousand devices, all at once, are more
    /// than a machine should have to hold.
    Made(Box<dyn Fn() -> Vec<Rule> + 'a>),
}

impl<'a> RuleList<'a> {
    pub(super) fn list(&self) -> Cow<'a, [Rule]> {
        match self {
            Self::Listed(rules) => Cow::Borrowed(rules),
            Self::Made(make) => Cow::Owned(make()),
        }
    }
}

impl fmt::Debug for RuleList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list().fmt(f)
    }
}

/// The other end of a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct PeerFacts<'a> {
    /// Which agent.
    pub agent: &'a AgentId,
    /// Addresses that are taken from it and sent to it.
    pub allowed_ips: &'a [Prefix],
    /// What rules may say of it; in a device's config, of the device itself.
    pub classes: &'a [ClassId],
}

impl<'a> AgentFacts<'a> {
    /// On a device, the classes that its own rules are judged with: those of its peer, the gateway.
    pub(super) fn own_classes(&self) -> &'a [ClassId] {
        self.peers.first().map_or(&[], |peer| peer.classes)
    }
}

impl<'a> From<&'a OverlayConfig> for AgentFacts<'a> {
    fn from(config: &'a OverlayConfig) -> Self {
        Self {
            agent: &config.agent,
            addresses: &config.interface.addresses,
            rules: RuleList::Listed(&config.rules),
            peers: config.peers.iter().map(PeerFacts::from).collect(),
        }
    }
}

impl<'a> From<&'a Peer> for PeerFacts<'a> {
    fn from(peer: &'a Peer) -> Self {
        Self { agent: &peer.agent, allowed_ips: &peer.allowed_ips, classes: &peer.classes }
    }
}

/// One application of a segment, offered to the devices of another. Only what lies in the offering
/// segment's own prefixes or pools is taken for offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whose devices may open it.
    pub from: SegmentId,
    /// Which segment offers it.
    pub to: SegmentId,
    /// Where it is.
    pub prefix: Prefix,
    /// None is TCP, UDP and ICMP echo.
    pub protocol: Option<Protocol>,
    /// Empty is every port.
    pub ports: Vec<PortRange>,
}
