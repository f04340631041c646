//! Who gains or loses what when one policy takes the place of another.
//!
//! It compares what rules allow, as exact sets, and never their words. The rules that both policies begin and
//! end with decide alike, so only what lies under the others is worked out, and once for all people whom it
//! concerns in the same way.

mod kinds;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use jiff::Timestamp;
use partywall_proto::admin::{EffectConditions, EffectKind, PolicyDiff, PolicyEffect, PolicySpec};
use partywall_proto::ids::{GroupId, SegmentId, UserId};
use partywall_proto::nets::{PortRange, Prefix, Protocol};
use partywall_proto::rules::{Action, ClassId, Opener, Rule};

use super::policy::Compiled;
use super::prover::{Piece, Reach};
use kinds::{Kind, Values};
use words::Words;

/// Lines of one answer; more than anybody reads.
const LINES_MAX: usize = 1_000;
/// Kinds of session that are looked at, over all people: a few seconds' work.
const KINDS_MAX: u64 = 1_000_000;
/// Rules that are worked out as sets: a few seconds' work.
const RULES_MAX: u64 = 500_000;
/// Changes that are held while they are put together, a person's counted each: 100 MB.
const HELD_MAX: usize = 5_000_000;
/// Differing rules up to which it pays to look for those that have addresses in common with them.
const NARROWED_MAX: usize = 64;

/// One segment under both policies.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Its name.
    pub segment: &'a SegmentId,
    /// Its rules before.
    pub before: &'a Compiled,
    /// Its rules after.
    pub after: &'a Compiled,
}

/// A person of the organisation with their groups.
pub type Person = (UserId, Vec<GroupId>);

/// Compares two policies for `people`, who are in the order of their names. `services` are those of the
/// policy before and of the one after; `now` says which week is meant where clocks are put forward or back.
pub fn diff(
    pairs: &[Pair<'_>],
    services: [Option<&PolicySpec>; 2],
    people: &[Person],
    now: Timestamp,
) -> PolicyDiff {
    let words = Words::of(people, services);
    let mut budget = Budget { kinds: KINDS_MAX, rules: RULES_MAX, held: HELD_MAX };
    let mut diff = PolicyDiff { complete: true, ..PolicyDiff::default() };
    for pair in pairs {
        let values = Values::of(pair.before, pair.after, now);
        let mut segment = Comparison::of(*pair, &mut budget);
        let mut found = Changes::new();
        let whole = segment.look(&values, people, &mut found);
        diff.complete &= whole && values.complete;
        let Comparison { known, .. } = segment;
        for line in lines(pair.segment, &known, found, &words) {
            if diff.changes.len() < LINES_MAX {
                diff.changes.push(line);
            } else {
                diff.unlisted += 1;
            }
        }
    }
    diff
}

/// What is left to be spent.
struct Budget {
    kinds: u64,
    rules: u64,
    held: usize,
}

/// A change by its number, under conditions, and whom it concerns by their numbers.
type Changes = BTreeMap<(usize, EffectConditions), Vec<usize>>;

/// One segment's comparison.
struct Comparison<'a> {
    pair: Pair<'a>,
    /// For each rule of before and of after what it says, as a number.
    says: [Vec<usize>; 2],
    /// What differs between two lists of rules, which are named by their positions.
    made: HashMap<[Vec<usize>; 2], Rc<[usize]>>,
    /// Changes by their numbers.
    known: Vec<(EffectKind, Piece)>,
    numbers: BTreeMap<(EffectKind, Piece), usize>,
    budget: &'a mut Budget,
}

impl<'a> Comparison<'a> {
    fn of(pair: Pair<'a>, budget: &'a mut Budget) -> Self {
        type Saying<'r> = (Action, Opener, Prefix, Option<Protocol>, &'r [PortRange]);
        let mut numbers: HashMap<Saying<'_>, usize> = HashMap::new();
        let mut number = |rule: &'a Rule| {
            let it = &rule.matches;
            let saying = (rule.action, it.opener(), it.prefix(), it.protocol(), it.ports());
            let next = numbers.len();
            *numbers.entry(saying).or_insert(next)
        };
        let says = [pair.before, pair.after].map(|it| it.rules().iter().map(&mut number).collect());
        Self {
            pair,
            says,
            made: HashMap::new(),
            known: Vec::new(),
            numbers: BTreeMap::new(),
            budget,
        }
    }

    /// Finds what changes for whom; false where it gives up.
    fn look(&mut self, values: &Values<'_>, people: &[Person], found: &mut Changes) -> bool {
        let mut alike: BTreeMap<[Vec<ClassId>; 2], Vec<usize>> = BTreeMap::new();
        for (at, (user, groups)) in people.iter().enumerate() {
            let may_have =
                [self.pair.before, self.pair.after].map(|it| it.candidates(user, groups));
            alike.entry(may_have).or_default().push(at);
        }
        for ([before, after], people) in alike {
            let kinds = values.kinds(&before, &after);
            let mut of_change: BTreeMap<usize, Vec<Kind>> = BTreeMap::new();
            let Some(left) = self.budget.kinds.checked_sub(kinds.count()) else { return false };
            self.budget.kinds = left;
            for (kind, classes) in kinds.each() {
                let Some(changes) = self.changes(&classes) else { return false };
                for change in &*changes {
                    of_change.entry(*change).or_default().push(kind);
                }
            }
            let mut together: BTreeMap<Vec<Kind>, Vec<usize>> = BTreeMap::new();
            for (change, some) in of_change {
                together.entry(some).or_default().push(change);
            }
            for (some, changes) in together {
                for when in values.conditions(&kinds, &some) {
                    let held = changes.len().saturating_mul(people.len());
                    let Some(left) = self.budget.held.checked_sub(held) else { return false };
                    self.budget.held = left;
                    for &change in &changes {
                        found.entry((change, when.clone())).or_default().extend(&people);
                    }
                }
            }
        }
        true
    }

    /// What changes for a session of these classes before and after; none where there is nothing left to
    /// spend.
    fn changes(&mut self, classes: &[Vec<ClassId>; 2]) -> Option<Rc<[usize]>> {
        let [before, after] = classes;
        let lists =
            self.narrowed([self.pair.before.positions(before), self.pair.after.positions(after)]);
        let Some(lists) = lists else { return Some(Rc::from([])) };
        if let Some(made) = self.made.get(&lists) {
            return Some(Rc::clone(made));
        }
        let rules = lists.iter().map(|it| it.len() as u64).sum();
        self.budget.rules = self.budget.rules.checked_sub(rules)?;
        let [before, after] = [(self.pair.before, &lists[0]), (self.pair.after, &lists[1])]
            .map(|(policy, list)| Reach::of(&policy.rules_at(list), &[]));
        let gained = after.beyond(&before).into_iter().map(|piece| (EffectKind::Gains, piece));
        let lost = before.beyond(&after).into_iter().map(|piece| (EffectKind::Loses, piece));
        let changes = lost.chain(gained).map(|change| {
            *self.numbers.entry(change).or_insert_with_key(|change| {
                self.known.push(change.clone());
                self.known.len() - 1
            })
        });
        let changes: Rc<[usize]> = changes.collect();
        self.made.insert(lists, Rc::clone(&changes));
        Some(changes)
    }

    /// Of two lists of rules those that may decide differently; none where the lists say the same.
    fn narrowed(&self, lists: [Vec<usize>; 2]) -> Option<[Vec<usize>; 2]> {
        let [before, after] = &lists;
        let same = |(a, b): &(&usize, &usize)| self.says[0][**a] == self.says[1][**b];
        let head = before.iter().zip(after).take_while(same).count();
        let [before, after] = [&before[head..], &after[head..]];
        let tail = before.iter().rev().zip(after.iter().rev()).take_while(same).count();
        let [before, after] = [&before[..before.len() - tail], &after[..after.len() - tail]];
        if before.is_empty() && after.is_empty() {
            return None;
        }
        let [old, new] = [self.pair.before.rules(), self.pair.after.rules()];
        let differing = before.iter().map(|at| &old[*at]).chain(after.iter().map(|at| &new[*at]));
        let mut places: Vec<(Opener, Prefix)> =
            differing.map(|rule| (rule.matches.opener(), rule.matches.prefix())).collect();
        places.sort_unstable();
        places.dedup();
        if places.len() > NARROWED_MAX {
            return Some(lists);
        }
        let concerned = |rule: &Rule| {
            let it = &rule.matches;
            let mut places = places.iter();
            places.any(|(opener, prefix)| *opener == it.opener() && prefix.overlaps(&it.prefix()))
        };
        let [mut before, mut after] = lists;
        before.retain(|at| concerned(&old[*at]));
        after.retain(|at| concerned(&new[*at]));
        Some([before, after])
    }
}

/// The changes of a segment as lines: what concerns the same people under the same conditions by the same
/// rule is one.
fn lines(
    segment: &SegmentId,
    known: &[(EffectKind, Piece)],
    found: Changes,
    words: &Words<'_>,
) -> Vec<PolicyEffect> {
    let mut together: BTreeMap<_, Vec<&Piece>> = BTreeMap::new();
    for ((change, when), mut people) in found {
        people.sort_unstable();
        let (effect, piece) = &known[change];
        let key = (*effect, people, when, piece.opener, &piece.rule);
        together.entry(key).or_default().push(piece);
    }
    let line =
        |((effect, people, when, opened_by, rule), mut pieces): ((_, Vec<_>, _, _, &_), Vec<_>)| {
            pieces.sort_unstable();
            let (what, what_unlisted) = words.what(effect, &pieces);
            let segment = segment.clone();
            let (who, rule) = (words.who(&people), partywall_proto::ids::RuleId::clone(rule));
            PolicyEffect { segment, effect, who, when, opened_by, what, what_unlisted, rule }
        };
    let mut lines: Vec<_> = together.into_iter().map(line).collect();
    lines.sort_by(|a, b| {
        let key = |it: &PolicyEffect| (it.effect, std::cmp::Reverse(it.who.people));
        key(a).cmp(&key(b)).then_with(|| a.rule.cmp(&b.rule))
    });
    lines
}

#[cfg(test)]
mod tests;
