//! What the prover says of two organisations that both use 10.0.0.0/8 inside.

use partywall_proto::ids::{AgentId, SegmentId};
use partywall_proto::nets::Prefix;
use partywall_proto::rules::{ClassId, Rule};
use serde_json::json;

use crate::domain::prover::{
    AgentFacts, Evidence, PeerFacts, Proof, Publication, RuleList, SegmentFacts, prove,
};

/// Two segments, a gateway and a device in each; what matters can be changed.
struct World {
    segments: [SegmentId; 2],
    pools: [Vec<Prefix>; 2],
    prefixes: [Vec<Prefix>; 2],
    agents: [[AgentId; 2]; 2],
    addresses: [Vec<Prefix>; 2],
    classes: Vec<ClassId>,
    at_gateway: [Vec<Rule>; 2],
    at_device: [Vec<Rule>; 2],
    publications: Vec<Publication>,
}

impl World {
    fn new() -> Self {
        let agents =
            |gateway: &str, device: &str| [gateway.parse().unwrap(), device.parse().unwrap()];
        Self {
            segments: ["council".parse().unwrap(), "nhs".parse().unwrap()],
            pools: [prefixes(&["100.64.0.0/24", "fd00:1::/64"]), prefixes(&["100.64.1.0/24"])],
            prefixes: [prefixes(&["10.0.0.0/8"]), prefixes(&["10.0.0.0/8", "172.16.0.0/12"])],
            agents: [
                agents("gateway/gw-c", "device/desk-1"),
                agents("gateway/gw-n", "device/desk-2"),
            ],
            addresses: [prefixes(&["100.64.0.7"]), prefixes(&["100.64.1.7"])],
            classes: vec![ClassId(0), ClassId(1)],
            at_gateway: [Vec::new(), Vec::new()],
            at_device: [Vec::new(), Vec::new()],
            publications: Vec::new(),
        }
    }

    /// The council's rules at both ends; the device is in classes 0 and 1.
    fn with(rules: &[Rule]) -> Self {
        let mut world = Self::new();
        world.at_gateway[0] = rules.to_vec();
        world.at_device[0] = rules.iter().map(without_class).collect();
        world
    }

    fn prove(&self) -> Proof {
        let segment = |at: usize| {
            let [gateway, device] = &self.agents[at];
            let peer = |agent, allowed_ips, classes| PeerFacts { agent, allowed_ips, classes };
            let agent = |agent, rules, peer| AgentFacts {
                agent,
                addresses: &[],
                rules: RuleList::Listed(rules),
                peers: vec![peer],
            };
            SegmentFacts {
                segment: &self.segments[at],
                pools: &self.pools[at],
                prefixes: &self.prefixes[at],
                agents: vec![
                    agent(
                        gateway,
                        &self.at_gateway[at],
                        peer(device, &self.addresses[at], &self.classes),
                    ),
                    agent(device, &self.at_device[at], peer(gateway, &self.prefixes[at], &[])),
                ],
            }
        };
        let segments = vec![segment(0), segment(1)];
        prove(&Evidence { segments, publications: &self.publications })
    }
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A rule: id, action, opener, class, prefix, protocol, ports.
fn rule(id: &str, action: &str, class: Option<u32>, prefix: &str, ports: &[u16]) -> Rule {
    let mut matches = json!({ "opener": "device", "prefix": prefix });
    if let Some(class) = class {
        matches["class"] = class.into();
    }
    if !ports.is_empty() {
        matches["protocol"] = "tcp".into();
        matches["ports"] = ports.into();
    }
    serde_json::from_value(json!({ "id": id, "action": action, "match": matches })).unwrap()
}

fn without_class(rule: &Rule) -> Rule {
    let mut value = serde_json::to_value(rule).unwrap();
    value["match"].as_object_mut().unwrap().remove("class");
    serde_json::from_value(value).unwrap()
}

fn said(proof: &Proof) -> Vec<String> {
    let refutations = proof.refutations.iter().map(ToString::to_string);
    refutations.chain(proof.warnings.iter().map(ToString::to_string)).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_same_prefix_inside_two_organisations_is_each_ones_own() {
    let rules = [
        rule("web", "allow", Some(0), "10.1.0.0/16", &[443]),
        rule("desks", "allow", None, "100.64.0.0/24", &[5060]),
    ];
    assert_eq!(said(&World::with(&rules).prove()), NOTHING);
}

#[test]
fn a_rule_into_another_segment_is_refuted_with_a_packet_at_both_ends() {
    let rules = [
        rule("no-web", "deny", None, "172.16.0.0/12", &[1, 80]),
        rule("wide", "allow", Some(1), "172.0.0.0/8", &[80, 443]),
    ];
    let proof = World::with(&rules).prove();
    assert_eq!(
        said(&proof),
        [
            "in segment council, gateway/gw-c would let pass a device's packet to 172.16.0.0:443/tcp, which \
          is segment nhs's: rule wide allows it to devices of class 1, such as desk-1, and no \
          publication offers it"
        ]
    );
    let mut device_only = World::with(&rules);
    device_only.at_gateway[0].pop();
    let said = said(&device_only.prove());
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("gateway/gw-c and desk-1 disagree about a device's packet to 172."));
    assert!(
        said[0].ends_with("at the device rule wide allows it, at the gateway no rule allows it")
    );
    assert!(said[1].starts_with("in segment council, device/desk-1 would let pass a device"));
}

#[test]
fn another_segments_pool_is_foreign_although_an_own_prefix_covers_it() {
    let mut world = World::with(&[rule("wide", "allow", None, "100.64.1.0/28", &[22])]);
    world.prefixes[0] = prefixes(&["100.64.0.0/10"]);
    let said = said(&world.prove());
    assert!(
        said[0].contains("to 100.64.1.0:22/tcp, which is segment nhs's: rule wide"),
        "{said:?}"
    );
}

#[test]
fn a_live_publication_is_an_exception_for_exactly_what_it_offers() {
    let offer = |from: &str, to: &str, prefix: &str, port: &str| Publication {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        protocol: Some(partywall_proto::nets::Protocol::Tcp),
        ports: vec![port.parse().unwrap()],
    };
    let mut world =
        World::with(&[rule("referrals", "allow", Some(0), "172.16.5.0/24", &[443, 444])]);
    let packet = |world: &World| {
        let said = said(&world.prove());
        said.first().and_then(|it| Some(it.split_once(", which")?.0.rsplit_once(' ')?.1.to_owned()))
    };
    assert_eq!(packet(&world).as_deref(), Some("172.16.5.0:443/tcp"));
    world.publications = vec![offer("council", "nhs", "172.16.5.0/24", "443")];
    assert_eq!(packet(&world).as_deref(), Some("172.16.5.0:444/tcp"));
    world.publications.push(offer("council", "nhs", "172.16.5.0/25", "444"));
    assert_eq!(packet(&world).as_deref(), Some("172.16.5.128:444/tcp"));
    world.publications.push(offer("council", "nhs", "172.16.5.128/25", "444"));
    assert_eq!(packet(&world), None);
    // Neither one for the other direction, nor one of what is not the offering segment's.
    world.publications = vec![offer("nhs", "council", "172.16.5.0/24", "443-444")];
    assert_eq!(packet(&world).as_deref(), Some("172.16.5.0:443/tcp"));
    world.publications = vec![offer("council", "nhs", "172.0.0.0/8", "443-444")];
    assert_eq!(packet(&world).as_deref(), Some("172.16.5.0:443/tcp"));
}

#[test]
fn an_address_of_another_segments_pool_is_nobodys_here() {
    let mut world = World::new();
    world.addresses[0] = prefixes(&["100.64.1.9"]);
    assert_eq!(
        said(&world.prove()),
        [
            "in segment council, gateway/gw-c would take 100.64.1.9/32 for device/desk-1's, but it is of \
          the pool 100.64.1.0/24 of segment nhs"
        ]
    );
    // A full tunnel takes all that the device sends, and nothing for anyone's.
    let mut world = World::new();
    world.prefixes[0] = prefixes(&["0.0.0.0/0"]);
    assert_eq!(said(&world.prove()), NOTHING);
}

#[test]
fn a_wide_rule_does_not_reach_devices_and_one_for_the_pool_does() {
    let wide = rule("wide", "allow", None, "fd00:1::/32", &[]);
    let said_of = |rules: &[Rule]| {
        let mut world = World::with(rules);
        world.prefixes[0].extend(prefixes(&["fd00:1::/32"]));
        said(&world.prove())
    };
    let said = said_of(std::slice::from_ref(&wide));
    assert_eq!(
        said,
        [
            "in segment council, gateway/gw-c would let pass a device's packet to [fd00:1::]:1/tcp, which is \
          in the pool of devices: rule wide allows it to every device because its prefix \
          fd00:1::/32 covers the pool; write a rule for the pool itself, or a narrower prefix"
        ]
    );
    let pool = rule("no-desks", "deny", None, "fd00:1::/64", &[]);
    assert_eq!(said_of(&[pool, wide]), NOTHING);
    assert_eq!(said_of(&[rule("desks", "allow", None, "fd00:1::/80", &[])]), NOTHING);
}

#[test]
fn both_ends_may_say_the_same_in_other_words() {
    let mut world = World::with(&[rule("web", "allow", Some(0), "10.0.0.0/30", &[80, 81])]);
    world.at_device[0] = vec![
        rule("a", "deny", None, "10.0.0.0/30", &[22]),
        rule("b", "allow", None, "10.0.0.2/31", &[80]),
        rule("c", "allow", None, "10.0.0.0/30", &[81]),
        rule("d", "allow", None, "10.0.0.0/31", &[80]),
    ];
    assert_eq!(said(&world.prove()), NOTHING);
    world.at_device[0].pop();
    let said = said(&world.prove());
    assert_eq!(
        said,
        ["in segment council, gateway/gw-c and desk-1 disagree about a device's packet to \
          10.0.0.0:80/tcp: at the device no rule allows it, at the gateway rule web allows it"]
    );
}

#[test]
fn rules_that_never_decide_are_told_apart_by_what_the_earlier_ones_say() {
    let rules = [
        rule("low", "allow", None, "10.0.0.0/25", &[]),
        rule("high", "allow", None, "10.0.0.128/25", &[]),
        rule("both", "allow", Some(0), "10.0.0.0/24", &[80]),
        rule("not-22", "deny", Some(1), "10.0.0.0/24", &[22]),
        rule("partly", "deny", Some(1), "10.0.0.0/24", &[22]),
        rule("partly", "deny", Some(1), "10.0.1.0/24", &[22]),
    ];
    assert_eq!(
        said(&World::with(&rules).prove()),
        [
            "in segment council, rule both changes nothing: earlier rules say the same already (low, \
             high); take it out",
            "in segment council, rule not-22 never takes effect: earlier rules decide on all that it \
             names, and low says the opposite, as on a device's packet to 10.0.0.0:22/tcp; move it up, or \
             take it out",
        ]
    );
}

#[test]
fn a_rule_of_another_class_covers_nothing() {
    let rules = [
        rule("staff", "allow", Some(0), "10.0.0.0/24", &[]),
        rule("guests", "deny", Some(1), "10.0.0.0/24", &[]),
        rule("rest", "deny", None, "10.0.0.0/24", &[]),
    ];
    assert_eq!(said(&World::with(&rules).prove()), NOTHING);
}
