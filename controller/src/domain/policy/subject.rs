//! Whom a rule concerns: people, and the conditions under which they are meant. Each distinct subject
//! is one class.
//!
//! A session's classes are found from its own groups upwards, and never by asking each subject in turn:
//! it is done for every session of a segment whenever a gateway's config is built.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use partywall_proto::admin::{Members, PolicyRule, PolicySpec, SegmentPolicy, When, Who};
use partywall_proto::ids::{GroupId, UserId};
use partywall_proto::rules::{Action, ClassId};

use super::facts::Facts;
use super::hours::{self, LocalTime};

/// People under conditions, in one form for all ways of writing the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    who: Who,
    when: When,
}

impl Subject {
    /// The subject of `rule`; none where it cannot be understood.
    pub(super) fn of(segment: &SegmentPolicy, rule: &PolicyRule, zone_known: bool) -> Option<Self> {
        let when = conditions(segment, rule);
        let When { buildings, devices, sign_in: _, hours } = &when;
        let nobody = matches!(&rule.who, Who::Members(members) if members.is_empty());
        let nowhere = buildings.as_ref().is_some_and(Vec::is_empty)
            || devices.as_ref().is_some_and(Vec::is_empty);
        let never = hours.as_ref().is_some_and(|it| !zone_known || !hours::are_sound(it));
        let who = match &rule.who {
            Who::Everyone => Who::Everyone,
            Who::Members(Members { groups, users }) => Who::Members(Members {
                groups: distinct(groups.clone()),
                users: distinct(users.clone()),
            }),
        };
        (!nobody && !nowhere && !never).then(|| Self { who, when: in_order(when) })
    }

    /// Whether it is everybody at any time, for which no class is needed.
    pub(super) fn is_everyone(&self) -> bool {
        self.who == Who::Everyone && self.when == When::default()
    }
}

/// What `rule` states, and for the rest what its segment does.
fn conditions(segment: &SegmentPolicy, rule: &PolicyRule) -> When {
    let When { buildings, devices, sign_in, hours } = rule.when.clone();
    let defaults = match rule.action {
        Action::Allow => segment.defaults.when.clone(),
        Action::Deny => When::default(),
    };
    When {
        buildings: buildings.or(defaults.buildings),
        devices: devices.or(defaults.devices),
        sign_in: sign_in.or(defaults.sign_in),
        hours: hours.or(defaults.hours),
    }
}

fn distinct<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}

fn in_order(when: When) -> When {
    let each_day = |mut it: partywall_proto::admin::Hours| {
        it.days = distinct(it.days);
        it
    };
    When {
        buildings: when.buildings.map(distinct),
        devices: when.devices.map(distinct),
        sign_in: when.sign_in,
        hours: when.hours.map(|hours| distinct(hours.into_iter().map(each_day).collect())),
    }
}

/// The subjects of a segment's rules, to find a session's classes in.
#[derive(Debug, Clone, Default)]
pub(super) struct Subjects {
    /// By class number.
    conditions: Vec<When>,
    of_everyone: Vec<ClassId>,
    of_group: BTreeMap<GroupId, Vec<ClassId>>,
    of_user: BTreeMap<UserId, Vec<ClassId>>,
    /// The policy's groups that name a user.
    around_user: BTreeMap<UserId, Vec<GroupId>>,
    /// The policy's groups that name a group.
    around_group: BTreeMap<GroupId, Vec<GroupId>>,
    zone: Option<TimeZone>,
    edges: BTreeSet<LocalTime>,
}

impl Subjects {
    /// Numbers `subjects` in their order.
    pub(super) fn of(
        policy: &PolicySpec,
        subjects: BTreeSet<Subject>,
    ) -> (Self, BTreeMap<Subject, ClassId>) {
        let mut this = Self { zone: hours::zone(&policy.time_zone), ..Self::default() };
        for (name, members) in &policy.groups {
            for user in &members.users {
                this.around_user.entry(user.clone()).or_default().push(name.clone());
            }
            for group in &members.groups {
                this.around_group.entry(group.clone()).or_default().push(name.clone());
            }
        }
        let mut classes = BTreeMap::new();
        for (subject, class) in subjects.into_iter().zip((0..).map(ClassId)) {
            match &subject.who {
                Who::Everyone => this.of_everyone.push(class),
                Who::Members(Members { groups, users }) => {
                    for group in groups {
                        this.of_group.entry(group.clone()).or_default().push(class);
                    }
                    for user in users {
                        this.of_user.entry(user.clone()).or_default().push(class);
                    }
                }
            }
            this.edges.extend(hours::edges(subject.when.hours.as_deref().unwrap_or_default()));
            this.conditions.push(subject.when.clone());
            classes.insert(subject, class);
        }
        (this, classes)
    }

    /// The classes of a session with these facts at `now`, sorted.
    pub(super) fn classes_of(&self, facts: &Facts<'_>, now: Timestamp) -> Vec<ClassId> {
        let zone = self.zone.as_ref().filter(|_| !self.edges.is_empty());
        self.classes_at(facts, zone.map(|zone| LocalTime::at(now, zone)))
    }

    /// As [`Self::classes_of`], at a time of the week; at none, no hours hold.
    pub(super) fn classes_at(&self, facts: &Facts<'_>, time: Option<LocalTime>) -> Vec<ClassId> {
        let mut found: Vec<ClassId> = self.candidates(facts.user, facts.groups);
        found.retain(|class| self.condition(*class).is_some_and(|it| holds(it, facts, time)));
        found
    }

    /// The classes of a person, whatever their conditions, sorted.
    pub(super) fn candidates(&self, user: &UserId, groups: &[GroupId]) -> Vec<ClassId> {
        let mut found = self.of_everyone.clone();
        found.extend(self.of_user.get(user).into_iter().flatten());
        let named = self.around_user.get(user).into_iter().flatten();
        let mut ahead: Vec<&GroupId> = groups.iter().chain(named).collect();
        let mut seen = BTreeSet::new();
        while let Some(group) = ahead.pop() {
            if seen.insert(group) {
                found.extend(self.of_group.get(group).into_iter().flatten());
                ahead.extend(self.around_group.get(group).into_iter().flatten());
            }
        }
        distinct(found)
    }

    /// The conditions of a class.
    pub(super) fn condition(&self, class: ClassId) -> Option<&When> {
        self.conditions.get(usize::try_from(class.0).ok()?)
    }

    /// The conditions of all classes, by number.
    pub(super) fn conditions(&self) -> impl Iterator<Item = &When> {
        self.conditions.iter()
    }

    /// What the policy's clock shows at `at`.
    pub(super) fn clock(&self, at: Timestamp) -> Option<LocalTime> {
        self.zone.as_ref().map(|zone| LocalTime::at(at, zone))
    }

    /// The week, from Monday to Monday, that `now` lies in by the policy's clock.
    pub(super) fn week_of(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        hours::week_of(now, self.zone.as_ref()?)
    }

    /// The first instant after `now` at which a session's classes may change by themselves.
    pub(super) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        hours::next_edge(&self.edges, self.zone.as_ref()?, now)
    }
}

fn holds(when: &When, facts: &Facts<'_>, time: Option<LocalTime>) -> bool {
    let When { buildings, devices, sign_in, hours } = when;
    let here = |all: &Vec<_>| facts.building.is_some_and(|building| all.contains(building));
    buildings.as_ref().is_none_or(here)
        && devices.as_ref().is_none_or(|all| all.contains(&facts.device))
        && sign_in.is_none_or(|least| facts.sign_in >= least)
        && hours.as_ref().is_none_or(|all| time.is_some_and(|time| time.within(all)))
}
