//! Protocols that are not carried, and TCP packets that no flow explains.

use std::net::SocketAddr;

use super::super::packet::{ACK, FIN, PSH, Packet, RST, SYN, URG};
use super::{Row, Scene, Side};

pub(super) fn rows(scene: &Scene, side: &Side) -> Vec<Row> {
    let mut rows = Vec::new();
    let protocols = [
        ("IGMP", 2),
        ("IP in IP", 4),
        ("IPv6 in IP", 41),
        ("GRE", 47),
        ("ESP", 50),
        ("OSPF", 89),
        ("SCTP", 132),
        ("UDP-Lite", 136),
        ("protocol 255", 255),
    ];
    for (name, protocol) in protocols {
        let packet = Packet::new(side.own, side.server, protocol, vec![0x45; 40]);
        rows.push(Row::new(side, name, "unsupported-protocol", packet.bytes()));
    }
    let mut row = |name: &str, port: u16, to_port: u16, flags: u8, reason| {
        let to = SocketAddr::new(side.server, to_port);
        let packet = Packet::tcp(side.from(port), to, flags);
        rows.push(Row::new(side, name, reason, packet.bytes()));
    };
    let (open, closed) = (scene.open_port, scene.closed_port);
    // Even where a rule would let the peer open the flow, these open nothing.
    row("FIN without a flow", 5200, open, FIN | ACK, "tcp-no-flow");
    row("RST without a flow", 5201, open, RST, "tcp-no-flow");
    row("SYN+ACK without a flow", 5202, open, SYN | ACK, "tcp-no-flow");
    row("ACK without a flow to a port that is not offered", 5203, closed, ACK, "tcp-no-flow");
    row("PSH without a flow to a port that is not offered", 5204, closed, PSH | ACK, "tcp-no-flow");
    row("no flags", 5205, open, 0, "tcp-bad-flags");
    row("every flag (Xmas)", 5206, open, FIN | SYN | RST | PSH | ACK | URG, "tcp-bad-flags");
    row("FIN, PSH and URG alone", 5207, open, FIN | PSH | URG, "tcp-bad-flags");
    row("SYN with FIN", 5208, open, SYN | FIN, "tcp-bad-flags");
    row("SYN with RST", 5209, open, SYN | RST, "tcp-bad-flags");
    // From a well-known port of its own, as a reply would come.
    let reply = Packet::tcp(side.from(80), SocketAddr::new(side.server, 40000), SYN | ACK);
    rows.push(Row::new(side, "a reply that nobody asked for", "tcp-no-flow", reply.bytes()));
    rows
}
