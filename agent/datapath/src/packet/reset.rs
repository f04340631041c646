//! Writes the reset that ends a connection which a packet asks for.
//!
//! An ICMP error that arrives while a program is still inside its call of `connect` is forgotten by Linux
//! (`tcp_v4_err`, counted as `LockDroppedIcmps`), and the program would wait a second for the next try. A
//! segment that arrives then is kept until the call has gone to sleep.

use super::reply::{header_bytes, write_header};
use super::{Ipv4, Ipv6, Packet, Payload, TCP};

/// Ports, numbers, flags, window, checksum, and no options (RFC 9293 §3.1).
const TCP_HEADER_BYTES: usize = 20;
/// RST and ACK.
const RESET: u8 = 0x14;

/// Writes the reset to `packet`'s sender; its length, or none if that opens no connection or there is no
/// room.
pub(crate) fn write_reset(packet: &Packet<'_>, room: &mut [u8]) -> Option<usize> {
    let Payload::Tcp(tcp) = packet.payload else { return None };
    if !tcp.flags.opens() || packet.fragment.is_some() {
        return None;
    }
    let asked = match packet.bytes.first()? >> 4 {
        4 => Ipv4::new_checked(packet.bytes).ok()?.payload,
        _ => Ipv6::new_checked(packet.bytes).ok()?.payload,
    };
    let sequence = u32::from_be_bytes(*asked.get(4..)?.first_chunk()?);
    let data_bytes = asked.len() - usize::from(asked.get(12)? >> 4) * 4;
    // All of the segment is acknowledged: its SYN, and what it brings (RFC 9293 §3.10.7.1).
    let acknowledged = sequence.wrapping_add(1).wrapping_add(data_bytes as u32);

    let header = header_bytes(packet.source.family());
    let total = header + TCP_HEADER_BYTES;
    let (ip, segment) = room.get_mut(..total)?.split_at_mut(header);
    let addresses = write_header(packet, 0, TCP, TCP_HEADER_BYTES, ip);
    segment.fill(0);
    segment[..2].copy_from_slice(&tcp.destination_port.to_be_bytes());
    segment[2..4].copy_from_slice(&tcp.source_port.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    segment[12] = (TCP_HEADER_BYTES as u8 / 4) << 4;
    segment[13] = RESET;
    let sum = addresses.and(segment).checksum();
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet;
    use crate::packet::checksum::{Sum, pseudo_header};
    use crate::testing::{ACK, RST, SYN, packet, part, syn, tcp, udp};

    fn reset(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut room = [0xee; 60];
        let written = write_reset(&packet::parse(bytes).unwrap(), &mut room)?;
        Some(room[..written].to_vec())
    }

    #[test]
    fn it_goes_back_between_the_same_ports_and_acknowledges_all_of_the_segment() {
        for (from, to) in [("10.64.0.5", "10.1.0.80"), ("fd64::5", "fd01::80")] {
            for (sequence, data_bytes, acknowledged) in
                [(7, 0, 8_u32), (7, 500, 508), (u32::MAX, 0, 0), (u32::MAX, 3, 3)]
            {
                let asked = packet(from, to, &syn(40_000, 80, sequence, data_bytes));
                let answer = reset(&asked).unwrap();
                let (asked, read) =
                    (packet::parse(&asked).unwrap(), packet::parse(&answer).unwrap());
                assert_eq!(read.bytes.len(), answer.len());
                assert_eq!((read.source, read.destination), (asked.destination, asked.source));
                let Payload::Tcp(tcp) = read.payload else { panic!("{read:?}") };
                assert_eq!((tcp.source_port, tcp.destination_port), (80, 40_000));
                assert!(tcp.flags.rst() && tcp.flags.ack() && !tcp.flags.syn());
                let segment = &answer[answer.len() - 20..];
                assert_eq!(
                    (&segment[4..8], &segment[8..12]),
                    (&[0; 4][..], &acknowledged.to_be_bytes()[..])
                );
            }
        }
    }

    #[test]
    fn its_checksums_hold() {
        let four = reset(&packet("10.64.0.5", "10.1.0.80", &syn(40_000, 80, 7, 0))).unwrap();
        assert!(Sum::of(&four[..20]).holds());
        assert!(pseudo_header(&four[12..20], TCP, 20).and(&four[20..]).holds());
        let six = reset(&packet("fd64::5", "fd01::80", &syn(40_000, 80, 7, 0))).unwrap();
        assert!(pseudo_header(&six[8..40], TCP, 20).and(&six[40..]).holds());
    }

    #[test]
    fn whatever_opens_no_connection_has_none_and_nothing_is_written_without_room() {
        for upper in [
            tcp(40_000, 80, SYN | ACK),
            tcp(40_000, 80, ACK),
            tcp(40_000, 80, RST),
            udp(5000, 53, 30),
        ] {
            assert_eq!(reset(&packet("10.64.0.5", "10.1.0.80", &upper)), None);
        }
        let long = syn(40_000, 80, 7, 100);
        assert_eq!(reset(&part("10.64.0.5", "10.1.0.80", &long, 0..64, 9)), None);
        let asked = packet("10.64.0.5", "10.1.0.80", &syn(40_000, 80, 7, 0));
        let asked = packet::parse(&asked).unwrap();
        assert_eq!(write_reset(&asked, &mut [0; 39]), None);
        assert_eq!(write_reset(&asked, &mut [0; 40]), Some(40));
    }
}
