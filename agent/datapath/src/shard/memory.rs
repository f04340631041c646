//! The most memory that a shard takes: a statement that a test holds.

use super::waiting::WaitingRoom;
use super::{Limits, Shard};
use crate::filter::Filter;
use crate::peers::PeerEntry;
use crate::tunnel::{Identity, Tunnel};

/// What a peer takes beyond its entry and its tunnel: what the config says of it, and the ways to find
/// it. The config bounds that by nothing, so this is for one of the usual size: two addresses, a few
/// classes, a session, names of up to 60 bytes.
const PEER_CONFIG_BYTES: usize = 2048;

impl Shard {
    /// The most that a shard with these limits and so many peers takes, if all are connected, all limits
    /// are used up, and peers are configured as usual. The rule table is shared and not in here, nor is
    /// the outbox.
    pub const fn worst_case_bytes(limits: &Limits, peers: usize) -> usize {
        let peer = size_of::<PeerEntry>() + Tunnel::CALLED_BYTES + PEER_CONFIG_BYTES;
        Filter::worst_case_bytes(limits)
            + Identity::WORST_CASE_BYTES
            + WaitingRoom::worst_case_bytes(limits, peers)
            + peers * peer
    }
}
