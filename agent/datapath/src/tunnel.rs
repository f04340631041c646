//! WireGuard: the only file that names boringtun.
//!
//! Functions take `now` although boringtun reads the clock itself, so that the choice of library stays
//! reversible. boringtun's own queue of unsent packets stays empty of packets: what it queues was
//! judged under rules that may be gone when it is sent.
//!
//! boringtun's clock moves only when its timers are looked at: [`Tunnel::tick`] comes before whatever
//! else is done with a tunnel, or keys are stamped as older than they are. (A keepalive may come before.)

mod schedule;
mod senders;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use partywall_proto::keys::{PresharedKey, WireguardKey};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::settings::{Limits, PrivateKey};
pub(crate) use schedule::LOOK_AGAIN;
use schedule::Schedule;
use senders::Senders;

/// Header, counter and tag of a data message (WireGuard paper §5.4.6).
pub(crate) const OVERHEAD_BYTES: usize = 32;
/// Largest handshake message: the initiation (WireGuard paper §5.4.2).
pub(crate) const HANDSHAKE_MAX_BYTES: usize = 148;
/// Inner packets are padded to a multiple of this (WireGuard paper §5.4.6).
const PADDING_BYTES: usize = 16;
/// boringtun numbers a peer's sessions in the low 8 bits of the receiver index.
const SESSION_BITS: u32 = 8;
/// Tunnel indices, which are the rest of it.
pub(crate) const INDICES: u32 = 1 << (32 - SESSION_BITS);

/// What a datagram says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// Somebody calls.
    Initiation,
    /// An answer to the call of the tunnel with this index.
    Response(u32),
    /// That tunnel's call is to be repeated with proof of address.
    CookieReply(u32),
    /// A sealed packet for the tunnel with this index.
    Data(u32),
}

impl Message {
    /// Reads type and receiver; none if this is not WireGuard.
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        Some(match Tunn::parse_incoming_packet(datagram).ok()? {
            Packet::HandshakeInit(_) => Self::Initiation,
            Packet::HandshakeResponse(message) => Self::Response(index(message.receiver_idx)),
            Packet::PacketCookieReply(message) => Self::CookieReply(index(message.receiver_idx)),
            Packet::PacketData(message) => Self::Data(index(message.receiver_idx)),
        })
    }

    /// The index of the tunnel that it is for; none for an initiation.
    pub(crate) fn receiver(self) -> Option<u32> {
        match self {
            Self::Initiation => None,
            Self::Response(index) | Self::CookieReply(index) | Self::Data(index) => Some(index),
        }
    }
}

fn index(receiver: u32) -> u32 {
    receiver >> SESSION_BITS
}

/// Why a handshake message is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was not made for our public key.
    BadMac,
    /// Too many come; a cookie of this many bytes was written as answer.
    UnderLoad(usize),
    /// Too many come, and too many of them from this address, which is proved.
    TooMany,
}

/// Our own keys, and the gate that handshakes go through.
pub(crate) struct Identity {
    keys: Arc<Keys>,
    gate: RateLimiter,
    senders: Senders,
}

struct Keys {
    secret: StaticSecret,
    public: PublicKey,
    /// Tunnels check a handshake once more; this one never counts, so that nothing counts twice.
    open_gate: Arc<RateLimiter>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("public", self.keys.public.as_bytes())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The memory that it takes.
    pub(crate) const WORST_CASE_BYTES: usize =
        size_of::<Keys>() + 2 * size_of::<RateLimiter>() + Senders::BYTES;

    pub(crate) fn new(key: &PrivateKey, limits: &Limits, now: Instant) -> Self {
        let secret = StaticSecret::from(*key.expose());
        let public = PublicKey::from(&secret);
        let gate = RateLimiter::new(&public, limits.handshakes_per_s);
        let senders = Senders::new(limits.handshakes_per_address_s, now);
        let open_gate = Arc::new(RateLimiter::new(&public, u64::MAX));
        Self { keys: Arc::new(Keys { secret, public, open_gate }), gate, senders }
    }

    /// Checks a handshake message before it costs anything (WireGuard paper §5.3). A cookie is
    /// written to `reply`, which holds [`HANDSHAKE_MAX_BYTES`].
    pub(crate) fn admit(
        &mut self,
        from: IpAddr,
        message: &[u8],
        reply: &mut [u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        // It does so once a second at most, however often it is told.
        self.gate.reset_count();
        match self.gate.verify_packet(Some(from), message, reply) {
            // Under load only what carries a cookie comes here, and boringtun lets in all of it.
            Ok(_) if has_cookie(message) && !self.senders.admit(from, now) => Err(Refusal::TooMany),
            Ok(_) => Ok(()),
            Err(TunnResult::WriteToNetwork(cookie)) => Err(Refusal::UnderLoad(cookie.len())),
            Err(
                TunnResult::Done
                | TunnResult::Err(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..),
            ) => Err(Refusal::BadMac),
        }
    }

    /// The key of whoever sent this initiation; none if it does not open with ours.
    pub(crate) fn initiator(&self, message: &[u8]) -> Option<WireguardKey> {
        let Keys { secret, public, .. } = &*self.keys;
        match Tunn::parse_incoming_packet(message).ok()? {
            Packet::HandshakeInit(initiation) => {
                let half = parse_handshake_anon(secret, public, &initiation).ok()?;
                Some(WireguardKey::from(half.peer_static_public))
            }
            Packet::HandshakeResponse(_) | Packet::PacketCookieReply(_) | Packet::PacketData(_) => {
                None
            }
        }
    }
}

/// Whether the message's second code is there, which proves a cookie (WireGuard paper §5.4.4).
fn has_cookie(message: &[u8]) -> bool {
    message.last_chunk::<16>().is_some_and(|code| *code != [0; 16])
}

/// What came of a datagram for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    /// It was for the tunnel itself.
    Nothing,
    /// So many bytes of an answer were written.
    Reply(usize),
    /// So many bytes of an inner packet were written.
    Packet(usize),
}

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

/// What a tunnel has to say when its timers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// So many bytes of a repeated or renewed call were written.
    Call(usize),
    /// So many bytes of a keepalive were written.
    Keepalive(usize),
    /// Nobody answered for long: calls have ceased.
    GivenUp,
}

/// The WireGuard state towards one peer. Until the first call from either side it is next to nothing:
/// boringtun takes 11 KB for each, and two X25519 operations to set it up.
pub(crate) struct Tunnel {
    origin: Origin,
    tunn: Option<Box<Tunn>>,
    connected: bool,
    schedule: Schedule,
    ticked_until: Instant,
}

/// What a tunnel is made from.
struct Origin {
    keys: Arc<Keys>,
    peer: WireguardKey,
    preshared: Option<PresharedKey>,
    keepalive_s: Option<u16>,
    index: u32,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// The memory that a tunnel takes beyond itself from the first call on.
    pub(crate) const CALLED_BYTES: usize = size_of::<Tunn>();

    /// A tunnel to `peer`; `index` is below [`INDICES`] and unique among tunnels.
    pub(crate) fn new(
        identity: &Identity,
        peer: &WireguardKey,
        preshared: Option<&PresharedKey>,
        keepalive_s: Option<u16>,
        index: u32,
        now: Instant,
    ) -> Self {
        let keys = Arc::clone(&identity.keys);
        let origin =
            Origin { keys, peer: *peer, preshared: preshared.cloned(), keepalive_s, index };
        Self {
            origin,
            tunn: None,
            connected: false,
            schedule: Schedule::new(keepalive_s, now),
            ticked_until: now,
        }
    }

    /// Whether packets can be sealed.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// How long ago the keys in use were agreed.
    pub(crate) fn handshake_age(&self, _now: Instant) -> Option<Duration> {
        self.tunn.as_ref()?.time_since_last_handshake()
    }

    /// Whether [`tick`](Self::tick) was called lately enough for anything else to be done.
    pub(crate) fn is_ticked(&self, now: Instant) -> bool {
        now < self.ticked_until
    }

    /// Calls the peer unless a call is under way and this is not to be another (`again`): bytes
    /// written to `out`, which holds [`HANDSHAKE_MAX_BYTES`]. Answers to the last two calls count.
    pub(crate) fn call(&mut self, again: bool, now: Instant, out: &mut [u8]) -> Option<usize> {
        debug_assert!(self.is_ticked(now));
        match self.tunn(now).format_handshake_initiation(out, again) {
            TunnResult::WriteToNetwork(call) => {
                let bytes = call.len();
                self.schedule.called();
                Some(bytes)
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Seals `packet`, which is padded already and not empty: bytes written to `out`, which has room
    /// for [`OVERHEAD_BYTES`] more. Only while [`is_connected`](Self::is_connected).
    pub(crate) fn seal(&mut self, packet: &[u8], now: Instant, out: &mut [u8]) -> Option<usize> {
        debug_assert!(self.is_ticked(now));
        match self.tunn.as_mut()?.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(sealed) => {
                self.schedule.sent_data();
                Some(sealed.len())
            }
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Takes a datagram, which was read as `message`. What comes of it is written to `out`, which is as
    /// long as the datagram and holds [`HANDSHAKE_MAX_BYTES`]. A handshake message must have been
    /// admitted before.
    pub(crate) fn open(
        &mut self,
        message: Message,
        datagram: &[u8],
        now: Instant,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        debug_assert!(self.is_ticked(now) || datagram.len() == OVERHEAD_BYTES);
        if self.tunn.is_none() {
            match message {
                Message::Initiation => {}
                Message::Data(_) => return Err(TunnelError::NoKeys),
                Message::Response(_) | Message::CookieReply(_) => {
                    return Err(TunnelError::Handshake);
                }
            }
        }
        let tunn = self.tunn(now);
        let opened = match tunn.decapsulate(None, datagram, out) {
            TunnResult::Done => Opened::Nothing,
            TunnResult::WriteToNetwork(reply) => Opened::Reply(reply.len()),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            TunnResult::Err(error) => return Err(refusal(&error, message)),
        };
        match (message, opened) {
            (Message::Initiation, _) => self.schedule.answered(),
            (Message::Response(_), _) => self.schedule.was_answered(),
            (Message::Data(_), Opened::Packet(_)) => self.schedule.received_data(),
            (Message::CookieReply(_), _)
            | (Message::Data(_), Opened::Nothing | Opened::Reply(_)) => {
                self.schedule.received_other();
            }
        }
        if !self.connected {
            self.look();
        }
        Ok(opened)
    }

    /// Looks at the timers; anything may be done with the tunnel for [`LOOK_AGAIN`] from now, and then
    /// [`next_tick`](Self::next_tick) is to be asked. `out` holds [`HANDSHAKE_MAX_BYTES`].
    pub(crate) fn tick(&mut self, now: Instant, out: &mut [u8]) -> Due {
        self.ticked_until = now + LOOK_AGAIN;
        if !self.schedule.moves_on(now) {
            return Due::Nothing;
        }
        self.schedule.looked(now);
        let Some(tunn) = &mut self.tunn else { return Due::Nothing };
        let due = match tunn.update_timers(out) {
            TunnResult::WriteToNetwork(message) => match Message::read(message) {
                Some(Message::Initiation) => Due::Call(message.len()),
                Some(Message::Response(_) | Message::CookieReply(_) | Message::Data(_)) | None => {
                    Due::Keepalive(message.len())
                }
            },
            TunnResult::Err(_) => Due::GivenUp,
            TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Due::Nothing,
        };
        match due {
            Due::Nothing => {}
            Due::Call(_) => self.schedule.called_by_timer(self.connected),
            Due::Keepalive(_) => self.schedule.sent_keepalive(),
            Due::GivenUp => self.schedule.gave_up(),
        }
        self.look();
        due
    }

    /// When the next [`tick`](Self::tick) is due if nothing is done with the tunnel until then;
    /// whatever is done needs another one before. None if it can rest.
    pub(crate) fn next_tick(&mut self) -> Option<Instant> {
        self.ticked_until = self.schedule.clock();
        let rests = self.tunn.as_ref().is_none_or(|tunn| tunn.is_expired());
        if rests { None } else { self.schedule.next() }
    }

    /// boringtun's state, made now if this is the first that happens.
    fn tunn(&mut self, now: Instant) -> &mut Tunn {
        let Origin { keys, peer, preshared, keepalive_s, index } = &self.origin;
        self.tunn.get_or_insert_with(|| {
            self.schedule = Schedule::new(*keepalive_s, now);
            Box::new(Tunn::new(
                keys.secret.clone(),
                PublicKey::from(*peer.as_bytes()),
                preshared.as_ref().map(|key| *key.expose()),
                *keepalive_s,
                *index,
                Some(Arc::clone(&keys.open_gate)),
            ))
        })
    }

    /// Keys come by a datagram and go by a timer, so that nothing needs to be asked for each packet.
    fn look(&mut self) {
        let tunn = self.tunn.as_ref();
        self.connected = tunn.is_some_and(|tunn| tunn.time_since_last_handshake().is_some());
    }
}

fn refusal(error: &WireGuardError, message: Message) -> TunnelError {
    match message {
        Message::Initiation | Message::Response(_) | Message::CookieReply(_) => {
            return TunnelError::Handshake;
        }
        Message::Data(_) => {}
    }
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => TunnelError::Replayed,
        WireGuardError::NoCurrentSession
        | WireGuardError::WrongIndex
        | WireGuardError::ConnectionExpired => TunnelError::NoKeys,
        WireGuardError::InvalidPacket => TunnelError::NotIp,
        WireGuardError::InvalidAeadTag
        | WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::LockFailed
        | WireGuardError::UnderLoad => TunnelError::Unauthentic,
    }
}

/// The size to which a packet of `bytes` is padded: a multiple of 16, but never past the MTU
/// (WireGuard paper §5.4.6).
pub(crate) fn padded_bytes(bytes: usize, mtu: u16) -> usize {
    bytes.next_multiple_of(PADDING_BYTES).min(bytes.max(mtu.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_padded_to_16_but_not_past_the_mtu() {
        let padded = [0, 1, 16, 17, 1408, 1409, 1420, 1500].map(|bytes| padded_bytes(bytes, 1420));
        assert_eq!(padded, [0, 16, 16, 32, 1408, 1420, 1420, 1500]);
    }
}
