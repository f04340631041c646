//! WireGuard: the only file that names boringtun.
//!
//! Functions take `now` although boringtun reads the clock itself, so that the choice of library stays
//! reversible. boringtun's own queue of unsent packets stays empty of packets: what it queues was
//! judged under rules that may be gone when it is sent.

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

use crate::settings::PrivateKey;

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
}

/// Our own keys, and the gate that handshakes go through.
pub(crate) struct Identity {
    secret: StaticSecret,
    public: PublicKey,
    gate: RateLimiter,
    /// Tunnels check a handshake once more; this one never counts, so that nothing counts twice.
    open_gate: Arc<RateLimiter>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("public", self.public.as_bytes()).finish_non_exhaustive()
    }
}

impl Identity {
    pub(crate) fn new(key: &PrivateKey, handshakes_per_s: u64) -> Self {
        let secret = StaticSecret::from(*key.expose());
        let public = PublicKey::from(&secret);
        let gate = RateLimiter::new(&public, handshakes_per_s);
        let open_gate = Arc::new(RateLimiter::new(&public, u64::MAX));
        Self { secret, public, gate, open_gate }
    }

    /// Checks a handshake message before it costs anything (WireGuard paper §5.3). A cookie is
    /// written to `reply`, which holds [`HANDSHAKE_MAX_BYTES`].
    pub(crate) fn admit(
        &self,
        from: IpAddr,
        message: &[u8],
        reply: &mut [u8],
        _now: Instant,
    ) -> Result<(), Refusal> {
        match self.gate.verify_packet(Some(from), message, reply) {
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
        match Tunn::parse_incoming_packet(message).ok()? {
            Packet::HandshakeInit(initiation) => {
                let half = parse_handshake_anon(&self.secret, &self.public, &initiation).ok()?;
                Some(WireguardKey::from(half.peer_static_public))
            }
            Packet::HandshakeResponse(_) | Packet::PacketCookieReply(_) | Packet::PacketData(_) => {
                None
            }
        }
    }

    /// Call this a few times a second: the gate counts by the second.
    pub(crate) fn tick(&self, _now: Instant) {
        self.gate.reset_count();
    }
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

/// The WireGuard state towards one peer.
pub(crate) struct Tunnel {
    tunn: Tunn,
    connected: bool,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// A tunnel to `peer`; `index` is below [`INDICES`] and unique among tunnels.
    pub(crate) fn new(
        identity: &Identity,
        peer: &WireguardKey,
        preshared: Option<&PresharedKey>,
        keepalive_s: Option<u16>,
        index: u32,
        _now: Instant,
    ) -> Self {
        let tunn = Tunn::new(
            identity.secret.clone(),
            PublicKey::from(*peer.as_bytes()),
            preshared.map(|key| *key.expose()),
            keepalive_s,
            index,
            Some(Arc::clone(&identity.open_gate)),
        );
        Self { tunn, connected: false }
    }

    /// Whether packets can be sealed.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// How long ago the keys in use were agreed.
    pub(crate) fn handshake_age(&self, _now: Instant) -> Option<Duration> {
        self.tunn.time_since_last_handshake()
    }

    /// Calls the peer unless a call is under way and this is not to be another (`again`): bytes
    /// written to `out`, which holds [`HANDSHAKE_MAX_BYTES`]. Answers to the last two calls count.
    pub(crate) fn call(&mut self, again: bool, _now: Instant, out: &mut [u8]) -> Option<usize> {
        match self.tunn.format_handshake_initiation(out, again) {
            TunnResult::WriteToNetwork(call) => Some(call.len()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Seals `packet`, which is padded already: bytes written to `out`, which has room for
    /// [`OVERHEAD_BYTES`] more. Only while [`is_connected`](Self::is_connected).
    pub(crate) fn seal(&mut self, packet: &[u8], _now: Instant, out: &mut [u8]) -> Option<usize> {
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(sealed) => Some(sealed.len()),
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => None,
        }
    }

    /// Takes a datagram. What comes of it is written to `out`, which is as long as the datagram and
    /// holds [`HANDSHAKE_MAX_BYTES`]. A handshake message must have been admitted before.
    pub(crate) fn open(
        &mut self,
        datagram: &[u8],
        _now: Instant,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        let opened = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Done => Opened::Nothing,
            TunnResult::WriteToNetwork(reply) => Opened::Reply(reply.len()),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            TunnResult::Err(error) => return Err(refusal(&error, datagram)),
        };
        if !self.connected {
            self.look();
        }
        Ok(opened)
    }

    /// Looks at the timers; call it a few times a second. `out` holds [`HANDSHAKE_MAX_BYTES`].
    pub(crate) fn tick(&mut self, _now: Instant, out: &mut [u8]) -> Due {
        let due = match self.tunn.update_timers(out) {
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
        self.look();
        due
    }

    /// Keys come by a datagram and go by a timer, so that nothing needs to be asked for each packet.
    fn look(&mut self) {
        self.connected = self.tunn.time_since_last_handshake().is_some();
    }
}

fn refusal(error: &WireGuardError, datagram: &[u8]) -> TunnelError {
    let Some(Message::Data(_)) = Message::read(datagram) else { return TunnelError::Handshake };
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
