//! One other end: its config, its tunnel, and where it is.
//!
//! Where it is changes only by what it has authenticated.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use partywall_proto::overlay::Peer;

use crate::counters::Traffic;
use crate::filter::{Party, PeerView};
use crate::tunnel::Tunnel;

/// One other end.
#[derive(Debug)]
pub(crate) struct PeerEntry {
    /// Its place in the table.
    pub(crate) number: u32,
    /// As the config has it.
    pub(crate) config: Peer,
    /// Whose its flows are, as their events have it.
    party: Arc<Party>,
    /// Its WireGuard state.
    pub(crate) tunnel: Tunnel,
    /// Where datagrams go: where it was last heard, or else where it is called.
    pub(crate) endpoint: Option<SocketAddr>,
    /// When the tunnel last came up; none while it is down.
    pub(crate) connected_at: Option<Instant>,
    /// Received from it.
    pub(crate) received: Traffic,
    /// Sent to it.
    pub(crate) sent: Traffic,
    /// Its receiver index, without the bits that number its sessions.
    pub(super) index: u32,
    unanswered_calls: usize,
}

impl PeerEntry {
    /// A peer that was not heard yet.
    pub(super) fn new(
        number: u32,
        peer: &Peer,
        party: Arc<Party>,
        tunnel: Tunnel,
        index: u32,
    ) -> Self {
        Self {
            number,
            config: peer.clone(),
            party,
            tunnel,
            endpoint: peer.endpoints.first().copied(),
            connected_at: None,
            received: Traffic::default(),
            sent: Traffic::default(),
            index,
            unanswered_calls: 0,
        }
    }

    /// What the filter needs to know.
    pub(crate) fn view(&self) -> PeerView<'_> {
        let classes = &self.config.classes;
        PeerView {
            number: self.number,
            classes,
            connected_at: self.connected_at,
            party: &self.party,
        }
    }

    /// Brings the config up to date; the one before.
    pub(super) fn set_config(&mut self, peer: &Peer, party: Arc<Party>) -> Peer {
        let before = std::mem::replace(&mut self.config, peer.clone());
        if *self.party != *party {
            self.party = party;
        }
        before
    }

    /// It was heard at `from`, beyond doubt: that is where it is now (WireGuard paper §2.1).
    pub(crate) fn heard(&mut self, from: SocketAddr) {
        self.endpoint = Some(from);
        self.unanswered_calls = 0;
    }

    /// Where the next call goes: each unanswered one makes the next endpoint of the config's list the
    /// one to try.
    pub(crate) fn endpoint_to_call(&mut self) -> Option<SocketAddr> {
        let endpoints = &self.config.endpoints;
        if self.unanswered_calls > 0 && !endpoints.is_empty() {
            let at = endpoints.iter().position(|known| Some(*known) == self.endpoint);
            self.endpoint = Some(endpoints[at.map_or(0, |at| at + 1) % endpoints.len()]);
        }
        self.unanswered_calls += 1;
        self.endpoint
    }

    /// Notes whether the tunnel came up or went down; true if it came up.
    pub(crate) fn note_connection(&mut self, now: Instant) -> bool {
        let is_up = self.tunnel.is_connected(now);
        let came_up = is_up && self.connected_at.is_none();
        if came_up {
            self.connected_at = Some(now);
        } else if !is_up {
            self.connected_at = None;
        }
        came_up
    }

    /// Whether `peer` can go on with this entry's keys.
    pub(super) fn keeps_tunnel(&self, peer: &Peer) -> bool {
        self.config.public_key == peer.public_key
            && self.config.preshared_key == peer.preshared_key
            && self.config.keepalive_s == peer.keepalive_s
    }
}
