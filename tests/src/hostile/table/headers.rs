//! Headers that lie: options that ask for a route, chains without end, lengths that contradict.

use std::net::SocketAddr;

use super::super::packet::{NO_NEXT, Packet, SYN, UDP};
use super::{Row, Scene, Side};

pub(super) fn rows(scene: &Scene, side: &Side) -> Vec<Row> {
    let mut rows = if side.is_ipv4() { ipv4(scene, side) } else { ipv6(scene, side) };
    let ip = if side.is_ipv4() { 20 } else { 40 };
    let to = SocketAddr::new(side.server, scene.open_port);
    let udp = Packet::udp(side.from(5500), to, b"lies").bytes();
    let tcp = Packet::tcp(side.from(5501), to, SYN).bytes();
    let mut row = |name: &str, bytes: Vec<u8>| rows.push(Row::new(side, name, "malformed", bytes));
    row("a TCP header shorter than one", changed(&tcp, ip + 12, &[0x40]));
    row("a TCP header longer than its packet", changed(&tcp, ip + 12, &[0xf0]));
    row("a UDP length beyond its packet", changed(&udp, ip + 4, &[0, 200]));
    row("a UDP length below its header", changed(&udp, ip + 4, &[0, 7]));
    let short = |protocol, length: usize| {
        Packet::new(side.own, side.server, protocol, vec![0; length]).bytes()
    };
    row("half a UDP header", short(UDP, 4));
    row("half a TCP header", short(6, 12));
    row("half an ICMP header", short(if side.is_ipv4() { 1 } else { 58 }, 3));
    rows
}

fn ipv4(scene: &Scene, side: &Side) -> Vec<Row> {
    let to = SocketAddr::new(side.server, scene.open_port);
    let honest = Packet::udp(side.from(5510), to, b"options");
    let udp = honest.bytes();
    let mut rows = Vec::new();
    // Pointer 4, and one hop: the gateway's other side (RFC 791 §3.1).
    for (name, kind) in [("a loose source route", 131), ("a strict source route", 137)] {
        let options = vec![kind, 7, 4, 10, 1, 0, 20];
        let packet = Packet { options, ..honest.clone() };
        rows.push(Row::new(side, name, "source-route", packet.bytes()));
    }
    let behind =
        Packet { options: vec![1, 1, 148, 4, 0, 0, 131, 7, 4, 10, 1, 0, 20], ..honest.clone() };
    rows.push(Row::new(
        side,
        "a source route behind other options",
        "source-route",
        behind.bytes(),
    ));
    let mut row = |name: &str, bytes: Vec<u8>| rows.push(Row::new(side, name, "malformed", bytes));
    row(
        "an option longer than the header",
        Packet { options: vec![7, 39, 4, 0], ..honest.clone() }.bytes(),
    );
    row("an option of no length", Packet { options: vec![7, 0, 4, 0], ..honest.clone() }.bytes());
    row("a total length beyond the packet", changed(&udp, 2, &[0, 200]));
    row("a total length below the header", changed(&udp, 2, &[0, 19]));
    row("a total length of zero", changed(&udp, 2, &[0, 0]));
    row("a header shorter than one", changed(&udp, 0, &[0x44]));
    row("a header longer than its packet", changed(&udp[..32], 0, &[0x4f]));
    rows
}

fn ipv6(scene: &Scene, side: &Side) -> Vec<Row> {
    let to = SocketAddr::new(side.server, scene.open_port);
    let honest = Packet::udp(side.from(5511), to, b"headers");
    let udp = honest.bytes();
    let with = |extensions: Vec<(u8, Vec<u8>)>| Packet { extensions, ..honest.clone() }.bytes();
    // RFC 8200 §4: one pad option fills the smallest header.
    let pad = || vec![1, 4, 0, 0, 0, 0];
    let route = |kind: u8| {
        let mut rest = vec![kind, 1, 0, 0, 0, 0];
        rest.extend([0xfd, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20]);
        (43, rest)
    };
    let mut rows = Vec::new();
    let mut row =
        |name: &str, reason, bytes: Vec<u8>| rows.push(Row::new(side, name, reason, bytes));
    row("routing header 0", "source-route", with(vec![route(0)]));
    row("routing header 2", "source-route", with(vec![route(2)]));
    row("segment routing", "source-route", with(vec![route(4)]));
    row(
        "a routing header behind another header",
        "source-route",
        with(vec![(60, pad()), route(0)]),
    );
    row("twenty extension headers", "extension-headers", with(vec![(60, pad()); 20]));
    row(
        "hop-by-hop behind another header",
        "extension-headers",
        with(vec![(60, pad()), (0, pad())]),
    );
    row("a mobility header", "extension-headers", with(vec![(135, pad())]));
    let nothing = Packet::new(side.own, side.server, NO_NEXT, vec![0; 16]).bytes();
    row("nothing behind the headers", "unsupported-protocol", nothing);
    // RFC 2675: the length lies in an option of four bytes, and the header's own is zero.
    let jumbo = with(vec![(0, vec![0xc2, 4, 0, 1, 0, 0])]);
    row("a jumbo payload", "malformed", changed(&jumbo, 4, &[0, 0]));
    row("a payload length beyond the packet", "malformed", changed(&udp, 4, &[4, 0]));
    row("a payload length of zero", "malformed", changed(&udp, 4, &[0, 0]));
    let cut = with(vec![(60, pad())]);
    row("an extension header longer than its packet", "malformed", changed(&cut, 41, &[0xff]));
    rows
}

/// What is no IP packet at all, or less than a header of one. The tunnel pads to 16 bytes, and padding
/// must not become a header.
pub(super) fn below_ip(scene: &Scene) -> Vec<Row> {
    let (four, six) = (&scene.four, &scene.six);
    let udp = |side: &Side| {
        let to = SocketAddr::new(side.server, scene.open_port);
        Packet::udp(side.from(5520), to, b"cut").bytes()
    };
    let row = |side, name: &str, bytes: Vec<u8>| Row::new(side, name, "malformed", bytes);
    vec![
        row(four, "half a header", udp(four)[..10].to_vec()),
        row(four, "a header without its last byte", udp(four)[..19].to_vec()),
        row(six, "half a header", udp(six)[..20].to_vec()),
        row(six, "a header without its last byte", udp(six)[..39].to_vec()),
        row(four, "version 0", changed(&udp(four), 0, &[0x05])),
        row(four, "version 5", changed(&udp(four), 0, &[0x55])),
        row(four, "version 15", changed(&udp(four), 0, &[0xf5])),
        row(six, "an IPv6 packet that says version 4", changed(&udp(six), 0, &[0x40])),
        row(four, "one byte", vec![0x45]),
        row(four, "all zeros", vec![0; 64]),
        row(four, "all ones", vec![0xff; 64]),
    ]
}

fn changed(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}
