//! Round trips of all tunnels while they carry nothing else, in short turns: within the seconds that many pings in a
//! row take, a machine may become slower by more than tunnels differ.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::iperf::Target;
use super::machine::undisturbed;
use super::ping::{self, Pings};
use super::side::Side;

/// Partywall and its rivals.
const TUNNELS: usize = 4;
/// The order of turns in each pass: a tunnel's place and who was before it are shared out equally, and none
/// follows itself (a Williams design).
const PASSES: [[usize; TUNNELS]; TUNNELS] =
    [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]];
/// How often all passes are made in a round.
const TIMES: usize = 2;
/// Pings of a turn. The first ones do not count: caches and neighbours are as another tunnel has left them.
const COUNTED: usize = 50;
const SKIPPED: usize = 2;

/// Each tunnel's pings of one round, and what was stolen from the machine in the pass that suffered most.
pub(super) fn round<'a>(
    sides: &[(&'a str, Side)],
    target: &Target,
) -> Result<(BTreeMap<&'a str, Pings>, f64)> {
    let sides: &[_; TUNNELS] =
        sides.try_into().context("the order of turns is for another number of tunnels")?;
    for (name, side) in sides {
        // Its last turn may be minutes ago, and so may its keys.
        ping::until_answered(side.device(), &target.address).with_context(|| (*name).to_owned())?;
    }
    let mut all: BTreeMap<&str, Pings> = BTreeMap::new();
    let mut worst: f64 = 0.0;
    for pass in PASSES.iter().cycle().take(TIMES * PASSES.len()) {
        let (turns, stolen) = undisturbed(|| {
            let order = pass.iter().map(|&at| &sides[at]);
            let turns = order.map(|(name, side)| Ok((*name, turn(name, side, target)?)));
            turns.collect::<Result<Vec<_>>>()
        })?;
        worst = worst.max(stolen);
        for (name, pings) in turns {
            all.entry(name).or_default().add(pings);
        }
    }
    Ok((all, worst))
}

fn turn(name: &str, side: &Side, target: &Target) -> Result<Pings> {
    Pings::send(side.device(), &target.address, COUNTED, SKIPPED).with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_tunnel_has_each_place_once_and_follows_each_other_once() {
        for place in 0..TUNNELS {
            let there: BTreeSet<usize> = PASSES.iter().map(|pass| pass[place]).collect();
            assert_eq!(there.len(), TUNNELS, "place {place}");
        }
        let followed: BTreeSet<_> =
            PASSES.iter().flat_map(|pass| pass.windows(2).map(|two| (two[0], two[1]))).collect();
        assert_eq!(followed.len(), 12);
        let turns: Vec<usize> = [PASSES, PASSES].concat().concat();
        assert!(turns.windows(2).all(|two| two[0] != two[1]));
    }
}
