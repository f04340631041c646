//! From a policy to one segment's rules: what an admin wrote in people, conditions and services becomes
//! classes, prefixes and ports.
//!
//! The same policy always gives the same bytes, and a device's rules are the gateway's with the
//! classes resolved: both ends refuse the same packets.

use std::collections::BTreeSet;

use jiff::Timestamp;
use partywall_proto::admin::{PolicyRule, PolicySpec, SegmentPolicy, ServiceSpec, Target, When};
use partywall_proto::ids::{GroupId, SegmentId, UserId};
use partywall_proto::rules::{Action, ClassId, Match, Rule};

use super::decide::{Decision, Opening, first};
use super::facts::Facts;
use super::hours::{self, LocalTime};
use super::subject::{Subject, Subjects};

/// Most rules that a segment's policy may compile to. Services multiply with the rules that name them,
/// so the size of the text bounds nothing.
pub(super) const RULES_MAX: usize = 250_000;

/// One segment's rules as agents enforce them. Empty allows nothing.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    subjects: Subjects,
    rules: Vec<Rule>,
    /// Positions of the rules that concern everybody at any time.
    for_all: Vec<usize>,
    /// Positions of the other rules, by class number.
    for_class: Vec<Vec<usize>>,
}

impl Compiled {
    /// Compiles the rules for `segment` of a policy that the catalogue has checked. A policy that says
    /// nothing of the segment allows nothing in it.
    pub fn of(policy: &PolicySpec, segment: &SegmentId) -> Self {
        let Some(rules) = policy.segments.get(segment) else { return Self::default() };
        let understood = understood(policy, rules);
        let distinct: BTreeSet<Subject> = understood
            .iter()
            .map(|(_, subject)| subject)
            .filter(|subject| !subject.is_everyone())
            .cloned()
            .collect();
        let (subjects, classes) = Subjects::of(policy, distinct);
        let mut this = Self { subjects, ..Self::default() };
        this.for_class.resize(classes.len(), Vec::new());
        for (rule, subject) in understood {
            let class = classes.get(&subject).copied();
            for matches in expand(policy, rule, class) {
                let position = this.rules.len();
                if position == RULES_MAX {
                    return this;
                }
                match class {
                    None => this.for_all.push(position),
                    Some(class) => this.for_class[class.0 as usize].push(position),
                }
                this.rules.push(Rule { id: rule.name.clone(), action: rule.action, matches });
            }
        }
        this
    }

    /// The gateway's rules, in the order of the policy.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The classes of a session with these facts at `now`, sorted.
    pub fn classes_of(&self, facts: &Facts<'_>, now: Timestamp) -> Vec<ClassId> {
        self.subjects.classes_of(facts, now)
    }

    /// As [`Self::classes_of`], at a time of the week instead of an instant; at none, no hours hold.
    pub fn classes_at(&self, facts: &Facts<'_>, time: Option<LocalTime>) -> Vec<ClassId> {
        self.subjects.classes_at(facts, time)
    }

    /// The first instant after `now` at which a session's classes may change by themselves: an edge of
    /// the hours that a rule names.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.subjects.next_change(now)
    }

    /// The rules with classes that stand apart from those of `first`: for a gateway that asks both lists about
    /// the same peers.
    pub fn rules_beside(&self, first: &Compiled) -> Vec<Rule> {
        let apart = |rule: &Rule| {
            let it = &rule.matches;
            let class = it.class().map(|class| first.class_beside(class));
            let ports = it.ports().to_vec();
            let matches = Match::new(it.opener(), class, it.prefix(), it.protocol(), ports).ok()?;
            Some(Rule { id: rule.id.clone(), action: rule.action, matches })
        };
        self.rules.iter().filter_map(apart).collect()
    }

    /// As what a class of another policy is known beside this one's: none of its own.
    pub fn class_beside(&self, class: ClassId) -> ClassId {
        let own = u32::try_from(self.for_class.len()).unwrap_or(u32::MAX);
        ClassId(class.0.saturating_add(own))
    }

    /// The rules that concern a session of these classes, for its device: the same verdicts as at the
    /// gateway, without the classes.
    pub fn rules_for(&self, classes: &[ClassId]) -> Vec<Rule> {
        self.rules_at(&self.positions(classes))
    }

    /// The rules at these positions, without their classes.
    pub fn rules_at(&self, positions: &[usize]) -> Vec<Rule> {
        let rules = positions.iter().filter_map(|position| self.rules.get(*position));
        rules.filter_map(without_class).collect()
    }

    /// Which of the rules concern a session of these classes, in order.
    pub fn positions(&self, classes: &[ClassId]) -> Vec<usize> {
        let of_class = |class: &ClassId| self.for_class.get(class.0 as usize);
        let mut positions: Vec<usize> = self.for_all.clone();
        positions.extend(classes.iter().filter_map(of_class).flatten());
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// What the rules at these positions decide of `opening` for a session of these classes.
    pub fn decide_at(
        &self,
        positions: &[usize],
        classes: &[ClassId],
        opening: &Opening,
    ) -> Decision<'_> {
        first(positions.iter().filter_map(|it| self.rules.get(*it)), classes, opening)
    }

    /// Whether any rule is for certain hours.
    pub fn has_hours(&self) -> bool {
        self.subjects.conditions().any(|it| it.hours.is_some())
    }

    /// What the policy's clock shows at `at`; none where there is no policy.
    pub fn clock(&self, at: Timestamp) -> Option<LocalTime> {
        self.subjects.clock(at)
    }

    /// The week, from Monday to Monday, that `now` lies in by the policy's clock.
    pub fn week_of(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        self.subjects.week_of(now)
    }

    /// The conditions of all classes.
    pub fn conditions(&self) -> impl Iterator<Item = &When> {
        self.subjects.conditions()
    }

    /// The classes that a person may have, whatever their conditions, sorted.
    pub fn candidates(&self, user: &UserId, groups: &[GroupId]) -> Vec<ClassId> {
        self.subjects.candidates(user, groups)
    }

    /// The conditions of a class.
    pub fn condition(&self, class: ClassId) -> Option<&When> {
        self.subjects.condition(class)
    }
}

/// The rules that can be understood, with their subjects. A rule that allows and cannot be understood
/// is left out; after one that denies nothing is allowed any more, for it may have meant just that.
fn understood<'a>(
    policy: &'a PolicySpec,
    segment: &'a SegmentPolicy,
) -> Vec<(&'a PolicyRule, Subject)> {
    let zone_known = hours::zone(&policy.time_zone).is_some();
    let mut found = Vec::new();
    for rule in &segment.rules {
        let targets = rule.what.iter().all(|target| {
            service(policy, target).is_some_and(|it| !it.prefixes.is_empty() && ports_fit(it))
        });
        let whole = targets && !rule.what.is_empty();
        match (Subject::of(segment, rule, zone_known), rule.action) {
            (Some(subject), Action::Allow) => found.push((rule, subject)),
            (Some(subject), Action::Deny) if whole => found.push((rule, subject)),
            (None, Action::Allow) => {}
            (None | Some(_), Action::Deny) => break,
        }
    }
    found
}

/// Whether there are ports only where the protocol has them.
pub(super) fn ports_fit(service: &ServiceSpec) -> bool {
    use partywall_proto::nets::Protocol;
    service.ports.is_empty() || matches!(service.protocol, Some(Protocol::Tcp | Protocol::Udp))
}

fn without_class(rule: &Rule) -> Option<Rule> {
    let it = &rule.matches;
    let ports = it.ports().to_vec();
    let matches = Match::new(it.opener(), None, it.prefix(), it.protocol(), ports).ok()?;
    Some(Rule { id: rule.id.clone(), action: rule.action, matches })
}

fn expand<'a>(
    policy: &'a PolicySpec,
    rule: &'a PolicyRule,
    class: Option<ClassId>,
) -> impl Iterator<Item = Match> + 'a {
    rule.what.iter().filter_map(|target| service(policy, target)).flat_map(move |service| {
        service.prefixes.iter().filter_map(move |&prefix| {
            let ports = service.ports.clone();
            Match::new(rule.opened_by, class, prefix, service.protocol, ports).ok()
        })
    })
}

/// What a rule's target names; none where the policy does not have it.
pub(super) fn service<'a>(policy: &'a PolicySpec, target: &'a Target) -> Option<&'a ServiceSpec> {
    match target {
        Target::Service(name) => policy.services.get(name),
        Target::Net(net) => Some(net),
    }
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::{DeviceClass, SignInStrength};
    use partywall_proto::ids::BuildingId;
    use serde_json::{Value, json};

    use super::*;

    fn policy() -> Value {
        json!({
            "version": 1, "organisation": "council",
            "groups": {
                "night-team": { "users": ["nora@council"], "groups": ["wardens"] },
                "out-of-hours": { "groups": ["night-team"] },
            },
            "services": {
                "intranet": { "prefixes": ["10.1.0.10", "fd10::10"], "protocol": "tcp", "ports": [80, 443] },
            },
            "segments": { "council": {
                "defaults": { "when": { "devices": ["managed", "shared-desk"] } },
                "rules": [
                    { "name": "no-lab", "who": "everyone", "action": "deny",
                      "what": [{ "net": { "prefixes": ["10.9.0.0/16"] } }] },
                    { "name": "web", "who": { "groups": ["social-care", "housing"], "users": ["bob@council"] },
                      "what": [{ "service": "intranet" }] },
                    { "name": "support", "who": "everyone", "opened_by": "network",
                      "when": { "devices": ["managed"], "sign_in": "code", "buildings": ["hq"] },
                      "what": [{ "net": { "prefixes": ["10.1.9.0/24"], "protocol": "tcp", "ports": ["3389"] } }] },
                    { "name": "night", "who": { "groups": ["out-of-hours"] },
                      "when": { "hours": [{ "days": ["mon"], "from": "20:00", "until": "24:00" }] },
                      "what": [{ "service": "intranet" }] },
                ],
            }},
        })
    }

    fn compiled(policy: Value) -> Compiled {
        let policy = serde_json::from_value(policy).unwrap();
        Compiled::of(&policy, &"council".parse().unwrap())
    }

    /// The rules of a device of this person, by name, each once.
    fn rules_of(compiled: &Compiled, facts: &Facts<'_>, now: &str) -> Vec<String> {
        let classes = compiled.classes_of(facts, now.parse().unwrap());
        let rules = compiled.rules_for(&classes);
        assert!(rules.iter().all(|rule| rule.matches.class().is_none()));
        let mut names: Vec<_> = rules.iter().map(|rule| rule.id.to_string()).collect();
        names.dedup();
        names
    }

    const NOON: &str = "2026-03-02T12:00:00Z";
    const NIGHT: &str = "2026-03-02T22:00:00Z";

    struct Person(UserId, Vec<GroupId>, BuildingId);

    fn person(user: &str, groups: &[&str]) -> Person {
        let groups = groups.iter().map(|name| name.parse().unwrap()).collect();
        Person(user.parse().unwrap(), groups, "hq".parse().unwrap())
    }

    impl Person {
        fn facts(&self) -> Facts<'_> {
            Facts {
                user: &self.0,
                groups: &self.1,
                device: DeviceClass::Managed,
                building: Some(&self.2),
                sign_in: SignInStrength::Code,
            }
        }
    }

    #[test]
    fn a_rule_is_expanded_over_its_prefixes_and_each_distinct_subject_is_one_class() {
        let mut twice = policy();
        let rules = twice["segments"]["council"]["rules"].as_array_mut().unwrap();
        let mut same = rules[1].clone();
        same["name"] = json!("web-again");
        same["who"] =
            json!({"users": ["bob@council"], "groups": ["housing", "social-care", "housing"]});
        rules.push(same);
        let shown: Vec<_> = compiled(twice)
            .rules()
            .iter()
            .map(|rule| {
                let it = &rule.matches;
                format!("{} {:?} {}", rule.id, it.class().map(|class| class.0), it.prefix())
            })
            .collect();
        assert_eq!(
            shown,
            [
                "no-lab None 10.9.0.0/16",
                "web Some(1) 10.1.0.10/32",
                "web Some(1) fd10::10/128",
                "support Some(0) 10.1.9.0/24",
                "night Some(2) 10.1.0.10/32",
                "night Some(2) fd10::10/128",
                "web-again Some(1) 10.1.0.10/32",
                "web-again Some(1) fd10::10/128",
            ]
        );
    }

    #[test]
    fn a_device_gets_the_rules_of_its_person_and_no_classes() {
        let compiled = compiled(policy());
        let names = |user: &str, groups: &[&str], now: &str| {
            rules_of(&compiled, &person(user, groups).facts(), now)
        };
        assert_eq!(names("ann@council", &[], NOON), ["no-lab", "support"]);
        assert_eq!(names("ann@council", &["parks"], NOON), ["no-lab", "support"]);
        assert_eq!(names("bob@council", &[], NOON), ["no-lab", "web", "support"]);
        assert_eq!(
            names("ann@council", &["housing", "social-care"], NOON),
            ["no-lab", "web", "support"]
        );
        // A group of the policy may hold users, the organisation's groups and groups of its own kind.
        assert_eq!(names("nora@council", &[], NOON), ["no-lab", "support"]);
        assert_eq!(names("nora@council", &[], NIGHT), ["no-lab", "support", "night"]);
        assert_eq!(names("ann@council", &["wardens"], NIGHT), ["no-lab", "support", "night"]);
    }

    #[test]
    fn a_condition_that_does_not_hold_takes_the_rule_away() {
        let compiled = compiled(policy());
        let bob = person("bob@council", &[]);
        let names = |facts: Facts<'_>| rules_of(&compiled, &facts, NOON);
        assert_eq!(names(bob.facts()), ["no-lab", "web", "support"]);
        let personal = Facts { device: DeviceClass::Personal, ..bob.facts() };
        assert_eq!(names(personal), ["no-lab"], "the segment's default is a condition of `web`");
        let desk = Facts { device: DeviceClass::SharedDesk, ..bob.facts() };
        assert_eq!(names(desk), ["no-lab", "web"], "`support` states which devices it means");
        let weak = Facts { sign_in: SignInStrength::Password, ..bob.facts() };
        assert_eq!(names(weak), ["no-lab", "web"]);
        assert_eq!(names(Facts { building: None, ..bob.facts() }), ["no-lab", "web"]);
    }

    #[test]
    fn a_default_narrows_what_is_allowed_and_never_what_is_denied() {
        let compiled = compiled(policy());
        let bob = person("bob@council", &[]);
        let personal = Facts { device: DeviceClass::Agentless, ..bob.facts() };
        assert_eq!(rules_of(&compiled, &personal, NOON), ["no-lab"]);
    }

    #[test]
    fn the_next_change_is_the_next_edge_of_hours() {
        let next = compiled(policy()).next_change(NOON.parse().unwrap()).unwrap();
        assert_eq!(next.to_string(), "2026-03-02T20:00:00Z");
        let mut always = policy();
        always["segments"]["council"]["rules"].as_array_mut().unwrap().pop();
        assert_eq!(compiled(always).next_change(NOON.parse().unwrap()), None);
    }

    #[test]
    fn the_same_policy_gives_the_same_bytes() {
        let bytes = || serde_json::to_string(compiled(policy()).rules()).unwrap();
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn what_is_unknown_is_never_allowed() {
        let mut unknown = policy();
        unknown["services"] = json!({});
        let allowed = |policy: Value| {
            compiled(policy).rules().iter().filter(|rule| rule.action == Action::Allow).count()
        };
        assert_eq!((allowed(policy()), allowed(unknown)), (5, 1));
        // A denial that is not understood may have meant anything: nothing after it is allowed.
        for (at, slip) in [
            ("/who", json!({})),
            ("/what", json!([])),
            ("/what/0", json!({"service": "lab"})),
            ("/what/0/net/ports", json!([80])),
            ("/when", json!({"buildings": []})),
            ("/when", json!({"hours": [{"days": [], "from": "08:00", "until": "18:00"}]})),
        ] {
            let mut policy = policy();
            let rule = &mut policy["segments"]["council"]["rules"][0];
            match at {
                "/when" => rule["when"] = slip.clone(),
                "/what/0/net/ports" => rule["what"][0]["net"]["ports"] = slip.clone(),
                at => *rule.pointer_mut(at).unwrap() = slip.clone(),
            }
            assert_eq!(allowed(policy), 0, "{at} {slip}");
        }
        let other = serde_json::from_value(policy()).unwrap();
        assert!(Compiled::of(&other, &"nhs".parse().unwrap()).rules().is_empty());
    }
}
