//! Where the parts of a TCP or UDP packet are, as far as offloads care.
//!
//! Only packets that can be merged have a layout: whole, without IPv6 extension headers, with lengths
//! that agree. Everything else travels by itself.

use crate::packet::checksum::{Sum, pseudo_header};

const IPV4_MIN_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_MIN_BYTES: usize = 20;
pub(super) const UDP_BYTES: usize = 8;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// More fragments, or an offset: a part of a packet (RFC 791 §3.1).
const FRAGMENT: u16 = 0x3fff;

/// The longest headers that a layout has: IPv4 with all its options and TCP with all of its own.
pub(super) const HEADERS_MAX_BYTES: usize = 60 + 60;

/// What is above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upper {
    Tcp,
    Udp,
}

impl Upper {
    pub(super) fn protocol(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }

    /// Where the checksum is in the transport header.
    pub(super) fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// The parts of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) upper: Upper,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// Where the payload begins.
    pub(super) payload: usize,
}

impl Layout {
    /// The layout of `packet`, which must be all of the packet and nothing more; none if it is to
    /// travel by itself.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (protocol, transport, total) = match packet.first()? >> 4 {
            4 => {
                let header: &[u8; IPV4_MIN_BYTES] = packet.first_chunk()?;
                let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
                let transport = usize::from(header[0] & 0xf) * 4;
                if transport < IPV4_MIN_BYTES || word(6) & FRAGMENT != 0 {
                    return None;
                }
                (header[9], transport, usize::from(word(2)))
            }
            6 => {
                let header: &[u8; IPV6_BYTES] = packet.first_chunk()?;
                let payload = u16::from_be_bytes([header[4], header[5]]);
                (header[6], IPV6_BYTES, IPV6_BYTES + usize::from(payload))
            }
            _ => return None,
        };
        if total != packet.len() {
            return None;
        }
        let rest = packet.get(transport..)?;
        let (upper, header) = match protocol {
            TCP => (Upper::Tcp, usize::from(rest.get(12)? >> 4) * 4),
            UDP => (Upper::Udp, UDP_BYTES),
            _ => return None,
        };
        let least = if upper == Upper::Tcp { TCP_MIN_BYTES } else { UDP_BYTES };
        (header >= least && header <= rest.len()).then_some(Self {
            upper,
            transport,
            payload: transport + header,
        })
    }

    /// The sum of the pseudo-header of a packet with these headers and so many bytes above IP.
    pub(super) fn pseudo_header(&self, headers: &[u8], bytes: usize) -> Sum {
        let addresses = if headers[0] >> 4 == 4 { 12..20 } else { 8..40 };
        pseudo_header(&headers[addresses], self.upper.protocol(), bytes)
    }

    /// Whether the transport checksum of `packet`, which has this layout, is there and right. `sum` is that of
    /// all that is above IP.
    pub(super) fn checksum_holds(&self, packet: &[u8], sum: Sum) -> bool {
        let above = &packet[self.transport..];
        let at = self.upper.checksum_at();
        // A UDP checksum of zero is none (RFC 768).
        let given = self.upper == Upper::Tcp || above[at..at + 2] != [0, 0];
        given && sum.and_sum(self.pseudo_header(packet, above.len())).holds()
    }

    /// Whether two packets with this layout differ in nothing that a merged packet has only once:
    /// everything of IP but lengths, identification and checksum, and the ports.
    pub(super) fn same_flow(&self, one: &[u8], other: &[u8]) -> bool {
        let ports = self.transport..self.transport + 4;
        if one[ports.clone()] != other[ports] {
            return false;
        }
        if one[0] >> 4 == 4 {
            one[..2] == other[..2]
                && one[6..10] == other[6..10]
                && one[12..self.transport] == other[12..self.transport]
        } else {
            one[..4] == other[..4] && one[6..IPV6_BYTES] == other[6..IPV6_BYTES]
        }
    }
}

/// Writes the length of an IP packet into its header, and IPv4's checksum.
pub(super) fn write_length(headers: &mut [u8], transport: usize, total: usize) {
    // Whoever calls has bounded it: nothing here makes packets that IP cannot carry.
    let total = total as u16;
    if headers[0] >> 4 == 4 {
        headers[2..4].copy_from_slice(&total.to_be_bytes());
        headers[10..12].fill(0);
        let checksum = Sum::of(&headers[..transport]).checksum();
        headers[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        headers[4..6].copy_from_slice(&(total - IPV6_BYTES as u16).to_be_bytes());
    }
}
