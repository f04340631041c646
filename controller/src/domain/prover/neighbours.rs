//! Nothing passes between a segment and its neighbours but what is published.
//!
//! Two organisations may both use 10.0.0.0/8 inside. The tunnel decides whose network a packet goes to,
//! so a neighbour's prefix is foreign only as far as it is not this segment's own. A pool is one
//! segment's alone and always foreign.

use std::collections::BTreeMap;

use partywall_proto::ids::{AgentId, SegmentId};
use partywall_proto::nets::Prefix;
use partywall_proto::rules::{Action, Opener};

use super::Bearer;
use super::block::Block;
use super::evidence::{AgentFacts, Evidence, Publication, SegmentFacts};
use super::listing::Listing;
use super::refutation::Flaw;
use super::remainder::{Cover, gap, some_opening};
use super::shelf::Shelf;
use super::space::Space;

/// What is not a segment's own, and what of it is offered to its devices.
#[derive(Debug)]
pub(super) struct Neighbours<'a> {
    foreign: Vec<Foreign<'a>>,
    /// Of `foreign`.
    shelf: Shelf,
    /// The pools of `foreign`.
    pools: Shelf,
    own: Shelf,
    own_spaces: Vec<Space>,
    offered: Offered,
    offered_by: BTreeMap<&'a SegmentId, Offered>,
}

#[derive(Debug)]
struct Foreign<'a> {
    segment: &'a SegmentId,
    prefix: Prefix,
    is_pool: bool,
}

#[derive(Debug, Default)]
struct Offered {
    shelf: Shelf,
    spaces: Vec<Space>,
}

impl Offered {
    fn of<'p>(publications: impl Iterator<Item = &'p Publication> + Clone) -> Self {
        let spaces = publications.clone().map(|it| Space::of(it.protocol, &it.ports)).collect();
        Self { shelf: Shelf::numbered(publications.map(|it| it.prefix.into())), spaces }
    }

    fn cover(&self) -> Cover<'_> {
        Cover::whole(&self.shelf, &self.spaces)
    }
}

impl<'a> Neighbours<'a> {
    pub(super) fn of(segment: &SegmentFacts<'a>, evidence: &Evidence<'a>) -> Self {
        let others = || evidence.segments.iter().filter(|other| other.segment != segment.segment);
        let foreign: Vec<_> = others().flat_map(foreign).collect();
        let blocks = foreign.iter().map(|it| Block::from(it.prefix)).zip(0..);
        let pools = foreign.iter().zip(0..).filter(|(it, _)| it.is_pool);
        let own: Vec<_> = segment.prefixes.iter().chain(segment.pools).collect();
        // Nobody offers what is not theirs.
        let offers = |other: &SegmentFacts<'_>, it: &Publication| {
            let mut theirs = other.prefixes.iter().chain(other.pools);
            it.to == *other.segment && theirs.any(|outer| outer.covers(&it.prefix))
        };
        let live: Vec<&Publication> = evidence
            .publications
            .iter()
            .filter(|it| it.from == *segment.segment && others().any(|other| offers(other, it)))
            .collect();
        let by = |other: &SegmentFacts<'a>| {
            let theirs = live.iter().copied().filter(|it| it.to == *other.segment);
            (other.segment, Offered::of(theirs))
        };
        Self {
            shelf: blocks.collect(),
            pools: pools.map(|(it, at)| (it.prefix.into(), at)).collect(),
            own_spaces: vec![Space::all(); own.len()],
            own: Shelf::numbered(own.into_iter().map(|prefix| Block::from(*prefix))),
            offered: Offered::of(live.iter().copied()),
            offered_by: others().map(by).collect(),
            foreign,
        }
    }

    /// Rules that let a packet pass between the bearer's devices and a neighbour; each rule once.
    pub(super) fn crossings(&self, listing: &Listing<'_>, by: &Bearer<'_, '_>) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        for placed in listing.placed().filter(|placed| placed.rule.action == Action::Allow) {
            let opener = placed.rule.matches.opener();
            let Some(classes) = by.classes(&placed) else { continue };
            let meeting = self.shelf.meeting(placed.block);
            let crossing = meeting.filter_map(|at| self.foreign.get(at as usize)).find_map(|it| {
                let region = placed.block.meet(it.prefix.into())?;
                let mut covers = self.exempt(it, opener);
                covers.extend(listing.before(opener, &classes, placed.at));
                let (block, space) = gap(region, placed.space.clone(), &covers)?;
                Some((it.segment, some_opening(opener, block, &space)?))
            });
            if let Some((other, packet)) = crossing {
                flaws.push(Flaw::CrossesSegments {
                    other: other.clone(),
                    rule: placed.rule.id.clone(),
                    whom: by.whom(&placed, listing.rules, &packet),
                    packet,
                });
            }
        }
        flaws
    }

    /// Overlay addresses of a neighbour that the agent would take for a peer's or its own.
    pub(super) fn foreign_addresses(&self, agent: &AgentFacts<'_>) -> Vec<Flaw> {
        let own = agent.addresses.iter().map(|address| (agent.agent, Prefix::host(*address)));
        let peers = agent
            .peers
            .iter()
            .flat_map(|peer| peer.allowed_ips.iter().map(move |prefix| (peer.agent, *prefix)));
        own.chain(peers)
            .filter_map(|(peer, prefix)| {
                let block = Block::from(prefix);
                // A full tunnel carries everything to the device's own gateway: that is wider than a
                // pool and takes nothing for anyone's.
                let at = match peer {
                    AgentId::Device(_) => self.pools.meeting(block).next(),
                    AgentId::Gateway(_) => self.pools.covering(block).next(),
                };
                let foreign = self.foreign.get(at? as usize)?;
                Some(Flaw::ForeignAddress {
                    other: foreign.segment.clone(),
                    pool: foreign.prefix,
                    peer: peer.clone(),
                    prefix,
                })
            })
            .collect()
    }

    /// What of a neighbour's block may be allowed all the same.
    fn exempt(&self, foreign: &Foreign<'_>, opener: Opener) -> Vec<Cover<'_>> {
        let mut covers = Vec::new();
        if !foreign.is_pool {
            covers.push(Cover::whole(&self.own, &self.own_spaces));
        }
        match opener {
            // An offer is one to open something there. Where prefixes of several neighbours overlap,
            // the offer says whose is meant, as the tunnel does for the segment's own.
            Opener::Device if foreign.is_pool => {
                covers.extend(self.offered_by.get(foreign.segment).map(Offered::cover));
            }
            Opener::Device => covers.push(self.offered.cover()),
            Opener::Network => {}
        }
        covers
    }
}

fn foreign<'a>(other: &SegmentFacts<'a>) -> impl Iterator<Item = Foreign<'a>> {
    let segment = other.segment;
    let pools = other.pools.iter().map(|prefix| (prefix, true));
    let nets = other.prefixes.iter().map(|prefix| (prefix, false));
    pools.chain(nets).map(move |(&prefix, is_pool)| Foreign { segment, prefix, is_pool })
}
