//! WireGuard's messages on the wire (WireGuard paper §5.4): what a datagram says that it is, and where
//! its parts are.
//!
//! Nothing that is read here was authenticated.

use std::ops::Range;

/// Bytes of an initiation (WireGuard paper §5.4.2).
pub(super) const INITIATION_BYTES: usize = 148;
/// Bytes of a response (WireGuard paper §5.4.3).
pub(super) const RESPONSE_BYTES: usize = 92;
/// Bytes of a cookie reply (WireGuard paper §5.4.7).
pub(super) const COOKIE_REPLY_BYTES: usize = 64;
/// Bytes before the inner packet in a data message (WireGuard paper §5.4.6).
pub(crate) const HEADER_BYTES: usize = 16;
/// Header, counter and tag of a data message (WireGuard paper §5.4.6); all of a keepalive.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + partywall_aead::TAG_BYTES;
/// Largest handshake message: the initiation.
pub(crate) const HANDSHAKE_MAX_BYTES: usize = INITIATION_BYTES;
/// A peer's sessions are numbered in the low 8 bits of the receiver index.
const SESSION_BITS: u32 = 8;
/// Tunnel indices, which are the rest of it.
pub(crate) const INDICES: u32 = 1 << (32 - SESSION_BITS);

const INITIATION: u32 = 1;
const RESPONSE: u32 = 2;
const COOKIE_REPLY: u32 = 3;
const DATA: u32 = 4;

/// The sender's index in both handshake messages.
pub(super) const SENDER: Range<usize> = 4..8;
/// The receiver's index in a response.
pub(super) const RESPONSE_RECEIVER: Range<usize> = 8..12;

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
        // The type is one byte and three that must be zero.
        let kind = word(datagram, 0)?;
        Some(match (kind, datagram.len()) {
            (INITIATION, INITIATION_BYTES) => Self::Initiation,
            (RESPONSE, RESPONSE_BYTES) => Self::Response(index(word(datagram, 8)?)),
            (COOKIE_REPLY, COOKIE_REPLY_BYTES) => Self::CookieReply(index(word(datagram, 4)?)),
            (DATA, OVERHEAD_BYTES..) => Self::Data(index(word(datagram, 4)?)),
            _ => return None,
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

/// A tunnel's index of the receiver index of one of its sessions.
fn index(receiver: u32) -> u32 {
    receiver >> SESSION_BITS
}

/// The receiver index of a tunnel's session with this number.
pub(super) fn receiver_index(index: u32, session: u8) -> u32 {
    index << SESSION_BITS | u32::from(session)
}

/// A number in a message, which has them all in little-endian.
pub(super) fn word(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Starts an initiation.
pub(super) fn write_initiation(message: &mut [u8; INITIATION_BYTES], sender: u32) {
    message[..4].copy_from_slice(&INITIATION.to_le_bytes());
    message[SENDER].copy_from_slice(&sender.to_le_bytes());
}

/// Starts a response.
pub(super) fn write_response(message: &mut [u8; RESPONSE_BYTES], sender: u32, receiver: u32) {
    message[..4].copy_from_slice(&RESPONSE.to_le_bytes());
    message[SENDER].copy_from_slice(&sender.to_le_bytes());
    message[RESPONSE_RECEIVER].copy_from_slice(&receiver.to_le_bytes());
}

/// Writes the header of a data message.
pub(super) fn write_data(message: &mut [u8], receiver: u32, counter: u64) {
    message[..4].copy_from_slice(&DATA.to_le_bytes());
    message[4..8].copy_from_slice(&receiver.to_le_bytes());
    message[8..HEADER_BYTES].copy_from_slice(&counter.to_le_bytes());
}

/// Receiver index and counter of a data message.
pub(super) fn read_data(message: &[u8]) -> Option<(u32, u64)> {
    let counter = message.get(8..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
    Some((word(message, 4)?, counter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_what_type_and_length_say_together() {
        for (kind, bytes, message) in [
            (1, 148, Some(Message::Initiation)),
            (1, 147, None),
            (2, 92, Some(Message::Response(0x00aa_bbcc))),
            (2, 148, None),
            (3, 64, Some(Message::CookieReply(0x0011_2233))),
            (3, 65, None),
            (4, 32, Some(Message::Data(0x0011_2233))),
            (4, 1500, Some(Message::Data(0x0011_2233))),
            (4, 31, None),
            (5, 148, None),
            (0, 0, None),
            (0x0100_0001, 148, None),
        ] {
            let mut datagram = [0; 1500];
            datagram[..4].copy_from_slice(&u32::to_le_bytes(kind));
            datagram[4..8].copy_from_slice(&0x1122_3344_u32.to_le_bytes());
            datagram[8..12].copy_from_slice(&0xaabb_ccdd_u32.to_le_bytes());
            assert_eq!(Message::read(&datagram[..bytes]), message, "type {kind}, {bytes} bytes");
        }
    }
}
