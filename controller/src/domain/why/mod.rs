//! Why a flow passes or does not: both ends' verdicts on it, each over what that end is sent.
//!
//! The two are never derived from one another. That both ends say the same is what a reader wants to see
//! checked, not assumed.

mod words;

use std::net::IpAddr;

use partywall_proto::admin::{
    EndVerdict, PolicyVersion, SegmentSpec, WhyDrop, WhyReport, WhySession,
};
use partywall_proto::ids::{AgentId, GatewayId, SegmentId};
use partywall_proto::nets::Prefix;
use partywall_proto::rules::{Action, ClassId, Opener};

use super::overlay::carried;
use super::policy::{Compiled, Decision, Facts, Opening, decide, would_allow};
use super::session::SessionRecord;

pub use words::{nobody, recorded};

/// A session, what both its ends are sent, and the flow that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The session.
    pub session: &'a SessionRecord,
    /// What policy knows of it.
    pub facts: Facts<'a>,
    /// Its segment.
    pub segment: &'a SegmentSpec,
    /// What runs at the device's end.
    pub device: DeviceEnd,
    /// The gateway that carries the session; none where the segment has none that is enrolled.
    pub gateway: Option<&'a GatewayId>,
    /// The segment's rules.
    pub policy: &'a Compiled,
    /// The session's classes under it, sorted.
    pub classes: &'a [ClassId],
    /// The policy version in force.
    pub version: Option<&'a PolicyVersion>,
    /// The flow.
    pub opening: Opening,
}

/// What runs at the device's end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceEnd {
    /// Our agent, which judges.
    Agent,
    /// Our agent, which has no credentials and so no config.
    NotEnrolled,
    /// A stock client, which judges nothing.
    Stock,
}

/// What both ends of `case` say, and why. Costs as much as making the device's list of rules.
pub fn why(case: &Case<'_>) -> WhyReport {
    let (at_device, at_gateway) = (at_device(case), at_gateway(case));
    let allows = |it: &EndVerdict| it.action == Some(Action::Allow);
    let allowed = allows(&at_gateway) && (allows(&at_device) || case.device == DeviceEnd::Stock);
    let Case { session, facts, opening, .. } = case;
    WhyReport {
        sentence: words::sentence(case, &at_device, &at_gateway, allowed),
        allowed,
        device: session.device.clone(),
        opened_by: opening.opener,
        far: opening.far,
        session: Some(WhySession {
            id: session.id.clone(),
            user: session.user.clone(),
            segment: session.segment.clone(),
            building: facts.building.cloned(),
            class: facts.device,
            sign_in: facts.sign_in,
            began_at: session.began_at,
            ends_at: session.ends_at,
        }),
        at_device: Some(at_device),
        at_gateway: Some(at_gateway),
        policy: case.version.cloned(),
        recorded: None,
    }
}

fn at_device(case: &Case<'_>) -> EndVerdict {
    let agent = AgentId::Device(case.session.device.clone());
    let far = case.opening.far.address();
    match case.device {
        DeviceEnd::Stock => return unjudged("a stock WireGuard client judges nothing itself"),
        DeviceEnd::NotEnrolled => {
            let words = format!("the device is not enrolled (`partywallctl enrol-code {agent}`)");
            return dropped(agent, WhyDrop::NoConfig, words);
        }
        DeviceEnd::Agent => {}
    }
    if case.gateway.is_none() {
        return dropped(agent, WhyDrop::NoRoute, no_gateway(&case.segment.name));
    }
    if !carried(case.segment).iter().any(|prefix| prefix.holds(far)) {
        // The gateway is the peer: it may be sent what is carried, and speak for nothing else.
        let drop = match case.opening.opener {
            Opener::Device => WhyDrop::NoRoute,
            Opener::Network => WhyDrop::WrongSource,
        };
        return dropped(agent, drop, outside(case.segment, far));
    }
    if !speaks_the_family_of(case, far) {
        let drop = match case.opening.opener {
            Opener::Device => WhyDrop::WrongSource,
            Opener::Network => WhyDrop::NoRoute,
        };
        return dropped(agent, drop, no_address(case, far));
    }
    let rules = case.policy.rules_for(case.classes);
    judged(case, agent, decide(&rules, &[], &case.opening))
}

fn at_gateway(case: &Case<'_>) -> EndVerdict {
    let Some(gateway) = case.gateway else { return unjudged(no_gateway(&case.segment.name)) };
    let (agent, far) = (AgentId::Gateway(gateway.clone()), case.opening.far.address());
    if case.device == DeviceEnd::NotEnrolled {
        let words = "the gateway knows no key of the device".to_owned();
        return dropped(agent, WhyDrop::NoRoute, words);
    }
    if !speaks_the_family_of(case, far) {
        let drop = match case.opening.opener {
            Opener::Device => WhyDrop::WrongSource,
            Opener::Network => WhyDrop::NoRoute,
        };
        return dropped(agent, drop, no_address(case, far));
    }
    judged(case, agent, decide(case.policy.rules(), case.classes, &case.opening))
}

fn judged(case: &Case<'_>, agent: AgentId, decision: Decision<'_>) -> EndVerdict {
    let rule = decision.rule.cloned();
    let (drop, words) = match (decision.action, &rule) {
        (Some(Action::Allow), Some(rule)) => (None, format!("rule {rule} allows it")),
        (Some(Action::Deny), Some(rule)) => {
            (Some(WhyDrop::Denied), format!("rule {rule} denies it"))
        }
        (Some(Action::Allow | Action::Deny) | None, _) => {
            let far = case.opening.far.address();
            let words = match would_allow(case.policy.rules(), &case.opening) {
                Some(rule) => format!("rule {rule} allows it, but not to this session"),
                None if is_offered(case.segment, far) => "no rule allows it".to_owned(),
                None => format!("no rule can allow it, for {}", outside(case.segment, far)),
            };
            (Some(WhyDrop::NoRule), words)
        }
    };
    let action = Some(if drop.is_none() { Action::Allow } else { Action::Deny });
    EndVerdict { agent: Some(agent), action, rule, drop, words }
}

fn dropped(agent: AgentId, drop: WhyDrop, words: String) -> EndVerdict {
    let (agent, action, drop) = (Some(agent), Some(Action::Deny), Some(drop));
    EndVerdict { agent, action, rule: None, drop, words }
}

fn unjudged(words: impl Into<String>) -> EndVerdict {
    EndVerdict { agent: None, action: None, rule: None, drop: None, words: words.into() }
}

fn no_gateway(segment: &SegmentId) -> String {
    format!(
        "segment {segment} has no gateway that is enrolled (`partywallctl enrol-code gateway/NAME`)"
    )
}

fn outside(segment: &SegmentSpec, far: IpAddr) -> String {
    let prefixes: Vec<_> = segment.prefixes.iter().map(Prefix::to_string).collect();
    format!("{far} is in no prefix of segment {} ({})", segment.name, prefixes.join(", "))
}

fn no_address(case: &Case<'_>, far: IpAddr) -> String {
    let family = if far.is_ipv4() { "IPv4" } else { "IPv6" };
    let segment = &case.segment.name;
    format!("the device has no {family} address, because segment {segment} has no pool of them")
}

fn speaks_the_family_of(case: &Case<'_>, far: IpAddr) -> bool {
    case.session.addresses.iter().any(|own| own.is_ipv4() == far.is_ipv4())
}

/// Whether policy can allow the address at all.
fn is_offered(segment: &SegmentSpec, far: IpAddr) -> bool {
    segment.prefixes.iter().chain(&segment.pools).any(|prefix| prefix.holds(far))
}

#[cfg(test)]
mod tests;
