//! Overlay configs of any size, as a controller compiles them, from nothing but numbers.
//!
//! The same numbers give the same keys, addresses and rules.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use partywall_proto::keys::{PresharedKey, WireguardKey};
use partywall_proto::nets::{PortRange, Prefix, Protocol};
use partywall_proto::overlay::{
    Dns, Forwarding, Generation, Interface, OverlayConfig, Peer, Role, Session, TunnelMode, VERSION,
};
use partywall_proto::rules::{Action, ClassId, Match, Opener, Rule};
use x25519_dalek::{PublicKey, StaticSecret};

/// The gateway's number; devices count from 1.
pub(super) const GATEWAY: u32 = 0;
/// Overlay addresses begin here; room for four million.
const POOL: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const MTU: u16 = 1420;
/// A device in three groups, which is what people are in.
pub(super) const CLASSES: [ClassId; 3] = [ClassId(3), ClassId(57), ClassId(121)];
/// Groups that rules speak of.
const GROUPS: u32 = 200;

/// A private key.
pub(super) fn private_key(number: u32) -> [u8; 32] {
    let mut bytes = [0x42; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn public_key(number: u32) -> WireguardKey {
    WireguardKey::from(*PublicKey::from(&StaticSecret::from(private_key(number))).as_bytes())
}

fn preshared_key(device: u32) -> PresharedKey {
    let mut bytes = [0x17; 32];
    bytes[..4].copy_from_slice(&device.to_be_bytes());
    PresharedKey::from(bytes)
}

/// An overlay address.
pub(super) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(POOL) + 1 + number)
}

fn session(device: u32) -> Result<Session> {
    Ok(Session {
        id: format!("s-{device}").parse()?,
        user: format!("user-{device}@bench").parse()?,
        ends_at: Timestamp::now() + SignedDuration::from_hours(8),
    })
}

/// The config of a gateway with as many devices.
pub(super) fn gateway(devices: u32, rules: Vec<Rule>) -> Result<OverlayConfig> {
    let role = Role::Gateway {
        forwarding: Forwarding::Nat,
        pools: vec!["100.64.0.0/10".parse()?],
        prefixes: vec!["10.0.0.0/8".parse()?],
    };
    let peers = (1..=devices).map(|number| {
        Ok(Peer {
            agent: format!("device/d{number:06}").parse()?,
            public_key: public_key(number),
            preshared_key: Some(preshared_key(number)),
            endpoints: Vec::new(),
            allowed_ips: vec![Prefix::host(address(number).into())],
            keepalive_s: None,
            classes: CLASSES.to_vec(),
            session: Some(session(number)?),
        })
    });
    config("gateway/gateway", GATEWAY, role, peers.collect::<Result<_>>()?, rules)
}

/// The config of one of its devices.
pub(super) fn device(number: u32, rules: Vec<Rule>) -> Result<OverlayConfig> {
    let role = Role::Device {
        session: session(number)?,
        tunnel: TunnelMode::Split,
        prefixes: vec!["10.0.0.0/8".parse()?],
        dns: Dns::default(),
        lan: Vec::new(),
    };
    let peer = Peer {
        agent: "gateway/gateway".parse()?,
        public_key: public_key(GATEWAY),
        preshared_key: Some(preshared_key(number)),
        endpoints: vec!["198.51.100.21:51820".parse()?],
        allowed_ips: vec!["10.0.0.0/8".parse()?],
        keepalive_s: None,
        classes: Vec::new(),
        session: None,
    };
    config(&format!("device/d{number:06}"), number, role, vec![peer], rules)
}

fn config(
    agent: &str,
    number: u32,
    role: Role,
    peers: Vec<Peer>,
    rules: Vec<Rule>,
) -> Result<OverlayConfig> {
    let now = Timestamp::now();
    Ok(OverlayConfig {
        version: VERSION,
        agent: agent.parse()?,
        segment: "bench".parse()?,
        generation: Generation(1),
        issued_at: now,
        valid_until: now + SignedDuration::from_hours(8),
        interface: Interface {
            addresses: vec![IpAddr::from(address(number))],
            mtu: MTU,
            listen_port: (number == GATEWAY).then_some(51820),
        },
        role,
        peers,
        rules,
        policy: None,
        observed: None,
    })
}

/// The one rule that allows everything.
pub(super) fn allow_all() -> Result<Vec<Rule>> {
    let matches = Match::new(Opener::Device, None, "10.0.0.0/8".parse()?, None, Vec::new())?;
    Ok(vec![Rule { id: "all".parse()?, action: Action::Allow, matches }])
}

/// A large organisation's rules: most name a server and a group, some a network, some everyone; one in
/// twenty refuses. No two name the same destination, which makes the table as large as it can be.
pub(super) fn rules(count: u32) -> Result<Vec<Rule>> {
    (0..count).map(rule).collect()
}

fn rule(number: u32) -> Result<Rule> {
    // An odd multiplier scatters them over the whole network, each at its own place.
    let place = number.wrapping_mul(0x9e37_79b1) & 0x00ff_ffff;
    let (length, place) = match number % 10 {
        0 => (24, place & 0x00ff_ff00),
        _ => (32, place),
    };
    let base = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + place);
    let class = (!number.is_multiple_of(50)).then_some(ClassId(number % GROUPS));
    let (protocol, ports) = match number % 3 {
        0 => (Protocol::Udp, vec![PortRange::single(53)]),
        _ => (Protocol::Tcp, vec![PortRange::single(80), "8000-8100".parse()?]),
    };
    let action = if number % 20 == 7 { Action::Deny } else { Action::Allow };
    let prefix = format!("{base}/{length}").parse()?;
    let matches = Match::new(Opener::Device, class, prefix, Some(protocol), ports)?;
    Ok(Rule { id: format!("rule-{number}").parse()?, action, matches })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_of_any_size_hold_together() {
        let config = gateway(1000, rules(1000).unwrap()).unwrap();
        config.check().unwrap();
        device(1000, allow_all().unwrap()).unwrap().check().unwrap();
        assert_eq!(config.peers[999].allowed_ips, [Prefix::host(address(1000).into())]);
    }
}
