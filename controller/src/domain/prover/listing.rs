//! One agent's rules, put in order so that questions about them need not read the whole list.

use std::collections::BTreeMap;

use partywall_proto::rules::{ClassId, Opener, Rule};

use super::block::Block;
use super::remainder::Cover;
use super::shelf::Shelf;
use super::space::Space;

/// A list of rules, ready for set arithmetic.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    pub(super) rules: &'a [Rule],
    /// What each rule takes of protocols and ports, by position.
    spaces: Vec<Space>,
    shelves: BTreeMap<(Opener, Option<ClassId>), Shelf>,
    /// Positions by class, ascending.
    by_class: BTreeMap<Option<ClassId>, Vec<u32>>,
}

/// A rule with its place in the list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub(super) at: u32,
    pub(super) rule: &'a Rule,
    pub(super) block: Block,
    pub(super) space: &'a Space,
}

impl Placed<'_> {
    /// The smallest set of classes that the rule concerns. Of all sets that it concerns, with this one
    /// the fewest earlier rules apply: what it lets the rule do is all that the rule can do.
    pub(super) fn classes(&self) -> Vec<ClassId> {
        self.rule.matches.class().into_iter().collect()
    }
}

impl<'a> Listing<'a> {
    pub(super) fn of(rules: &'a [Rule]) -> Self {
        let mut shelves = BTreeMap::<_, Vec<(Block, u32)>>::new();
        let mut by_class = BTreeMap::<_, Vec<u32>>::new();
        for (rule, at) in rules.iter().zip(0..) {
            let it = &rule.matches;
            let block = Block::from(it.prefix());
            shelves.entry((it.opener(), it.class())).or_default().push((block, at));
            by_class.entry(it.class()).or_default().push(at);
        }
        Self {
            rules,
            spaces: rules.iter().map(|rule| Space::from(&rule.matches)).collect(),
            shelves: shelves.into_iter().map(|(key, it)| (key, it.into_iter().collect())).collect(),
            by_class,
        }
    }

    /// Every rule with its place.
    pub(super) fn placed(&self) -> impl Iterator<Item = Placed<'_>> {
        let spaced = self.rules.iter().zip(&self.spaces).zip(0..);
        spaced.map(|((rule, space), at)| Placed {
            at,
            rule,
            block: rule.matches.prefix().into(),
            space,
        })
    }

    /// The rules that concern a device of these classes, in order.
    pub(super) fn concerning(&self, classes: &[ClassId]) -> Vec<&'a Rule> {
        let lists = with_none(classes).filter_map(|class| self.by_class.get(&class));
        let mut positions: Vec<u32> = lists.flatten().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().filter_map(|at| self.rules.get(at as usize)).collect()
    }

    /// What the rules before position `before` take from a device of these classes.
    pub(super) fn before(
        &self,
        opener: Opener,
        classes: &[ClassId],
        before: u32,
    ) -> Vec<Cover<'_>> {
        let shelves = with_none(classes).filter_map(|class| self.shelves.get(&(opener, class)));
        shelves.map(|shelf| Cover { shelf, spaces: &self.spaces, before }).collect()
    }

    /// What all the rules take from a device of these classes.
    pub(super) fn all(&self, opener: Opener, classes: &[ClassId]) -> Vec<Cover<'_>> {
        self.before(opener, classes, u32::MAX)
    }

    /// The rules before `later` that may decide on something of it in its stead, in order.
    pub(super) fn rivals(&self, later: &Placed<'_>) -> Vec<Placed<'_>> {
        let opener = later.rule.matches.opener();
        let covers = self.before(opener, &later.classes(), later.at);
        let meeting = covers.iter().flat_map(|cover| cover.shelf.meeting(later.block));
        let mut positions: Vec<u32> = meeting.filter(|at| *at < later.at).collect();
        positions.sort_unstable();
        positions.into_iter().filter_map(|at| self.at(at)).collect()
    }

    fn at(&self, at: u32) -> Option<Placed<'_>> {
        let (rule, space) = (self.rules.get(at as usize)?, self.spaces.get(at as usize)?);
        Some(Placed { at, rule, block: rule.matches.prefix().into(), space })
    }
}

fn with_none(classes: &[ClassId]) -> impl Iterator<Item = Option<ClassId>> {
    std::iter::once(None).chain(classes.iter().copied().map(Some))
}
