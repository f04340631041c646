//! A place in the table of peers: one of this shard's, or what is known of another's.

use partywall_proto::ids::AgentId;
use partywall_proto::keys::WireguardKey;
use partywall_proto::nets::Prefix;

use super::PeerEntry;

/// A place in the table. Boxed: a tunnel is large, and most places may be other shards'.
#[derive(Debug)]
pub(super) enum Slot {
    Mine(Box<PeerEntry>),
    Theirs(Box<Theirs>),
}

/// A peer of another shard.
#[derive(Debug)]
pub(super) struct Theirs {
    pub(super) owner: u16,
    pub(super) agent: AgentId,
    pub(super) public_key: WireguardKey,
    pub(super) allowed_ips: Vec<Prefix>,
}

impl Slot {
    /// Whose it is.
    pub(super) fn agent(&self) -> &AgentId {
        match self {
            Self::Mine(entry) => &entry.config.agent,
            Self::Theirs(theirs) => &theirs.agent,
        }
    }

    /// By which its calls are known.
    pub(super) fn public_key(&self) -> &WireguardKey {
        match self {
            Self::Mine(entry) => &entry.config.public_key,
            Self::Theirs(theirs) => &theirs.public_key,
        }
    }

    /// The addresses that lead to it.
    pub(super) fn allowed_ips(&self) -> &[Prefix] {
        match self {
            Self::Mine(entry) => &entry.config.allowed_ips,
            Self::Theirs(theirs) => &theirs.allowed_ips,
        }
    }
}
