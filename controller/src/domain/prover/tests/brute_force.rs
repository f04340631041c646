//! The set arithmetic against trying every packet, in a universe of sixteen addresses and six ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use partywall_proto::admin::Endpoint;
use partywall_proto::ids::{AgentId, SegmentId};
use partywall_proto::nets::{PortRange, Prefix, Protocol};
use partywall_proto::rules::{Action, ClassId, Match, Opener, Rule};
use proptest::prelude::*;

use crate::domain::policy::Opening;
use crate::domain::prover::{
    AgentFacts, Evidence, Flaw, PeerFacts, Publication, Reach, RuleList, SegmentFacts, WarningKind,
    prove,
};

const CLASSES: [&[ClassId]; 4] = [&[], &[ClassId(0)], &[ClassId(1)], &[ClassId(0), ClassId(1)]];
/// Rules name the first five and the last; 9 stands for every other.
const PORTS: [u16; 7] = [0, 1, 2, 3, 4, 9, u16::MAX];

fn address(ipv6: bool, low: u16) -> IpAddr {
    if ipv6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, low])
    } else {
        IpAddr::from([10, 0, 0, low as u8])
    }
}

/// A part of 10.0.0.0/28 or fd00::/124.
fn prefix(ipv6: bool, low: u16, bits: u8) -> Prefix {
    let kept = low & (0xf_u16 << (4 - bits));
    let length = bits + if ipv6 { 124 } else { 28 };
    format!("{}/{length}", address(ipv6, kept)).parse().unwrap()
}

/// Everything that can be told apart.
fn universe() -> Vec<Opening> {
    let mut packets = Vec::new();
    for opener in [Opener::Device, Opener::Network] {
        for ipv6 in [false, true] {
            for low in 0..16 {
                let opening = |protocol, port| {
                    let far = Endpoint::new(address(ipv6, low), protocol, port);
                    Opening { opener, far }
                };
                for port in PORTS {
                    packets.push(opening(Protocol::Tcp, port));
                    packets.push(opening(Protocol::Udp, port));
                }
                packets.push(opening(Protocol::Icmp, 0));
            }
        }
    }
    packets
}

fn prefixes() -> impl Strategy<Value = Prefix> {
    (any::<bool>(), 0_u16..16, 0_u8..=4).prop_map(|(ipv6, low, bits)| prefix(ipv6, low, bits))
}

fn spaces() -> impl Strategy<Value = (Option<Protocol>, Vec<&'static str>)> {
    let ports = prop::sample::subsequence(vec!["0", "1-2", "2-3", "4", "0-65535", "3-65535"], 0..3);
    prop_oneof![
        2 => Just((None, Vec::new())),
        4 => ports.clone().prop_map(|ports| (Some(Protocol::Tcp), ports)),
        1 => ports.prop_map(|ports| (Some(Protocol::Udp), ports)),
        1 => Just((Some(Protocol::Icmp), Vec::new())),
    ]
}

prop_compose! {
    fn rule()(
        allow in any::<bool>(),
        device in prop::bool::weighted(0.8),
        class in proptest::option::of((0_u32..2).prop_map(ClassId)),
        prefix in prefixes(),
        (protocol, ports) in spaces(),
    ) -> Rule {
        let ports = ports.iter().map(|text| text.parse().unwrap()).collect();
        let opener = if device { Opener::Device } else { Opener::Network };
        let action = if allow { Action::Allow } else { Action::Deny };
        let matches = Match::new(opener, class, prefix, protocol, ports).unwrap();
        Rule { id: "r".parse().unwrap(), action, matches }
    }
}

/// Rules with names of their own.
fn rules(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    proptest::collection::vec(rule(), 0..most).prop_map(|mut rules| {
        for (rule, at) in rules.iter_mut().zip(0..) {
            rule.id = format!("r{at}").parse().unwrap();
        }
        rules
    })
}

prop_compose! {
    fn publication()(
        out in prop::bool::weighted(0.8),
        prefix in prefixes(),
        (protocol, ports) in spaces(),
    ) -> Publication {
        let [own, other] = ["own", "other"].map(|name| name.parse().unwrap());
        let (from, to) = if out { (own, other) } else { (other, own) };
        let ports = ports.iter().map(|text| text.parse().unwrap()).collect();
        Publication { from, to, prefix, protocol, ports }
    }
}

/// Two segments, each with pools and prefixes that may lie in any way.
#[derive(Debug)]
struct World {
    pools: [Vec<Prefix>; 2],
    prefixes: [Vec<Prefix>; 2],
    publications: Vec<Publication>,
}

prop_compose! {
    fn world()(
        pools in [proptest::collection::vec(prefixes(), 0..2), proptest::collection::vec(prefixes(), 0..2)],
        nets in [proptest::collection::vec(prefixes(), 0..3), proptest::collection::vec(prefixes(), 0..3)],
        publications in proptest::collection::vec(publication(), 0..3),
    ) -> World {
        World { pools, prefixes: nets, publications }
    }
}

impl World {
    /// Whether this packet would be one between the first segment and the second.
    fn crosses(&self, packet: &Opening) -> bool {
        let lies = |prefixes: &[Prefix]| prefixes.iter().any(|it| it.holds(packet.far.address()));
        let own = lies(&self.prefixes[0]) || lies(&self.pools[0]);
        let foreign = lies(&self.pools[1]) || (lies(&self.prefixes[1]) && !own);
        foreign && !self.publications.iter().any(|it| self.offers(it, packet))
    }

    fn offers(&self, it: &Publication, packet: &Opening) -> bool {
        let mut theirs = self.prefixes[1].iter().chain(&self.pools[1]);
        it.from.as_str() == "own"
            && theirs.any(|outer| outer.covers(&it.prefix))
            && packet.opener == Opener::Device
            && it.prefix.holds(packet.far.address())
            && it.protocol.is_none_or(|protocol| protocol == packet.far.protocol())
            && (it.ports.is_empty() || it.ports.iter().any(|ports| ports.holds(packet.far.port())))
    }

    /// Whether this packet would be one between devices that a rule of this prefix was not written for.
    fn strays(&self, packet: &Opening, prefix: Prefix) -> bool {
        let pools = &self.pools[0];
        !pools.iter().any(|pool| pool.covers(&prefix))
            && pools.iter().any(|pool| pool.holds(packet.far.address()))
    }
}

/// The list, read from the top.
fn first_match<'a>(packet: &Opening, rules: &'a [Rule], classes: &[ClassId]) -> Option<&'a Rule> {
    let far = &packet.far;
    rules.iter().find(|rule| {
        let it = &rule.matches;
        it.opener() == packet.opener
            && it.class().is_none_or(|class| classes.contains(&class))
            && it.prefix().holds(far.address())
            && it.protocol().is_none_or(|protocol| protocol == far.protocol())
            && (it.ports().is_empty() || it.ports().iter().any(|it| it.holds(far.port())))
    })
}

fn allows(rules: &[Rule], classes: &[ClassId], packet: &Opening) -> bool {
    first_match(packet, rules, classes).is_some_and(|rule| rule.action == Action::Allow)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_is_in_reach_is_what_the_first_match_allows(rules in rules(10)) {
        for classes in CLASSES {
            let reach = Reach::of(&rules, classes);
            for packet in universe() {
                let by_reading =
                    first_match(&packet, &rules, classes).filter(|it| it.action == Action::Allow);
                prop_assert_eq!(reach.allows(&packet), by_reading.map(|it| &it.id), "{}", packet);
            }
        }
    }

    #[test]
    fn what_one_version_allows_beyond_another_is_each_packet_of_it_once(a in rules(6), b in rules(6)) {
        for classes in CLASSES {
            let beyond = Reach::of(&a, classes).beyond(&Reach::of(&b, classes));
            for packet in universe() {
                let far = &packet.far;
                let within = |(protocol, ports): &(Protocol, Vec<PortRange>)| {
                    *protocol == far.protocol()
                        && (*protocol == Protocol::Icmp || ports.iter().any(|it| it.holds(far.port())))
                };
                let holding: Vec<_> = beyond
                    .iter()
                    .filter(|it| it.opener == packet.opener && it.prefix.holds(far.address()))
                    .filter(|it| it.what.iter().any(within))
                    .map(|it| &it.rule)
                    .collect();
                let gained = first_match(&packet, &a, classes)
                    .filter(|rule| rule.action == Action::Allow && !allows(&b, classes, &packet));
                prop_assert_eq!(holding, Vec::from_iter(gained.map(|rule| &rule.id)), "{}", packet);
            }
        }
    }

    #[test]
    fn a_rule_is_idle_if_no_packet_of_any_device_comes_to_it(rules in rules(8)) {
        let segment = "own".parse().unwrap();
        let gateway: AgentId = "gateway/g".parse().unwrap();
        let agent = AgentFacts { agent: &gateway, addresses: &[], rules: RuleList::Listed(&rules), peers: Vec::new() };
        let proof = prove(&evidence(&segment, vec![agent]));
        let universe = universe();
        let mut idle = Vec::new();
        for rule in &rules {
            let decides = |classes: &[ClassId]| {
                let decided = |packet| first_match(packet, &rules, classes);
                universe.iter().any(|packet| decided(packet).is_some_and(|it| it.id == rule.id))
            };
            if CLASSES.iter().any(|classes| decides(classes)) {
                continue;
            }
            let classes: Vec<_> = rule.matches.class().into_iter().collect();
            let own = std::slice::from_ref(rule);
            let shadowed = universe.iter().any(|packet| {
                let decided = first_match(packet, &rules, &classes);
                first_match(packet, own, &classes).is_some()
                    && decided.is_some_and(|it| it.action != rule.action)
            });
            idle.push((rule.id.clone(), shadowed));
        }
        let found: Vec<_> = proof
            .warnings
            .iter()
            .map(|it| (it.rule.clone(), it.kind != WarningKind::Redundant))
            .collect();
        prop_assert_eq!(found, idle);
    }

    #[test]
    fn each_rule_that_lets_a_packet_pass_which_must_not_is_refuted_and_no_other(
        world in world(),
        rules in rules(6),
    ) {
        let names: [SegmentId; 2] = ["own", "other"].map(|name| name.parse().unwrap());
        let gateway: AgentId = "gateway/g".parse().unwrap();
        let agent = AgentFacts { agent: &gateway, addresses: &[], rules: RuleList::Listed(&rules), peers: Vec::new() };
        let segment = |at: usize, agents| SegmentFacts {
            segment: &names[at],
            pools: &world.pools[at],
            prefixes: &world.prefixes[at],
            agents,
        };
        let segments = vec![segment(0, vec![agent]), segment(1, Vec::new())];
        let proof = prove(&Evidence { segments, publications: &world.publications });

        let (mut crossing, mut straying) = (BTreeSet::new(), BTreeSet::new());
        for packet in universe() {
            for classes in CLASSES {
                let Some(rule) = first_match(&packet, &rules, classes) else { continue };
                if rule.action == Action::Allow && world.crosses(&packet) {
                    crossing.insert(rule.id.clone());
                }
                if rule.action == Action::Allow && world.strays(&packet, rule.matches.prefix()) {
                    straying.insert(rule.id.clone());
                }
            }
        }
        let (mut crossed, mut strayed) = (BTreeSet::new(), BTreeSet::new());
        for refutation in &proof.refutations {
            match &refutation.flaw {
                Flaw::CrossesSegments { rule, whom, packet, .. } => {
                    prop_assert!(world.crosses(packet) && allows(&rules, &whom.classes, packet));
                    crossed.insert(rule.clone());
                }
                Flaw::BetweenDevices { rule, whom, packet, prefix } => {
                    prop_assert!(world.strays(packet, *prefix));
                    prop_assert!(allows(&rules, &whom.classes, packet));
                    strayed.insert(rule.clone());
                }
                Flaw::EndsDisagree { .. } | Flaw::ForeignAddress { .. } => {
                    prop_assert!(false, "{}", refutation);
                }
            }
        }
        prop_assert_eq!(crossed, crossing);
        prop_assert_eq!(strayed, straying);
    }

    #[test]
    fn two_ends_agree_if_no_packet_tells_them_apart(
        at_gateway in rules(6),
        other in rules(6),
        own_words in any::<bool>(),
        without in 0_usize..6,
        set in 0_usize..4,
    ) {
        let classes = CLASSES[set];
        // Unrelated lists hardly ever agree; one that lacks a rule of the other often does.
        let mut at_device = if own_words { other } else {
            let concerned =
                at_gateway.iter().filter(|it| it.matches.class().is_none_or(|it| classes.contains(&it)));
            concerned.map(without_class).collect()
        };
        if without < at_device.len() {
            at_device.remove(without);
        }
        let segment = "own".parse().unwrap();
        let gateway: AgentId = "gateway/g".parse().unwrap();
        let device: AgentId = "device/d".parse().unwrap();
        let agent = |agent, rules, peer, classes| AgentFacts {
            agent,
            addresses: &[],
            rules: RuleList::Listed(rules),
            peers: vec![PeerFacts { agent: peer, allowed_ips: &[], classes }],
        };
        let agents = vec![
            agent(&gateway, &at_gateway, &device, classes),
            agent(&device, &at_device, &gateway, &[]),
        ];
        let proof = prove(&evidence(&segment, agents));
        let differs = |packet: &Opening| {
            allows(&at_gateway, classes, packet) != allows(&at_device, &[], packet)
        };
        let apart = universe().iter().any(differs);
        prop_assert_eq!(!proof.holds(), apart);
        for refutation in &proof.refutations {
            let Flaw::EndsDisagree { packet, .. } = &refutation.flaw else {
                return Err(TestCaseError::fail(refutation.to_string()));
            };
            prop_assert!(differs(packet), "{}", packet);
        }
    }
}

fn evidence<'a>(segment: &'a SegmentId, agents: Vec<AgentFacts<'a>>) -> Evidence<'a> {
    let facts = SegmentFacts { segment, pools: &[], prefixes: &[], agents };
    Evidence { segments: vec![facts], publications: &[] }
}

fn without_class(rule: &Rule) -> Rule {
    let it = &rule.matches;
    let matches = Match::new(it.opener(), None, it.prefix(), it.protocol(), it.ports().to_vec());
    Rule { id: rule.id.clone(), action: rule.action, matches: matches.unwrap() }
}
