//! No device reaches another but by a rule that was written for devices.
//!
//! Such a rule names the pool or a part of it. One that is wider than the pool was written for the
//! network, and what it allows between devices is an accident.

use partywall_proto::nets::Prefix;
use partywall_proto::rules::Action;

use super::Bearer;
use super::block::Block;
use super::listing::Listing;
use super::refutation::Flaw;
use super::remainder::{gap, some_opening};

/// Rules that allow something between devices by being wider than a pool; each rule once.
pub(super) fn device_to_device(
    pools: &[Prefix],
    listing: &Listing<'_>,
    by: &Bearer<'_, '_>,
) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for placed in listing.placed().filter(|placed| placed.rule.action == Action::Allow) {
        let prefix = placed.rule.matches.prefix();
        if pools.iter().any(|pool| pool.covers(&prefix)) {
            continue;
        }
        let opener = placed.rule.matches.opener();
        let Some(classes) = by.classes(&placed) else { continue };
        let covered = pools.iter().filter(|pool| prefix.covers(pool));
        let packet = covered.map(|pool| Block::from(*pool)).find_map(|pool| {
            let earlier = listing.before(opener, &classes, placed.at);
            let (block, space) = gap(pool, placed.space.clone(), &earlier)?;
            some_opening(opener, block, &space)
        });
        if let Some(packet) = packet {
            flaws.push(Flaw::BetweenDevices {
                rule: placed.rule.id.clone(),
                prefix,
                whom: by.whom(&placed, listing.rules, &packet),
                packet,
            });
        }
    }
    flaws
}
