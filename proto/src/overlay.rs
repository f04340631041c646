//! The overlay config: all that one agent needs in order to carry one segment, and the deltas that
//! bring it from one generation to the next.
//!
//! Readers ignore fields that they do not know and refuse a version, role, change, action or match
//! that they do not know: what is not understood must not be enforced by half.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, SegmentId, SessionId, UserId};
use crate::keys::{PresharedKey, WireguardKey};
use crate::nets::{PortRange, Prefix, Protocol};
use crate::rules::{ClassId, Rule};

/// The config version that this code writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Smallest overlay MTU in bytes: what IPv6 asks of every link (RFC 8200 §5).
pub const MTU_MIN: u16 = 1280;
/// Largest overlay MTU in bytes.
pub const MTU_MAX: u16 = 9000;

/// Version of one agent's overlay config. Grows with every change that the agent can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u64))]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a config or a delta is refused. The agent keeps what it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Written by a newer controller.
    #[error("config version {found} is not known here (newest known: {VERSION}); update the agent")]
    Version {
        /// The version that was found.
        found: u32,
    },
    /// The MTU is out of bounds.
    #[error("MTU {found} is outside {MTU_MIN} to {MTU_MAX}")]
    Mtu {
        /// The refused MTU.
        found: u16,
    },
    /// Two peers share a name, a key or an allowed address.
    #[error("peer {peer} repeats another peer's {what}")]
    PeerClash {
        /// The second of the two.
        peer: AgentId,
        /// What they share.
        what: &'static str,
    },
    /// A delta for another generation, agent or segment than the one held.
    #[error("the delta builds on {base} of {segment} for {agent}, which is not what is held")]
    WrongBase {
        /// What the delta was made for.
        agent: AgentId,
        /// Its segment.
        segment: SegmentId,
        /// The generation that it builds on.
        base: Generation,
    },
    /// A delta takes away a peer that is not there.
    #[error("the delta removes peer {peer}, which is not there")]
    NoSuchPeer {
        /// The missing peer.
        peer: AgentId,
    },
}

/// The agent's own end of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Overlay addresses of this agent, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// UDP port to listen on; none lets the kernel choose (devices).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
}

/// Which of a device's traffic goes into the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TunnelMode {
    /// Everything.
    Full,
    /// The segment's prefixes only.
    Split,
}

/// How a gateway joins the overlay to the organisation's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Devices appear under the gateway's own address.
    Nat,
    /// Devices appear under their overlay addresses; the network routes the pool to the gateway.
    Routed,
}

/// Names while the session is up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Resolvers inside the segment.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub servers: Vec<IpAddr>,
    /// Search domains.
    #[serde(default)]
    pub search: Vec<String>,
}

/// Something that other machines on the LAN may open towards a device while a session is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LanService {
    /// Who may open it.
    pub from: Prefix,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The device's ports.
    pub ports: Vec<PortRange>,
}

/// A user's time-limited membership of the segment on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session's id.
    pub id: SessionId,
    /// Who signed in.
    pub user: UserId,
    /// When it ends unless it is renewed.
    pub ends_at: Timestamp,
}

/// What differs between a device and a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Role {
    /// A staff machine with a session.
    Device {
        /// The session that this config exists for.
        session: Session,
        /// Full or split tunnel.
        tunnel: TunnelMode,
        /// The segment's prefixes: they leave through the tunnel or not at all.
        prefixes: Vec<Prefix>,
        /// The segment's names.
        dns: Dns,
        /// Exceptions to "nothing on the LAN opens anything towards this device".
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lan: Vec<LanService>,
    },
    /// A gateway.
    Gateway {
        /// NAT or routed.
        forwarding: Forwarding,
        /// The overlay pools that this gateway routes into the tunnel.
        pools: Vec<Prefix>,
        /// The organisation's prefixes behind this gateway.
        prefixes: Vec<Prefix>,
    },
}

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which agent this is. Unique in a config.
    pub agent: AgentId,
    /// Its WireGuard public key. Unique in a config.
    pub public_key: WireguardKey,
    /// Fresh for each session; none only for a stock client that was set up without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<PresharedKey>,
    /// Where to reach it, best first; empty where it calls us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<SocketAddr>,
    /// Sources that are accepted from it and destinations that are sent to it.
    pub allowed_ips: Vec<Prefix>,
    /// Persistent keepalive in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_s: Option<u16>,
    /// The classes that rules may name, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassId>,
    /// At a gateway: the session that admits this device. The agent cuts the peer at its end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// All that one agent needs in order to carry one segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayConfig {
    /// Layout and meaning of this config; see [`VERSION`].
    pub version: u32,
    /// Whom it is for.
    pub agent: AgentId,
    /// Which segment it carries.
    pub segment: SegmentId,
    /// Grows with every change.
    pub generation: Generation,
    /// When the controller signed it.
    pub issued_at: Timestamp,
    /// The staleness limit that the segment's organisation set: past it the config is void.
    pub valid_until: Timestamp,
    /// The agent's own end.
    pub interface: Interface,
    /// Device or gateway.
    #[serde(flatten)]
    pub role: Role,
    /// The other ends, sorted by agent.
    pub peers: Vec<Peer>,
    /// First match decides; no match is a drop.
    pub rules: Vec<Rule>,
}

/// From one generation of a config to a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// See [`VERSION`].
    pub version: u32,
    /// Whom it is for.
    pub agent: AgentId,
    /// Which segment it carries.
    pub segment: SegmentId,
    /// The generation that this builds on.
    pub base: Generation,
    /// The generation that results. Equal to `base` where only the validity is renewed.
    pub generation: Generation,
    /// When the controller signed it.
    pub issued_at: Timestamp,
    /// The new staleness limit.
    pub valid_until: Timestamp,
    /// In order; none renews the validity alone.
    pub changes: Vec<Change>,
}

/// One step of a [`Delta`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A peer is new or changed.
    PeerSet {
        /// The peer as it is now.
        peer: Box<Peer>,
    },
    /// A peer is gone, and every flow of it.
    PeerGone {
        /// Which peer.
        agent: AgentId,
    },
    /// The rules are these now.
    RulesSet {
        /// All of them.
        rules: Vec<Rule>,
    },
}

impl OverlayConfig {
    /// Checks what the types alone cannot hold.
    ///
    /// # Errors
    /// An unknown version, an MTU out of bounds, or peers that clash.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_version(self.version)?;
        if !(MTU_MIN..=MTU_MAX).contains(&self.interface.mtu) {
            return Err(ConfigError::Mtu { found: self.interface.mtu });
        }
        let mut agents = BTreeSet::new();
        let mut keys = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for peer in &self.peers {
            let clash = |what| ConfigError::PeerClash { peer: peer.agent.clone(), what };
            if !agents.insert(&peer.agent) {
                return Err(clash("name"));
            }
            if !keys.insert(peer.public_key) {
                return Err(clash("public key"));
            }
            if !peer.allowed_ips.iter().all(|prefix| addresses.insert(*prefix)) {
                return Err(clash("allowed address"));
            }
        }
        Ok(())
    }

    /// The steps that lead from `self` to `next`, or none where only a snapshot will do because
    /// the interface, the role, the agent or the segment differ.
    pub fn changes_to(&self, next: &OverlayConfig) -> Option<Vec<Change>> {
        let same_frame = self.version == next.version
            && self.agent == next.agent
            && self.segment == next.segment
            && self.interface == next.interface
            && self.role == next.role;
        if !same_frame {
            return None;
        }
        let held: std::collections::BTreeMap<_, _> =
            self.peers.iter().map(|peer| (&peer.agent, peer)).collect();
        let kept: BTreeSet<_> = next.peers.iter().map(|peer| &peer.agent).collect();
        let gone = held.keys().filter(|agent| !kept.contains(*agent));
        let mut changes: Vec<Change> =
            gone.map(|agent| Change::PeerGone { agent: (*agent).clone() }).collect();
        let set = next.peers.iter().filter(|peer| held.get(&peer.agent) != Some(peer));
        changes.extend(set.map(|peer| Change::PeerSet { peer: Box::new(peer.clone()) }));
        if self.rules != next.rules {
            changes.push(Change::RulesSet { rules: next.rules.clone() });
        }
        Some(changes)
    }

    /// The config that `delta` leads to. `self` stays as it was.
    ///
    /// # Errors
    /// A delta made for something else, or one whose result does not [`check`](Self::check).
    pub fn with(&self, delta: &Delta) -> Result<OverlayConfig, ConfigError> {
        check_version(delta.version)?;
        let grows = match delta.changes.is_empty() {
            true => delta.generation >= delta.base && delta.issued_at >= self.issued_at,
            false => delta.generation > delta.base,
        };
        let fits = delta.base == self.generation
            && delta.agent == self.agent
            && delta.segment == self.segment
            && grows;
        if !fits {
            return Err(ConfigError::WrongBase {
                agent: delta.agent.clone(),
                segment: delta.segment.clone(),
                base: delta.base,
            });
        }
        let mut next = self.clone();
        next.generation = delta.generation;
        next.issued_at = delta.issued_at;
        next.valid_until = delta.valid_until;
        for change in &delta.changes {
            next.step(change)?;
        }
        next.check()?;
        Ok(next)
    }

    fn step(&mut self, change: &Change) -> Result<(), ConfigError> {
        match change {
            Change::PeerSet { peer } => {
                match self.peers.binary_search_by(|held| held.agent.cmp(&peer.agent)) {
                    Ok(at) => self.peers[at] = (**peer).clone(),
                    Err(at) => self.peers.insert(at, (**peer).clone()),
                }
            }
            Change::PeerGone { agent } => {
                match self.peers.binary_search_by(|held| held.agent.cmp(agent)) {
                    Ok(at) => drop(self.peers.remove(at)),
                    Err(_) => return Err(ConfigError::NoSuchPeer { peer: agent.clone() }),
                }
            }
            Change::RulesSet { rules } => self.rules.clone_from(rules),
        }
        Ok(())
    }
}

fn check_version(found: u32) -> Result<(), ConfigError> {
    match found == VERSION {
        true => Ok(()),
        false => Err(ConfigError::Version { found }),
    }
}
