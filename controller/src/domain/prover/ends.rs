//! A device and its gateways allow the same.
//!
//! A device's list is its gateway's without the rules of others. Where the texts say so, there is
//! nothing left to prove; where they do not, the two sets are compared.

use std::collections::{BTreeMap, BTreeSet};

use partywall_proto::ids::{AgentId, DeviceId};
use partywall_proto::rules::{Action, ClassId, Rule};

use super::evidence::AgentFacts;
use super::listing::Listing;
use super::refutation::{Answer, Flaw};
use super::remainder::{gap, some_opening};
use crate::domain::policy::{Opening, decide};

/// What a comparison of devices with their gateways gave.
#[derive(Debug, Default)]
pub(super) struct Ends<'a> {
    /// Devices whose rules are their gateway's to the letter: what holds there holds here.
    pub(super) as_at_gateway: BTreeSet<&'a AgentId>,
    /// Where they differ, with the gateway.
    pub(super) flaws: Vec<(&'a AgentId, Flaw)>,
}

/// One end of a tunnel: rules, and the classes they are judged with.
struct End<'a> {
    listing: &'a Listing<'a>,
    classes: &'a [ClassId],
}

impl<'a> Ends<'a> {
    /// Compares each device that has a config with each gateway that admits it, until `most` differ.
    pub(super) fn compare(
        lists: &[(Listing<'_>, Vec<&AgentFacts<'a>>)],
        agents: &[AgentFacts<'a>],
        most: usize,
    ) -> Self {
        let mut ends = Self::default();
        let devices: BTreeMap<&AgentId, &AgentFacts<'a>> =
            agents.iter().map(|agent| (agent.agent, agent)).collect();
        for (listing, gateways) in lists {
            let mut seen = BTreeSet::new();
            let admitted = gateways
                .iter()
                .flat_map(|gateway| gateway.peers.iter().map(move |peer| (gateway.agent, peer)));
            for (gateway, peer) in admitted {
                let AgentId::Device(device) = peer.agent else { continue };
                let Some(facts) = devices.get(peer.agent) else { continue };
                // Gateways of one list and one view of the device are as good as one.
                if !seen.insert((device, peer.classes)) {
                    continue;
                }
                if same_text(listing, peer.classes, facts.rules) {
                    ends.as_at_gateway.insert(facts.agent);
                    continue;
                }
                if ends.flaws.len() >= most {
                    return ends;
                }
                let far = End { listing, classes: peer.classes };
                let own = Listing::of(facts.rules);
                let near = End { listing: &own, classes: facts.own_classes() };
                if let Some(packet) = near.allows_beyond(&far).or_else(|| far.allows_beyond(&near))
                {
                    ends.flaws.push((gateway, disagreement(device, &near, &far, packet)));
                }
            }
        }
        ends
    }
}

impl End<'_> {
    /// A packet that this end allows and the other does not.
    fn allows_beyond(&self, other: &Self) -> Option<Opening> {
        let concerns = |end: &Self, rule: &Rule| {
            rule.matches.class().is_none_or(|class| end.classes.contains(&class))
        };
        let all = |end: &Self, action| {
            let of = move |rule: &Rule| rule.action == action;
            end.listing.placed().filter(move |it| of(it.rule))
        };
        let allowing = all(self, Action::Allow).filter(|it| concerns(self, it.rule));
        let denying: Vec<_> =
            all(other, Action::Deny).filter(|it| concerns(other, it.rule)).collect();
        allowing.into_iter().find_map(|placed| {
            let opener = placed.rule.matches.opener();
            let earlier = self.listing.before(opener, self.classes, placed.at);
            // What no rule of the other end matches.
            let mut covers = earlier.clone();
            covers.extend(other.listing.all(opener, other.classes));
            let unmatched = gap(placed.block, placed.space.clone(), &covers);
            let denied = || {
                denying.iter().filter(|deny| deny.rule.matches.opener() == opener).find_map(
                    |deny| {
                        let block = placed.block.meet(deny.block)?;
                        let mut covers = earlier.clone();
                        covers.extend(other.listing.before(opener, other.classes, deny.at));
                        gap(block, placed.space.meet(deny.space), &covers)
                    },
                )
            };
            let (block, space) = unmatched.or_else(denied)?;
            some_opening(opener, block, &space)
        })
    }

    fn answer(&self, packet: &Opening) -> Answer {
        let decision = decide(self.listing.rules, self.classes, packet);
        match (decision.rule, decision.action) {
            (Some(rule), Some(Action::Allow)) => Answer::Allowed(rule.clone()),
            (Some(rule), Some(Action::Deny)) => Answer::Denied(rule.clone()),
            (None, _) | (_, None) => Answer::NoRule,
        }
    }
}

fn disagreement(device: &DeviceId, near: &End<'_>, far: &End<'_>, packet: Opening) -> Flaw {
    Flaw::EndsDisagree {
        device: device.clone(),
        classes: far.classes.to_vec(),
        at_device: near.answer(&packet),
        at_gateway: far.answer(&packet),
        packet,
    }
}

/// Whether `rules` are the listing's for these classes, in its order, without the classes. A rule that
/// was there before in the same words never decides, and may be there or not.
fn same_text(listing: &Listing<'_>, classes: &[ClassId], rules: &[Rule]) -> bool {
    let far = listing.concerning(classes);
    let mut near = rules.iter().peekable();
    far.iter().enumerate().all(|(at, rule)| {
        near.next_if(|near| near.matches.class().is_none() && alike(near, rule)).is_some()
            // Most often it repeats the one before: somebody is in two groups of one rule.
            || far[..at].iter().rev().any(|earlier| alike(earlier, rule))
    }) && near.next().is_none()
}

/// Whether two rules say the same of a device that both concern.
fn alike(a: &Rule, b: &Rule) -> bool {
    let (x, y) = (&a.matches, &b.matches);
    x.prefix() == y.prefix()
        && x.opener() == y.opener()
        && x.protocol() == y.protocol()
        && x.ports() == y.ports()
        && a.action == b.action
        && a.id == b.id
}
