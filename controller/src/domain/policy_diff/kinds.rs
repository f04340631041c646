//! The kinds of session that the rules of two policies tell apart, and sets of them as people put it.
//!
//! Two devices, buildings, ways to sign in or times that no rule for these people tells apart are one kind:
//! what is true of one of them is true of all, so nothing is sampled.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use partywall_proto::admin::{DeviceClass, EffectConditions, SignInStrength, When};
use partywall_proto::ids::BuildingId;
use partywall_proto::rules::ClassId;

use crate::domain::policy::{Compiled, LocalTime};

/// Spans of a week that are looked at; a policy that has more is shown by its first ones.
const SPANS_MAX: usize = 2_000;

/// Every value that conditions of a segment can ask for, in either policy.
pub(super) struct Values<'a> {
    before: &'a Compiled,
    after: &'a Compiled,
    /// Named ones, then elsewhere.
    pub(super) buildings: Vec<Option<&'a BuildingId>>,
    /// Where the spans of the week begin, in order.
    spans: Vec<Timestamp>,
    /// Whether these are all spans.
    pub(super) complete: bool,
}

/// Values of each condition that no rule tells apart.
pub(super) struct Kinds {
    before: Vec<ClassId>,
    after: Vec<ClassId>,
    atoms: [Vec<Atom>; 4],
}

/// Values that are alike, by their numbers, and which classes they leave: those of before, then of after.
struct Atom {
    values: BTreeSet<usize>,
    leaves: Vec<bool>,
}

/// A kind of session: an atom of each condition, by number.
pub(super) type Kind = [usize; 4];

impl<'a> Values<'a> {
    /// The values that `before` and `after` name. `now` says which week is meant where clocks are put
    /// forward or back.
    pub(super) fn of(before: &'a Compiled, after: &'a Compiled, now: Timestamp) -> Self {
        let both = [before, after];
        let conditions = || both.into_iter().flat_map(Compiled::conditions);
        let named: BTreeSet<&BuildingId> =
            conditions().filter_map(|it| it.buildings.as_ref()).flatten().collect();
        let buildings = named.into_iter().map(Some).chain([None]).collect();
        let week = after.week_of(now).or_else(|| before.week_of(now));
        let (mut spans, mut complete) = (vec![week.map_or(now, |(begin, _)| begin)], true);
        let next = |at| both.into_iter().filter_map(|it| it.next_change(at)).min();
        if let Some((begin, end)) = week {
            let mut at = begin;
            while let Some(edge) = next(at).filter(|edge| *edge < end) {
                if spans.len() == SPANS_MAX {
                    complete = false;
                    break;
                }
                spans.push(edge);
                at = edge;
            }
        }
        Self { before, after, buildings, spans, complete }
    }

    /// What the rules of these classes tell apart.
    pub(super) fn kinds(&self, before: &[ClassId], after: &[ClassId]) -> Kinds {
        let none = When::default();
        let of = |policy: &'a Compiled, classes: &[ClassId]| {
            let when = |class: &ClassId| policy.condition(*class);
            classes.iter().map(|class| (policy, when(class))).collect::<Vec<_>>()
        };
        let all: Vec<(&Compiled, Option<&When>)> =
            of(self.before, before).into_iter().chain(of(self.after, after)).collect();
        let each = |count: usize, holds: &dyn Fn(&Compiled, &When, usize) -> bool| {
            let mut alike: BTreeMap<Vec<bool>, BTreeSet<usize>> = BTreeMap::new();
            for value in 0..count {
                let leaves = all
                    .iter()
                    .map(|(policy, when)| holds(policy, when.unwrap_or(&none), value))
                    .collect();
                alike.entry(leaves).or_default().insert(value);
            }
            alike.into_iter().map(|(leaves, values)| Atom { values, leaves }).collect::<Vec<_>>()
        };
        let devices = each(DeviceClass::ALL.len(), &|_, when, at| {
            when.devices.as_ref().is_none_or(|it| it.contains(&DeviceClass::ALL[at]))
        });
        let buildings = each(self.buildings.len(), &|_, when, at| {
            let here = self.buildings[at];
            when.buildings.as_ref().is_none_or(|it| here.is_some_and(|here| it.contains(here)))
        });
        let strengths = each(SignInStrength::ALL.len(), &|_, when, at| {
            when.sign_in.is_none_or(|least| SignInStrength::ALL[at] >= least)
        });
        let hours = each(self.spans.len(), &|policy, when, at| {
            when.hours.as_ref().is_none_or(|hours| {
                policy.clock(self.spans[at]).is_some_and(|time| time.within(hours))
            })
        });
        let atoms = [devices, buildings, strengths, hours];
        Kinds { before: before.to_vec(), after: after.to_vec(), atoms }
    }

    /// Some of `kinds` as conditions: together they are those, and no two of them overlap.
    pub(super) fn conditions(&self, kinds: &Kinds, some: &[Kind]) -> Vec<EffectConditions> {
        type Set = BTreeSet<usize>;
        // One condition after the other: what is alike in all the rest is put together.
        let mut by_span: BTreeMap<[usize; 3], Set> = BTreeMap::new();
        for [device, building, strength, span] in some {
            by_span.entry([*device, *building, *strength]).or_default().insert(*span);
        }
        let mut by_building: BTreeMap<(usize, usize, Set), Set> = BTreeMap::new();
        for ([device, building, strength], spans) in by_span {
            by_building.entry((device, strength, spans)).or_default().insert(building);
        }
        let mut by_device: BTreeMap<(usize, Set, Set), Set> = BTreeMap::new();
        for ((device, strength, spans), buildings) in by_building {
            by_device.entry((strength, spans, buildings)).or_default().insert(device);
        }
        let mut by_strength: BTreeMap<(Set, Set, Set), Set> = BTreeMap::new();
        for ((strength, spans, buildings), devices) in by_device {
            by_strength.entry((spans, buildings, devices)).or_default().insert(strength);
        }
        let values = |condition: usize, atoms: &Set| -> Set {
            atoms.iter().flat_map(|at| &kinds.atoms[condition][*at].values).copied().collect()
        };
        let boxes = by_strength.into_iter().map(|((spans, buildings, devices), strengths)| {
            [values(0, &devices), values(1, &buildings), values(2, &strengths), values(3, &spans)]
        });
        boxes.map(|it| self.in_words(it)).collect()
    }

    fn in_words(
        &self,
        [devices, buildings, strengths, spans]: [BTreeSet<usize>; 4],
    ) -> EffectConditions {
        let mut when = EffectConditions::default();
        if devices.len() < DeviceClass::ALL.len() {
            when.devices = devices.into_iter().map(|at| DeviceClass::ALL[at]).collect();
        }
        if buildings.len() < self.buildings.len() {
            let found = || buildings.iter().map(|at| self.buildings[*at]);
            when.buildings = found().flatten().cloned().collect();
            when.elsewhere = found().any(|it| it.is_none());
        }
        if strengths.len() < SignInStrength::ALL.len() {
            when.sign_in = strengths.into_iter().map(|at| SignInStrength::ALL[at]).collect();
        }
        if spans.len() < self.spans.len() {
            when.hours = self.times(&spans);
        }
        when
    }

    /// Spans as times of the week; those that touch are one.
    fn times(&self, spans: &BTreeSet<usize>) -> Vec<String> {
        let clock = |at: usize| match self.spans.get(at) {
            Some(at) => self.after.clock(*at).or_else(|| self.before.clock(*at)),
            None => Some(LocalTime::MONDAY),
        };
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &span in spans {
            match runs.last_mut() {
                Some((_, end)) if *end == span => *end = span + 1,
                Some(_) | None => runs.push((span, span + 1)),
            }
        }
        let words = |(from, until): &(usize, usize)| {
            Some(format!("{} to {}", clock(*from)?, clock(*until)?))
        };
        runs.iter().filter_map(words).collect()
    }
}

impl Kinds {
    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.atoms.iter().map(|atoms| atoms.len() as u64).product()
    }

    /// Each kind with the classes that it has before and after.
    pub(super) fn each(&self) -> impl Iterator<Item = (Kind, [Vec<ClassId>; 2])> {
        let [devices, buildings, strengths, spans] =
            [0, 1, 2, 3].map(|condition: usize| 0..self.atoms[condition].len());
        let pairs = devices
            .flat_map(move |device| buildings.clone().map(move |building| (device, building)));
        let triples = pairs.flat_map(move |(device, building)| {
            strengths.clone().map(move |strength| [device, building, strength])
        });
        triples.flat_map(move |[device, building, strength]| {
            spans.clone().map(move |span| {
                let kind = [device, building, strength, span];
                (kind, self.classes(kind))
            })
        })
    }

    fn classes(&self, kind: Kind) -> [Vec<ClassId>; 2] {
        let left =
            |at: usize| self.atoms.iter().zip(kind).all(|(atoms, number)| atoms[number].leaves[at]);
        let of = |classes: &[ClassId], offset: usize| {
            let all = classes.iter().zip(offset..);
            all.filter(|(_, at)| left(*at)).map(|(class, _)| *class).collect()
        };
        [of(&self.before, 0), of(&self.after, self.before.len())]
    }
}
