//! Configs, keys and envelopes for tests: two segments, one device, one gateway.

use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use partywall_proto::envelope::{Envelope, Payload};
use partywall_proto::ids::SegmentId;
use partywall_proto::overlay::{
    Change, Delta, Dns, Forwarding, Generation, Interface, OverlayConfig, Peer, Role, Session,
    TunnelMode, VERSION,
};
use partywall_proto::rules::{Action, Match, Opener, Rule};
use sha2::{Digest, Sha256};

use crate::state::Pins;

pub(crate) fn council() -> SegmentId {
    "council".parse().unwrap()
}

pub(crate) fn nhs() -> SegmentId {
    "nhs".parse().unwrap()
}

/// A segment's signing key, the same in every test.
pub(crate) fn segment_key(segment: &SegmentId) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(segment.as_str()).into())
}

/// Both segments' keys, pinned.
pub(crate) fn pins() -> Pins {
    let mut pins = Pins::default();
    let keys = [council(), nhs()].map(|segment| {
        let key = segment_key(&segment).verifying_key().to_bytes().into();
        (segment, key)
    });
    pins.learn(&keys.into());
    pins
}

/// The moment at which tests begin.
pub(crate) fn start() -> Timestamp {
    "2026-03-02T09:00:00Z".parse().unwrap()
}

pub(crate) fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

pub(crate) fn session(id: &str) -> Session {
    Session {
        id: id.parse().unwrap(),
        user: "alice@council".parse().unwrap(),
        ends_at: start() + seconds(8 * 3600),
    }
}

pub(crate) fn rule(id: &str) -> Rule {
    let any = "10.0.0.0/8".parse().unwrap();
    let matches = Match::new(Opener::Device, None, any, None, Vec::new()).unwrap();
    Rule { id: id.parse().unwrap(), action: Action::Allow, matches }
}

pub(crate) fn peer(agent: &str, octet: u8) -> Peer {
    Peer {
        agent: agent.parse().unwrap(),
        public_key: [octet; 32].into(),
        preshared_key: Some([octet; 32].into()),
        endpoints: vec!["192.0.2.1:51820".parse().unwrap()],
        allowed_ips: vec![format!("10.200.0.{octet}").parse().unwrap()],
        keepalive_s: None,
        classes: Vec::new(),
        session: None,
    }
}

/// desk-1's config: a session of eight hours, valid for four.
pub(crate) fn device_config(segment: &str, session_id: &str, generation: u64) -> OverlayConfig {
    OverlayConfig {
        version: VERSION,
        agent: "device/desk-1".parse().unwrap(),
        segment: segment.parse().unwrap(),
        generation: Generation(generation),
        issued_at: start(),
        valid_until: start() + seconds(4 * 3600),
        interface: Interface {
            addresses: vec!["10.200.0.9".parse().unwrap()],
            mtu: 1420,
            listen_port: None,
        },
        role: Role::Device {
            session: session(session_id),
            tunnel: TunnelMode::Split,
            prefixes: vec!["10.0.0.0/8".parse().unwrap()],
            dns: Dns::default(),
            lan: Vec::new(),
        },
        peers: vec![peer("gateway/gw-1", 1)],
        rules: vec![rule("web")],
        policy: None,
        observed: None,
    }
}

/// gw-1's config: desk-1 and desk-2 with sessions that end after eight hours.
pub(crate) fn gateway_config(generation: u64) -> OverlayConfig {
    let admitted = |device: &str, octet, id: &str| Peer {
        session: Some(session(id)),
        endpoints: Vec::new(),
        ..peer(device, octet)
    };
    OverlayConfig {
        agent: "gateway/gw-1".parse().unwrap(),
        role: Role::Gateway {
            forwarding: Forwarding::Nat,
            pools: vec!["10.200.0.0/24".parse().unwrap()],
            prefixes: vec!["10.0.0.0/8".parse().unwrap()],
        },
        interface: Interface {
            addresses: vec!["10.200.0.1".parse().unwrap()],
            mtu: 1420,
            listen_port: Some(51820),
        },
        peers: vec![admitted("device/desk-1", 9, "s1"), admitted("device/desk-2", 10, "s2")],
        valid_until: start() + seconds(24 * 3600),
        ..device_config("council", "unused", generation)
    }
}

/// A delta from `base` to `generation`, valid for as long as `base`.
pub(crate) fn delta(base: &OverlayConfig, generation: u64, changes: Vec<Change>) -> Delta {
    Delta {
        version: VERSION,
        agent: base.agent.clone(),
        segment: base.segment.clone(),
        base: base.generation,
        generation: Generation(generation),
        issued_at: base.issued_at,
        valid_until: base.valid_until,
        changes,
    }
}

pub(crate) fn seal(config: &OverlayConfig) -> Envelope {
    let payload = Payload::Snapshot(Box::new(config.clone()));
    Envelope::seal(&payload, &segment_key(&config.segment))
}

pub(crate) fn seal_delta(delta: &Delta) -> Envelope {
    Envelope::seal(&Payload::Delta(delta.clone()), &segment_key(&delta.segment))
}
