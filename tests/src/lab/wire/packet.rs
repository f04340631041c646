//! A frame as far as the judgement needs it. Bytes that do not parse are `Other`, never skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) enum Packet<'a> {
    Arp,
    Ip { from: IpAddr, to: IpAddr, carried: Carried<'a> },
    Other(String),
}

pub(super) enum Carried<'a> {
    /// Neighbour discovery (RFC 4861) or multicast listener discovery (RFC 2710, RFC 3810).
    Neighbour,
    Udp {
        source: u16,
        destination: u16,
        payload: &'a [u8],
    },
    Tcp {
        source: u16,
        destination: u16,
        sequence: u32,
        syn: bool,
        payload: &'a [u8],
    },
    Other(String),
}

pub(super) fn read(frame: &[u8]) -> Packet<'_> {
    let (Some(kind), Some(body)) = (number(frame, 12), frame.get(14..)) else {
        return Packet::Other("a frame without a header".into());
    };
    let packet = match kind {
        0x0806 => return Packet::Arp,
        0x0800 => ipv4(body),
        0x86dd => ipv6(body),
        other => return Packet::Other(format!("EtherType {other:#06x}")),
    };
    packet.unwrap_or_else(|| Packet::Other("a cut or broken IP packet".into()))
}

fn ipv4(bytes: &[u8]) -> Option<Packet<'_>> {
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    let body = bytes.get(header..usize::from(number(bytes, 2)?))?;
    let address = |at: usize| {
        let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(octets)))
    };
    // More fragments, or an offset.
    let carried = match number(bytes, 6)? & 0x3fff {
        0 => carried(*bytes.get(9)?, body)?,
        _ => Carried::Other("an IPv4 fragment".into()),
    };
    Some(Packet::Ip { from: address(12)?, to: address(16)?, carried })
}

fn ipv6(bytes: &[u8]) -> Option<Packet<'_>> {
    let address = |at: usize| {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    let (from, to) = (address(8)?, address(24)?);
    let mut next = *bytes.get(6)?;
    let mut body = bytes.get(40..40 + usize::from(number(bytes, 4)?))?;
    // MLD comes behind a hop-by-hop header (RFC 2710 §3); nothing else of ours has one.
    if next == 0 {
        let length = (usize::from(*body.get(1)?) + 1) * 8;
        (next, body) = (body[0], body.get(length..)?);
    }
    Some(Packet::Ip { from, to, carried: carried(next, body)? })
}

fn carried(protocol: u8, body: &[u8]) -> Option<Carried<'_>> {
    Some(match protocol {
        6 => Carried::Tcp {
            source: number(body, 0)?,
            destination: number(body, 2)?,
            sequence: u32::from_be_bytes(body.get(4..8)?.try_into().ok()?),
            syn: body.get(13)? & 0x02 != 0,
            payload: body.get(usize::from(body.get(12)? >> 4) * 4..)?,
        },
        17 => Carried::Udp {
            source: number(body, 0)?,
            destination: number(body, 2)?,
            payload: body.get(8..usize::from(number(body, 4)?))?,
        },
        58 => match body.first()? {
            130..=137 | 143 => Carried::Neighbour,
            other => Carried::Other(format!("ICMPv6 type {other}")),
        },
        other => Carried::Other(format!("IP protocol {other}")),
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
