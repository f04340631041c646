//! Packets as the filter sees them: checked views that borrow the bytes and copy what is judged.
//!
//! Nothing here indexes without a check: hostile bytes end as a [`PacketError`], never as a panic.
//! Every length comes from the IP header and not from the buffer, which may carry padding.

mod address;
mod bytes;
pub(crate) mod checksum;
mod ecn;
mod icmp;
mod ipv4;
mod ipv6;
mod prefix_table;
mod prohibited;
mod quoted;
mod reply;
mod reset;
mod tcp;
mod udp;

pub use address::{Address, Family};
pub use ecn::Ecn;
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use prefix_table::PrefixTable;
pub(crate) use prohibited::{PROHIBITED_MAX_BYTES, may_be_answered, write_prohibited};
pub use quoted::{Quoted, QuotedPayload};
pub(crate) use reset::write_reset;
pub use tcp::{Tcp, TcpFlags};
pub use udp::Udp;

/// Why bytes are no packet that could be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not IP, cut short, or with lengths that contradict each other.
    #[error("not an IP packet, or its lengths contradict each other")]
    Malformed,
    /// Something else than TCP, UDP and ICMP above IP.
    #[error("neither TCP nor UDP nor ICMP")]
    UnsupportedProtocol,
    /// More extension headers than are walked, or one that is not known.
    #[error("too many extension headers, or one that is not known")]
    ExtensionHeaders,
    /// An IPv4 source route option or an IPv6 routing header.
    #[error("a route chosen by the sender")]
    SourceRoute,
    /// A first fragment without the whole transport header (RFC 1858, RFC 7112).
    #[error("a first fragment too short to judge")]
    FragmentTooShort,
}

/// A part of a packet that was cut up on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The same for all parts of one packet: IPv6's identification, or IPv4's with the protocol
    /// number above it, which is part of the identity there (RFC 791 §3.2).
    pub id: u32,
    /// Where this part begins, in bytes of the packet's payload.
    pub offset_bytes: u16,
    /// Where it ends; at most 65,535.
    pub end_bytes: u16,
    /// Whether parts come after this one.
    pub more: bool,
}

impl Fragment {
    /// A checked fragment, or none if this is a whole packet (an atomic fragment, RFC 6946).
    ///
    /// # Errors
    /// A part that would end past the largest packet, an empty part, or one that is not the last and
    /// whose size is no multiple of 8 (RFC 791 §3.2, RFC 8200 §4.5).
    fn new(id: u32, units: u16, more: bool, bytes: usize) -> Result<Option<Self>, PacketError> {
        if units == 0 && !more {
            return Ok(None);
        }
        let offset_bytes = units.checked_mul(8).ok_or(PacketError::Malformed)?;
        let end = usize::from(offset_bytes) + bytes;
        let end_bytes = u16::try_from(end).map_err(|_| PacketError::Malformed)?;
        if bytes == 0 || (more && !bytes.is_multiple_of(8)) {
            return Err(PacketError::Malformed);
        }
        Ok(Some(Self { id, offset_bytes, end_bytes, more }))
    }

    /// Whether this is the part that carries the transport header.
    pub fn is_first(&self) -> bool {
        self.offset_bytes == 0
    }
}

/// What a packet carries above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// ICMP or ICMPv6.
    Icmp(Icmp),
    /// A part without a transport header; only its first part says what it is.
    LaterFragment,
}

/// A packet that can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The packet's own bytes, without what may come after it in the buffer.
    pub bytes: &'a [u8],
    /// Where it says that it comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Which part of a larger packet it is; none for a whole one.
    pub fragment: Option<Fragment>,
    /// What it carries.
    pub payload: Payload,
}

impl Packet<'_> {
    /// Whether nothing that a rule or a flow could see tells this packet from `other`: both are whole, of one
    /// conversation, and neither begins nor ends it.
    pub(crate) fn is_like(&self, other: &Packet<'_>) -> bool {
        let is_midway = match self.payload {
            Payload::Tcp(Tcp { flags, .. }) => !(flags.syn() || flags.fin() || flags.rst()),
            Payload::Udp(_) => true,
            Payload::Icmp(_) | Payload::LaterFragment => false,
        };
        is_midway
            && self.fragment.is_none()
            && other.fragment.is_none()
            && self.payload == other.payload
            && self.source == other.source
            && self.destination == other.destination
    }
}

/// IP protocol numbers that are understood (IANA, protocol-numbers).
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Reads a packet.
///
/// # Errors
/// Whatever is wrong with it. Any bytes may be passed.
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, PacketError> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => parse_ipv4(&Ipv4::new_checked(bytes)?),
        Some(6) => parse_ipv6(&Ipv6::new_checked(bytes)?),
        Some(_) | None => Err(PacketError::Malformed),
    }
}

#[inline]
fn parse_ipv4<'a>(header: &Ipv4<'a>) -> Result<Packet<'a>, PacketError> {
    if header.source_route {
        return Err(PacketError::SourceRoute);
    }
    Ok(Packet {
        bytes: header.bytes,
        source: header.source,
        destination: header.destination,
        fragment: header.fragment,
        payload: payload(Family::V4, header.protocol, header.payload, header.fragment)?,
    })
}

#[inline]
fn parse_ipv6<'a>(header: &Ipv6<'a>) -> Result<Packet<'a>, PacketError> {
    Ok(Packet {
        bytes: header.bytes,
        source: header.source,
        destination: header.destination,
        fragment: header.fragment,
        payload: payload(Family::V6, header.protocol, header.payload, header.fragment)?,
    })
}

#[inline]
fn payload(
    family: Family,
    protocol: u8,
    bytes: &[u8],
    fragment: Option<Fragment>,
) -> Result<Payload, PacketError> {
    let whole = fragment.is_none();
    if fragment.is_some_and(|part| !part.is_first()) {
        return Ok(Payload::LaterFragment);
    }
    let read = match (family, protocol) {
        (_, TCP) => Tcp::new_checked(bytes).map(Payload::Tcp),
        (_, UDP) => Udp::new_checked(bytes, whole).map(Payload::Udp),
        (Family::V4, ICMP) | (Family::V6, ICMPV6) => {
            Icmp::new_checked(family, bytes).map(Payload::Icmp)
        }
        (_, _) => return Err(PacketError::UnsupportedProtocol),
    };
    read.ok_or(if whole { PacketError::Malformed } else { PacketError::FragmentTooShort })
}

#[cfg(test)]
mod tests;
