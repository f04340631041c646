//! A device and a gateway with a wire between them that keeps what went over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall_proto::overlay::{OverlayConfig, Peer};

use super::super::sealing::Sealing;
use super::super::*;
use crate::filter::RuleTable;
use crate::peers::PeerEntry;
use crate::testing::{start, wall_clock};

pub(super) const DEVICE: &str = "10.64.0.5";
pub(super) const DEVICE_V6: &str = "fd64::5";
pub(super) const SERVER: &str = "10.1.0.80";
pub(super) const SERVER_V6: &str = "fd01::80";

/// TCP 443, UDP 53 and ping towards the network; TCP 22 towards the device.
pub(super) const RULES: &str = r#"[
    {"id":"no-admin","action":"deny","match":{"opener":"device","prefix":"10.1.0.99","protocol":"tcp"}},
    {"id":"web","action":"allow","match":{"opener":"device","class":1,"prefix":"10.1.0.0/16","protocol":"tcp","ports":[443]}},
    {"id":"web6","action":"allow","match":{"opener":"device","prefix":"fd01::/16","protocol":"tcp","ports":[443]}},
    {"id":"names","action":"allow","match":{"opener":"device","prefix":"10.1.0.0/16","protocol":"udp"}},
    {"id":"names6","action":"allow","match":{"opener":"device","prefix":"fd01::/16","protocol":"udp"}},
    {"id":"ping","action":"allow","match":{"opener":"device","prefix":"10.1.0.0/16","protocol":"icmp"}},
    {"id":"ping6","action":"allow","match":{"opener":"device","prefix":"fd01::/16","protocol":"icmp"}},
    {"id":"help","action":"allow","match":{"opener":"network","prefix":"10.1.7.0/24","protocol":"tcp","ports":[22]}}
]"#;

pub(super) const DEVICE_AT: ([u8; 4], u16) = ([192, 0, 2, 5], 40_000);
pub(super) const GATEWAY_AT: ([u8; 4], u16) = ([192, 0, 2, 1], 51_820);

pub(super) fn public(key: u8) -> String {
    let secret = x25519_dalek::StaticSecret::from([key; 32]);
    let public = x25519_dalek::PublicKey::from(&secret);
    partywall_proto::keys::WireguardKey::from(*public.as_bytes()).to_string()
}

pub(super) fn psk(byte: u8) -> String {
    partywall_proto::keys::PresharedKey::from([byte; 32]).into()
}

pub(super) fn table(json: &str) -> Arc<RuleTable> {
    Arc::new(RuleTable::compile(&crate::testing::rules(json)))
}

fn config(
    agent: &str,
    segment: &str,
    address: &[&str],
    role: &str,
    peers: &[String],
) -> OverlayConfig {
    let addresses = address.join("\",\"");
    let peers = peers.join(",");
    serde_json::from_str(&format!(
        r#"{{"version":1,"agent":"{agent}","segment":"{segment}","generation":1,
        "issued_at":"2026-01-01T00:00:00Z","valid_until":"2026-01-02T00:00:00Z",
        "interface":{{"addresses":["{addresses}"],"mtu":1420}},{role},"peers":[{peers}],"rules":[]}}"#
    ))
    .unwrap()
}

pub(super) fn device_peer(agent: &str, key: u8, psk_byte: u8, addresses: &str) -> String {
    format!(
        r#"{{"agent":"device/{agent}","public_key":"{}","preshared_key":"{}","allowed_ips":[{addresses}],"classes":[1]}}"#,
        public(key),
        psk(psk_byte)
    )
}

pub(super) fn peer(json: &str) -> Peer {
    serde_json::from_str(json).unwrap()
}

/// The device's config: its session, its gateway's preshared key.
pub(super) fn device_config(segment: &str, session: &str, psk_byte: u8) -> OverlayConfig {
    let gateway = format!(
        r#"{{"agent":"gateway/gw","public_key":"{}","preshared_key":"{}","endpoints":["192.0.2.1:51820"],
        "allowed_ips":["10.1.0.0/16","fd01::/16"],"classes":[1]}}"#,
        public(2),
        psk(psk_byte)
    );
    let role = format!(
        r#""role":"device","session":{{"id":"{session}","user":"alice@council","ends_at":"2026-01-01T08:00:00Z"}},
        "tunnel":"split","prefixes":["10.1.0.0/16"],"dns":{{}}"#
    );
    config("device/desk-1", segment, &[DEVICE, DEVICE_V6], &role, &[gateway])
}

pub(super) fn gateway_config(peers: &[String]) -> OverlayConfig {
    let role = r#""role":"gateway","forwarding":"nat","pools":["10.64.0.0/16"],"prefixes":["10.1.0.0/16"]"#;
    config("gateway/gw", "council", &["10.64.0.1"], role, peers)
}

pub(super) const DESK_1: &str = r#""10.64.0.5","fd64::5""#;

pub(super) fn replace(config: OverlayConfig, rules: &str) -> Update {
    Update::Replace { config: Arc::new(config), rules: table(rules) }
}

pub(super) fn shard(role: Role, key: u8, now: Instant) -> Shard {
    let limits = Limits { flows: 64, flows_per_peer: 8, fragments: 4, ..Limits::for_role(role) };
    let (private_key, wall_clock) = (PrivateKey::from([key; 32]), wall_clock(now));
    Shard::new(Settings { shard: 0, shards: 1, role, private_key, wall_clock, limits }, now)
}

pub(super) fn counted(shard: &Shard, reason: DropReason) -> u64 {
    shard.counters().dropped(reason)
}

/// The two ends, and what is on the wire between them.
pub(super) struct Lab {
    pub(super) device: Shard,
    pub(super) gateway: Shard,
    pub(super) now: Instant,
    /// Every datagram that went over the wire, and whether the device sent it.
    pub(super) wire: Vec<(bool, Vec<u8>)>,
}

impl Lab {
    /// Both ends set up with the same rules, and not connected yet.
    pub(super) fn apart() -> Self {
        let now = start();
        let device = shard(Role::Device, 1, now);
        let gateway = shard(Role::Gateway, 2, now);
        Self { device, gateway, now, wire: Vec::new() }
    }

    /// Both ends connected.
    pub(super) fn connected() -> Self {
        let mut lab = Self::apart();
        lab.at_gateway(&replace(gateway_config(&[device_peer("desk-1", 1, 9, DESK_1)]), RULES));
        let arrived = lab.at_device(&replace(device_config("council", "s1", 9), RULES));
        assert_eq!(arrived, Arrived::default());
        assert!(lab.is_connected());
        lab
    }

    pub(super) fn is_connected(&self) -> bool {
        let up = |shard: &Shard| {
            let status = shard.peer_status(self.now);
            status.first().is_some_and(|peer| peer.handshake_age.is_some())
        };
        up(&self.device) && up(&self.gateway)
    }

    /// Applies an update at the device and lets the wire come to rest.
    pub(super) fn at_device(&mut self, update: &Update) -> Arrived {
        let mut out = Outbox::new();
        self.device.apply(update, self.now, &mut out);
        self.settle(true, &out)
    }

    pub(super) fn at_gateway(&mut self, update: &Update) -> Arrived {
        let mut out = Outbox::new();
        self.gateway.apply(update, self.now, &mut out);
        self.settle(false, &out)
    }

    /// The device looks at its timers.
    pub(super) fn device_waits(&mut self) -> Arrived {
        let mut out = Outbox::new();
        self.device.handle_timeout(self.now, &mut out);
        self.settle(true, &out)
    }

    /// The gateway looks at its timers.
    pub(super) fn gateway_waits(&mut self) -> Arrived {
        let mut out = Outbox::new();
        self.gateway.handle_timeout(self.now, &mut out);
        self.settle(false, &out)
    }

    /// A packet from the device's TUN; what arrives anywhere.
    pub(super) fn device_sends(&mut self, packet: &[u8]) -> Arrived {
        let mut out = Outbox::new();
        self.device.handle_packet(packet, self.now, &mut out);
        self.settle(true, &out)
    }

    /// A packet from the gateway's TUN; what arrives anywhere.
    pub(super) fn network_sends(&mut self, packet: &[u8]) -> Arrived {
        let mut out = Outbox::new();
        self.gateway.handle_packet(packet, self.now, &mut out);
        self.settle(false, &out)
    }

    /// A packet that the device's own filter did not see: sealed as by a hostile device.
    pub(super) fn forged_by_device(&mut self, packet: &[u8]) -> Arrived {
        let mut out = Outbox::new();
        let number = self.device.peers.by_agent(&"gateway/gw".parse().unwrap()).unwrap();
        let entry = self.device.peers.at_mut(number).unwrap();
        let sealed = sealed(entry, packet, self.now, &mut out);
        out.send(GATEWAY_AT.into(), sealed);
        self.settle(true, &out)
    }

    /// A packet that the gateway's own filter did not see: sealed as by a hostile gateway.
    pub(super) fn forged_by_gateway(&mut self, packet: &[u8]) -> Arrived {
        let mut out = Outbox::new();
        let number = self.gateway.peers.by_agent(&"device/desk-1".parse().unwrap()).unwrap();
        let entry = self.gateway.peers.at_mut(number).unwrap();
        let sealed = sealed(entry, packet, self.now, &mut out);
        out.send(DEVICE_AT.into(), sealed);
        self.settle(false, &out)
    }

    /// A datagram at an end's UDP socket, from where the other end is.
    pub(super) fn datagram(&mut self, to_device: bool, bytes: &[u8]) -> Arrived {
        let mut arrived = Arrived::default();
        let mut out = Outbox::new();
        let now = self.now;
        let (to, from): (&mut Shard, SocketAddr) = match to_device {
            true => (&mut self.device, GATEWAY_AT.into()),
            false => (&mut self.gateway, DEVICE_AT.into()),
        };
        to.handle_datagram(from, bytes, now, &mut out);
        let packets = out.packets().packets().map(<[u8]>::to_vec);
        if to_device { &mut arrived.at_device } else { &mut arrived.at_network }.extend(packets);
        let more = self.settle(to_device, &out);
        arrived.at_device.extend(more.at_device);
        arrived.at_network.extend(more.at_network);
        arrived
    }

    /// Carries what one end has to say to the other, and back, until there is silence.
    fn settle(&mut self, device: bool, out: &Outbox) -> Arrived {
        let said: Vec<Vec<u8>> = out.datagrams().map(|datagram| datagram.bytes.to_vec()).collect();
        let mut arrived = Arrived::default();
        for bytes in said {
            self.wire.push((device, bytes.clone()));
            let more = self.datagram(!device, &bytes);
            arrived.at_device.extend(more.at_device);
            arrived.at_network.extend(more.at_network);
        }
        arrived
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

/// Seals a packet as it is; the size of the datagram, which is in the outbox's room.
pub(super) fn sealed(
    entry: &mut PeerEntry,
    packet: &[u8],
    now: Instant,
    out: &mut Outbox,
) -> usize {
    let mut sealing = Sealing::new(out.datagram_rooms(), 0);
    sealing.place(packet.len()).unwrap().copy_from_slice(packet);
    sealing.seal(&mut entry.tunnel, now).unwrap().datagrams()[0]
}

impl Shard {
    /// Takes one datagram, which stays as it is.
    pub(super) fn handle_datagram(
        &mut self,
        from: impl Into<Origin>,
        datagram: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) {
        let mut buffer = [0; 65_536];
        let bytes = &mut buffer[..datagram.len()];
        bytes.copy_from_slice(datagram);
        self.handle_datagrams(from, bytes, datagram.len(), now, out, |_| panic!("one fits"));
    }
}

/// Packets that came out of the TUNs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) at_device: Vec<Vec<u8>>,
    pub(super) at_network: Vec<Vec<u8>>,
}

impl Arrived {
    pub(super) fn nowhere(&self) -> bool {
        self.at_device.is_empty() && self.at_network.is_empty()
    }
}
