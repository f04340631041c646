//! Names a flow: the same key for its packets of both directions.
//!
//! Ends are told apart as *local* (this side of the tunnel, beyond the TUN) and *remote* (beyond the
//! tunnel), so that a key needs no sorting. The peer is part of the key: nobody speaks in another's
//! flow, whatever addresses they use.

use partywall_proto::nets::Protocol;

use crate::packet::{Address, Family, Packet, Quoted, QuotedPayload};

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the TUN into the tunnel.
    IntoTunnel,
    /// Decrypted, from the tunnel to the TUN.
    OutOfTunnel,
}

/// An end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Beyond the TUN.
    Local,
    /// Beyond the tunnel.
    Remote,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

impl Direction {
    /// The end that sends packets of this direction.
    pub fn sender(self) -> Side {
        match self {
            Self::IntoTunnel => Side::Local,
            Self::OutOfTunnel => Side::Remote,
        }
    }
}

/// Largest peer number that a key can hold, plus one.
pub const PEERS_MAX: u32 = 1 << 24;

/// Names a flow. Three numbers, because they hash fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    local: u128,
    remote: u128,
    /// Peer (24 bits), family (1), protocol (7), local port (16), remote port (16).
    rest: u64,
}

/// What tells flows between the same two addresses apart.
#[derive(Debug, Clone, Copy)]
pub(super) enum Conversation {
    /// Ports of sender and receiver.
    Tcp(u16, u16),
    /// Ports of sender and receiver.
    Udp(u16, u16),
    /// An echo's identifier, and whether the sender is the one who asks.
    Echo(u16, bool),
}

impl FlowKey {
    /// The key of a packet that goes this way.
    pub(super) fn new(
        direction: Direction,
        peer: u32,
        packet: &Packet<'_>,
        conversation: Conversation,
    ) -> Self {
        Self::between(direction, peer, packet.source, packet.destination, conversation)
    }

    /// The key of the packet that an ICMP error quotes, where the error goes this way: the quoted
    /// packet went the other way.
    pub(super) fn quoted(direction: Direction, peer: u32, quoted: &Quoted) -> Self {
        let opposite = match direction {
            Direction::IntoTunnel => Direction::OutOfTunnel,
            Direction::OutOfTunnel => Direction::IntoTunnel,
        };
        let conversation = match quoted.payload {
            QuotedPayload::Tcp(from, to) => Conversation::Tcp(from, to),
            QuotedPayload::Udp(from, to) => Conversation::Udp(from, to),
            QuotedPayload::EchoRequest(identifier) => Conversation::Echo(identifier, true),
            QuotedPayload::EchoReply(identifier) => Conversation::Echo(identifier, false),
        };
        Self::between(opposite, peer, quoted.source, quoted.destination, conversation)
    }

    fn between(
        direction: Direction,
        peer: u32,
        source: Address,
        destination: Address,
        conversation: Conversation,
    ) -> Self {
        // An echo's identifier stands as port of the end that asks. So both ends may ping each
        // other with the same identifier and have two flows.
        let (protocol, from, to) = match conversation {
            Conversation::Tcp(from, to) => (Protocol::Tcp, from, to),
            Conversation::Udp(from, to) => (Protocol::Udp, from, to),
            Conversation::Echo(identifier, true) => (Protocol::Icmp, identifier, 0),
            Conversation::Echo(identifier, false) => (Protocol::Icmp, 0, identifier),
        };
        let (local, remote, local_port, remote_port) = match direction.sender() {
            Side::Local => (source, destination, from, to),
            Side::Remote => (destination, source, to, from),
        };
        let protocol: u64 = match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Icmp => 2,
        };
        let family: u64 = match source.family() {
            Family::V4 => 0,
            Family::V6 => 1,
        };
        let ports = u64::from(local_port) << 16 | u64::from(remote_port);
        let rest = u64::from(peer) << 40 | family << 39 | protocol << 32 | ports;
        Self { local: local.bits(), remote: remote.bits(), rest }
    }

    /// The peer whose tunnel carries the flow.
    pub fn peer(&self) -> u32 {
        (self.rest >> 40) as u32
    }

    /// Above IP.
    pub fn protocol(&self) -> Protocol {
        match (self.rest >> 32) & 0x7f {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            _ => Protocol::Icmp,
        }
    }

    /// The address of an end.
    pub fn address(&self, side: Side) -> Address {
        let family = if self.rest >> 39 & 1 == 0 { Family::V4 } else { Family::V6 };
        let bits = match side {
            Side::Local => self.local,
            Side::Remote => self.remote,
        };
        Address::from_bits(family, bits)
    }

    /// The port of an end; of an echo, the identifier at the end that asks and 0 at the other.
    pub fn port(&self, side: Side) -> u16 {
        let shifted = match side {
            Side::Local => self.rest >> 16,
            Side::Remote => self.rest,
        };
        (shifted & 0xffff) as u16
    }
}
