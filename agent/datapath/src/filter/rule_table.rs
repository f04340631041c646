//! Rules compiled for lookup: first match in list order decides, and nothing matched is a drop.
//!
//! Cost follows the peer's classes and the prefix lengths in use, not the number of rules: for each
//! (opener, class, prefix, protocol) the ports are cut into disjoint spans that know their first rule. The list order
//! decides between them too, so every prefix that holds the address is asked. What is asked for one
//! device lies together, apart from what concerns other classes, so that it stays in a cache.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use foldhash::fast::RandomState;
use partywall_proto::ids::RuleId;
use partywall_proto::nets::{PortRange, Protocol};
use partywall_proto::overlay::{Observed, PolicyStamp};
use partywall_proto::rules::{Action, ClassId, Match, Opener, Rule};

use crate::packet::{Address, Family};

/// A list of rules, ready for lookup.
#[derive(Debug, Default)]
pub struct RuleTable {
    ids: Vec<RuleId>,
    /// Apart from their names, because each new flow reads one.
    actions: Vec<Action>,
    v4: Scopes<u32>,
    v6: Scopes<u128>,
    spans: Vec<Span>,
    policy: Option<u64>,
    trial: Option<Box<Trial>>,
}

/// Rules that are asked and not obeyed.
#[derive(Debug)]
struct Trial {
    version: u64,
    rules: RuleTable,
}

/// What a flow's first packet wants, in the words of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Who opens the flow.
    pub opener: Opener,
    /// The network's end: destination where the device opens, source where the network does.
    pub network: Address,
    /// Above IP.
    pub protocol: Protocol,
    /// The responder's port; 0 for ICMP.
    pub port: u16,
}

/// The rule that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Its position in the list.
    pub rule: u32,
    /// What it says.
    pub action: Action,
}

/// Whom rules are for: who opens, and of which class the device is; none for those of every class.
type Scope = (Opener, Option<ClassId>);

/// The prefixes of one family, whose addresses fit a `B`, that the rules of each scope name.
type Scopes<B> = HashMap<Scope, Vec<Layer<B>>, RandomState>;

/// A scope's prefixes of one length.
#[derive(Debug)]
struct Layer<B> {
    length: u8,
    runs: HashMap<(B, Protocol), Run, RandomState>,
}

/// Where the spans of one scope, prefix and protocol lie: disjoint, and in ascending order.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u32,
    end: u32,
}

/// What rules are grouped by.
type Group = (Family, Scope, u8, u128, Protocol);

/// Ports from `first` to `last`, and the rule that covers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    first: u16,
    last: u16,
    rule: u32,
}

impl RuleTable {
    /// Compiles `rules`; their order decides, the first match wins.
    pub fn compile(rules: &[Rule]) -> Self {
        let mut drafts = Vec::new();
        for (rule, at) in rules.iter().zip(0_u32..) {
            drafts.extend(draft(&rule.matches, at));
        }
        drafts.sort_unstable();
        let mut table = Self {
            ids: rules.iter().map(|rule| rule.id.clone()).collect(),
            actions: rules.iter().map(|rule| rule.action).collect(),
            ..Self::default()
        };
        for group in drafts.chunk_by(|(one, _), (other, _)| one == other) {
            table.add(group);
        }
        table
    }

    /// The rules of a config, with what it says of their policy and of the one on trial.
    pub fn of(rules: &[Rule], policy: Option<PolicyStamp>, observed: Option<&Observed>) -> Self {
        let trial = observed.map(|observed| {
            let rules = Self::compile(&observed.rules);
            Box::new(Trial { version: observed.version, rules })
        });
        Self { policy: policy.map(|policy| policy.version), trial, ..Self::compile(rules) }
    }

    /// The policy version that the rules come from, if it is known.
    pub fn policy(&self) -> Option<u64> {
        self.policy
    }

    /// The policy version on trial, if there is one, and its rules.
    pub fn trial(&self) -> Option<(u64, &RuleTable)> {
        self.trial.as_deref().map(|trial| (trial.version, &trial.rules))
    }

    /// The rule that decides on `opening` towards or from a device of these classes; none means drop.
    pub fn decide(&self, opening: &Opening, classes: &[ClassId]) -> Option<Decision> {
        let rule = match opening.network.family() {
            Family::V4 => self.first_in(&self.v4, opening, classes, |bits| bits as u32),
            Family::V6 => self.first_in(&self.v6, opening, classes, |bits| bits),
        }?;
        Some(Decision { rule, action: *self.actions.get(rule as usize)? })
    }

    /// The name of the rule at this position.
    pub fn id(&self, rule: u32) -> Option<&RuleId> {
        self.ids.get(rule as usize)
    }

    /// The first rule that matches; `bits` makes an address of this family from its number.
    fn first_in<B: Copy + Eq + Hash>(
        &self,
        scopes: &Scopes<B>,
        opening: &Opening,
        classes: &[ClassId],
        bits: impl Fn(u128) -> B,
    ) -> Option<u32> {
        let everyone = std::iter::once(None);
        let classes = everyone.chain(classes.iter().copied().map(Some));
        let layers = classes.filter_map(|class| scopes.get(&(opening.opener, class))).flatten();
        let runs = layers.filter_map(|layer| {
            let prefix = bits(opening.network.masked(layer.length));
            layer.runs.get(&(prefix, opening.protocol))
        });
        let spans = runs.filter_map(|run| self.spans.get(run.start as usize..run.end as usize));
        spans.filter_map(|spans| rule_at(spans, opening.port)).min()
    }

    /// Adds the spans of one group, which must not be there yet.
    fn add(&mut self, group: &[(Group, Span)]) {
        let Some(&((family, scope, length, bits, protocol), _)) = group.first() else { return };
        let spans: Vec<_> = group.iter().map(|(_, span)| *span).collect();
        // A config of four billion spans fits no memory.
        let start = self.spans.len() as u32;
        self.spans.extend(disjoint(&spans));
        let run = Run { start, end: self.spans.len() as u32 };
        match family {
            Family::V4 => enter(&mut self.v4, scope, length, (bits as u32, protocol), run),
            Family::V6 => enter(&mut self.v6, scope, length, (bits, protocol), run),
        }
    }
}

/// The spans of a rule, each with what it is to be found by.
fn draft(matches: &Match, rule: u32) -> impl Iterator<Item = (Group, Span)> {
    let prefix = matches.prefix();
    let address = Address::from(prefix.address());
    let scope = (matches.opener(), matches.class());
    let ports = match matches.ports() {
        [] => &[PortRange::ALL],
        some => some,
    };
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp].into_iter();
    let meant = protocols.filter(move |it| matches.protocol().is_none_or(|only| only == *it));
    meant.flat_map(move |protocol| {
        let group = (address.family(), scope, prefix.length(), address.bits(), protocol);
        let span = move |ports: &PortRange| Span { first: ports.first(), last: ports.last(), rule };
        ports.iter().map(move |ports| (group, span(ports)))
    })
}

/// Has `run` found by its key in the layer of this length.
fn enter<B: Eq + Hash>(
    scopes: &mut Scopes<B>,
    scope: Scope,
    length: u8,
    key: (B, Protocol),
    run: Run,
) {
    let layers = scopes.entry(scope).or_default();
    let layer = match layers.iter().position(|layer| layer.length == length) {
        Some(at) => &mut layers[at],
        None => layers.push_mut(Layer { length, runs: HashMap::default() }),
    };
    layer.runs.insert(key, run);
}

/// The rule of the span that holds this port.
fn rule_at(spans: &[Span], port: u16) -> Option<u32> {
    let at = spans.partition_point(|span| span.last < port);
    spans.get(at).filter(|span| span.first <= port).map(|span| span.rule)
}

/// Cuts overlapping spans into disjoint ones, each with the lowest rule that covers it.
fn disjoint(spans: &[Span]) -> Vec<Span> {
    // At each edge a rule begins or ceases to apply; between two edges the lowest that applies
    // decides. An edge is where a span starts or one past its last port, hence u32.
    let starts = spans.iter().map(|span| (u32::from(span.first), span.rule, 1));
    let ends = spans.iter().map(|span| (u32::from(span.last) + 1, span.rule, -1));
    let mut edges: Vec<(u32, u32, i32)> = starts.chain(ends).collect();
    edges.sort_unstable();
    // How often each rule applies: its own ranges may overlap.
    let mut applying = BTreeMap::<u32, i32>::new();
    let mut result = Vec::new();
    for (at, (edge, rule, step)) in edges.iter().enumerate() {
        let uses = applying.entry(*rule).or_default();
        *uses += step;
        if *uses == 0 {
            applying.remove(rule);
        }
        let next = edges.get(at + 1).map_or(*edge, |(next, ..)| *next);
        if let Some((lowest, _)) = applying.first_key_value().filter(|_| next > *edge) {
            push(&mut result, *edge, next - 1, *lowest);
        }
    }
    result
}

/// Appends a span, or lengthens the last one if it touches and follows the same rule.
fn push(spans: &mut Vec<Span>, first: u32, last: u32, rule: u32) {
    let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) else { return };
    match spans.last_mut() {
        Some(held) if held.rule == rule && first.checked_sub(1) == Some(held.last) => {
            held.last = last;
        }
        Some(_) | None => spans.push(Span { first, last, rule }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use partywall_proto::nets::Prefix;
    use proptest::prelude::*;
    use std::net::IpAddr;

    /// What the table must say, by reading the list from the top.
    fn naive(rules: &[Rule], opening: &Opening, classes: &[ClassId]) -> Option<Decision> {
        let applies = |rule: &Rule| {
            let m = &rule.matches;
            m.opener() == opening.opener
                && m.class().is_none_or(|class| classes.contains(&class))
                && m.prefix().holds(opening.network.into())
                && m.protocol().is_none_or(|protocol| protocol == opening.protocol)
                && (m.ports().is_empty() || m.ports().iter().any(|p| p.holds(opening.port)))
        };
        let at = rules.iter().position(applies)?;
        Some(Decision { rule: at as u32, action: rules[at].action })
    }

    fn protocols() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)]
    }

    fn openers() -> impl Strategy<Value = Opener> {
        prop_oneof![Just(Opener::Device), Just(Opener::Network)]
    }

    /// Few addresses and ports, so that rules and openings meet.
    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u8..4, 0_u8..4).prop_map(|(a, b)| IpAddr::from([10, a, 0, b])),
            (0_u16..4, 0_u16..4).prop_map(|(a, b)| IpAddr::from([0xfd00, a, 0, 0, 0, 0, 0, b])),
        ]
    }

    prop_compose! {
        fn rules()(
            allow in any::<bool>(),
            opener in openers(),
            class in proptest::option::of((0_u32..2).prop_map(ClassId)),
            address in addresses(),
            length in prop_oneof![Just(0_u8), Just(8), Just(31), Just(128)],
            protocol in proptest::option::of(protocols()),
            ports in proptest::collection::vec((0_u16..12, 0_u16..6), 0..4),
            top in any::<bool>(),
        ) -> Rule {
            let address = Address::from(address);
            let length = length.min(address.family().bits());
            let network = Address::from_bits(address.family(), address.masked(length));
            let prefix: Prefix = format!("{}/{length}", IpAddr::from(network)).parse().unwrap();
            // Both ends of the range of ports are where off-by-one errors live.
            let base = if top { 65_535 - 17 } else { 0 };
            let range = |(first, more): &(u16, u16)| {
                format!("{}-{}", base + first, base + first + more).parse().unwrap()
            };
            let with_ports = matches!(protocol, Some(Protocol::Tcp | Protocol::Udp));
            let ports = if with_ports { ports.iter().map(range).collect() } else { Vec::new() };
            let action = if allow { Action::Allow } else { Action::Deny };
            let matches = Match::new(opener, class, prefix, protocol, ports).unwrap();
            Rule { id: "r".parse().unwrap(), action, matches }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn the_table_decides_as_reading_the_list_from_the_top_does(
            rules in proptest::collection::vec(rules(), 0..12),
            opener in openers(),
            classes in proptest::collection::btree_set((0_u32..3).prop_map(ClassId), 0..3),
            address in addresses(),
            protocol in protocols(),
            port in prop_oneof![0_u16..20, 65_515..=65_535_u16],
        ) {
            let opening = Opening { opener, network: address.into(), protocol, port };
            let classes: Vec<_> = classes.into_iter().collect();
            let table = RuleTable::compile(&rules);
            prop_assert_eq!(table.decide(&opening, &classes), naive(&rules, &opening, &classes));
        }
    }

    proptest! {
        #[test]
        fn spans_are_cut_so_that_the_first_rule_of_each_port_stands(
            ranges in proptest::collection::vec((0_u16..20, 0_u16..6, 0_u32..6), 0..10),
            top in any::<bool>(),
        ) {
            let base = if top { 65_535 - 25 } else { 0 };
            let spans: Vec<Span> = ranges
                .iter()
                .map(|(at, more, rule)| Span { first: base + at, last: base + at + more, rule: *rule })
                .collect();
            let cut = disjoint(&spans);
            prop_assert!(cut.is_sorted_by(|a, b| a.last < b.first));
            for port in base..=base + 25 {
                let holding = spans.iter().filter(|span| (span.first..=span.last).contains(&port));
                prop_assert_eq!(
                    rule_at(&cut, port),
                    holding.map(|span| span.rule).min(),
                    "port {}", port
                );
            }
        }
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        let network = Address::v4([10, 0, 0, 1]);
        let opening =
            Opening { opener: Opener::Device, network, protocol: Protocol::Tcp, port: 443 };
        assert_eq!(RuleTable::compile(&[]).decide(&opening, &[ClassId(0)]), None);
    }
}
