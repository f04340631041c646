//! Rules of a policy that never decide, because earlier ones leave them nothing.

use std::collections::BTreeMap;

use partywall_proto::ids::{RuleId, SegmentId};

use super::listing::{Listing, Placed};
use super::remainder::{gap, is_covered, some_opening};
use super::warning::{Warning, WarningKind};
use crate::domain::policy::Opening;

/// Rules that are named as the reason; a reader needs no more to find the place.
const NAMED_MAX: usize = 3;

/// The rules of the policy that never decide, in its order. One that was compiled to several is named
/// only if none of them decides.
pub(super) fn idle_rules(segment: &SegmentId, listing: &Listing<'_>) -> Vec<Warning> {
    let mut idle: BTreeMap<&RuleId, Option<Vec<Placed<'_>>>> = BTreeMap::new();
    let mut order = Vec::new();
    for placed in listing.placed() {
        let id = &placed.rule.id;
        let parts = idle.entry(id).or_insert_with(|| {
            order.push(id);
            Some(Vec::new())
        });
        let Some(known) = parts else { continue };
        let earlier = listing.before(placed.rule.matches.opener(), &placed.classes(), placed.at);
        if is_covered(placed.block, placed.space.clone(), &earlier) {
            known.push(placed);
        } else {
            *parts = None;
        }
    }
    let idle = order.into_iter().filter_map(|id| Some((id, idle.get(id)?.as_ref()?)));
    idle.map(|(id, parts)| {
        let (earlier, kind) = reason(listing, parts);
        Warning { segment: segment.clone(), rule: id.clone(), earlier, kind }
    })
    .collect()
}

/// Which rules decide in the stead of these, and whether one says the opposite.
fn reason(listing: &Listing<'_>, parts: &[Placed<'_>]) -> (Vec<RuleId>, WarningKind) {
    let mut same = Vec::new();
    for placed in parts {
        for rival in listing.rivals(placed) {
            let opposite = rival.rule.action != placed.rule.action;
            let known = same.len() >= NAMED_MAX || same.contains(&rival.rule.id);
            if known && !opposite {
                continue;
            }
            let Some(packet) = decided_by(listing, placed, &rival) else { continue };
            if opposite {
                return (vec![rival.rule.id.clone()], WarningKind::Shadowed { packet });
            }
            same.push(rival.rule.id.clone());
        }
    }
    (same, WarningKind::Redundant)
}

/// A packet that `placed` matches and `rival` decides.
fn decided_by(listing: &Listing<'_>, placed: &Placed<'_>, rival: &Placed<'_>) -> Option<Opening> {
    let opener = placed.rule.matches.opener();
    let before = listing.before(opener, &placed.classes(), rival.at);
    let block = placed.block.meet(rival.block)?;
    let (block, space) = gap(block, placed.space.meet(rival.space), &before)?;
    some_opening(opener, block, &space)
}
