//! Why an overlay config or a delta is refused.

use crate::ids::{AgentId, SegmentId};

use super::{Generation, MTU_MAX, MTU_MIN, VERSION};

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
    /// Peers are not sorted by agent, so a delta could not find its peer.
    #[error("peer {peer} is out of order; peers are sorted by agent")]
    PeerOrder {
        /// The first peer that should stand earlier.
        peer: AgentId,
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
