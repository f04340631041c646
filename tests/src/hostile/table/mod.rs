//! The table of hostile packets: what each is called, its bytes, and the drop reason that it must meet.
//!
//! Every packet of a row is dropped, except the first ones that [`Row::passing`] counts: those are
//! honest by themselves and only set the stage for the others.

mod addresses;
mod fragments;
mod headers;
mod icmp;
mod transport;

use std::net::{IpAddr, SocketAddr};

/// Who is where, in one family.
#[derive(Debug, Clone)]
pub struct Side {
    /// The hostile peer's own overlay address.
    pub own: IpAddr,
    /// The gateway's overlay address.
    pub gateway: IpAddr,
    /// The gateway in the organisation's network.
    pub gateway_inside: IpAddr,
    /// The gateway on the underlay.
    pub gateway_underlay: IpAddr,
    /// The controller on the underlay.
    pub controller: IpAddr,
    /// An honest device of the same segment.
    pub neighbour: IpAddr,
    /// A live flow of the honest device: its own port.
    pub neighbour_port: u16,
    /// A server that the hostile user may reach on `open_port`.
    pub server: IpAddr,
    /// A server that the hostile user may not reach.
    pub closed_server: IpAddr,
    /// An address of the organisation's network that no rule names, whatever the protocol.
    pub unlisted: IpAddr,
    /// The other segment's gateway, on the overlay.
    pub other_gateway: IpAddr,
    /// A device of the other segment.
    pub other_device: IpAddr,
    /// The other segment's gateway on the underlay.
    pub other_underlay: IpAddr,
}

/// The stage of the table.
#[derive(Debug, Clone)]
pub struct Scene {
    /// IPv4.
    pub four: Side,
    /// IPv6.
    pub six: Side,
    /// The TCP and UDP port of `server` that the hostile user may open.
    pub open_port: u16,
    /// One that he may not.
    pub closed_port: u16,
}

/// One trick.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Sent in this order.
    pub packets: Vec<Vec<u8>>,
    /// How many of the first packets are let through.
    pub passing: usize,
    /// The text of the drop reason that the others meet.
    pub reason: &'static str,
}

impl Row {
    fn new(side: &Side, name: impl Into<String>, reason: &'static str, packet: Vec<u8>) -> Self {
        Self::several(side, name, reason, vec![packet])
    }

    fn several(
        side: &Side,
        name: impl Into<String>,
        reason: &'static str,
        packets: Vec<Vec<u8>>,
    ) -> Self {
        let family = if side.own.is_ipv4() { "IPv4" } else { "IPv6" };
        Self { name: format!("{family}: {}", name.into()), packets, passing: 0, reason }
    }

    fn after_passing(self, passing: usize) -> Self {
        Self { passing, ..self }
    }

    /// How many of the packets must be dropped.
    pub fn dropped(&self) -> usize {
        self.packets.len() - self.passing
    }
}

impl Side {
    /// A port of the hostile peer that differs from row to row, so that no row meets another's flow.
    fn from(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.own, port)
    }

    fn is_ipv4(&self) -> bool {
        self.own.is_ipv4()
    }
}

/// Every row that a WireGuard client carries: IP packets with a whole header of a known version.
pub fn rows(scene: &Scene) -> Vec<Row> {
    let mut rows = Vec::new();
    for side in [&scene.four, &scene.six] {
        rows.extend(addresses::sources(scene, side));
        rows.extend(addresses::destinations(scene, side));
        rows.extend(transport::rows(scene, side));
        rows.extend(fragments::rows(scene, side));
        rows.extend(icmp::rows(scene, side));
        rows.extend(headers::rows(scene, side));
    }
    rows
}

/// Rows that are no IP packets, which only a peer with a WireGuard of its own can send.
pub fn rows_below_ip(scene: &Scene) -> Vec<Row> {
    headers::below_ip(scene)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use partywall_datapath::filter::DropReason;

    use super::*;

    fn side(address: fn(u8) -> IpAddr) -> Side {
        Side {
            own: address(1),
            gateway: address(2),
            gateway_inside: address(3),
            gateway_underlay: address(4),
            controller: address(5),
            neighbour: address(6),
            neighbour_port: 40000,
            server: address(7),
            closed_server: address(8),
            unlisted: address(12),
            other_gateway: address(9),
            other_device: address(10),
            other_underlay: address(11),
        }
    }

    fn scene() -> Scene {
        Scene {
            four: side(|last| IpAddr::from([10, 0, 0, last])),
            six: side(|last| IpAddr::from([0xfd10, 0, 0, 0, 0, 0, 0, u16::from(last)])),
            open_port: 7,
            closed_port: 22,
        }
    }

    #[test]
    fn every_row_has_its_own_name_and_a_reason_that_exists() {
        let scene = scene();
        let reasons: BTreeSet<&str> = DropReason::ALL.iter().map(|reason| reason.text()).collect();
        let mut names = BTreeSet::new();
        for row in rows(&scene).into_iter().chain(rows_below_ip(&scene)) {
            assert!(reasons.contains(row.reason), "{}: {}", row.name, row.reason);
            assert!(row.dropped() > 0, "{}", row.name);
            assert!(names.insert(row.name.clone()), "{} is there twice", row.name);
        }
    }

    #[test]
    fn what_a_wireguard_client_carries_has_a_whole_header_of_a_known_version() {
        for row in rows(&scene()) {
            for packet in row.packets {
                assert!(packet.len() >= 20 && matches!(packet[0] >> 4, 4 | 6), "{}", row.name);
            }
        }
    }
}
