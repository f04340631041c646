//! Sources that are not the peer's, and destinations that policy does not offer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::packet::{Packet, SYN};
use super::{Row, Scene, Side};

/// A packet to a server that the user may reach, from an address that is not the peer's.
pub(super) fn sources(scene: &Scene, side: &Side) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, source: IpAddr, reason| {
        let (from, to) =
            (SocketAddr::new(source, 5000), SocketAddr::new(side.server, scene.open_port));
        let packets =
            vec![Packet::udp(from, to, b"spoofed").bytes(), Packet::tcp(from, to, SYN).bytes()];
        rows.push(Row::several(side, name, reason, packets));
    };
    row("from another device's address", side.neighbour, "wrong-source");
    row("from the gateway's overlay address", side.gateway, "wrong-source");
    row("from the gateway's inside address", side.gateway_inside, "wrong-source");
    row("from a server of the organisation", side.server, "wrong-source");
    row("from a device of the other segment", side.other_device, "wrong-source");
    row("from the controller's address", side.controller, "wrong-source");
    let martians: Vec<(&str, IpAddr)> = match side.is_ipv4() {
        true => vec![
            ("from loopback", Ipv4Addr::LOCALHOST.into()),
            ("from the unspecified address", Ipv4Addr::UNSPECIFIED.into()),
            ("from a group", Ipv4Addr::new(224, 0, 0, 1).into()),
            ("from broadcast", Ipv4Addr::BROADCAST.into()),
        ],
        false => vec![
            ("from loopback", Ipv6Addr::LOCALHOST.into()),
            ("from the unspecified address", Ipv6Addr::UNSPECIFIED.into()),
            ("from a group", Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into()),
        ],
    };
    martians.into_iter().for_each(|(name, source)| row(name, source, "martian"));
    rows
}

/// A flow that the peer opens honestly towards something that is not offered to its user.
pub(super) fn destinations(scene: &Scene, side: &Side) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, to: IpAddr, port: u16, reason| {
        let (from, to) = (side.from(5100), SocketAddr::new(to, port));
        let packets =
            vec![Packet::udp(from, to, b"forbidden").bytes(), Packet::tcp(from, to, SYN).bytes()];
        rows.push(Row::several(side, name, reason, packets));
    };
    let open = scene.open_port;
    row("to a port that is not offered", side.server, scene.closed_port, "no-rule");
    row("to a server that is not offered", side.closed_server, open, "no-rule");
    row("to another device", side.neighbour, open, "no-rule");
    row("to the gateway's overlay address", side.gateway, open, "no-rule");
    row("to the gateway's inside address", side.gateway_inside, open, "no-rule");
    row("to the gateway's underlay address", side.gateway_underlay, open, "no-rule");
    row("to the gateway's WireGuard port", side.gateway_underlay, 51820, "no-rule");
    row("to the controller", side.controller, 8443, "no-rule");
    row("to a device of the other segment", side.other_device, open, "no-rule");
    row("to the other segment's gateway", side.other_gateway, open, "no-rule");
    row("to the other gateway on the underlay", side.other_underlay, open, "no-rule");
    let (loopback, group): (IpAddr, IpAddr) = match side.is_ipv4() {
        true => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(224, 0, 0, 251).into()),
        false => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into()),
    };
    row("to loopback", loopback, open, "martian");
    row("to a group", group, 5353, "no-rule");
    if side.is_ipv4() {
        row("to broadcast", Ipv4Addr::BROADCAST.into(), open, "no-rule");
    }
    let echo = Packet::icmp(
        side.own,
        side.unlisted,
        if side.is_ipv4() { 8 } else { 128 },
        0,
        &[0, 1, 0, 1],
    );
    rows.push(Row::new(side, "ping of an address that no rule names", "no-rule", echo.bytes()));
    rows
}
