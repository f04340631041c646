//! What each end says, case by case.

use partywall_proto::admin::{DeviceClass, PolicyMode, PolicySpec, SignInStrength};
use partywall_proto::ids::{BuildingId, GroupId};
use serde_json::{Value, json};

use super::*;
use crate::domain::session::PskSecret;

/// A council with one session, alice's on desk-1, to be altered.
struct World {
    policy: Value,
    segment: SegmentSpec,
    session: SessionRecord,
    groups: Vec<GroupId>,
    building: BuildingId,
    gateway: Option<GatewayId>,
    device: DeviceEnd,
    version: Option<PolicyVersion>,
}

impl World {
    fn new() -> Self {
        let rules = json!([
            { "name": "not-the-lab", "who": "everyone", "action": "deny",
              "what": [{ "net": { "prefixes": ["10.9.0.0/16"] } }] },
            { "name": "web", "who": { "groups": ["staff"] },
              "what": [{ "net": { "prefixes": ["10.1.0.0/16"], "protocol": "tcp", "ports": [443] } }] },
            { "name": "ledger", "who": { "groups": ["finance"] },
              "what": [{ "net": { "prefixes": ["10.2.0.0/16"], "protocol": "tcp", "ports": [443] } }] },
            { "name": "help", "who": { "groups": ["staff"] }, "opened_by": "network",
              "what": [{ "net": { "prefixes": ["10.1.9.0/24"], "protocol": "tcp", "ports": [3389] } }] },
            { "name": "ping", "who": { "groups": ["staff"] },
              "what": [{ "net": { "prefixes": ["10.1.0.0/16"], "protocol": "icmp" } }] },
        ]);
        Self {
            policy: json!({ "version": 1, "organisation": "council", "segments": { "council": { "rules": rules } } }),
            segment: serde_json::from_value(json!({
                "name": "council", "organisation": "council", "title": "Council", "tunnel": "split",
                "pools": ["100.64.0.0/24"], "prefixes": ["10.0.0.0/8"],
            }))
            .unwrap(),
            session: SessionRecord {
                id: "s1".parse().unwrap(),
                user: "alice@council".parse().unwrap(),
                device: "desk-1".parse().unwrap(),
                segment: "council".parse().unwrap(),
                addresses: vec!["100.64.0.7".parse().unwrap()],
                sign_in: SignInStrength::Code,
                began_at: "2026-11-22T08:00:00Z".parse().unwrap(),
                ends_at: "2026-11-22T18:00:00Z".parse().unwrap(),
                secret: PskSecret::from_bytes([3; 32]),
            },
            groups: vec!["staff".parse().unwrap()],
            building: "hq".parse().unwrap(),
            gateway: Some("gw".parse().unwrap()),
            device: DeviceEnd::Agent,
            version: Some(PolicyVersion {
                number: 7,
                published_by: "Ann (token t-1)".to_owned(),
                published_at: "2026-11-22T09:00:00Z".parse().unwrap(),
                restored_from: None,
                mode: PolicyMode::Enforce,
            }),
        }
    }

    fn ask(&self, opener: Opener, far: &str) -> WhyReport {
        let policy: PolicySpec = serde_json::from_value(self.policy.clone()).unwrap();
        let policy = Compiled::of(&policy, &self.segment.name);
        let facts = Facts {
            user: &self.session.user,
            groups: &self.groups,
            device: DeviceClass::SharedDesk,
            building: Some(&self.building),
            sign_in: SignInStrength::Code,
        };
        let classes = policy.classes_of(&facts, self.session.began_at);
        let report = why(&Case {
            session: &self.session,
            facts,
            segment: &self.segment,
            device: self.device,
            gateway: self.gateway.as_ref(),
            policy: &policy,
            classes: &classes,
            version: self.version.as_ref(),
            opening: Opening { opener, far: far.parse().unwrap() },
        });
        assert!(report.sentence.ends_with('.'), "{}", report.sentence);
        report
    }
}

/// Action, rule and drop reason at an end.
fn said(verdict: &Option<EndVerdict>) -> String {
    let it = verdict.as_ref().unwrap();
    let action = match it.action {
        Some(Action::Allow) => "allow",
        Some(Action::Deny) => "deny",
        None => "nothing",
    };
    let rule = it.rule.as_ref().map(|rule| format!(" {rule}")).unwrap_or_default();
    let drop = it.drop.map(|drop| format!(" {drop}")).unwrap_or_default();
    format!("{action}{rule}{drop}")
}

#[test]
fn both_ends_say_their_verdict_with_its_rule_and_the_sentence_says_it_in_words() {
    let world = World::new();
    for (opener, far, at_device, at_gateway, words) in [
        (
            Opener::Device,
            "10.1.0.5:443/tcp",
            "allow web",
            "allow web",
            "alice@council on desk-1 may reach 10.1.0.5:443/tcp: rule web allows it. The policy of council is \
             version 7, published by Ann (token t-1) at 2026-11-22T09:00:00Z.",
        ),
        (
            Opener::Device,
            "10.9.0.1/icmp",
            "deny not-the-lab denied",
            "deny not-the-lab denied",
            "alice@council on desk-1 may not ping 10.9.0.1: rule not-the-lab denies it.",
        ),
        (
            Opener::Device,
            "10.1.0.5:22/tcp",
            "deny no-rule",
            "deny no-rule",
            "may not reach 10.1.0.5:22/tcp: no rule allows it.",
        ),
        (
            Opener::Device,
            "10.2.0.5:443/tcp",
            "deny no-rule",
            "deny no-rule",
            "rule ledger allows it, but not to this session.",
        ),
        (
            Opener::Network,
            "10.1.9.3:3389/tcp",
            "allow help",
            "allow help",
            "10.1.9.3 may open 3389/tcp of alice@council on desk-1: rule help allows it.",
        ),
        (
            Opener::Device,
            "192.168.1.1:443/tcp",
            "deny no-route",
            "deny no-rule",
            "192.168.1.1 is in no prefix of segment council (10.0.0.0/8). If it should pass, add it to the segment",
        ),
        (
            Opener::Network,
            "192.168.1.1:443/tcp",
            "deny wrong-source",
            "deny no-rule",
            "192.168.1.1 may not open 443/tcp of alice@council on desk-1: no rule can allow it",
        ),
        (
            Opener::Device,
            "[fd10::1]:443/tcp",
            "deny no-route",
            "deny wrong-source",
            "fd10::1 is in no prefix",
        ),
    ] {
        let report = world.ask(opener, far);
        assert_eq!(said(&report.at_device), at_device, "at the device: {far}");
        assert_eq!(said(&report.at_gateway), at_gateway, "at the gateway: {far}");
        assert_eq!(report.allowed, at_device.starts_with("allow"), "{far}");
        assert!(report.sentence.contains(words), "{far}: {}", report.sentence);
    }
}

#[test]
fn a_full_tunnel_carries_what_no_rule_can_allow() {
    let mut world = World::new();
    world.segment.tunnel = partywall_proto::overlay::TunnelMode::Full;
    let report = world.ask(Opener::Device, "192.0.2.1:443/tcp");
    assert_eq!([said(&report.at_device), said(&report.at_gateway)], ["deny no-rule"; 2]);
    assert!(report.sentence.contains("192.0.2.1 is in no prefix"), "{}", report.sentence);
}

#[test]
fn an_address_of_a_family_that_the_segment_has_no_pool_of_is_told() {
    let mut world = World::new();
    world.segment.prefixes.push("fd10::/16".parse().unwrap());
    let report = world.ask(Opener::Device, "[fd10::1]:443/tcp");
    assert_eq!(said(&report.at_device), "deny wrong-source");
    assert!(report.sentence.contains("no IPv6 address"), "{}", report.sentence);
    let report = world.ask(Opener::Network, "[fd10::1]:443/tcp");
    assert_eq!(said(&report.at_gateway), "deny no-route");
}

#[test]
fn an_end_without_an_agent_judges_nothing_and_says_so() {
    let mut world = World::new();
    world.device = DeviceEnd::Stock;
    let allowed = world.ask(Opener::Device, "10.1.0.5:443/tcp");
    assert_eq!(said(&allowed.at_device), "nothing");
    assert!(allowed.allowed && allowed.sentence.contains("stock WireGuard client"));
    assert!(!world.ask(Opener::Device, "10.1.0.5:22/tcp").allowed);

    world.gateway = None;
    assert!(!world.ask(Opener::Device, "10.1.0.5:443/tcp").allowed);
    world.device = DeviceEnd::Agent;
    let report = world.ask(Opener::Device, "10.1.0.5:443/tcp");
    assert_eq!([said(&report.at_device), said(&report.at_gateway)], ["deny no-route", "nothing"]);
    assert!(report.sentence.contains("partywallctl enrol-code gateway/"), "{}", report.sentence);
    let report = world.ask(Opener::Network, "10.1.9.3:3389/tcp");
    assert!(!report.allowed && report.sentence.contains("no gateway"), "{}", report.sentence);

    let world = World { device: DeviceEnd::NotEnrolled, ..World::new() };
    let report = world.ask(Opener::Device, "10.1.0.5:443/tcp");
    assert_eq!(
        [said(&report.at_device), said(&report.at_gateway)],
        ["deny no-config", "deny no-route"]
    );
    let words = "partywallctl enrol-code device/desk-1";
    assert!(report.sentence.contains(words), "{}", report.sentence);
}

#[test]
fn without_a_policy_in_force_that_is_the_answer() {
    let mut world = World::new();
    (world.version, world.policy["segments"]) = (None, json!({}));
    let report = world.ask(Opener::Device, "10.1.0.5:443/tcp");
    assert!(report.sentence.contains("council has no policy in force"), "{}", report.sentence);
    assert_eq!(said(&report.at_device), "deny no-rule");
}
