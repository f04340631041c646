//! Writes the ICMP error that tells a sender at once that its packet is administratively prohibited.
//!
//! Whether it may be sent at all (RFC 1122 §3.2.2) is [`may_be_answered`]'s to say, and must be asked first.

use super::checksum::Sum;
use super::reply::{header_bytes, write_header};
use super::{Address, Family, ICMP, ICMPV6, Icmp, Packet, Payload};

/// The error in full, of an IPv4 packet: RFC 1812 §4.3.2.3.
const V4_MAX_BYTES: usize = 576;
/// Of an IPv6 packet: the smallest MTU (RFC 4443 §3.1).
const V6_MAX_BYTES: usize = 1280;
/// Type, code, checksum and four bytes of zero (RFC 792, RFC 4443 §3.1).
const ICMP_HEADER_BYTES: usize = 8;
/// Destination unreachable, communication administratively prohibited (RFC 1812 §5.2.7.1).
const V4_PROHIBITED: [u8; 2] = [3, 13];
/// The same of IPv6 (RFC 4443 §3.1).
const V6_PROHIBITED: [u8; 2] = [1, 1];
/// "Internetwork control", as errors are marked (RFC 1812 §4.3.2.5).
const V4_PRECEDENCE: u8 = 0xc0;

/// The most that [`write_prohibited`] writes.
pub(crate) const PROHIBITED_MAX_BYTES: usize = V6_MAX_BYTES;

/// Whether an error may be sent about this packet: not about an error or whatever else of ICMP is no
/// echo, not to or from a group, not to nobody, and not about a later fragment (RFC 1122 §3.2.2, RFC
/// 4443 §2.4).
pub(crate) fn may_be_answered(packet: &Packet<'_>) -> bool {
    let asks = match packet.payload {
        Payload::Tcp(_) | Payload::Udp(_) | Payload::Icmp(Icmp::EchoRequest { .. }) => true,
        Payload::Icmp(Icmp::EchoReply { .. } | Icmp::Error { .. } | Icmp::Other)
        | Payload::LaterFragment => false,
    };
    let single = |address: Address| !address.never_travels() && !address.is_group();
    asks && single(packet.source) && single(packet.destination)
}

/// Writes the error about `packet` to its sender; its length, or none if there is no room.
pub(crate) fn write_prohibited(packet: &Packet<'_>, room: &mut [u8]) -> Option<usize> {
    let family = packet.source.family();
    let (max, class, protocol, kind) = match family {
        Family::V4 => (V4_MAX_BYTES, V4_PRECEDENCE, ICMP, V4_PROHIBITED),
        Family::V6 => (V6_MAX_BYTES, 0, ICMPV6, V6_PROHIBITED),
    };
    let header = header_bytes(family);
    let quote = packet.bytes.len().min(max - header - ICMP_HEADER_BYTES);
    let total = header + ICMP_HEADER_BYTES + quote;
    let (ip, icmp) = room.get_mut(..total)?.split_at_mut(header);
    let addresses = write_header(packet, class, protocol, icmp.len(), ip);
    icmp[..ICMP_HEADER_BYTES].fill(0);
    icmp[..2].copy_from_slice(&kind);
    icmp[ICMP_HEADER_BYTES..].copy_from_slice(&packet.bytes[..quote]);
    // ICMPv6 alone sums the addresses too (RFC 4443 §2.3).
    let sum = match family {
        Family::V4 => Sum::of(icmp),
        Family::V6 => addresses.and(icmp),
    };
    icmp[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::pseudo_header;
    use crate::packet::{self, QuotedPayload};
    use crate::testing::{SYN, icmp, packet, part, ping, pong, tcp, udp, unreachable};

    fn about(bytes: &[u8]) -> Vec<u8> {
        let mut room = [0xee; PROHIBITED_MAX_BYTES];
        let written = write_prohibited(&packet::parse(bytes).unwrap(), &mut room).unwrap();
        room[..written].to_vec()
    }

    #[test]
    fn it_goes_back_from_the_destination_and_quotes_the_packet() {
        for (from, to, header) in [("10.64.0.5", "10.1.0.80", 20), ("fd64::5", "fd01::80", 40)] {
            let refused = packet(from, to, &tcp(40_000, 80, SYN));
            let error = about(&refused);
            assert_eq!(error[header..header + 2], if header == 20 { [3, 13] } else { [1, 1] });
            assert_eq!(error[header + 8..], refused);
            let asked = packet::parse(&refused).unwrap();
            let read = packet::parse(&error).unwrap();
            assert_eq!((read.source, read.destination), (asked.destination, asked.source));
            let Payload::Icmp(Icmp::Error { quoted: Some(quoted) }) = read.payload else {
                panic!("{read:?}");
            };
            assert_eq!((quoted.source, quoted.destination), (asked.source, asked.destination));
            assert_eq!(quoted.payload, QuotedPayload::Tcp(40_000, 80));
        }
    }

    #[test]
    fn its_checksums_hold_and_a_large_packet_is_quoted_as_far_as_the_rfcs_say() {
        // An odd length, so that the last byte stands alone in the sum.
        for payload in [1, 30, 548, 1231, 9001] {
            let four = about(&packet("10.64.0.5", "10.1.0.80", &udp(5000, 53, payload)));
            assert_eq!(four.len(), (28 + 20 + 8 + payload).min(576));
            assert!(Sum::of(&four[..20]).holds() && Sum::of(&four[20..]).holds());
            let six = about(&packet("fd64::5", "fd01::80", &udp(5000, 53, payload)));
            assert_eq!(six.len(), (48 + 40 + 8 + payload).min(1280));
            assert!(pseudo_header(&six[8..40], ICMPV6, six.len() - 40).and(&six[40..]).holds());
        }
    }

    #[test]
    fn without_room_nothing_is_written() {
        let refused = packet("10.64.0.5", "10.1.0.80", &udp(5000, 53, 10));
        let refused = packet::parse(&refused).unwrap();
        assert_eq!(write_prohibited(&refused, &mut [0; 28 + 37]), None);
        assert_eq!(write_prohibited(&refused, &mut [0; 28 + 38]), Some(28 + 38));
    }

    #[test]
    fn errors_groups_nobody_and_later_fragments_are_not_answered() {
        let answered = |bytes: &[u8]| may_be_answered(&packet::parse(bytes).unwrap());
        let between = |from, to| answered(&packet(from, to, &udp(5000, 53, 10)));
        assert!(between("10.64.0.5", "10.1.0.80") && between("fd64::5", "fd01::80"));
        assert!(answered(&packet("10.64.0.5", "10.1.0.80", &ping(7, true))));
        for (from, to) in [
            ("10.64.0.5", "224.0.0.251"),
            ("10.64.0.5", "255.255.255.255"),
            ("0.0.0.0", "10.1.0.80"),
            ("127.0.0.1", "10.1.0.80"),
            ("240.0.0.1", "10.1.0.80"),
            ("fd64::5", "ff02::fb"),
            ("::", "fd01::80"),
            ("ff02::1", "fd01::80"),
        ] {
            assert!(!between(from, to), "{from} to {to}");
        }
        let quoted = packet("10.1.0.80", "10.64.0.5", &udp(53, 5000, 10));
        for upper in [unreachable(&quoted, true), pong(7, true), icmp(13, 133, 0, &[0; 12], true)] {
            assert!(!answered(&packet("10.64.0.5", "10.1.0.80", &upper)));
        }
        let long = udp(5000, 53, 100);
        assert!(answered(&part("10.64.0.5", "10.1.0.80", &long, 0..64, 9)));
        assert!(!answered(&part("10.64.0.5", "10.1.0.80", &long, 64..108, 9)));
    }
}
