//! ICMP that nobody asked for: errors that quote no flow, redirects, and answers without questions.

use std::net::SocketAddr;

use super::super::packet::Packet;
use super::{Row, Scene, Side};

pub(super) fn rows(scene: &Scene, side: &Side) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, kind, code, rest: &[u8], reason| {
        let packet = Packet::icmp(side.own, side.server, kind, code, rest);
        rows.push(Row::new(side, name, reason, packet.bytes()));
    };
    let server = |port| SocketAddr::new(side.server, port);
    let neighbour = SocketAddr::new(side.neighbour, side.neighbour_port);
    // An error travels against the packet that it quotes.
    let quotes = [
        ("no flow", Packet::udp(server(scene.open_port), side.from(5400), b"quoted")),
        ("another device's flow", Packet::tcp(server(scene.open_port), neighbour, 0x10)),
        ("its own packet", Packet::udp(side.from(5401), server(scene.open_port), b"quoted")),
    ];
    for (of, quoted) in quotes {
        let rest = [&[0; 4], quoted.bytes().as_slice()].concat();
        let errors: &[(&str, u8, u8)] = match side.is_ipv4() {
            true => &[
                ("unreachable", 3, 1),
                ("fragmentation needed", 3, 4),
                ("source quench", 4, 0),
                ("time exceeded", 11, 0),
                ("parameter problem", 12, 0),
            ],
            false => &[
                ("unreachable", 1, 4),
                ("packet too big", 2, 0),
                ("time exceeded", 3, 0),
                ("parameter problem", 4, 0),
            ],
        };
        for (name, kind, code) in errors {
            let reason = if *name == "source quench" { "icmp-type" } else { "icmp-no-flow" };
            row(&format!("{name} that quotes {of}"), *kind, *code, &rest, reason);
        }
    }
    let unreachable = if side.is_ipv4() { 3 } else { 1 };
    row("an error that quotes nothing", unreachable, 0, &[0; 4], "icmp-no-flow");
    let quoted = Packet::udp(server(53), neighbour, b"quoted").bytes();
    let (redirect, rest) = match side.is_ipv4() {
        true => (5, [&[10, 1, 0, 66], quoted.as_slice()].concat()),
        false => (137, vec![0; 36]),
    };
    row("redirect", redirect, 1, &rest, "icmp-type");
    let echo_reply = if side.is_ipv4() { 0 } else { 129 };
    row("an echo reply that nobody asked for", echo_reply, 0, &[0, 7, 0, 1], "icmp-no-flow");
    let others: &[(&str, u8, usize)] = match side.is_ipv4() {
        true => &[
            ("router advertisement", 9, 12),
            ("router solicitation", 10, 4),
            ("timestamp request", 13, 16),
            ("timestamp reply", 14, 16),
            ("address mask request", 17, 8),
            ("an unknown type", 200, 8),
        ],
        false => &[
            ("multicast listener query", 130, 20),
            ("router solicitation", 133, 4),
            ("router advertisement", 134, 12),
            ("neighbour solicitation", 135, 20),
            ("neighbour advertisement", 136, 20),
            ("node information query", 139, 12),
            ("an unknown error", 100, 8),
            ("an unknown type", 200, 8),
        ],
    };
    for (name, kind, length) in others {
        row(name, *kind, 0, &vec![0; *length], "icmp-type");
    }
    rows
}
