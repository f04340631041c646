//! The overlay config: all that one agent needs in order to carry one segment, and the deltas that
//! bring it from one generation to the next.
//!
//! Readers ignore fields that they do not know and refuse a version, role, change, action or match
//! that they do not know: what is not understood must not be enforced by half.

mod delta;
mod error;
mod peer;
mod policy;
mod role;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use delta::{Change, Delta};
pub use error::ConfigError;
pub use peer::{Peer, Session};
pub use policy::{Observed, PolicyStamp};
pub use role::{Dns, Forwarding, LanService, Role, TunnelMode};

use crate::ids::{AgentId, SegmentId};
use crate::nets::Prefix;
use crate::rules::Rule;

/// The config version that this code writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Smallest overlay MTU in bytes: what IPv6 asks of every link (RFC 8200 §5).
pub const MTU_MIN: u16 = 1280;
/// Largest overlay MTU in bytes.
pub const MTU_MAX: u16 = 9000;

/// Version of one agent's overlay config. Grows with every change that the agent can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u64))]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The agent's own end of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Overlay addresses of this agent, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// UDP port to listen on; none lets the kernel choose (devices).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
}

/// All that one agent needs in order to carry one segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayConfig {
    /// Layout and meaning of this config; see [`VERSION`].
    pub version: u32,
    /// Whom it is for.
    pub agent: AgentId,
    /// Which segment it carries.
    pub segment: SegmentId,
    /// Grows with every change.
    pub generation: Generation,
    /// When the controller signed it.
    pub issued_at: Timestamp,
    /// The staleness limit that the segment's organisation set: past it the config is void.
    pub valid_until: Timestamp,
    /// The agent's own end.
    pub interface: Interface,
    /// Device or gateway.
    #[serde(flatten)]
    pub role: Role,
    /// The other ends, sorted by agent.
    pub peers: Vec<Peer>,
    /// First match decides; no match is a drop.
    pub rules: Vec<Rule>,
    /// The policy version that the rules come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStamp>,
    /// The policy version on trial, if one is. At gateways, which record flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
}

impl OverlayConfig {
    /// Checks what the types alone cannot hold. Costs O(n log n) in the number of peers.
    ///
    /// # Errors
    /// An unknown version, an MTU out of bounds, or peers that are out of order or clash.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_version(self.version)?;
        if !(MTU_MIN..=MTU_MAX).contains(&self.interface.mtu) {
            return Err(ConfigError::Mtu { found: self.interface.mtu });
        }
        check_peers(&self.peers)
    }
}

pub(crate) fn check_version(found: u32) -> Result<(), ConfigError> {
    if found == VERSION { Ok(()) } else { Err(ConfigError::Version { found }) }
}

fn check_peers(peers: &[Peer]) -> Result<(), ConfigError> {
    let clash = |peer: &Peer, what| ConfigError::PeerClash { peer: peer.agent.clone(), what };
    for pair in peers.windows(2) {
        match pair[0].agent.cmp(&pair[1].agent) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Err(clash(&pair[1], "name")),
            std::cmp::Ordering::Greater => {
                return Err(ConfigError::PeerOrder { peer: pair[1].agent.clone() });
            }
        }
    }
    let mut keys = BTreeSet::new();
    for peer in peers {
        if !keys.insert(peer.public_key) {
            return Err(clash(peer, "public key"));
        }
    }
    match first_overlap(peers) {
        Some(peer) => Err(clash(peer, "allowed address")),
        None => Ok(()),
    }
}

/// The first peer with an allowed prefix that overlaps another peer's.
///
/// Two prefixes are either disjoint or nested, so in the order of (address, length) a prefix comes
/// after all that cover it, and the covering ones form a stack. Prefixes of one peer may nest, so
/// everything on the stack has the same owner and its top speaks for all.
fn first_overlap(peers: &[Peer]) -> Option<&Peer> {
    let mut prefixes: Vec<(Prefix, usize)> = Vec::new();
    for (at, peer) in peers.iter().enumerate() {
        prefixes.extend(peer.allowed_ips.iter().map(|prefix| (*prefix, at)));
    }
    prefixes.sort_unstable_by_key(|(prefix, at)| (prefix.address(), prefix.length(), *at));
    let mut covering: Vec<(Prefix, usize)> = Vec::new();
    for (prefix, owner) in prefixes {
        while covering.pop_if(|(outer, _)| !outer.covers(&prefix)).is_some() {}
        if let Some((_, outer_owner)) = covering.last()
            && *outer_owner != owner
        {
            return peers.get(owner.max(*outer_owner));
        }
        covering.push((prefix, owner));
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::envelope::{EnvelopeError, Payload};
    use proptest::prelude::*;

    #[test]
    fn clashing_peers_are_refused() {
        let clash = |alter: fn(&mut Peer, &Peer)| {
            let mut config = gateway_config();
            let (first, rest) = config.peers.split_first_mut().unwrap();
            alter(&mut rest[0], first);
            config.check().unwrap_err().to_string()
        };
        assert!(clash(|peer, other| peer.agent = other.agent.clone()).ends_with("name"));
        assert!(clash(|peer, other| peer.public_key = other.public_key).ends_with("public key"));
        let refused = clash(|peer, other| peer.allowed_ips.clone_from(&other.allowed_ips));
        assert!(refused.ends_with("allowed address"), "{refused}");
        let refused = clash(|peer, _| peer.allowed_ips = vec!["10.200.0.0/24".parse().unwrap()]);
        assert!(refused.ends_with("allowed address"), "{refused}");
    }

    #[test]
    fn peers_out_of_order_are_refused() {
        let mut config = gateway_config();
        config.peers.swap(0, 1);
        assert!(matches!(config.check(), Err(ConfigError::PeerOrder { .. })));
    }

    #[test]
    fn prefixes_of_one_peer_may_nest() {
        let mut config = gateway_config();
        config.peers.truncate(1);
        config.peers[0].allowed_ips =
            ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/8", "::/0"].map(|p| p.parse().unwrap()).to_vec();
        config.check().unwrap();
    }

    #[test]
    fn an_mtu_that_ipv6_cannot_use_is_refused() {
        for (mtu, good) in [(1279, false), (1280, true), (9000, true), (9001, false)] {
            let mut config = gateway_config();
            config.interface.mtu = mtu;
            assert_eq!(config.check().is_ok(), good, "MTU {mtu}");
        }
    }

    #[test]
    fn what_is_not_understood_refuses_the_config_and_an_unknown_field_does_not() {
        let snapshot = serde_json::to_value(Payload::Snapshot(Box::new(device_config()))).unwrap();
        let read = |alter: &dyn Fn(&mut serde_json::Value)| {
            let mut value = snapshot.clone();
            alter(&mut value);
            Payload::from_json(&value.to_string())
        };
        let same = Payload::Snapshot(Box::new(device_config()));
        for at in ["", "/interface", "/session", "/dns", "/peers/0", "/rules/0"] {
            let read = read(&|value| {
                value.pointer_mut(at).unwrap()["colour"] = "red".into();
            });
            assert_eq!(read.unwrap(), same, "an unknown field at {at:?}");
        }
        for (at, unknown) in [
            ("/payload", "patch"),
            ("/role", "edge"),
            ("/tunnel", "half"),
            ("/rules/0/action", "log"),
            ("/rules/0/match/opener", "printer"),
            ("/rules/0/match/protocol", "sctp"),
        ] {
            let read = read(&|value| *value.pointer_mut(at).unwrap() = unknown.into());
            assert!(matches!(read, Err(EnvelopeError::Payload(_))), "{at} {unknown} was taken");
        }
        for at in ["/rules/0/match", "/lan/0"] {
            let read = read(&|value| value.pointer_mut(at).unwrap()["hour"] = 9.into());
            assert!(matches!(read, Err(EnvelopeError::Payload(_))), "a match of {at} was dropped");
        }
    }

    #[test]
    fn a_newer_version_is_named_even_where_its_layout_differs() {
        for text in [
            r#"{"payload":"snapshot","version":2,"role":"edge"}"#,
            r#"{"payload":"delta","version":2,"changes":[{"change":"role-set"}]}"#,
        ] {
            let refused = Payload::from_json(text).unwrap_err();
            let named = matches!(refused, EnvelopeError::Config(ConfigError::Version { found: 2 }));
            assert!(named, "{text}: {refused}");
        }
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        // Few bits, so that overlaps are common.
        (any::<bool>(), 0u16..16, 0u8..=4).prop_map(|(four, bits, length)| {
            let kept = (bits >> (4 - length)) << (4 - length);
            let text = if four {
                format!("{}.0.0.0/{length}", kept << 4)
            } else {
                format!("{:x}000::/{length}", kept)
            };
            text.parse().unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_overlap_check_agrees_with_comparing_every_pair(
            all in proptest::collection::vec(proptest::collection::vec(any_prefix(), 0..4), 0..5),
        ) {
            let peers: Vec<Peer> = all
                .into_iter()
                .zip(0u8..)
                .map(|(allowed_ips, name)| Peer { allowed_ips, ..peer(name, 0) })
                .collect();
            let overlap = |a: &Peer, b: &Peer| {
                a.allowed_ips.iter().any(|p| b.allowed_ips.iter().any(|q| p.overlaps(q)))
            };
            let naive = peers
                .iter()
                .enumerate()
                .any(|(at, a)| peers[at + 1..].iter().any(|b| overlap(a, b)));
            prop_assert_eq!(first_overlap(&peers).is_some(), naive);
        }
    }

    /// A device that a gateway admits, told apart by `name` (0 to 254); `salt` alters its key.
    pub(crate) fn peer(name: u8, salt: u8) -> Peer {
        let mut key = [0; 32];
        (key[0], key[1]) = (name, salt);
        Peer {
            agent: format!("device/d{name:03}").parse().unwrap(),
            public_key: key.into(),
            preshared_key: Some([salt; 32].into()),
            endpoints: Vec::new(),
            allowed_ips: vec![
                format!("10.200.0.{name}").parse().unwrap(),
                format!("fd20::{name:x}").parse().unwrap(),
            ],
            keepalive_s: None,
            classes: vec![crate::rules::ClassId(1)],
            session: Some(session()),
        }
    }

    pub(crate) fn gateway_config() -> OverlayConfig {
        read(include_str!("../../tests/golden/config-v1-gateway.json"))
    }

    fn device_config() -> OverlayConfig {
        read(include_str!("../../tests/golden/config-v1-device.json"))
    }

    fn read(golden: &str) -> OverlayConfig {
        match Payload::from_json(golden).unwrap() {
            Payload::Snapshot(config) => *config,
            Payload::Delta(_) => panic!("the golden file is a snapshot"),
        }
    }

    fn session() -> Session {
        Session {
            id: "s-1".parse().unwrap(),
            user: "alice@council".parse().unwrap(),
            ends_at: Timestamp::UNIX_EPOCH,
        }
    }
}
