//! Overlay configs: what each agent needs in order to carry a segment, built from what is set up and
//! who is signed in.
//!
//! Both ends of a session are built here from the same records, so that they cannot disagree.

use std::fmt::Write;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use partywall_proto::admin::{BuildingSpec, GatewaySpec, SegmentSpec};
use partywall_proto::ids::AgentId;
use partywall_proto::keys::WireguardKey;
use partywall_proto::nets::Prefix;
use partywall_proto::overlay::{
    Generation, Interface, OverlayConfig, Peer, Role, TunnelMode, VERSION,
};
use partywall_proto::rules::ClassId;

use super::addresses::gateway_addresses;
use super::policy::Compiled;
use super::session::{PskSecret, SessionRecord};

/// Seconds between keepalives from a device: keeps a NAT's UDP mapping open, which may close after
/// 30 s (RFC 4787 §4.3 asks for two minutes, and devices are found that do not hold it).
const KEEPALIVE_S: u16 = 25;

/// When and as what a config is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The config's generation.
    pub generation: Generation,
    /// Now.
    pub issued_at: Timestamp,
}

/// A session together with what admits its device.
#[derive(Debug, Clone)]
pub struct Admission<'a> {
    /// The session.
    pub session: &'a SessionRecord,
    /// The device's WireGuard public key.
    pub wireguard_key: WireguardKey,
    /// The session's classes under the segment's policy, sorted.
    pub classes: Vec<ClassId>,
    /// The session's secret, or a stock device's own, which outlives its sessions.
    pub psk: &'a PskSecret,
}

/// What a gateway of `segment` enforces while `admissions` are live.
pub fn gateway_config<'a>(
    frame: Frame,
    segment: &SegmentSpec,
    gateway: &GatewaySpec,
    policy: &Compiled,
    admissions: impl Iterator<Item = Admission<'a>>,
) -> OverlayConfig {
    let mut peers: Vec<Peer> = admissions.map(|it| gateway_peer(gateway, it)).collect();
    peers.sort_by(|a, b| a.agent.cmp(&b.agent));
    OverlayConfig {
        version: VERSION,
        agent: AgentId::Gateway(gateway.name.clone()),
        segment: segment.name.clone(),
        generation: frame.generation,
        issued_at: frame.issued_at,
        valid_until: valid_until(segment, frame.issued_at),
        interface: Interface {
            addresses: gateway_addresses(&segment.pools),
            mtu: segment.mtu,
            listen_port: gateway.endpoints.first().map(|endpoint| endpoint.port()),
        },
        role: Role::Gateway {
            forwarding: gateway.forwarding,
            pools: segment.pools.clone(),
            prefixes: segment.prefixes.clone(),
        },
        peers,
        rules: policy.rules().to_vec(),
        policy: None,
        observed: None,
    }
}

/// A device with a session, as `gateway` knows it.
pub fn gateway_peer(gateway: &GatewaySpec, admission: Admission<'_>) -> Peer {
    let Admission { session, wireguard_key, classes, psk } = admission;
    Peer {
        agent: AgentId::Device(session.device.clone()),
        public_key: wireguard_key,
        preshared_key: Some(psk.psk(&gateway.name)),
        endpoints: Vec::new(),
        allowed_ips: session.addresses.iter().copied().map(Prefix::host).collect(),
        keepalive_s: None,
        classes,
        session: Some(session.session()),
    }
}

/// What a device with a session enforces. The first gateway carries the segment.
pub fn device_config(
    frame: Frame,
    segment: &SegmentSpec,
    building: Option<&BuildingSpec>,
    gateways: &[(&GatewaySpec, WireguardKey)],
    policy: &Compiled,
    admission: &Admission<'_>,
) -> OverlayConfig {
    let session = admission.session;
    let peers = gateways.first().map(|(gateway, wireguard_key)| Peer {
        agent: AgentId::Gateway(gateway.name.clone()),
        public_key: *wireguard_key,
        preshared_key: Some(admission.psk.psk(&gateway.name)),
        endpoints: gateway.endpoints.clone(),
        allowed_ips: carried(segment),
        keepalive_s: Some(KEEPALIVE_S),
        classes: Vec::new(),
        session: None,
    });
    OverlayConfig {
        version: VERSION,
        agent: AgentId::Device(session.device.clone()),
        segment: segment.name.clone(),
        generation: frame.generation,
        issued_at: frame.issued_at,
        valid_until: valid_until(segment, frame.issued_at),
        interface: Interface {
            addresses: session.addresses.clone(),
            mtu: segment.mtu,
            listen_port: None,
        },
        role: Role::Device {
            session: session.session(),
            tunnel: segment.tunnel,
            prefixes: guarded(segment),
            dns: segment.dns.clone(),
            lan: building.map(|building| building.lan.clone()).unwrap_or_default(),
        },
        peers: peers.into_iter().collect(),
        rules: policy.rules_for(&admission.classes),
        policy: None,
        observed: None,
    }
}

/// A `wg-quick(8)` file for a stock client. The private key is left for its owner to fill in.
pub fn stock_config(
    segment: &SegmentSpec,
    gateways: &[(&GatewaySpec, WireguardKey)],
    addresses: &[IpAddr],
    psk: &PskSecret,
) -> String {
    let mut text = String::from(
        "[Interface]\n# Fill in the private key that was made on this device:\n# PrivateKey = \n",
    );
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            writeln!(text, "{key} = {value}").expect("writing to a String");
        }
    };
    line("Address", join(addresses.iter().copied().map(Prefix::host)));
    let servers = segment.dns.servers.iter().map(IpAddr::to_string);
    line("DNS", join(servers.chain(segment.dns.search.iter().cloned())));
    line("MTU", segment.mtu.to_string());
    if let Some((gateway, wireguard_key)) = gateways.first() {
        line("\n[Peer]\nPublicKey", wireguard_key.to_string());
        line("PresharedKey", String::from(psk.psk(&gateway.name)));
        line("Endpoint", gateway.endpoints.first().map(ToString::to_string).unwrap_or_default());
        line("AllowedIPs", join(carried(segment)));
        line("PersistentKeepalive", KEEPALIVE_S.to_string());
    }
    text
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// What a device sends into the tunnel.
pub(super) fn carried(segment: &SegmentSpec) -> Vec<Prefix> {
    match segment.tunnel {
        TunnelMode::Split => guarded(segment),
        TunnelMode::Full => ["0.0.0.0/0", "::/0"]
            .map(|text| text.parse().expect("a default route is a prefix"))
            .to_vec(),
    }
}

/// What must leave a device through the tunnel or not at all.
fn guarded(segment: &SegmentSpec) -> Vec<Prefix> {
    segment.prefixes.iter().chain(&segment.pools).copied().collect()
}

/// The staleness limit of what is issued now.
pub fn valid_until(segment: &SegmentSpec, issued_at: Timestamp) -> Timestamp {
    let limit = i64::try_from(segment.staleness_limit_s).unwrap_or(i64::MAX);
    issued_at.checked_add(SignedDuration::from_secs(limit)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(tunnel: &str) -> SegmentSpec {
        serde_json::from_value(serde_json::json!({
            "name": "council", "organisation": "council", "title": "Council", "tunnel": tunnel,
            "pools": ["100.64.0.0/24", "fd00::/64"], "prefixes": ["10.0.0.0/8"],
            "dns": { "servers": ["10.1.0.53"], "search": ["council.test"] },
            "staleness_limit_s": 60
        }))
        .unwrap()
    }

    fn gateway() -> GatewaySpec {
        serde_json::from_value(serde_json::json!({
            "name": "gw", "segment": "council", "endpoints": ["198.51.100.1:51820"], "forwarding": "nat"
        }))
        .unwrap()
    }

    fn record() -> SessionRecord {
        SessionRecord {
            id: "s1".parse().unwrap(),
            user: "alice@council".parse().unwrap(),
            device: "desk-1".parse().unwrap(),
            segment: "council".parse().unwrap(),
            addresses: vec!["100.64.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            sign_in: partywall_proto::admin::SignInStrength::Code,
            began_at: Timestamp::UNIX_EPOCH,
            ends_at: Timestamp::MAX,
            secret: PskSecret::from_bytes([3; 32]),
        }
    }

    fn frame() -> Frame {
        Frame { generation: Generation(4), issued_at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn both_ends_of_a_session_agree_and_check() {
        let (record, key) = (record(), WireguardKey::from([5; 32]));
        let psk = &record.secret;
        let admission =
            Admission { session: &record, wireguard_key: key, classes: Vec::new(), psk };
        let policy = Compiled::default();
        let (segment, gateway) = (segment("split"), gateway());
        let far =
            gateway_config(frame(), &segment, &gateway, &policy, [admission.clone()].into_iter());
        let gateways = [(&gateway, WireguardKey::from([6; 32]))];
        let near = device_config(frame(), &segment, None, &gateways, &policy, &admission);
        far.check().unwrap();
        near.check().unwrap();
        assert_eq!(far.peers[0].preshared_key, near.peers[0].preshared_key);
        let near_hosts: Vec<_> =
            near.interface.addresses.iter().copied().map(Prefix::host).collect();
        assert_eq!(far.peers[0].allowed_ips, near_hosts);
        assert_eq!(near.peers[0].endpoints[0].port(), far.interface.listen_port.unwrap());
        assert_eq!(near.valid_until.as_second(), 60);
    }

    #[test]
    fn a_full_tunnel_carries_everything_and_a_split_one_the_segment() {
        let shown = |tunnel| join(carried(&segment(tunnel)));
        assert_eq!(shown("full"), "0.0.0.0/0, ::/0");
        assert_eq!(shown("split"), "10.0.0.0/8, 100.64.0.0/24, fd00::/64");
    }

    #[test]
    fn a_stock_config_is_what_wg_quick_reads_and_holds_no_private_key() {
        let record = record();
        let gateway = gateway();
        let gateways = [(&gateway, WireguardKey::from([6; 32]))];
        let text = stock_config(&segment("split"), &gateways, &record.addresses, &record.secret);
        let psk = String::from(record.secret.psk(&gateway.name));
        assert_eq!(
            text,
            format!(
                "[Interface]\n# Fill in the private key that was made on this device:\n# PrivateKey = \n\
                 Address = 100.64.0.7/32, fd00::7/128\nDNS = 10.1.0.53, council.test\nMTU = 1420\n\n\
                 [Peer]\nPublicKey = {}\nPresharedKey = {psk}\nEndpoint = 198.51.100.1:51820\n\
                 AllowedIPs = 10.0.0.0/8, 100.64.0.0/24, fd00::/64\nPersistentKeepalive = 25\n",
                gateways[0].1
            )
        );
    }
}
