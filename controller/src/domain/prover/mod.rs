//! Proves of what agents would enforce that nothing passes which must not, or shows a packet that does.
//!
//! It reads compiled rules and nothing else: neither the policy's source nor its compiler is believed.
//! The answers are exact. A gateway's rules are proved for every set of classes, so for whoever may
//! sign in later too; a device's rules for the classes that it has.
//!
//! Cost: each distinct list of rules is looked at once, and a device whose list is its gateway's,
//! resolved, costs one comparison. Sets are worked out only where blocks of different segments meet,
//! where a wide rule covers a pool, or where the two ends differ in their text.

mod block;
mod ends;
mod evidence;
mod listing;
mod neighbours;
mod pool;
mod reach;
mod refutation;
mod remainder;
mod shadow;
mod shelf;
mod space;
mod warning;

#[cfg(test)]
mod tests;

pub use evidence::{AgentFacts, Evidence, PeerFacts, Publication, RuleList, SegmentFacts};
pub use reach::{Piece, Reach, spoken};
pub use refutation::{Answer, Flaw, Refutation, Whom};
pub use warning::{Warning, WarningKind};

use std::borrow::Cow;

use partywall_proto::ids::AgentId;
use partywall_proto::rules::{ClassId, Rule};

use super::policy::{Opening, decide};
use ends::{Ends, Likeness};
use listing::{Listing, Placed};
use neighbours::Neighbours;

/// More than anyone reads; a broken compiler would have one for each device.
const REFUTATIONS_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// What must not be, at most a hundred; empty means that everything is proved.
    pub refutations: Vec<Refutation>,
    /// What is allowed but surely not meant.
    pub warnings: Vec<Warning>,
}

impl Proof {
    /// Whether nothing speaks against the version.
    pub fn holds(&self) -> bool {
        self.refutations.is_empty()
    }
}

/// Proves that
///
/// * no packet passes between a device and anything of another segment but through a publication,
///   and no agent takes another segment's overlay addresses for a peer's,
/// * no device reaches another but by a rule that was written for devices,
/// * a device and its gateways allow the same,
///
/// and finds rules that never decide.
pub fn prove(evidence: &Evidence<'_>) -> Proof {
    let mut proof = Proof::default();
    for segment in &evidence.segments {
        prove_segment(segment, evidence, &mut proof);
        proof.refutations.truncate(REFUTATIONS_MAX);
    }
    proof
}

fn prove_segment(segment: &SegmentFacts<'_>, evidence: &Evidence<'_>, proof: &mut Proof) {
    let neighbours = Neighbours::of(segment, evidence);
    let Proof { refutations, warnings } = proof;
    let refuted = |agent: &AgentId, flaws: Vec<Flaw>| {
        let (segment, agent) = (segment.segment.clone(), agent.clone());
        let whole = move |flaw| Refutation { segment: segment.clone(), agent: agent.clone(), flaw };
        flaws.into_iter().map(whole)
    };
    for agent in &segment.agents {
        refutations.extend(refuted(agent.agent, neighbours.foreign_addresses(agent)));
    }
    let gateways: Vec<_> = segment
        .agents
        .iter()
        .filter(|agent| matches!(agent.agent, AgentId::Gateway(_)))
        .map(|agent| (agent, agent.rules.list()))
        .collect();
    let lists = distinct(&gateways);
    for (listing, agents) in &lists {
        let Some(first) = agents.first() else { continue };
        let by = Bearer { agent: first, classes: Classes::Any };
        refutations.extend(refuted(first.agent, neighbours.crossings(listing, &by)));
        refutations
            .extend(refuted(first.agent, pool::device_to_device(segment.pools, listing, &by)));
        warnings.extend(shadow::idle_rules(segment.segment, listing));
    }
    let ends = Ends::of(&lists);
    for agent in segment.agents.iter().filter(|agent| matches!(agent.agent, AgentId::Device(_))) {
        if refutations.len() >= REFUTATIONS_MAX {
            return;
        }
        let rules = agent.rules.list();
        match ends.compare(agent, &rules) {
            // What is proved of the gateway's list is proved of this one.
            Likeness::Text => continue,
            Likeness::Meaning => {}
            Likeness::None(gateway, flaw) => refutations.extend(refuted(gateway, vec![flaw])),
        }
        let listing = Listing::of(&rules);
        let by = Bearer { agent, classes: Classes::Exactly(agent.own_classes()) };
        refutations.extend(refuted(agent.agent, neighbours.crossings(&listing, &by)));
        refutations
            .extend(refuted(agent.agent, pool::device_to_device(segment.pools, &listing, &by)));
    }
}

/// Each distinct list of rules with the agents that have it, in the order of their first.
fn distinct<'a, 'f>(
    agents: &'a [(&'a AgentFacts<'f>, Cow<'f, [Rule]>)],
) -> Vec<(Listing<'a>, Vec<&'a AgentFacts<'f>>)> {
    let mut lists: Vec<(Listing<'a>, Vec<&'a AgentFacts<'f>>)> = Vec::new();
    for (agent, rules) in agents {
        let same = lists.iter_mut().find(|(listing, _)| {
            std::ptr::eq(listing.rules, &**rules) || listing.rules == &**rules
        });
        match same {
            Some((_, others)) => others.push(agent),
            None => lists.push((Listing::of(rules), vec![agent])),
        }
    }
    lists
}

/// Whose rules are looked at, and for which devices.
struct Bearer<'a, 'f> {
    agent: &'a AgentFacts<'f>,
    classes: Classes<'a>,
}

/// The sets of classes that a device may have.
enum Classes<'a> {
    /// Any.
    Any,
    /// This one.
    Exactly(&'a [ClassId]),
}

impl Bearer<'_, '_> {
    /// The classes of a device that the rule concerns and that most gets to it; none if there is none.
    fn classes(&self, placed: &Placed<'_>) -> Option<Vec<ClassId>> {
        match self.classes {
            Classes::Any => Some(placed.classes()),
            Classes::Exactly(classes) => {
                let class = placed.rule.matches.class();
                class.is_none_or(|class| classes.contains(&class)).then(|| classes.to_vec())
            }
        }
    }

    /// Those whom this rule lets do it, with one of them by name.
    fn whom(&self, placed: &Placed<'_>, rules: &[Rule], packet: &Opening) -> Whom {
        let decides = |classes: &[ClassId]| {
            let decision = decide(rules, classes, packet);
            decision.rule.is_some_and(|rule| std::ptr::eq(rule, &placed.rule.id))
        };
        let example = match (&self.classes, self.agent.agent) {
            (Classes::Exactly(_), AgentId::Device(device)) => Some(device.clone()),
            (Classes::Any | Classes::Exactly(_), _) => {
                self.agent.peers.iter().filter(|peer| decides(peer.classes)).find_map(|peer| {
                    match peer.agent {
                        AgentId::Device(device) => Some(device.clone()),
                        AgentId::Gateway(_) => None,
                    }
                })
            }
        };
        Whom { classes: placed.classes(), example }
    }
}
