//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and errors with the packet that they quote.

use super::bytes::{u8_at, u16_at};
use super::{Family, Quoted};

/// Type, code, checksum and the four bytes that every message has.
const HEADER_BYTES: usize = 8;

/// A checked ICMP or ICMPv6 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmp {
    /// Echo request.
    EchoRequest {
        /// Tells one ping from another.
        identifier: u16,
    },
    /// Echo reply.
    EchoReply {
        /// The request's.
        identifier: u16,
    },
    /// Unreachable, too big, time exceeded or parameter problem.
    Error {
        /// The packet that it is about; none where the quote cannot be read.
        quoted: Option<Quoted>,
    },
    /// Redirects, neighbour discovery, timestamps and whatever else.
    Other,
}

impl Icmp {
    /// Reads the message; none if it is cut short.
    pub fn new_checked(family: Family, bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(HEADER_BYTES..)?;
        let identifier = u16_at(bytes, 4)?;
        Some(match (family, u8_at(bytes, 0)?) {
            (Family::V4, 8) | (Family::V6, 128) => Self::EchoRequest { identifier },
            (Family::V4, 0) | (Family::V6, 129) => Self::EchoReply { identifier },
            // Source quench (4) and redirect (5) are not among the errors: RFC 6633, and nobody
            // tells a device another way.
            (Family::V4, 3 | 11 | 12) | (Family::V6, 1..=4) => {
                Self::Error { quoted: Quoted::read(family, rest) }
            }
            (Family::V4 | Family::V6, _) => Self::Other,
        })
    }
}
