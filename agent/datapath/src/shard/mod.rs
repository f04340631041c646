//! A shard: the peers, flows and timers that one thread owns.
//!
//! Drive it like this: feed it with `handle_datagram` and `handle_packet`, call `handle_timeout`
//! once `poll_timeout` has passed, flush the [`Outbox`] whenever it is full and before waiting.
//! Every call takes `now`, which must not go backwards.

mod counters;
mod outbox;
mod settings;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use partywall_proto::ids::AgentId;
use partywall_proto::overlay::{OverlayConfig, Peer};

pub use counters::{Counters, Traffic};
pub use outbox::{Datagram, Outbox, Run};
pub use settings::{Limits, PrivateKey, Role, Settings};
pub use status::{Explanation, PeerStatus, Query};

use crate::filter::{DropReason, RuleTable};

/// A change of what a shard enforces. Enforced when [`Shard::apply`] returns.
#[derive(Debug, Clone)]
pub enum Update {
    /// All of it. For another segment or another session, everything held is dropped first.
    Replace {
        /// The config.
        config: Arc<OverlayConfig>,
        /// Its rules, compiled.
        rules: Arc<RuleTable>,
    },
    /// A peer is new or changed.
    PeerSet(Box<Peer>),
    /// A peer is gone, and every flow of it.
    PeerGone(AgentId),
    /// The rules are these now. Open flows are judged anew at their next packet.
    RulesSet(Arc<RuleTable>),
    /// Carry nothing.
    Clear,
}

/// The shard that a datagram belongs to; none for a handshake initiation, which any shard may take
/// and only the peer's own can answer, and for what is not WireGuard.
pub fn owner_of(_datagram: &[u8], _shards: u16) -> Option<u16> {
    None
}

/// One thread's share of the data path.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    counters: Counters,
}

impl Shard {
    /// A shard that carries nothing yet.
    pub fn new(settings: Settings, _now: Instant) -> Self {
        Self { settings, counters: Counters::default() }
    }

    /// Changes what is enforced; what is to be said at once (a call to a new peer) goes to `out`.
    pub fn apply(&mut self, _update: &Update, _now: Instant, _out: &mut Outbox) {
        let _ = self.settings.private_key.expose();
    }

    /// Takes a datagram from the UDP socket.
    pub fn handle_datagram(
        &mut self,
        _from: SocketAddr,
        _datagram: &[u8],
        _now: Instant,
        _out: &mut Outbox,
    ) {
        self.counters.drop(DropReason::NoConfig);
    }

    /// Takes a packet from the TUN.
    pub fn handle_packet(&mut self, _packet: &[u8], _now: Instant, _out: &mut Outbox) {
        self.counters.drop(DropReason::NoConfig);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, _now: Instant, _out: &mut Outbox) {}

    /// When [`handle_timeout`](Self::handle_timeout) is due next; none while nothing is carried.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What was counted since the shard was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The peers, sorted by agent.
    pub fn peer_status(&self, _now: Instant) -> Vec<PeerStatus> {
        Vec::new()
    }

    /// Which rule decides for a flow's first packet, without touching anything.
    pub fn explain(&self, query: &Query, _now: Instant) -> Explanation {
        let peer = query.peer.clone();
        Explanation { drop: Some(DropReason::NoConfig), rule: None, peer, connected: false }
    }
}
