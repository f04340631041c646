//! Runs the tests that a policy carries.
//!
//! A test holds for everything that it leaves open: each kind of session that it may mean, each address
//! and port of the service that it names. Only the corners are tried, and they are all there is: between
//! two neighbouring edges of the rules nothing can change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use partywall_proto::admin::{
    Destination, DeviceClass, Endpoint, Expectation, PolicySpec, PolicyTest, ServiceSpec,
    SignInStrength, When,
};
use partywall_proto::ids::{BuildingId, GroupId, RuleId, SegmentId, UserId};
use partywall_proto::nets::{PortRange, Prefix, Protocol};
use partywall_proto::rules::{Opener, Rule};

use super::compiled::Compiled;
use super::decide::{Opening, first};
use super::facts::Facts;
use super::hours::{self, LocalTime};

/// Most cases that one test may stand for, so that a wide one cannot keep the controller busy.
const CASES_MAX: usize = 20_000;

/// One test of a policy and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The test's name.
    pub test: String,
    /// The rule that decided the last case that was tried; none where no rule did.
    pub rule: Option<RuleId>,
    /// Why it failed, in words; none if it passed.
    pub failure: Option<String>,
}

/// Tries all tests of `policy`, which was compiled to `compiled`. `groups` are a user's groups in the
/// organisation.
pub fn trials<'a>(
    policy: &PolicySpec,
    compiled: &BTreeMap<SegmentId, Compiled>,
    groups: impl Fn(&UserId) -> &'a [GroupId],
) -> Vec<Trial> {
    let try_one = |test: &PolicyTest| {
        let none = Compiled::default();
        let segment = test.given.segment.as_ref().or_else(|| policy.segments.keys().next());
        let compiled = segment.and_then(|segment| compiled.get(segment)).unwrap_or(&none);
        let mut trial = Trial { test: test.name.clone(), rule: None, failure: None };
        trial.failure =
            run(policy, test, compiled, groups(&test.given.user), &mut trial.rule).err();
        trial
    };
    policy.tests.iter().map(try_one).collect()
}

fn run(
    policy: &PolicySpec,
    test: &PolicyTest,
    compiled: &Compiled,
    groups: &[GroupId],
    decided: &mut Option<RuleId>,
) -> Result<(), String> {
    let nets = nets(policy, &test.to)?;
    let may_be = compiled.candidates(&test.given.user, groups);
    let mut cases: usize = 0;
    for net in &nets {
        let concerned = |rule: &&Rule| {
            let it = &rule.matches;
            it.opener() == test.opened_by
                && it.prefix().overlaps(&net.prefix)
                && it.protocol().is_none_or(|protocol| protocol == net.protocol)
                && it.class().is_none_or(|class| may_be.binary_search(&class).is_ok())
        };
        let rules: Vec<&Rule> = compiled.rules().iter().filter(concerned).collect();
        let sessions = sessions(test, compiled, &rules);
        let addresses = addresses(net.prefix, &rules);
        let ports = ports(net, &rules);
        cases = sessions
            .len()
            .saturating_mul(addresses.len())
            .saturating_mul(ports.len())
            .saturating_add(cases);
        if cases > CASES_MAX {
            return Err(format!(
                "it stands for more than {CASES_MAX} cases; name an address, a device and a time"
            ));
        }
        for session in &sessions {
            let facts = session.facts(&test.given.user, groups);
            let classes = compiled.classes_at(&facts, session.time);
            for (&address, &port) in
                addresses.iter().flat_map(|address| ports.iter().map(move |port| (address, port)))
            {
                let far = Endpoint::new(address, net.protocol, port);
                let opening = Opening { opener: test.opened_by, far };
                let decision = first(rules.iter().copied(), &classes, &opening);
                *decided = decision.rule.cloned();
                if decision.allows() != (test.expect == Expectation::Allow) {
                    return Err(explain(test, session, &opening, decision.allows(), decided));
                }
            }
        }
    }
    Ok(())
}

fn explain(
    test: &PolicyTest,
    session: &Session<'_>,
    opening: &Opening,
    allowed: bool,
    rule: &Option<RuleId>,
) -> String {
    let verdict = match (allowed, rule) {
        (true, Some(rule)) => format!("rule {rule} allows it"),
        (false, Some(rule)) => format!("rule {rule} denies it"),
        (_, None) => "no rule allows it".to_owned(),
    };
    let way = match opening.opener {
        Opener::Device => "to",
        Opener::Network => "from",
    };
    format!(
        "expected {}, but {verdict}: {} {way} {}, {session}; mend the rules or the test",
        test.expect, test.given.user, opening.far
    )
}

/// Some addresses over one protocol.
struct Net {
    prefix: Prefix,
    protocol: Protocol,
    /// Empty where the protocol has none.
    ports: Vec<PortRange>,
}

fn nets(policy: &PolicySpec, to: &Destination) -> Result<Vec<Net>, String> {
    let net = |prefix, protocol, ports| match protocol {
        Protocol::Tcp | Protocol::Udp => Net { prefix, protocol, ports },
        Protocol::Icmp => Net { prefix, protocol, ports: Vec::new() },
    };
    match to {
        Destination::Endpoint(far) => {
            let ports = vec![PortRange::single(far.port())];
            Ok(vec![net(Prefix::host(far.address()), far.protocol(), ports)])
        }
        Destination::Service(name) => {
            let service = policy.services.get(name);
            let service =
                service.ok_or_else(|| format!("there is no service {name}; name one there is"))?;
            let ServiceSpec { prefixes, protocol, ports } = service;
            let ports = if ports.is_empty() { vec![PortRange::ALL] } else { ports.clone() };
            let all = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
            let protocols = all.into_iter().filter(|it| protocol.is_none_or(|only| only == *it));
            let over = |protocol| {
                let ports = &ports;
                prefixes.iter().map(move |&prefix| net(prefix, protocol, ports.clone()))
            };
            Ok(protocols.flat_map(over).collect())
        }
    }
}

/// The lowest address of each part of `prefix` that `rules` tell apart.
fn addresses(prefix: Prefix, rules: &[&Rule]) -> BTreeSet<IpAddr> {
    let mut corners = BTreeSet::from([prefix.address()]);
    for rule in rules {
        let inner = rule.matches.prefix();
        corners.insert(inner.address());
        corners.extend(after(inner));
    }
    corners.retain(|corner| prefix.holds(*corner));
    corners
}

/// The first address behind `prefix`.
fn after(prefix: Prefix) -> Option<IpAddr> {
    match prefix.network().broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|it| IpAddr::V4(it.into())),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|it| IpAddr::V6(it.into())),
    }
}

/// The lowest port of each part of `net` that `rules` tell apart; 0 where there are no ports.
fn ports(net: &Net, rules: &[&Rule]) -> BTreeSet<u16> {
    if net.ports.is_empty() {
        return BTreeSet::from([0]);
    }
    let mut corners = BTreeSet::new();
    for range in rules.iter().flat_map(|rule| rule.matches.ports()) {
        corners.insert(range.first());
        corners.extend(range.last().checked_add(1));
    }
    corners.retain(|corner| net.ports.iter().any(|range| range.holds(*corner)));
    corners.extend(net.ports.iter().map(PortRange::first));
    corners
}

/// One kind of session that a test may mean.
#[derive(Debug, Clone, Copy)]
struct Session<'a> {
    device: DeviceClass,
    building: Option<&'a BuildingId>,
    sign_in: SignInStrength,
    time: Option<LocalTime>,
}

impl<'a> Session<'a> {
    fn facts(&self, user: &'a UserId, groups: &'a [GroupId]) -> Facts<'a> {
        let Self { device, building, sign_in, time: _ } = *self;
        Facts { user, groups, device, building, sign_in }
    }
}

impl std::fmt::Display for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "device {}, ", self.device)?;
        match self.building {
            Some(building) => write!(f, "building {building}, ")?,
            None => f.write_str("in no building, ")?,
        }
        write!(f, "sign-in {}", self.sign_in)?;
        match self.time {
            Some(time) => write!(f, ", {time}"),
            None => Ok(()),
        }
    }
}

/// The kinds of session that `test` may mean, as far as `rules` tell them apart.
fn sessions<'a>(test: &'a PolicyTest, compiled: &'a Compiled, rules: &[&Rule]) -> Vec<Session<'a>> {
    let classes: BTreeSet<_> = rules.iter().filter_map(|rule| rule.matches.class()).collect();
    let conditions: Vec<&When> =
        classes.into_iter().filter_map(|class| compiled.condition(class)).collect();
    let given = &test.given;
    let devices = match given.device {
        Some(device) => vec![device],
        None if conditions.iter().any(|it| it.devices.is_some()) => DeviceClass::ALL.to_vec(),
        None => vec![DeviceClass::SharedDesk],
    };
    let buildings: BTreeSet<Option<&BuildingId>> = match &given.building {
        Some(building) => BTreeSet::from([Some(building)]),
        None => {
            let named = conditions.iter().filter_map(|it| it.buildings.as_ref()).flatten();
            named.map(Some).chain([None]).collect()
        }
    };
    let strengths = match given.sign_in {
        Some(strength) => vec![strength],
        None if conditions.iter().any(|it| it.sign_in.is_some()) => SignInStrength::ALL.to_vec(),
        None => vec![SignInStrength::Code],
    };
    let edges: BTreeSet<LocalTime> =
        conditions.iter().filter_map(|it| it.hours.as_deref()).flat_map(hours::edges).collect();
    let times: BTreeSet<Option<LocalTime>> = match given.at {
        Some(at) => BTreeSet::from([Some(LocalTime::of(at))]),
        None if edges.is_empty() => BTreeSet::from([None]),
        None => edges.into_iter().chain([LocalTime::MONDAY]).map(Some).collect(),
    };
    let mut sessions = Vec::new();
    for &device in &devices {
        for &building in &buildings {
            for &sign_in in &strengths {
                let with = |&time| Session { device, building, sign_in, time };
                // What is past the bound is refused anyway.
                sessions.extend(times.iter().map(with).take(CASES_MAX + 1 - sessions.len()));
            }
        }
    }
    sessions
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy() -> Value {
        json!({
            "version": 1, "organisation": "council",
            "services": {
                "intranet": { "prefixes": ["10.1.0.0/24"], "protocol": "tcp", "ports": [80, "8000-8099"] },
                "ping": { "prefixes": ["10.1.0.0/16"], "protocol": "icmp" },
            },
            "segments": { "council": { "rules": [
                { "name": "not-the-plant-room", "who": "everyone", "action": "deny",
                  "what": [{ "net": { "prefixes": ["10.1.9.0/24"] } }] },
                { "name": "intranet", "who": { "groups": ["staff"] }, "what": [{ "service": "intranet" }] },
                { "name": "ledger", "who": { "groups": ["finance"] },
                  "when": { "devices": ["managed"], "sign_in": "code", "buildings": ["hq"],
                            "hours": [{ "days": ["mon", "tue"], "from": "08:00", "until": "18:00" }] },
                  "what": [{ "net": { "prefixes": ["10.2.0.0/16"], "protocol": "tcp" } }] },
                { "name": "help", "who": "everyone", "opened_by": "network",
                  "what": [{ "net": { "prefixes": ["10.1.5.0/24"], "protocol": "tcp", "ports": [3389] } }] },
            ]}},
        })
    }

    /// What comes of one test under the policy, with one thing of it changed.
    fn tried(given: &Value, to: &Value, expect: &str, opened_by: &str) -> Trial {
        let mut policy = policy();
        policy["tests"] = json!([{ "name": "it holds", "given": given, "to": to,
                                   "expect": expect, "opened_by": opened_by }]);
        let policy: PolicySpec = serde_json::from_value(policy).unwrap();
        let segment: SegmentId = "council".parse().unwrap();
        let compiled = BTreeMap::from([(segment.clone(), Compiled::of(&policy, &segment))]);
        let groups: Vec<GroupId> = vec!["staff".parse().unwrap(), "finance".parse().unwrap()];
        let of =
            |user: &UserId| if user.local() == "fay" { groups.as_slice() } else { &groups[..1] };
        trials(&policy, &compiled, of).remove(0)
    }

    const LEDGER: &str = "10.2.0.1:443/tcp";

    #[test]
    fn a_test_passes_or_says_what_decided_and_what_was_expected() {
        let alice = json!({"user": "alice@council"});
        let intranet = json!({"service": "intranet"});
        let passed = tried(&alice, &intranet, "allow", "device");
        assert_eq!((passed.failure, passed.rule.unwrap().as_str()), (None, "intranet"));
        let failed = tried(&alice, &intranet, "refuse", "device").failure.unwrap();
        assert!(failed.contains("expected refuse, but rule intranet allows it"), "{failed}");
        let failed = tried(&alice, &json!(LEDGER), "allow", "device").failure.unwrap();
        assert!(failed.contains("no rule allows it") && failed.contains(LEDGER), "{failed}");
        let denied = tried(&alice, &json!("10.1.9.1:80/tcp"), "allow", "device").failure.unwrap();
        assert!(denied.contains("rule not-the-plant-room denies it"), "{denied}");
        assert_eq!(tried(&alice, &json!("10.1.5.1:3389/tcp"), "allow", "network").failure, None);
        assert_eq!(tried(&alice, &json!("10.1.5.1:3389/tcp"), "refuse", "device").failure, None);
    }

    #[test]
    fn a_service_must_be_reached_whole_or_not_at_all() {
        let alice = json!({"user": "alice@council"});
        // The plant room lies in the middle of what is pinged.
        let pinged = tried(&alice, &json!({"service": "ping"}), "refuse", "device");
        assert_eq!(pinged.failure, None);
        let mut partly = policy();
        partly["services"]["intranet"]["prefixes"] = json!(["10.1.0.0/16"]);
        partly["tests"] = json!([{ "name": "t", "given": alice, "to": {"service": "intranet"}, "expect": "allow" }]);
        let partly: PolicySpec = serde_json::from_value(partly).unwrap();
        let segment: SegmentId = "council".parse().unwrap();
        let compiled = BTreeMap::from([(segment.clone(), Compiled::of(&partly, &segment))]);
        let staff = ["staff".parse().unwrap()];
        let failure = trials(&partly, &compiled, |_| &staff).remove(0).failure.unwrap();
        assert!(failure.contains("to 10.1.9.0:80/tcp"), "{failure}");
    }

    #[test]
    fn what_a_test_leaves_open_must_hold_whatever_it_is() {
        let whole = json!({"user": "fay@council", "device": "managed", "building": "hq",
                           "sign_in": "code", "at": "2026-03-02T09:00"});
        assert_eq!(tried(&whole, &json!(LEDGER), "allow", "device").failure, None);
        for (open, says) in [
            ("device", "device personal"),
            ("building", "in no building"),
            ("sign_in", "sign-in none"),
            ("at", "Mon 00:00"),
        ] {
            let mut given = whole.clone();
            given.as_object_mut().unwrap().remove(open);
            let failure = tried(&given, &json!(LEDGER), "allow", "device").failure.unwrap();
            assert!(failure.contains(says), "{open}: {failure}");
            // Nor may it be refused, for there is a way in.
            assert!(tried(&given, &json!(LEDGER), "refuse", "device").failure.is_some(), "{open}");
        }
        let late = json!({"user": "fay@council", "at": "2026-03-04T09:00"});
        assert_eq!(tried(&late, &json!(LEDGER), "refuse", "device").failure, None);
    }
}
