//! From a policy to rules: what an admin wrote in groups and services becomes classes, prefixes and
//! ports.
//!
//! The same policy always gives the same bytes, and a device's rules are the gateway's with the
//! classes resolved: both ends refuse the same packets.

use std::collections::BTreeMap;

use partywall_proto::admin::{PolicyRule, PolicySpec, ServiceSpec, Target, Who};
use partywall_proto::ids::GroupId;
use partywall_proto::rules::{ClassId, Match, Rule};

/// A policy as agents enforce it. Empty allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    classes: BTreeMap<GroupId, ClassId>,
    rules: Vec<Rule>,
}

impl Compiled {
    /// Compiles a policy that the catalogue has checked. A service that it does not name reaches
    /// nothing, and ports without a protocol match nothing: what is unknown is never allowed.
    pub fn of(policy: &PolicySpec) -> Self {
        let classes = classes_in(policy);
        let rules = policy.rules.iter().flat_map(|rule| expand(policy, rule, &classes)).collect();
        Self { classes, rules }
    }

    /// The gateway's rules, in the order of the policy.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The classes of a member of `groups`, sorted. Groups that no rule names have none.
    pub fn classes_of(&self, groups: &[GroupId]) -> Vec<ClassId> {
        let mut classes: Vec<_> =
            groups.iter().filter_map(|group| self.classes.get(group).copied()).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// The rules that concern a member of `groups`, for that person's device: the same verdicts as
    /// at the gateway, without the classes.
    pub fn rules_for(&self, groups: &[GroupId]) -> Vec<Rule> {
        let own = self.classes_of(groups);
        let concerns = |rule: &&Rule| rule.matches.class().is_none_or(|class| own.contains(&class));
        let mut rules: Vec<Rule> =
            self.rules.iter().filter(concerns).filter_map(without_class).collect();
        // A person in several groups of one rule would get it once for each.
        rules.dedup();
        rules
    }
}

fn without_class(rule: &Rule) -> Option<Rule> {
    let it = &rule.matches;
    let ports = it.ports().to_vec();
    let matches = Match::new(it.opener(), None, it.prefix(), it.protocol(), ports).ok()?;
    Some(Rule { id: rule.id.clone(), action: rule.action, matches })
}

/// A number for each group that a rule names, in the order of their names.
fn classes_in(policy: &PolicySpec) -> BTreeMap<GroupId, ClassId> {
    let mut classes = BTreeMap::new();
    for rule in &policy.rules {
        match &rule.who {
            Who::Everyone => {}
            Who::Groups(groups) => {
                classes.extend(groups.iter().map(|group| (group.clone(), ClassId(0))));
            }
        }
    }
    for (class, number) in classes.values_mut().zip(0..) {
        *class = ClassId(number);
    }
    classes
}

fn expand(
    policy: &PolicySpec,
    rule: &PolicyRule,
    classes: &BTreeMap<GroupId, ClassId>,
) -> Vec<Rule> {
    let who: Vec<Option<ClassId>> = match &rule.who {
        Who::Everyone => vec![None],
        Who::Groups(groups) => groups.iter().map(|group| classes.get(group).copied()).collect(),
    };
    let services = rule.what.iter().filter_map(|target| service(policy, target));
    let nets = services.flat_map(|service| {
        service.prefixes.iter().map(move |&prefix| (prefix, service.protocol, &service.ports))
    });
    nets.flat_map(|(prefix, protocol, ports)| {
        who.iter().filter_map(move |&class| {
            let matches =
                Match::new(rule.opened_by, class, prefix, protocol, ports.clone()).ok()?;
            Some(Rule { id: rule.name.clone(), action: rule.action, matches })
        })
    })
    .collect()
}

fn service<'a>(policy: &'a PolicySpec, target: &'a Target) -> Option<&'a ServiceSpec> {
    match target {
        Target::Service(name) => policy.services.get(name),
        Target::Net(net) => Some(net),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> PolicySpec {
        serde_json::from_str(
            r#"{
                "organisation": "council", "segment": "council",
                "services": {
                    "intranet": { "prefixes": ["10.1.0.10", "fd10::10"], "protocol": "tcp", "ports": [80, 443] }
                },
                "rules": [
                    { "name": "web", "who": { "groups": ["social-care", "housing"] }, "what": [{ "service": "intranet" }] },
                    { "name": "no-lab", "who": "everyone", "action": "deny", "what": [{ "net": { "prefixes": ["10.9.0.0/16"] } }] },
                    { "name": "support", "who": "everyone", "opened_by": "network",
                      "what": [{ "net": { "prefixes": ["10.1.9.0/24"], "protocol": "tcp", "ports": ["3389"] } }] }
                ]
            }"#,
        )
        .unwrap()
    }

    fn groups(names: &[&str]) -> Vec<GroupId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_rule_is_expanded_over_its_groups_and_prefixes_in_the_order_of_the_policy() {
        let compiled = Compiled::of(&policy());
        let shown: Vec<_> = compiled
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
                "web Some(1) 10.1.0.10/32",
                "web Some(0) 10.1.0.10/32",
                "web Some(1) fd10::10/128",
                "web Some(0) fd10::10/128",
                "no-lab None 10.9.0.0/16",
                "support None 10.1.9.0/24",
            ]
        );
    }

    #[test]
    fn a_device_gets_the_rules_of_its_person_and_no_classes() {
        let compiled = Compiled::of(&policy());
        let ids = |names: &[&str]| -> Vec<String> {
            let rules = compiled.rules_for(&groups(names));
            assert!(rules.iter().all(|rule| rule.matches.class().is_none()));
            rules.iter().map(|rule| rule.id.to_string()).collect()
        };
        assert_eq!(ids(&[]), ["no-lab", "support"]);
        assert_eq!(ids(&["parks"]), ["no-lab", "support"]);
        assert_eq!(ids(&["housing"]), ["web", "web", "no-lab", "support"]);
        assert_eq!(ids(&["housing", "social-care"]), ids(&["housing"]));
    }

    #[test]
    fn the_same_policy_gives_the_same_bytes_and_classes_follow_names() {
        let (a, b) = (Compiled::of(&policy()), Compiled::of(&policy()));
        assert_eq!(
            serde_json::to_string(a.rules()).unwrap(),
            serde_json::to_string(b.rules()).unwrap()
        );
        assert_eq!(
            a.classes_of(&groups(&["social-care", "parks", "housing"])),
            [ClassId(0), ClassId(1)]
        );
    }

    #[test]
    fn what_is_unknown_is_never_allowed() {
        let mut unknown = policy();
        unknown.services.clear();
        unknown.rules.truncate(1);
        assert!(Compiled::of(&unknown).rules().is_empty());
        assert!(Compiled::default().rules_for(&groups(&["housing"])).is_empty());
    }
}
