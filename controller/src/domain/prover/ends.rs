//! A device and its gateways allow the same.
//!
//! A device's list is its gateway's without the rules of others. Where the texts say so, there is
//! nothing left to prove; where they do not, the two sets are compared.

use std::collections::BTreeMap;

use partywall_proto::ids::{AgentId, DeviceId};
use partywall_proto::rules::{Action, ClassId, Rule};

use super::evidence::AgentFacts;
use super::listing::Listing;
use super::refutation::{Answer, Flaw};
use super::remainder::{gap, some_opening};
use crate::domain::policy::{Opening, decide};

/// How a device's rules compare with those of the gateways that admit it.
#[derive(Debug)]
pub(super) enum Likeness<'a> {
    /// They are the same to the letter, but for the classes.
    Text,
    /// They allow the same in other words, or no gateway admits the device.
    Meaning,
    /// They do not; with the gateway.
    None(&'a AgentId, Flaw),
}

/// The gateways' views of the devices that they admit.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    views: BTreeMap<&'a AgentId, Vec<View<'a>>>,
}

/// One gateway's view of a device. Gateways of one list and the same classes have one view.
#[derive(Debug)]
struct View<'a> {
    gateway: &'a AgentId,
    listing: &'a Listing<'a>,
    classes: &'a [ClassId],
}

/// One end of a tunnel: rules, and the classes they are judged with.
struct End<'a> {
    listing: &'a Listing<'a>,
    classes: &'a [ClassId],
}

impl<'a> Ends<'a> {
    pub(super) fn of(lists: &'a [(Listing<'a>, Vec<&'a AgentFacts<'_>>)]) -> Self {
        let mut views: BTreeMap<_, Vec<View<'a>>> = BTreeMap::new();
        for (listing, gateways) in lists {
            for gateway in gateways {
                for peer in &gateway.peers {
                    let known: &mut Vec<View<'a>> = views.entry(peer.agent).or_default();
                    let same = |view: &View<'_>| {
                        std::ptr::eq(view.listing, listing) && view.classes == peer.classes
                    };
                    if !known.iter().any(same) {
                        let (gateway, classes) = (gateway.agent, peer.classes);
                        known.push(View { gateway, listing, classes });
                    }
                }
            }
        }
        Self { views }
    }

    /// Compares the rules of a device with each view of it.
    pub(super) fn compare(&self, agent: &AgentFacts<'_>, rules: &[Rule]) -> Likeness<'a> {
        let views = self.views.get(agent.agent).map(Vec::as_slice).unwrap_or_default();
        let AgentId::Device(device) = agent.agent else { return Likeness::Meaning };
        let others: Vec<_> =
            views.iter().filter(|view| !same_text(view.listing, view.classes, rules)).collect();
        if !others.is_empty() {
            let own = Listing::of(rules);
            let near = End { listing: &own, classes: agent.own_classes() };
            for view in &others {
                let far = End { listing: view.listing, classes: view.classes };
                let packet = near.allows_beyond(&far).or_else(|| far.allows_beyond(&near));
                if let Some(packet) = packet {
                    return Likeness::None(view.gateway, disagreement(device, &near, &far, packet));
                }
            }
        }
        if others.len() < views.len() { Likeness::Text } else { Likeness::Meaning }
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
