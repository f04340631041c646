//! Packets as a hostile peer writes them: every field can be wrong, none is wrong by accident.
//!
//! Lengths and checksums are right unless a row of the table breaks them after [`Packet::bytes`], so a
//! drop is never owed to a mistake made here.

use std::net::{IpAddr, SocketAddr};

/// IP protocol numbers (IANA).
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMP6: u8 = 58;
/// IPv6's "nothing follows" (RFC 8200 §4.7).
pub const NO_NEXT: u8 = 59;

/// TCP flags (RFC 9293 §3.1).
pub const FIN: u8 = 0x01;
/// Synchronise.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// Acknowledgement.
pub const ACK: u8 = 0x10;
/// Urgent.
pub const URG: u8 = 0x20;

/// Where a fragment lies in its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// In bytes, a multiple of 8.
    pub offset_bytes: u32,
    /// Whether more fragments follow.
    pub more: bool,
    /// Shared by the fragments of one packet.
    pub id: u32,
}

/// An IP packet in the making.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Both addresses are of one family.
    pub source: IpAddr,
    /// Both addresses are of one family.
    pub destination: IpAddr,
    /// Of the body, behind all extension headers.
    pub protocol: u8,
    /// IPv4 options, padded to 4 bytes here.
    pub options: Vec<u8>,
    /// IPv6 extension headers: kind, and everything after the length byte, padded to 8 bytes here.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Set on a fragment.
    pub fragment: Option<Fragment>,
    /// What IP carries.
    pub body: Vec<u8>,
}

impl Packet {
    /// A packet of any protocol.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, body: Vec<u8>) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one family to a packet");
        Self {
            source,
            destination,
            protocol,
            options: vec![],
            extensions: vec![],
            fragment: None,
            body,
        }
    }

    /// A TCP segment without payload.
    pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Self {
        let mut body = ports(from, to);
        body.extend(0x1122_3344u32.to_be_bytes());
        body.extend(if flags & ACK != 0 { 0x5566_7788u32 } else { 0 }.to_be_bytes());
        body.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        Self::new(from.ip(), to.ip(), TCP, body).with_checksum(16)
    }

    /// A UDP datagram.
    pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Self {
        let mut body = ports(from, to);
        body.extend(u16::try_from(8 + payload.len()).expect("a short payload").to_be_bytes());
        body.extend([0, 0]);
        body.extend(payload);
        Self::new(from.ip(), to.ip(), UDP, body).with_checksum(6)
    }

    /// An ICMP or ICMPv6 message, by the family of the addresses. `rest` begins at byte 4.
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, rest: &[u8]) -> Self {
        let body = [&[kind, code, 0, 0], rest].concat();
        let protocol = if source.is_ipv4() { ICMP } else { ICMP6 };
        Self::new(source, destination, protocol, body).with_checksum(2)
    }

    /// Cuts this packet's body: the part of `range`, as a fragment.
    pub fn part(&self, range: std::ops::Range<usize>, id: u32) -> Self {
        let fragment = Fragment {
            offset_bytes: u32::try_from(range.start).expect("a short packet"),
            more: range.end < self.body.len(),
            id,
        };
        Self { fragment: Some(fragment), body: self.body[range].to_vec(), ..self.clone() }
    }

    /// On the wire.
    pub fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.ipv4(source.octets(), destination.octets())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.ipv6(source.octets(), destination.octets())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("`new` holds one family to a packet")
            }
        }
    }

    // RFC 791 §3.1.
    fn ipv4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        let (id, place) = self.fragment.map_or((0x5057, 0x4000), |fragment| {
            let more = if fragment.more { 0x2000 } else { 0 };
            (fragment.id as u16, more | (fragment.offset_bytes / 8) as u16)
        });
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(((header + self.body.len()) as u16).to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(place.to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(options);
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum);
        bytes.extend(&self.body);
        bytes
    }

    // RFC 8200 §3 and §4.
    fn ipv6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let mut headers = self.extensions.clone();
        if let Some(Fragment { offset_bytes, more, id }) = self.fragment {
            let mut rest = ((offset_bytes / 8 * 8) as u16 | u16::from(more)).to_be_bytes().to_vec();
            rest.extend(id.to_be_bytes());
            headers.push((44, rest));
        }
        let kinds = headers.iter().map(|(kind, _)| *kind).chain([self.protocol]);
        let next: Vec<u8> = kinds.collect();
        let mut carried = Vec::new();
        for ((_, rest), next) in headers.iter().zip(&next[1..]) {
            let length = (2 + rest.len()).next_multiple_of(8);
            // A fragment header's second byte is reserved; it is always 8 bytes long.
            carried.extend([*next, (length / 8 - 1) as u8]);
            carried.extend(rest);
            carried.resize(carried.len().next_multiple_of(8), 0);
        }
        carried.extend(&self.body);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((carried.len() as u16).to_be_bytes());
        bytes.extend([next[0], 64]);
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(carried);
        bytes
    }

    fn with_checksum(mut self, at: usize) -> Self {
        // ICMP for IPv4 has no pseudo header (RFC 792).
        let pseudo = if self.protocol == ICMP { Vec::new() } else { self.pseudo_header() };
        let sum = checksum(&[pseudo, self.body.clone()].concat());
        self.body[at..at + 2].copy_from_slice(&sum);
        self
    }

    // RFC 9293 §3.1 and RFC 8200 §8.1: the two sum up alike.
    fn pseudo_header(&self) -> Vec<u8> {
        let mut bytes = match (self.source, self.destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets(), b.octets()].concat(),
            (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets(), b.octets()].concat(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
        };
        bytes.extend((self.body.len() as u32).to_be_bytes());
        bytes.extend([0, 0, 0, self.protocol]);
        bytes
    }
}

fn ports(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use pnet::packet::Packet as _;
    use pnet::packet::{icmpv6, ipv4, ipv6, tcp, udp};

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_not_broken_on_purpose_is_right() {
        let bytes = Packet::tcp(at("10.0.0.1:1"), at("10.0.0.2:2"), SYN).bytes();
        let ip = ipv4::Ipv4Packet::new(&bytes).unwrap();
        assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
        assert_eq!(usize::from(ip.get_total_length()), bytes.len());
        let segment = tcp::TcpPacket::new(ip.payload()).unwrap();
        let expected = tcp::ipv4_checksum(&segment, &ip.get_source(), &ip.get_destination());
        assert_eq!(segment.get_checksum(), expected);

        let bytes = Packet::udp(at("[fd00::1]:1"), at("[fd00::2]:2"), b"hello").bytes();
        let ip = ipv6::Ipv6Packet::new(&bytes).unwrap();
        let datagram = udp::UdpPacket::new(ip.payload()).unwrap();
        let expected = udp::ipv6_checksum(&datagram, &ip.get_source(), &ip.get_destination());
        assert_eq!(datagram.get_checksum(), expected);

        let bytes =
            Packet::icmp(ip.get_source().into(), ip.get_destination().into(), 128, 0, &[0; 4])
                .bytes();
        let ip = ipv6::Ipv6Packet::new(&bytes).unwrap();
        let message = icmpv6::Icmpv6Packet::new(ip.payload()).unwrap();
        let expected = icmpv6::checksum(&message, &ip.get_source(), &ip.get_destination());
        assert_eq!(message.get_checksum(), expected);
    }

    #[test]
    fn parts_lie_where_they_were_cut() {
        let whole = Packet::udp(at("10.0.0.1:1"), at("10.0.0.2:2"), &[7; 40]);
        let bytes = whole.part(16..32, 9).bytes();
        let ip = ipv4::Ipv4Packet::new(&bytes).unwrap();
        assert_eq!((ip.get_fragment_offset(), ip.get_flags(), ip.payload().len()), (2, 1, 16));
        let last = whole.part(32..48, 9).bytes();
        assert_eq!(ipv4::Ipv4Packet::new(&last).unwrap().get_flags(), 0);
    }
}
