//! Everything that an agent lets a device of given classes open, or have opened towards it: as a set.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use partywall_proto::ids::RuleId;
use partywall_proto::nets::{PortRange, Prefix, Protocol};
use partywall_proto::rules::{Action, ClassId, Opener, Rule};

use super::block::Block;
use super::listing::Listing;
use super::remainder::{Cover, remainder};
use super::shelf::Shelf;
use super::space::Space;
use crate::domain::policy::Opening;

/// What is allowed, in pieces that do not overlap.
#[derive(Debug, Default)]
pub struct Reach {
    openers: BTreeMap<Opener, Pieces>,
}

/// A part of what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// Who opens.
    pub opener: Opener,
    /// The network's end.
    pub prefix: Prefix,
    /// What may be opened there; never empty.
    pub what: Vec<(Protocol, Vec<PortRange>)>,
    /// The rule that allows it.
    pub rule: RuleId,
}

/// What a rule of this protocol and these ports speaks of, in the form of [`Piece::what`].
pub fn spoken(protocol: Option<Protocol>, ports: &[PortRange]) -> Vec<(Protocol, Vec<PortRange>)> {
    Space::of(protocol, ports).ranges()
}

#[derive(Debug, Default)]
struct Pieces {
    shelf: Shelf,
    // By position.
    blocks: Vec<Block>,
    spaces: Vec<Space>,
    rules: Vec<RuleId>,
}

impl Pieces {
    fn cover(&self) -> Cover<'_> {
        Cover::whole(&self.shelf, &self.spaces)
    }
}

impl Reach {
    /// What `rules` allow to a device of these classes: each rule's match without what earlier rules
    /// decide.
    pub fn of(rules: &[Rule], classes: &[ClassId]) -> Self {
        let listing = Listing::of(rules);
        let mut openers = BTreeMap::new();
        for opener in [Opener::Device, Opener::Network] {
            let mut pieces = Pieces::default();
            let allowing = listing.placed().filter(|placed| {
                let it = &placed.rule.matches;
                placed.rule.action == Action::Allow
                    && it.opener() == opener
                    && it.class().is_none_or(|class| classes.contains(&class))
            });
            for placed in allowing {
                let earlier = listing.before(opener, classes, placed.at);
                let all =
                    remainder(placed.block, placed.space.clone(), &earlier, |block, space| {
                        pieces.blocks.push(block);
                        pieces.spaces.push(space.clone());
                        pieces.rules.push(placed.rule.id.clone());
                        ControlFlow::<()>::Continue(())
                    });
                debug_assert!(all.is_continue());
            }
            pieces.shelf = Shelf::numbered(pieces.blocks.iter().copied());
            openers.insert(opener, pieces);
        }
        Self { openers }
    }

    /// What this allows and `other` does not, in order; the same packet is in no two pieces. Empty both
    /// ways means that the two are the same, whatever the words.
    pub fn beyond(&self, other: &Self) -> Vec<Piece> {
        let mut found = Vec::new();
        for (&opener, pieces) in &self.openers {
            let theirs = other.openers.get(&opener);
            let covers: Vec<_> = theirs.map(Pieces::cover).into_iter().collect();
            let all = pieces.blocks.iter().zip(&pieces.spaces).zip(&pieces.rules);
            for ((&block, space), rule) in all {
                let visited = remainder(block, space.clone(), &covers, |block, space| {
                    found.push((opener, block, space.clone(), rule.clone()));
                    ControlFlow::<()>::Continue(())
                });
                debug_assert!(visited.is_continue());
            }
        }
        found.sort_by_key(|it| (it.0, it.1));
        let piece = |(opener, block, space, rule): (_, Block, Space, _)| Piece {
            opener,
            prefix: block.prefix(),
            what: space.ranges(),
            rule,
        };
        found.into_iter().map(piece).collect()
    }

    /// The rule that allows it; none if nothing does.
    pub fn allows(&self, opening: &Opening) -> Option<&RuleId> {
        let far = &opening.far;
        let pieces = self.openers.get(&opening.opener)?;
        let mut covering = pieces.shelf.covering(Block::host(far.address()));
        covering.find_map(|at| {
            let space = pieces.spaces.get(at as usize)?;
            let held = space.holds(far.protocol(), far.port());
            pieces.rules.get(at as usize).filter(|_| held)
        })
    }
}
