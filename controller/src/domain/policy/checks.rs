//! What must hold inside a policy and between it and what is set up.
//!
//! A destination outside the segment is a finding, not a rule that never matches: whoever wrote it
//! meant something else.

use std::collections::{BTreeMap, BTreeSet};

use partywall_proto::admin::{
    Destination, Members, PolicyRule, PolicySpec, PolicyTest, SegmentPolicy, SegmentSpec,
    ServiceSpec, Target, When, Who,
};
use partywall_proto::ids::{GroupId, OrganisationId, SegmentId, UserId};
use partywall_proto::problem::Finding;

use super::compiled::{Compiled, RULES_MAX, ports_fit, service};
use super::hours;
use super::trial::trials;
use crate::domain::catalogue::Catalogue;
use crate::domain::checks::{Findings, no_such};
use crate::domain::group_key::GroupKey;
use crate::domain::resource::Resource;

/// Most findings about one policy; who mends so many looks again anyway.
const FINDINGS_MAX: usize = 200;
/// Most tests of one policy. Each looks at all rules.
const TESTS_MAX: usize = 2_000;
/// Longest name of a test in characters.
const TEST_NAME_MAX: usize = 200;

impl Catalogue {
    pub(in crate::domain) fn check_policy(&self, policy: &PolicySpec, found: &mut Findings) {
        let mut own = Check { all: self, policy, found: Findings(Vec::new()) };
        own.whole();
        let mut own = own.found.0;
        if own.len() > FINDINGS_MAX {
            own.truncate(FINDINGS_MAX);
            let detail = "there is more; mend these first".to_owned();
            own.push(Finding::new(policy.path(), detail));
        }
        found.0.extend(own);
    }

    /// The tests of `policy` that fail. Ask once everything else holds.
    pub fn failing_tests(&self, policy: &PolicySpec) -> Vec<Finding> {
        let segments = policy.segments.keys();
        let compiled: BTreeMap<SegmentId, Compiled> =
            segments.map(|segment| (segment.clone(), Compiled::of(policy, segment))).collect();
        let groups = |user: &UserId| self.users.get(user).map_or(&[][..], |it| &it.spec.groups);
        let failed = trials(policy, &compiled, groups).into_iter().filter_map(|trial| {
            let at = format!("{}/tests/{}", policy.path(), trial.test);
            Some(Finding::new(at, trial.failure?))
        });
        failed.take(FINDINGS_MAX).collect()
    }
}

struct Check<'a> {
    all: &'a Catalogue,
    policy: &'a PolicySpec,
    found: Findings,
}

impl<'a> Check<'a> {
    fn add(&mut self, field: &str, detail: impl Into<String>) {
        self.found.add(format!("{}/{field}", self.policy.path()), detail);
    }

    fn whole(&mut self) {
        let policy = self.policy;
        if !self.all.organisations.contains_key(&policy.organisation) {
            self.add("organisation", no_such("organisation", &policy.organisation));
        }
        if hours::zone(&policy.time_zone).is_none() {
            let detail = format!("there is no time zone {:?}", policy.time_zone);
            self.add("time_zone", format!("{detail}; write a name such as Europe/London"));
        }
        self.groups();
        for (name, service) in &policy.services {
            self.service(&format!("services/{name}"), service, &self.own_segments());
        }
        for (name, rules) in &policy.segments {
            let at = format!("segments/{name}");
            match self.all.segments.get(name).map(|segment| &segment.spec) {
                None => self.add(&at, no_such("segment", name)),
                Some(segment) if segment.organisation != policy.organisation => {
                    let owner = &segment.organisation;
                    self.add(
                        &at,
                        format!("segment {name} belongs to {owner}; a policy governs segments of its own organisation"),
                    );
                }
                Some(segment) => self.segment(&at, segment, rules),
            }
        }
        self.tests();
    }

    /// The segments of the policy's organisation.
    fn own_segments(&self) -> Vec<&'a SegmentSpec> {
        let all = self.all.segments.values().map(|segment| &segment.spec);
        all.filter(|segment| segment.organisation == self.policy.organisation).collect()
    }

    fn groups(&mut self) {
        let policy = self.policy;
        for (name, members) in &policy.groups {
            let at = format!("groups/{name}");
            if self.all.groups.contains_key(&self.key(name)) {
                let owner = &policy.organisation;
                self.add(&at, format!("{owner} has a group of this name; choose another name"));
            }
            self.members(&at, members);
        }
        if let Some(cycle) = cycle(&policy.groups) {
            let names: Vec<_> = cycle.iter().map(|name| name.as_str()).collect();
            let detail = format!("{} holds itself; take one of them out", names.join(" holds "));
            self.add(&format!("groups/{}", names.first().unwrap_or(&"")), detail);
        }
    }

    fn key(&self, name: &GroupId) -> GroupKey {
        let organisation: OrganisationId = self.policy.organisation.clone();
        GroupKey { organisation, name: name.clone() }
    }

    fn members(&mut self, at: &str, members: &Members) {
        if members.is_empty() {
            self.add(at, "nobody is named; name groups or users, or write `everyone` in the rule");
        }
        for (index, name) in members.groups.iter().enumerate() {
            let known = self.policy.groups.contains_key(name)
                || self.all.groups.contains_key(&self.key(name));
            if !known {
                let missing = no_such("group", &self.key(name));
                self.add(&format!("{at}/groups/{index}"), missing);
            }
        }
        for (index, user) in members.users.iter().enumerate() {
            self.user(&format!("{at}/users/{index}"), user);
        }
    }

    fn user(&mut self, at: &str, user: &UserId) {
        let owner = &self.policy.organisation;
        if user.organisation() != owner {
            self.add(at, format!("{user} is not of {owner}, whose policy this is; take it away"));
        } else if !self.all.users.contains_key(user) {
            self.add(at, no_such("user", user));
        }
    }

    fn segment(&mut self, at: &str, segment: &SegmentSpec, rules: &SegmentPolicy) {
        self.when(&format!("{at}/defaults/when"), &rules.defaults.when);
        let mut names = BTreeSet::new();
        // Each service once: many rules may name one that is large.
        let outside: BTreeSet<_> = self
            .policy
            .services
            .iter()
            .filter(|(_, it)| it.prefixes.iter().any(|prefix| !inside(prefix, &[segment])))
            .map(|(name, _)| name)
            .collect();
        let mut compiled: usize = 0;
        for rule in &rules.rules {
            let at = format!("{at}/rules/{}", rule.name);
            if !names.insert(&rule.name) {
                let detail = "another rule of this segment has this name; choose another";
                self.add(&format!("{at}/name"), detail);
            }
            self.rule(&at, segment, rule, &|name| outside.contains(name));
            let services = rule.what.iter().filter_map(|target| service(self.policy, target));
            compiled = services.fold(compiled, |sum, it| sum.saturating_add(it.prefixes.len()));
        }
        if compiled > RULES_MAX {
            let detail = format!("its rules and their prefixes make {compiled} rules for an agent");
            self.add(at, format!("{detail}; join prefixes until there are {RULES_MAX} or fewer"));
        }
    }

    fn rule(
        &mut self,
        at: &str,
        segment: &SegmentSpec,
        rule: &PolicyRule,
        outside: &dyn Fn(&partywall_proto::ids::ServiceId) -> bool,
    ) {
        match &rule.who {
            Who::Everyone => {}
            Who::Members(members) => self.members(&format!("{at}/who"), members),
        }
        self.when(&format!("{at}/when"), &rule.when);
        if rule.what.is_empty() {
            self.add(&format!("{at}/what"), "nothing is named; name what may be reached");
        }
        for (index, target) in rule.what.iter().enumerate() {
            let at = format!("{at}/what/{index}");
            match target {
                Target::Service(name) if !self.policy.services.contains_key(name) => {
                    self.add(&at, no_such("service", name));
                }
                Target::Service(name) if outside(name) => {
                    let detail =
                        format!("service {name} has prefixes outside the prefixes and pools");
                    self.add(
                        &at,
                        format!("{detail} of segment {}; correct one of them", segment.name),
                    );
                }
                Target::Service(_) => {}
                Target::Net(net) => self.service(&format!("{at}/net"), net, &[segment]),
            }
        }
    }

    fn service(&mut self, at: &str, service: &ServiceSpec, segments: &[&SegmentSpec]) {
        if service.prefixes.is_empty() {
            self.add(&format!("{at}/prefixes"), "no prefix is named; write where it is");
        }
        for (index, prefix) in service.prefixes.iter().enumerate() {
            if !inside(prefix, segments) {
                let names: Vec<_> = segments.iter().map(|segment| segment.name.as_str()).collect();
                let detail = format!("{prefix} is outside the prefixes and pools of segment");
                let detail = format!("{detail} {}; correct one of them", names.join(" and "));
                self.add(&format!("{at}/prefixes/{index}"), detail);
            }
        }
        if !ports_fit(service) {
            self.add(&format!("{at}/ports"), "ports need `protocol: tcp` or `protocol: udp`");
        }
    }

    fn when(&mut self, at: &str, when: &When) {
        let When { buildings, devices, sign_in: _, hours } = when;
        for (field, empty) in [
            ("buildings", buildings.as_ref().is_some_and(Vec::is_empty)),
            ("devices", devices.as_ref().is_some_and(Vec::is_empty)),
            ("hours", hours.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if empty {
                let detail = "an empty list never holds; name some, or leave the condition out";
                self.add(&format!("{at}/{field}"), detail);
            }
        }
        for (index, building) in buildings.iter().flatten().enumerate() {
            if !self.all.buildings.contains_key(building) {
                self.add(&format!("{at}/buildings/{index}"), no_such("building", building));
            }
        }
        for (index, span) in hours.iter().flatten().enumerate() {
            let at = format!("{at}/hours/{index}");
            if span.days.is_empty() {
                self.add(&format!("{at}/days"), "no day is named; write days: [mon, tue, ...]");
            }
            if span.from >= span.until {
                let detail = format!("{} is not before {}", span.from, span.until);
                self.add(
                    &format!("{at}/until"),
                    format!(
                        "{detail}; for a night write two spans, until \"24:00\" and from \"00:00\""
                    ),
                );
            }
        }
    }

    fn tests(&mut self) {
        let tests = &self.policy.tests;
        if tests.len() > TESTS_MAX {
            self.add("tests", format!("{} are too many; write {TESTS_MAX} at most", tests.len()));
        }
        let mut names = BTreeSet::new();
        for test in tests {
            let at = format!("tests/{}", test.name);
            if test.name.is_empty() || test.name.chars().count() > TEST_NAME_MAX {
                self.add("tests", format!("a test's name has 1 to {TEST_NAME_MAX} characters"));
            }
            if !names.insert(&test.name) {
                self.add(&format!("{at}/name"), "another test has this name; choose another");
            }
            self.test(&at, test);
        }
    }

    fn test(&mut self, at: &str, test: &PolicyTest) {
        self.user(&format!("{at}/given/user"), &test.given.user);
        match &test.given.segment {
            Some(name) if !self.policy.segments.contains_key(name) => {
                let detail =
                    format!("the policy says nothing of segment {name}; name one that it governs");
                self.add(&format!("{at}/given/segment"), detail);
            }
            None if self.policy.segments.len() != 1 => {
                let detail = "the policy does not govern exactly one segment; write which is meant";
                self.add(&format!("{at}/given/segment"), detail);
            }
            Some(_) | None => {}
        }
        if let Some(building) = &test.given.building
            && !self.all.buildings.contains_key(building)
        {
            self.add(&format!("{at}/given/building"), no_such("building", building));
        }
        match &test.to {
            Destination::Service(name) if !self.policy.services.contains_key(name) => {
                self.add(&format!("{at}/to"), no_such("service", name));
            }
            Destination::Service(_) | Destination::Endpoint(_) => {}
        }
    }
}

fn inside(prefix: &partywall_proto::nets::Prefix, segments: &[&SegmentSpec]) -> bool {
    let nets = segments.iter().flat_map(|segment| segment.prefixes.iter().chain(&segment.pools));
    nets.into_iter().any(|outer| outer.covers(prefix))
}

/// Groups each of which holds the next, and the last the first; none if there are no such groups.
fn cycle(groups: &BTreeMap<GroupId, Members>) -> Option<Vec<&GroupId>> {
    // Take away what holds nothing that is left, until only what leads into a cycle remains.
    let mut holders: BTreeMap<&GroupId, Vec<&GroupId>> = BTreeMap::new();
    let mut left: BTreeMap<&GroupId, usize> = BTreeMap::new();
    for (name, members) in groups {
        let held: BTreeSet<_> =
            members.groups.iter().filter(|it| groups.contains_key(*it)).collect();
        left.insert(name, held.len());
        for inner in held {
            holders.entry(inner).or_default().push(name);
        }
    }
    let mut free: Vec<&GroupId> =
        left.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    while let Some(name) = free.pop() {
        left.remove(name);
        for holder in holders.remove(name).unwrap_or_default() {
            if let Some(count) = left.get_mut(holder) {
                *count -= 1;
                if *count == 0 {
                    free.push(holder);
                }
            }
        }
    }
    let mut path: Vec<&GroupId> = vec![*left.keys().next()?];
    let mut seen = BTreeSet::from([path[0]]);
    loop {
        let held = &groups.get(path[path.len() - 1])?.groups;
        let next = held.iter().find(|it| left.contains_key(*it))?;
        if !seen.insert(next) {
            let start = path.iter().position(|name| *name == next)?;
            return Some(path.split_off(start));
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests;
