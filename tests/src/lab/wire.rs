//! Judges what was seen on the LAN: everything but WireGuard, TLS to the controller, ARP, neighbour
//! discovery and DHCP is a violation.
//!
//! Nothing passes by address alone. A datagram of a gateway's port must look like WireGuard, and a
//! byte stream of the controller's port must be TLS records from its first byte on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::capture::Frame;

mod packet;
mod tls;

use packet::{Carried, Packet};

/// What may be on the wire.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// The gateways' WireGuard endpoints.
    pub gateways: BTreeSet<SocketAddr>,
    /// The controller's TLS endpoints.
    pub controllers: BTreeSet<SocketAddr>,
}

/// What a recording held.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Datagrams that are WireGuard.
    pub wireguard: usize,
    /// Segments of TLS streams to or from the controller.
    pub tls: usize,
    /// ARP, neighbour discovery and multicast listener reports.
    pub neighbours: usize,
    /// DHCP and DHCPv6.
    pub dhcp: usize,
    /// Everything else.
    pub violations: Vec<Violation>,
}

/// A frame that has no business on the LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong with it.
    pub what: String,
    /// Its first bytes, in hex.
    pub hex: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.hex)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wireguard, tls, neighbours, dhcp, violations } = self;
        write!(f, "{wireguard} WireGuard, {tls} TLS, {neighbours} ARP/ND, {dhcp} DHCP, ")?;
        write!(f, "{} anything else", violations.len())?;
        violations.iter().take(10).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Judges every frame.
pub fn judge(frames: &[Frame], allowed: &Allowed) -> Findings {
    let mut findings = Findings::default();
    let mut streams: BTreeMap<(SocketAddr, SocketAddr), tls::Stream> = BTreeMap::new();
    for frame in frames {
        let mut violation = |what: String| findings.violations.push(violation(what, frame));
        match packet::read(&frame.bytes) {
            Packet::Arp => findings.neighbours += 1,
            Packet::Ip { from, to, carried } => match carried {
                Carried::Neighbour => findings.neighbours += 1,
                Carried::Udp { source, destination, payload } => {
                    let (from, to) =
                        (SocketAddr::new(from, source), SocketAddr::new(to, destination));
                    if allowed.gateways.contains(&from) || allowed.gateways.contains(&to) {
                        match is_wireguard(payload) {
                            true => findings.wireguard += 1,
                            false => violation(format!("not WireGuard, {from} to {to}")),
                        }
                    } else if is_dhcp(from, to) {
                        findings.dhcp += 1;
                    } else {
                        violation(format!("UDP from {from} to {to}"));
                    }
                }
                Carried::Tcp { source, destination, sequence, syn, payload } => {
                    let (from, to) =
                        (SocketAddr::new(from, source), SocketAddr::new(to, destination));
                    if allowed.controllers.contains(&from) || allowed.controllers.contains(&to) {
                        findings.tls += 1;
                        streams.entry((from, to)).or_default().push(sequence, syn, payload);
                    } else {
                        violation(format!("TCP from {from} to {to}"));
                    }
                }
                Carried::Other(what) => violation(format!("{what} from {from} to {to}")),
            },
            Packet::Other(what) => violation(what),
        }
    }
    for ((from, to), stream) in streams {
        if let Err(what) = stream.check() {
            let what = format!("{what}, {from} to {to}");
            findings.violations.push(Violation { what, hex: String::new() });
        }
    }
    findings
}

fn violation(what: String, frame: &Frame) -> Violation {
    let shown = &frame.bytes[..frame.bytes.len().min(64)];
    Violation { what, hex: data_encoding::HEXLOWER.encode(shown) }
}

/// The four messages of WireGuard (§5.4 of its paper): a type, three zero bytes, and a length that
/// fits. Data is a 16-byte header and a 16-byte tag around padded plaintext.
fn is_wireguard(payload: &[u8]) -> bool {
    match payload {
        [1, 0, 0, 0, ..] => payload.len() == 148,
        [2, 0, 0, 0, ..] => payload.len() == 92,
        [3, 0, 0, 0, ..] => payload.len() == 64,
        [4, 0, 0, 0, ..] => payload.len() >= 32,
        _ => false,
    }
}

/// RFC 2131 §4.1 and RFC 8415 §7.2: fixed ports, and never beyond the link or a server on it.
fn is_dhcp(from: SocketAddr, to: SocketAddr) -> bool {
    let ports = (from.port(), to.port());
    match (from.ip(), to.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => matches!(ports, (68, 67) | (67, 68)),
        (IpAddr::V6(from), IpAddr::V6(_)) => {
            matches!(ports, (546, 547) | (547, 546)) && from.is_unicast_link_local()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const GATEWAY: &str = "198.51.100.21:51820";
    const CONTROLLER: &str = "198.51.100.10:8443";

    fn judged(frames: Vec<Vec<u8>>) -> Findings {
        let allowed = Allowed {
            gateways: [GATEWAY.parse().unwrap()].into(),
            controllers: [CONTROLLER.parse().unwrap()].into(),
        };
        let frame = |bytes| Frame { time: Duration::ZERO, bytes };
        judge(&frames.into_iter().map(frame).collect::<Vec<_>>(), &allowed)
    }

    fn ipv4(protocol: u8, to: [u8; 4], body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0; 12];
        bytes.extend([8, 0, 0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0]);
        bytes.extend([192, 168, 77, 11]);
        bytes.extend(to);
        bytes.extend(body);
        bytes
    }

    fn udp(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap();
        let mut body = Vec::new();
        for field in [40_000, port, length, 0] {
            body.extend(field.to_be_bytes());
        }
        body.extend(payload);
        ipv4(17, to, &body)
    }

    fn tcp(port: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut body = [40_000u16.to_be_bytes(), port.to_be_bytes()].concat();
        body.extend(sequence.to_be_bytes());
        body.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        body.extend(payload);
        ipv4(6, [198, 51, 100, 10], &body)
    }

    #[test]
    fn a_wireguard_message_must_look_like_one() {
        let mut initiation = vec![0; 148];
        initiation[0] = 1;
        let to = [198, 51, 100, 21];
        assert_eq!(judged(vec![udp(to, 51820, &initiation)]).wireguard, 1);
        assert_eq!(judged(vec![udp(to, 51820, &initiation[..147])]).violations.len(), 1);
        assert_eq!(judged(vec![udp(to, 51820, b"GET / HTTP/1.1\r\n\r\n")]).violations.len(), 1);
        assert_eq!(judged(vec![udp(to, 51821, &initiation)]).violations.len(), 1);
    }

    #[test]
    fn a_stream_to_the_controller_must_be_tls_from_its_first_byte() {
        let record = [&[22, 3, 1, 0, 4][..], b"helo", &[23, 3, 3, 0, 2], b"ab"].concat();
        let stream = |payload: &[u8]| {
            let (one, two) = payload.split_at(7);
            // Out of order and repeated, as on a real wire.
            let frames =
                vec![tcp(8443, 99, 2, &[]), tcp(8443, 107, 16, two), tcp(8443, 100, 16, one)];
            judged([frames.clone(), frames].concat())
        };
        assert_eq!(stream(&record).violations, []);
        assert_eq!(stream(b"GET /v1/export HTTP/1.1\r\n").violations.len(), 1);
        // The last acknowledgement, behind a FIN that takes a sequence number.
        let open = [tcp(8443, 99, 2, &[]), tcp(8443, 100, 16, &record), tcp(8443, 117, 16, &[])];
        assert_eq!(judged(open.to_vec()).violations, []);
        let truncated = [record.as_slice(), b"plain text after it"].concat();
        assert_eq!(stream(&truncated).violations.len(), 1);
    }

    #[test]
    fn everything_else_is_a_violation_that_says_what_it_is() {
        let dns = judged(vec![udp([192, 168, 77, 1], 53, b"?")]);
        assert!(dns.violations[0].what.contains("192.168.77.1:53"), "{dns}");
        assert_eq!(
            judged(vec![ipv4(1, [10, 1, 0, 10], &[8, 0, 0, 0, 0, 0, 0, 0])]).violations.len(),
            1
        );
        assert_eq!(judged(vec![tcp(80, 1, 2, &[])]).violations.len(), 1);
        assert_eq!(judged(vec![vec![1, 2, 3]]).violations.len(), 1);
        let mut fragment = udp([198, 51, 100, 21], 51820, &[0; 148]);
        fragment[20] = 0x20;
        assert_eq!(judged(vec![fragment]).violations.len(), 1, "a fragment of the underlay");
    }

    #[test]
    fn arp_and_dhcp_pass() {
        let arp = [&[0; 12][..], &[8, 6], &[0; 28]].concat();
        let mut dhcp = udp([255; 4], 67, &[1; 300]);
        dhcp[34..36].copy_from_slice(&68u16.to_be_bytes());
        let found = judged(vec![arp, dhcp]);
        assert_eq!((found.neighbours, found.dhcp, found.violations.len()), (1, 1, 0), "{found}");
    }
}
