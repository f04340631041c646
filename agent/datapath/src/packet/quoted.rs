//! The packet that an ICMP error quotes: enough of it to find its flow.
//!
//! It travelled the other way: whoever receives the error sent it, or so the error claims.

use super::bytes::{u8_at, u16_at};
use super::{Address, Family, ICMP, ICMPV6, Ipv4, Ipv6, TCP, UDP};

/// What is above IP in a quoted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotedPayload {
    /// TCP from port to port.
    Tcp(u16, u16),
    /// UDP from port to port.
    Udp(u16, u16),
    /// An echo request's identifier.
    EchoRequest(u16),
    /// An echo reply's identifier.
    EchoReply(u16),
}

/// A quoted packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Its source.
    pub source: Address,
    /// Its destination.
    pub destination: Address,
    /// What it carried.
    pub payload: QuotedPayload,
}

impl Quoted {
    /// Reads a quote, of which at least 8 bytes of transport header must be there (RFC 792, RFC 4443
    /// §2.4). None where it is no packet that could belong to a flow, another ICMP error included.
    pub(super) fn read(family: Family, bytes: &[u8]) -> Option<Self> {
        let (source, destination, protocol, fragment, rest) = match family {
            Family::V4 => {
                let header = Ipv4::quoted(bytes)?;
                let Ipv4 { source, destination, protocol, fragment, .. } = header;
                (source, destination, protocol, fragment, header.payload)
            }
            Family::V6 => {
                let header = Ipv6::quoted(bytes)?;
                let Ipv6 { source, destination, protocol, fragment, .. } = header;
                (source, destination, protocol, fragment, header.payload)
            }
        };
        if rest.len() < 8 || fragment.is_some_and(|part| !part.is_first()) {
            return None;
        }
        let payload = match (family, protocol) {
            (_, TCP) => QuotedPayload::Tcp(u16_at(rest, 0)?, u16_at(rest, 2)?),
            (_, UDP) => QuotedPayload::Udp(u16_at(rest, 0)?, u16_at(rest, 2)?),
            (Family::V4, ICMP) | (Family::V6, ICMPV6) => match (family, u8_at(rest, 0)?) {
                (Family::V4, 8) | (Family::V6, 128) => QuotedPayload::EchoRequest(u16_at(rest, 4)?),
                (Family::V4, 0) | (Family::V6, 129) => QuotedPayload::EchoReply(u16_at(rest, 4)?),
                (Family::V4 | Family::V6, _) => return None,
            },
            (Family::V4 | Family::V6, _) => return None,
        };
        Some(Self { source, destination, payload })
    }
}
