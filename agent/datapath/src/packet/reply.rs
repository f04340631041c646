//! The IP header of a packet that answers another one.
//!
//! It comes from where the other was sent to: that is where its sender routes to, so that no strict
//! reverse path filter drops it, and no address is invented.

use super::checksum::{Sum, pseudo_header};
use super::{Family, Packet};

const V4_HEADER_BYTES: usize = 20;
const V6_HEADER_BYTES: usize = 40;
const DO_NOT_FRAGMENT: u16 = 0x4000;
/// Linux's own default; one hop is all that it travels.
const HOPS: u8 = 64;

/// How long an answer's header is.
pub(super) fn header_bytes(family: Family) -> usize {
    match family {
        Family::V4 => V4_HEADER_BYTES,
        Family::V6 => V6_HEADER_BYTES,
    }
}

/// Writes the header of the answer to `packet`, which carries `upper_bytes` of `protocol`; the sum of the
/// pseudo-header.
///
/// `ip` must be as long as [`header_bytes`] says, and the answer shorter than 65,536 bytes.
pub(super) fn write_header(
    packet: &Packet<'_>,
    class: u8,
    protocol: u8,
    upper_bytes: usize,
    ip: &mut [u8],
) -> Sum {
    let (source, destination) = (packet.destination.bits(), packet.source.bits());
    ip.fill(0);
    match packet.source.family() {
        Family::V4 => {
            ip[0] = 0x45;
            ip[1] = class;
            ip[2..4].copy_from_slice(&((V4_HEADER_BYTES + upper_bytes) as u16).to_be_bytes());
            // A packet that is never cut up needs no identification (RFC 6864 §4.1).
            ip[6..8].copy_from_slice(&DO_NOT_FRAGMENT.to_be_bytes());
            ip[8] = HOPS;
            ip[9] = protocol;
            ip[12..16].copy_from_slice(&source.to_be_bytes()[12..]);
            ip[16..20].copy_from_slice(&destination.to_be_bytes()[12..]);
            let sum = Sum::of(ip).checksum();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            pseudo_header(&ip[12..20], protocol, upper_bytes)
        }
        Family::V6 => {
            ip[..2].copy_from_slice(&(0x6000 | u16::from(class) << 4).to_be_bytes());
            ip[4..6].copy_from_slice(&(upper_bytes as u16).to_be_bytes());
            ip[6] = protocol;
            ip[7] = HOPS;
            ip[8..24].copy_from_slice(&source.to_be_bytes());
            ip[24..40].copy_from_slice(&destination.to_be_bytes());
            pseudo_header(&ip[8..40], protocol, upper_bytes)
        }
    }
}
