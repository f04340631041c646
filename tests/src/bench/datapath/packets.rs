//! IPv4 packets with right checksums, and a super-packet as the kernel gives it.

use std::net::Ipv4Addr;

use partywall_datapath::offload::VNET_HEADER_BYTES;

/// TCP control bits (RFC 9293 §3.1).
pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where TCP's checksum is in its header.
const TCP_CHECKSUM_AT: usize = 16;
/// Payload of a segment that fills a packet of 1,420 bytes.
const SEGMENT_BYTES: usize = 1420 - IP_BYTES - TCP_BYTES;

/// Both ends of a conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) from: (Ipv4Addr, u16),
    pub(super) to: (Ipv4Addr, u16),
}

impl Ends {
    /// The way back.
    pub(super) fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// A datagram; `total` bytes with its headers.
pub(super) fn udp(ends: Ends, total: usize) -> Vec<u8> {
    let mut bytes = ip(ends, UDP, total);
    let above = total - IP_BYTES;
    bytes.extend(ends.from.1.to_be_bytes());
    bytes.extend(ends.to.1.to_be_bytes());
    bytes.extend((above as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(total, 0xab);
    finish(bytes, UDP_BYTES - 2)
}

/// A segment; `total` bytes with its headers.
pub(super) fn tcp(ends: Ends, flags: u8, sequence: u32, total: usize) -> Vec<u8> {
    finish(unfinished_tcp(ends, flags, sequence, total), TCP_CHECKSUM_AT)
}

/// As many full segments of one stream, one after the other.
pub(super) fn stream(ends: Ends, count: usize) -> Vec<Vec<u8>> {
    let sequence = |at: usize| (at * SEGMENT_BYTES) as u32;
    (0..count)
        .map(|at| tcp(ends, ACK, sequence(at), IP_BYTES + TCP_BYTES + SEGMENT_BYTES))
        .collect()
}

/// As many full segments in one, with the header of a TUN with `IFF_VNET_HDR`
/// (`struct virtio_net_hdr` of `linux/virtio_net.h`).
pub(super) fn super_packet(ends: Ends, count: usize) -> Vec<u8> {
    const NEEDS_CHECKSUM: u8 = 1;
    const TCP_V4: u8 = 1;
    let total = IP_BYTES + TCP_BYTES + count * SEGMENT_BYTES;
    let mut bytes = vec![NEEDS_CHECKSUM, TCP_V4];
    let words = [IP_BYTES + TCP_BYTES, SEGMENT_BYTES, IP_BYTES, TCP_CHECKSUM_AT];
    bytes.extend(words.iter().flat_map(|word| (*word as u16).to_ne_bytes()));
    assert_eq!(bytes.len(), VNET_HEADER_BYTES);
    bytes.extend(unfinished_tcp(ends, ACK, 0, total));
    bytes
}

fn unfinished_tcp(ends: Ends, flags: u8, sequence: u32, total: usize) -> Vec<u8> {
    let mut bytes = ip(ends, TCP, total);
    bytes.extend(ends.from.1.to_be_bytes());
    bytes.extend(ends.to.1.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.resize(total, 0xab);
    bytes
}

fn ip(ends: Ends, protocol: u8, total: usize) -> Vec<u8> {
    const DO_NOT_FRAGMENT: u8 = 0x40;
    let mut bytes = vec![0x45, 0];
    bytes.extend((total as u16).to_be_bytes());
    bytes.extend([0, 0, DO_NOT_FRAGMENT, 0, 64, protocol, 0, 0]);
    bytes.extend(ends.from.0.octets());
    bytes.extend(ends.to.0.octets());
    let sum = checksum(&bytes, 0);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Fills in the transport's checksum, `at` bytes into its header.
fn finish(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let above = bytes.len() - IP_BYTES;
    let pseudo = u32::from(bytes[9]) + above as u32 + sum(&bytes[12..IP_BYTES]);
    let checksum = checksum(&bytes[IP_BYTES..], pseudo);
    bytes[IP_BYTES + at..IP_BYTES + at + 2].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    bytes.chunks(2).map(word).sum()
}

/// The Internet checksum (RFC 1071) of bytes and of what was summed up before.
fn checksum(bytes: &[u8], before: u32) -> u16 {
    let mut total = sum(bytes) + before;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}
