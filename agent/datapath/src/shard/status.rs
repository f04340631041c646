//! What a shard tells about itself: its peers, and which rule decides for a packet that never came.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use partywall_proto::ids::{AgentId, RuleId};
use partywall_proto::nets::Protocol;
use partywall_proto::rules::Opener;

use super::{Role, Shard};
use crate::counters::Traffic;
use crate::filter::{DropReason, Opening};
use crate::packet::Address;
use crate::peers::PeerEntry;

/// One peer as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which peer.
    pub agent: AgentId,
    /// Where it was last heard from, or else where it is called.
    pub endpoint: Option<SocketAddr>,
    /// How long ago the keys in use were agreed; none without keys in use.
    pub handshake_age: Option<Duration>,
    /// Received from it.
    pub received: Traffic,
    /// Sent to it.
    pub sent: Traffic,
}

/// A flow that somebody might open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Who would open it.
    pub opener: Opener,
    /// The device, on a gateway, or the gateway, on a device; none on a device takes the peer that
    /// `address` is routed to.
    pub peer: Option<AgentId>,
    /// The network's end: destination where the device opens, source where the network does.
    pub address: IpAddr,
    /// Above IP.
    pub protocol: Protocol,
    /// The responder's port; not looked at for ICMP.
    pub port: u16,
}

/// What would become of a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Why it would be dropped; none if it would pass.
    pub drop: Option<DropReason>,
    /// The rule that decides; none where none matches or it does not come to that.
    pub rule: Option<RuleId>,
    /// The peer that would carry it.
    pub peer: Option<AgentId>,
    /// Whether keys are agreed with that peer.
    pub connected: bool,
}

impl Shard {
    /// The peers, sorted by agent.
    pub fn peer_status(&self, now: Instant) -> Vec<PeerStatus> {
        let status = |entry: &PeerEntry| PeerStatus {
            agent: entry.config.agent.clone(),
            endpoint: entry.endpoint,
            handshake_age: entry.tunnel.handshake_age(now),
            received: entry.received,
            sent: entry.sent,
        };
        self.peers.iter().map(status).collect()
    }

    /// Which rule decides for a flow's first packet, without touching anything.
    pub fn explain(&self, query: &Query, now: Instant) -> Explanation {
        let refuse =
            |drop| Explanation { drop: Some(drop), rule: None, peer: None, connected: false };
        if self.frame.is_none() {
            return refuse(DropReason::NoConfig);
        }
        let network = Address::from(query.address);
        let number = match &query.peer {
            Some(agent) => self.peers.by_agent(agent),
            None => self.peers.by_address(network),
        };
        let Some(entry) = number.and_then(|number| self.peers.at(number)) else {
            return refuse(DropReason::NoRoute);
        };
        // On a device the network's addresses are the peer's; on a gateway the device's are.
        if self.settings.role == Role::Device
            && self.peers.by_address(network) != Some(entry.number)
        {
            return refuse(DropReason::NoRoute);
        }
        let Query { opener, protocol, port, .. } = *query;
        let opening = Opening { opener, network, protocol, port };
        let (drop, rule) = match self.filter.decide(&opening, &entry.config.classes) {
            Ok(rule) => (None, Some(rule)),
            Err((reason, rule)) => (Some(reason), rule),
        };
        Explanation {
            drop,
            rule: rule.and_then(|rule| self.filter.rules().id(rule)).cloned(),
            peer: Some(entry.config.agent.clone()),
            connected: entry.tunnel.is_connected(now),
        }
    }
}
