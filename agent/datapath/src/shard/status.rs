//! What a shard tells about itself: its peers, and which rule decides for a packet that never came.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use partywall_proto::ids::{AgentId, RuleId};
use partywall_proto::nets::Protocol;
use partywall_proto::rules::Opener;

use crate::filter::DropReason;
use crate::shard::counters::Traffic;

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
