//! WireGuard towards one peer: handshakes, keys and their ends, and what is due when.
//!
//! Nothing is queued here: a packet that finds no keys stays with whoever has it, because it was judged under
//! rules that may be gone when there are some. Every function takes `now`, which must not go backwards.
//! After whatever is done with a tunnel, ask [`Tunnel::sooner`].

mod gate;
mod handshake;
mod identity;
mod live;
mod macs;
mod message;
mod noise;
mod replay;
mod senders;
mod session;
mod sessions;
mod stamp;
mod timers;

use std::fmt;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use partywall_aead::BATCH;
use partywall_proto::keys::{PresharedKey, WireguardKey};
use x25519_dalek::PublicKey;

pub(crate) use gate::Refusal;
pub(crate) use handshake::Caller;
pub(crate) use identity::Identity;
pub(crate) use message::{HANDSHAKE_MAX_BYTES, HEADER_BYTES, INDICES, Message, OVERHEAD_BYTES};

use handshake::{Call, proper};
use live::{Live, Origin};
use macs::Macs;
use session::Session;
use sessions::Place;
use timers::Tick;

/// Inner packets are padded to a multiple of this (WireGuard paper §5.4.6).
const PADDING_BYTES: usize = 16;

/// Why a datagram for a tunnel came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TunnelError {
    /// Wrong preshared key, replayed, or an answer to nothing.
    #[error("the handshake does not hold")]
    Handshake,
    /// Sealed with keys that are not held any more.
    #[error("no such keys")]
    NoKeys,
    /// Seen before, or too old to tell.
    #[error("replayed")]
    Replayed,
    /// Not sealed by the peer.
    #[error("not authentic")]
    Unauthentic,
    /// Sealed by the peer, but no IP packet.
    #[error("not an IP packet")]
    NotIp,
}

/// What came of each of some data messages: the bytes of the inner packet, which begins after
/// [`HEADER_BYTES`], without its padding; 0 for a keepalive.
pub(crate) type Opened = ArrayVec<Result<usize, TunnelError>, BATCH>;

/// What a tunnel has to say when its timers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// So many bytes of a repeated or renewed call were written.
    Call(usize),
    /// So many bytes of a keepalive were written.
    Keepalive(usize),
    /// Nobody answered for long, or nothing was agreed for longer: calls have ceased.
    GivenUp,
}

/// The WireGuard state towards one peer. Until the first call from either side it is next to nothing.
pub(crate) struct Tunnel {
    origin: Origin,
    live: Option<Box<Live>>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("peer", self.origin.peer.as_bytes()).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// The most memory that a tunnel takes beyond itself from the first call on.
    pub(crate) const CALLED_BYTES: usize =
        size_of::<Live>() + Place::ALL.len() * size_of::<Session>() + 2 * size_of::<Call>();

    /// A tunnel to `peer`; `index` is below [`INDICES`] and unique among tunnels.
    pub(crate) fn new(
        peer: &WireguardKey,
        preshared: Option<&PresharedKey>,
        keepalive_s: Option<u16>,
        index: u32,
    ) -> Self {
        let peer = PublicKey::from(*peer.as_bytes());
        let origin = Origin { peer, preshared: preshared.cloned(), keepalive_s, index };
        Self { origin, live: None }
    }

    /// Whether packets can be sealed.
    pub(crate) fn is_connected(&self, now: Instant) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_connected(now))
    }

    /// How long ago the keys in use were agreed.
    pub(crate) fn handshake_age(&self, now: Instant) -> Option<Duration> {
        let session = self.live.as_ref()?.sessions.at(Place::Current)?;
        session.can_seal(now).then(|| now.saturating_duration_since(session.agreed_at()))
    }

    /// Calls the peer unless it was called lately and this is not to be another (`again`): bytes
    /// written to `out`, which holds [`HANDSHAKE_MAX_BYTES`]. Answers to the last two calls count.
    pub(crate) fn call(
        &mut self,
        identity: &Identity,
        again: bool,
        now: Instant,
        out: &mut [u8],
    ) -> Option<usize> {
        let (origin, live) = self.live(identity)?;
        if !again && !live.timers.may_call(now) {
            return None;
        }
        live.call(origin, identity, now, out)
    }

    /// Answers the peer, which calls and was admitted: bytes written to `out`, which holds
    /// [`HANDSHAKE_MAX_BYTES`].
    ///
    /// # Errors
    /// [`TunnelError::Handshake`]: it is somebody else, or an old call repeated.
    pub(crate) fn answer(
        &mut self,
        identity: &Identity,
        caller: Caller,
        now: Instant,
        out: &mut [u8],
    ) -> Result<usize, TunnelError> {
        let (origin, live) = self.live(identity).ok_or(TunnelError::Handshake)?;
        live.answer(origin, identity, caller, now, out).ok_or(TunnelError::Handshake)
    }

    /// Takes the answer to a call, which was admitted, and confirms it: bytes of a keepalive written to
    /// `out`, which holds [`HANDSHAKE_MAX_BYTES`].
    ///
    /// # Errors
    /// [`TunnelError::Handshake`]: another preshared key, or no answer to any of the last calls.
    pub(crate) fn was_answered(
        &mut self,
        identity: &Identity,
        response: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<usize, TunnelError> {
        let Self { origin, live } = self;
        let live = live.as_mut().ok_or(TunnelError::Handshake)?;
        live.was_answered(origin, identity, response, now).ok_or(TunnelError::Handshake)?;
        self.keepalive(now, out).ok_or(TunnelError::Handshake)
    }

    /// Takes a cookie, which goes into the next call.
    ///
    /// # Errors
    /// [`TunnelError::Handshake`]: it is no answer to what was said last.
    pub(crate) fn take_cookie(&mut self, reply: &[u8], now: Instant) -> Result<(), TunnelError> {
        let Self { origin, live } = self;
        let taken = live.as_mut().and_then(|live| live.macs.take_cookie(&origin.peer, reply, now));
        taken.ok_or(TunnelError::Handshake)
    }

    /// Seals up to [`BATCH`] datagrams, each of which has [`HEADER_BYTES`] of room, a packet that is padded
    /// already, and room for a tag. None, and nothing is sealed, without usable keys.
    pub(crate) fn seal(&mut self, datagrams: &mut [&mut [u8]], now: Instant) -> Option<()> {
        let Live { sessions, timers, .. } = &mut **self.live.as_mut()?;
        let session = sessions.at_mut(Place::Current)?;
        session.seal(datagrams, now)?;
        if datagrams.iter().any(|datagram| datagram.len() > OVERHEAD_BYTES) {
            timers.sent_data(now);
        } else {
            timers.sent(now);
        }
        if session.is_old_for_sending(now) {
            timers.want_renewal(now);
        }
        Some(())
    }

    /// Opens up to [`BATCH`] data messages in place.
    pub(crate) fn open(&mut self, datagrams: &mut [&mut [u8]], now: Instant) -> Opened {
        match &mut self.live {
            Some(live) => live.open(datagrams, now),
            None => datagrams.iter().map(|_| Err(TunnelError::NoKeys)).collect(),
        }
    }

    /// Looks at the timers; then [`next_tick`](Self::next_tick) is to be asked. `out` holds
    /// [`HANDSHAKE_MAX_BYTES`].
    pub(crate) fn tick(&mut self, identity: &Identity, now: Instant, out: &mut [u8]) -> Due {
        let Self { origin, live: Some(live) } = self else { return Due::Nothing };
        live.sessions.expire(now);
        match live.timers.tick(live.is_connected(now), now) {
            Tick::Nothing => Due::Nothing,
            Tick::Call => live.call(origin, identity, now, out).map_or(Due::Nothing, Due::Call),
            Tick::Keepalive => self.keepalive(now, out).map_or(Due::Nothing, Due::Keepalive),
            Tick::GiveUp => {
                live.calls = [None, None];
                Due::GivenUp
            }
            Tick::Wipe => {
                live.calls = [None, None];
                live.sessions.clear();
                live.macs = Macs::default();
                Due::GivenUp
            }
        }
    }

    /// When the next [`tick`](Self::tick) is due; none if it can rest. Whoever asks keeps the answer.
    pub(crate) fn next_tick(&mut self) -> Option<Instant> {
        let Live { sessions, timers, .. } = &mut **self.live.as_mut()?;
        timers.next(sessions.first_end())
    }

    /// When the next [`tick`](Self::tick) is due, if that is sooner than was told last.
    pub(crate) fn sooner(&mut self) -> Option<Instant> {
        if self.live.as_ref()?.timers.is_late() { self.next_tick() } else { None }
    }

    fn keepalive(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let room = out.get_mut(..OVERHEAD_BYTES)?;
        self.seal(&mut [room], now)?;
        Some(OVERHEAD_BYTES)
    }

    /// The state, made now if this is the first that happens; none for a peer whose key is no key.
    fn live(&mut self, identity: &Identity) -> Option<(&Origin, &mut Live)> {
        let Self { origin, live } = self;
        if live.is_none() {
            let shared = proper(identity.keys.secret.diffie_hellman(&origin.peer))?;
            *live = Some(Box::new(Live::new(shared, origin.keepalive_s)));
        }
        live.as_mut().map(|live| (&*origin, &mut **live))
    }
}

/// The size to which a packet of `bytes` is padded: a multiple of 16, but never past the MTU
/// (WireGuard paper §5.4.6).
pub(crate) fn padded_bytes(bytes: usize, mtu: u16) -> usize {
    bytes.next_multiple_of(PADDING_BYTES).min(bytes.max(mtu.into()))
}

#[cfg(test)]
mod tests;
