//! Everything that an agent lets a device of given classes open, or have opened towards it: as a set.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use partywall_proto::ids::RuleId;
use partywall_proto::rules::{Action, ClassId, Opener, Rule};

use super::block::Block;
use super::listing::Listing;
use super::remainder::remainder;
use super::shelf::Shelf;
use super::space::Space;
use crate::domain::policy::Opening;

/// What is allowed, in pieces that do not overlap.
#[derive(Debug, Default)]
pub struct Reach {
    openers: BTreeMap<Opener, Pieces>,
}

#[derive(Debug, Default)]
struct Pieces {
    shelf: Shelf,
    what: Vec<(Space, RuleId)>,
}

impl Reach {
    /// What `rules` allow to a device of these classes: each rule's match without what earlier rules
    /// decide.
    pub fn of(rules: &[Rule], classes: &[ClassId]) -> Self {
        let listing = Listing::of(rules);
        let mut openers = BTreeMap::new();
        for opener in [Opener::Device, Opener::Network] {
            let mut blocks: Vec<Block> = Vec::new();
            let mut what = Vec::new();
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
                        blocks.push(block);
                        what.push((space.clone(), placed.rule.id.clone()));
                        ControlFlow::<()>::Continue(())
                    });
                debug_assert!(all.is_continue());
            }
            openers.insert(opener, Pieces { shelf: Shelf::numbered(blocks.into_iter()), what });
        }
        Self { openers }
    }

    /// The rule that allows it; none if nothing does.
    pub fn allows(&self, opening: &Opening) -> Option<&RuleId> {
        let far = &opening.far;
        let pieces = self.openers.get(&opening.opener)?;
        let mut covering = pieces.shelf.covering(Block::host(far.address()));
        covering.find_map(|at| {
            let (space, rule) = pieces.what.get(at as usize)?;
            space.holds(far.protocol(), far.port()).then_some(rule)
        })
    }
}
