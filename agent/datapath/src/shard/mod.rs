//! A shard: the peers, flows and timers that one thread owns.
//!
//! Drive it like this: feed it with `handle_datagrams` and `handle_burst`, call `handle_timeout`
//! once `poll_timeout` has passed, flush the [`Outbox`] whenever it is full and before waiting.
//! Every call takes `now`, which must not go backwards. Cost, from the cheapest:
//!
//! 1. a packet of a known flow: parse, one address lookup, one flow lookup, one seal or open;
//! 2. a flow's first packet: the rule table on top, once at each end;
//! 3. a handshake: three X25519 operations, so it goes through a rate limit first;
//! 4. an update: linear in the peers and rules that it names.
//!
//! Nothing is allocated for a packet, except where it waits for a handshake.

mod calls;
mod deadlines;
mod inbound;
mod memory;
mod opening;
mod outbound;
mod outbox;
mod owner;
mod refusals;
mod sealing;
mod status;
mod timers;
mod update;
mod waiting;

use std::net::SocketAddr;
use std::time::Instant;

use partywall_proto::ids::SegmentId;
use partywall_proto::overlay::Session;

pub use inbound::Origin;
pub use outbox::{Datagram, Outbox, Run};
pub use owner::{Call, owner_of};
pub use status::{Explanation, PeerStatus, Query};
pub use update::Update;

pub use crate::counters::{Counters, Traffic};
pub use crate::peers::{OWNER_BITS, owner_of_address};
pub use crate::settings::{Limits, PrivateKey, Role, Settings, WallClock};

use calls::Repetition;
use deadlines::Deadlines;
use waiting::WaitingRoom;

use crate::filter::{DropReason, Filter, FlowEvent};
use crate::pace::Pace;
use crate::packet::{Address, PacketError};
use crate::peers::Peers;
use crate::tunnel::Identity;

/// One thread's share of the data path.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    identity: Identity,
    frame: Option<Frame>,
    peers: Peers,
    filter: Filter,
    counters: Counters,
    repetitions: Vec<Repetition>,
    /// When each peer's timers are to be looked at; those that rest have none.
    deadlines: Deadlines,
    begun_at: Instant,
    sweep_at: Instant,
    waiting: WaitingRoom,
    /// Of what this machine's programs are told.
    refusals: Pace,
}

/// What of the config concerns all peers.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    segment: SegmentId,
    /// On a device, the session that the config exists for.
    session: Option<Session>,
    addresses: Vec<Address>,
    mtu: u16,
}

impl Shard {
    /// A shard that carries nothing yet.
    pub fn new(settings: Settings, now: Instant) -> Self {
        let Settings { shard, shards, role, private_key, wall_clock, limits } = &settings;
        Self {
            identity: Identity::new(private_key, *wall_clock, limits, now),
            frame: None,
            peers: Peers::new(*shard, *shards),
            filter: Filter::new(*role, limits),
            counters: Counters::default(),
            repetitions: Vec::new(),
            deadlines: Deadlines::default(),
            begun_at: now,
            sweep_at: now,
            waiting: WaitingRoom::default(),
            refusals: refusals::pace(),
            settings,
        }
    }

    /// The wall clock was read again. Calls of one tunnel rise in time even where the clock went back.
    pub fn set_wall_clock(&mut self, clock: WallClock) {
        self.identity.set_wall_clock(clock);
    }

    /// The next event of a flow, oldest first; of a device's flows it tells refusals alone. Ask until there is
    /// none, soon: there is room for [`Limits::flow_events`], and what finds none is dropped.
    pub fn poll_flow_event(&mut self) -> Option<FlowEvent> {
        self.filter.poll_event()
    }

    /// Events of flows that were dropped for want of room since the shard was made.
    pub fn flow_events_lost(&self) -> u64 {
        self.filter.events_lost()
    }

    /// What was counted since the shard was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// The drop reason for bytes that are no packet.
fn unreadable(error: PacketError) -> DropReason {
    match error {
        PacketError::Malformed => DropReason::Malformed,
        PacketError::UnsupportedProtocol => DropReason::UnsupportedProtocol,
        PacketError::ExtensionHeaders => DropReason::ExtensionHeaders,
        PacketError::SourceRoute => DropReason::SourceRoute,
        PacketError::FragmentTooShort => DropReason::FragmentTooShort,
    }
}

/// Whether a packet between these may travel at all.
fn check_travel(source: Address, destination: Address) -> Result<(), DropReason> {
    let martian = source.never_travels() || source.is_group() || destination.never_travels();
    if martian { Err(DropReason::Martian) } else { Ok(()) }
}

/// The endpoint as peers are compared by: an IPv4 address that a dual-stack socket dressed as IPv6 is
/// the IPv4 address.
fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

#[cfg(test)]
mod tests;
