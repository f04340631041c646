//! The set arithmetic: what is left of a block and its ports when others are taken away.
//!
//! Prefixes nest or are apart, so it is enough to take away what covers a block as a whole, and to
//! halve it as long as something lies within. The answer is exact; nothing is sampled.

use std::ops::ControlFlow;

use partywall_proto::admin::Endpoint;
use partywall_proto::rules::Opener;

use super::block::Block;
use super::shelf::Shelf;
use super::space::Space;
use crate::domain::policy::Opening;

/// Something to take away: the blocks of a shelf whose position is below `before`, each with its space.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cover<'a> {
    pub(super) shelf: &'a Shelf,
    pub(super) spaces: &'a [Space],
    pub(super) before: u32,
}

impl<'a> Cover<'a> {
    /// All of a shelf.
    pub(super) fn whole(shelf: &'a Shelf, spaces: &'a [Space]) -> Self {
        Self { shelf, spaces, before: u32::MAX }
    }
}

/// Shows `visit` what is left of `block` × `space` without `covers`, in pieces that do not overlap.
pub(super) fn remainder<B>(
    block: Block,
    space: Space,
    covers: &[Cover<'_>],
    mut visit: impl FnMut(Block, &Space) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let Some(space) = left_above(block, space, covers) else { return ControlFlow::Continue(()) };
    let inside = gather(block, &space, covers);
    split(block, space, &inside, &mut visit)
}

/// The first piece that is left, if any.
pub(super) fn gap(block: Block, space: Space, covers: &[Cover<'_>]) -> Option<(Block, Space)> {
    let found =
        remainder(block, space, covers, |block, space| ControlFlow::Break((block, space.clone())));
    match found {
        ControlFlow::Break(piece) => Some(piece),
        ControlFlow::Continue(()) => None,
    }
}

/// A flow that somebody could try, of what is left.
pub(super) fn some_opening(opener: Opener, block: Block, space: &Space) -> Option<Opening> {
    let (protocol, port) = space.example()?;
    Some(Opening { opener, far: Endpoint::new(block.address(), protocol, port) })
}

/// Whether nothing is left.
pub(super) fn is_covered(block: Block, space: Space, covers: &[Cover<'_>]) -> bool {
    let Some(space) = left_above(block, space, covers) else { return true };
    let inside = gather(block, &space, covers);
    if !may_fill(block, &inside) {
        return false;
    }
    split(block, space, &inside, &mut |_, _| ControlFlow::Break(())).is_continue()
}

/// What the blocks leave that cover all of `block`; none if that is nothing.
fn left_above(block: Block, mut space: Space, covers: &[Cover<'_>]) -> Option<Space> {
    for cover in covers {
        for at in cover.shelf.covering(block).filter(|at| *at < cover.before) {
            if let Some(taken) = cover.spaces.get(at as usize) {
                space.subtract(taken);
            }
            if space.is_empty() {
                return None;
            }
        }
    }
    (!space.is_empty()).then_some(space)
}

/// What lies in `block` and takes something of `space` away, in order.
fn gather<'a>(block: Block, space: &Space, covers: &[Cover<'a>]) -> Vec<(Block, &'a Space)> {
    let mut inside = Vec::new();
    for cover in covers {
        let entries = cover.shelf.inside(block).iter().filter(|(_, at)| *at < cover.before);
        inside.extend(entries.filter_map(|(block, at)| {
            let taken = cover.spaces.get(*at as usize)?;
            (!taken.meet(space).is_empty()).then_some((*block, taken))
        }));
    }
    inside.sort_unstable_by_key(|(block, _)| *block);
    inside
}

/// Whether there are as many addresses in `inside`, all told, as in `block`. Cheap, and settles most
/// questions: a handful of hosts never fill a network.
fn may_fill(block: Block, inside: &[(Block, &Space)]) -> bool {
    const WHOLE: u64 = 1 << 40;
    // Rounded up, so that it errs on the side of looking closer.
    let share = |within: &Block| {
        (WHOLE.checked_shr((within.length - block.length).into()).unwrap_or(0)).max(1)
    };
    let mut sum = 0_u64;
    inside.iter().any(|(within, _)| {
        sum = sum.saturating_add(share(within));
        sum >= WHOLE
    })
}

/// `inside` lies in `block`, is not all of it, and is in order.
fn split<B>(
    block: Block,
    space: Space,
    inside: &[(Block, &Space)],
    visit: &mut impl FnMut(Block, &Space) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let Some([low, high]) = block.halves().filter(|_| !inside.is_empty()) else {
        return visit(block, &space);
    };
    let (in_low, in_high) =
        inside.split_at(inside.partition_point(|(it, _)| it.first < high.first));
    let mut halves = [(low, in_low), (high, in_high)];
    // Where less is taken away, something is left sooner.
    if in_high.len() < in_low.len() {
        halves.reverse();
    }
    for (half, within) in halves {
        let (equal, within) = within.split_at(within.partition_point(|(it, _)| *it == half));
        let mut left = space.clone();
        equal.iter().for_each(|(_, taken)| left.subtract(taken));
        if !left.is_empty() {
            split(half, left, within, visit)?;
        }
    }
    ControlFlow::Continue(())
}
