//! For tests: a first clock reading, packets, rules.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use partywall_proto::rules::Rule;

use crate::settings::WallClock;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// Some first reading of the clock. It makes no difference which.
#[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// A wall clock that says the same at `now` in every test.
pub(crate) fn wall_clock(now: Instant) -> WallClock {
    WallClock { read_at: now, since_epoch: Duration::from_secs(1_700_000_000) }
}

/// Rules from JSON.
pub(crate) fn rules(json: &str) -> Vec<Rule> {
    serde_json::from_str(json).unwrap()
}

/// Something to put above IP.
#[derive(Clone)]
pub(crate) struct Upper {
    protocol_v4: u8,
    protocol_v6: u8,
    bytes: Vec<u8>,
}

pub(crate) fn tcp(from: u16, to: u16, flags: u8) -> Upper {
    let mut bytes = ports(from, to);
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 1, 0, 0, 0, 0, 0]);
    Upper { protocol_v4: 6, protocol_v6: 6, bytes }
}

/// A SYN with this sequence number, and data behind it (RFC 7413).
pub(crate) fn syn(from: u16, to: u16, sequence: u32, data: usize) -> Upper {
    let mut upper = tcp(from, to, SYN);
    upper.bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
    upper.bytes.resize(20 + data, 0xab);
    upper
}

pub(crate) fn udp(from: u16, to: u16, payload: usize) -> Upper {
    let mut bytes = ports(from, to);
    bytes.extend((8 + payload as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(8 + payload, 0xab);
    Upper { protocol_v4: 17, protocol_v6: 17, bytes }
}

/// ICMP types differ by family, so both are given.
pub(crate) fn icmp(type_v4: u8, type_v6: u8, identifier: u16, rest: &[u8], v4: bool) -> Upper {
    let mut bytes = vec![if v4 { type_v4 } else { type_v6 }, 0, 0, 0];
    bytes.extend(identifier.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(rest);
    Upper { protocol_v4: 1, protocol_v6: 58, bytes }
}

pub(crate) fn ping(identifier: u16, v4: bool) -> Upper {
    icmp(8, 128, identifier, &[0; 24], v4)
}

pub(crate) fn pong(identifier: u16, v4: bool) -> Upper {
    icmp(0, 129, identifier, &[0; 24], v4)
}

/// An ICMP error (unreachable) that quotes `packet`.
pub(crate) fn unreachable(packet: &[u8], v4: bool) -> Upper {
    icmp(3, 1, 0, &packet[..packet.len().min(128)], v4)
}

/// Some other protocol: 47 is GRE.
pub(crate) fn gre() -> Upper {
    Upper { protocol_v4: 47, protocol_v6: 47, bytes: vec![0; 16] }
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes()].concat()
}

/// An IP packet of the addresses' family.
pub(crate) fn packet(from: &str, to: &str, upper: &Upper) -> Vec<u8> {
    header(from, to, upper, &[], &upper.bytes, None)
}

/// A part of an IP packet: bytes `range` of its payload.
pub(crate) fn part(
    from: &str,
    to: &str,
    upper: &Upper,
    range: std::ops::Range<usize>,
    id: u16,
) -> Vec<u8> {
    let more = range.end < upper.bytes.len();
    let offset = (range.start / 8) as u16;
    header(from, to, upper, &[], &upper.bytes[range], Some((id, offset, more)))
}

/// An IPv4 packet with options, padded to whole words.
pub(crate) fn with_options(from: &str, to: &str, upper: &Upper, options: &[u8]) -> Vec<u8> {
    header(from, to, upper, options, &upper.bytes, None)
}

/// An IPv6 packet with extension headers, given as (type, bytes after the next-header byte).
pub(crate) fn with_extensions(
    from: &str,
    to: &str,
    upper: &Upper,
    extensions: &[(u8, [u8; 7])],
) -> Vec<u8> {
    let mut bytes = packet(from, to, upper);
    let mut chain = Vec::new();
    for (at, (_, rest)) in extensions.iter().enumerate() {
        chain.push(extensions.get(at + 1).map_or(upper.protocol_v6, |(kind, _)| *kind));
        chain.extend(rest);
    }
    if let Some((first, _)) = extensions.first() {
        bytes[6] = *first;
    }
    bytes.splice(40..40, chain);
    let payload = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&payload.to_be_bytes());
    bytes
}

fn header(
    from: &str,
    to: &str,
    upper: &Upper,
    options: &[u8],
    payload: &[u8],
    part: Option<(u16, u16, bool)>,
) -> Vec<u8> {
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut options = options.to_vec();
            options.resize(options.len().next_multiple_of(4), 0);
            let words = 5 + options.len() / 4;
            let total = (words * 4 + payload.len()) as u16;
            let (id, offset, more) = part.unwrap_or_default();
            let flags = offset | if more { 0x2000 } else { 0 };
            let mut bytes = vec![0x40 | words as u8, 0];
            bytes.extend(total.to_be_bytes());
            bytes.extend(id.to_be_bytes());
            bytes.extend(flags.to_be_bytes());
            bytes.extend([64, upper.protocol_v4, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes.extend(options);
            bytes.extend(payload);
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let fragment = part.map(|(id, offset, more)| {
                let flags = offset << 3 | u16::from(more);
                let mut bytes = vec![upper.protocol_v6, 0];
                bytes.extend(flags.to_be_bytes());
                bytes.extend(u32::from(id).to_be_bytes());
                bytes
            });
            let next = if fragment.is_some() { 44 } else { upper.protocol_v6 };
            let payload = [fragment.unwrap_or_default(), payload.to_vec()].concat();
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([next, 64]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            bytes.extend(payload);
            bytes
        }
        (from, to) => panic!("{from} and {to} are of different families"),
    }
}
