//! What a shard is told once, when it is made.

use std::fmt;
use std::time::{Duration, Instant};

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Which end of the tunnel this agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A staff machine: one segment at a time, and it calls its gateways.
    Device,
    /// A gateway: many devices, which call it.
    Gateway,
}

/// This agent's WireGuard private key. Prints as `PrivateKey(redacted)`; wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// The secret bytes, for the tunnel that uses them.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for PrivateKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// Bounds on what a shard remembers. Everything that grows with traffic is bounded by one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Flows at a time.
    pub flows: usize,
    /// Flows at a time of one peer, so that one device cannot use up a gateway.
    pub flows_per_peer: usize,
    /// Fragmented packets under way at a time.
    pub fragments: usize,
    /// Events of flows that wait to be asked for; 0 records none.
    pub flow_events: usize,
    /// Packets of one peer that wait for its handshake.
    pub waiting_packets: usize,
    /// Bytes of all packets that wait for a handshake, and of what holding them takes.
    pub waiting_bytes: usize,
    /// Handshake messages a second before senders are asked to prove their address (a cookie).
    pub handshakes_per_s: u64,
    /// Handshake messages a second that are let in from one address which is proved.
    pub handshakes_per_address_s: u32,
}

impl Limits {
    /// Sensible bounds for an agent in this role.
    pub fn for_role(role: Role) -> Self {
        let (flows, flows_per_peer, flow_events) = match role {
            Role::Device => (1 << 14, 1 << 14, 1 << 9),
            // Ten thousand desks with two dozen open flows each.
            // Refusals of one turn; events for all flows of a device that is cut, which end in one turn.
            Role::Gateway => (1 << 18, 1 << 13, 1 << 13),
        };
        Self {
            flows,
            flows_per_peer,
            flow_events,
            fragments: 1024,
            waiting_packets: 32,
            // The first packets of a thousand conversations of full size.
            waiting_bytes: 2 << 20,
            // A morning's sign-ins pass without a cookie, which costs whoever is asked for one a
            // second call. What a flood of forged ones costs is a tenth of a core: 54 µs each.
            handshakes_per_s: 2000,
            // A site of some size behind one address, against half a percent of a core.
            handshakes_per_address_s: 100,
        }
    }

    /// These bounds for one of `shards` that share an agent's flows: all of them together hold no more,
    /// but that each has room for what one peer may have.
    pub fn shared_by(self, shards: u16) -> Self {
        let share = self.flows.div_ceil(shards.max(1).into());
        Self { flows: share.max(self.flows_per_peer.min(self.flows)), ..self }
    }
}

/// What the wall clock said once, from which every later time follows: calls carry one (WireGuard paper
/// §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClock {
    /// When it was read.
    pub read_at: Instant,
    /// What it said: the time since 1970-01-01 00:00:00 UTC.
    pub since_epoch: Duration,
}

impl WallClock {
    /// What it says at `now`.
    pub(crate) fn at(&self, now: Instant) -> Duration {
        self.since_epoch.saturating_add(now.saturating_duration_since(self.read_at))
    }
}

/// What a shard is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This shard's number, from 0.
    pub shard: u16,
    /// How many shards there are.
    pub shards: u16,
    /// Which end of the tunnel.
    pub role: Role,
    /// The agent's WireGuard private key.
    pub private_key: PrivateKey,
    /// The wall clock, by which peers tell a new call from an old one that somebody repeats.
    pub wall_clock: WallClock,
    /// Bounds on memory and effort.
    pub limits: Limits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_an_agents_flows_and_each_has_room_for_one_peers() {
        for (role, shards, flows) in [
            (Role::Gateway, 1, 1 << 18),
            (Role::Gateway, 4, 1 << 16),
            (Role::Gateway, 256, 1 << 13),
            (Role::Device, 2, 1 << 14),
        ] {
            assert_eq!(Limits::for_role(role).shared_by(shards).flows, flows);
        }
    }

    #[test]
    fn a_private_key_never_prints() {
        assert_eq!(format!("{:?}", PrivateKey::from([7; 32])), "PrivateKey(redacted)");
    }
}
