//! The answer to "why" in plain words, with what to do about it.
//!
//! The end that meets the flow first and refuses it is the one that is told of: the other never sees it.

use partywall_proto::admin::{
    EndVerdict, PolicyVersion, RecordedVerdict, StoredFlow, WhyDrop, WhyReport,
};
use partywall_proto::flows::FlowEvent;
use partywall_proto::ids::{DeviceId, OrganisationId};
use partywall_proto::nets::Protocol;
use partywall_proto::rules::{Action, Opener};

use super::{Case, DeviceEnd, is_offered};
use crate::domain::policy::{Opening, would_allow};

const ADD_TO_SEGMENT: &str = "If it should pass, add it to the segment, with a rule for it.";

/// The answer where `organisation` has no session on `device`. It is the same for a device that is not
/// there and for one where somebody of another organisation sits.
pub fn nobody(
    organisation: &OrganisationId,
    device: &DeviceId,
    opening: &Opening,
    version: Option<&PolicyVersion>,
) -> WhyReport {
    let Opening { opener, far } = *opening;
    let flow = flow(opening, device.as_str(), false);
    WhyReport {
        sentence: format!(
            "{flow}: nobody of {organisation} is signed in there. Check the name with `partywallctl sessions`, \
             or have them sign in and ask again."
        ),
        allowed: false,
        device: device.clone(),
        opened_by: opener,
        far,
        session: None,
        at_device: None,
        at_gateway: None,
        policy: version.cloned(),
        recorded: None,
    }
}

/// What a flow record says, and by which version.
pub fn recorded(record: StoredFlow, version: Option<&PolicyVersion>) -> RecordedVerdict {
    let it = &record.flow;
    let what = match it.event {
        FlowEvent::Opened => "was let through",
        FlowEvent::Refused => "was refused",
        FlowEvent::Ended => "was let through, and is over",
    };
    let mut sentence = format!("At {} the flow {what} by {}", it.at, record.reporter);
    match (&it.rule, &it.reason) {
        (Some(rule), _) => sentence.push_str(&format!(": rule {rule} decided")),
        (None, Some(reason)) => sentence.push_str(&format!(": {reason}")),
        (None, None) => {}
    }
    sentence.push('.');
    match (it.policy, version) {
        (_, Some(version)) => {
            sentence.push_str(&format!(" The policy was then {}.", published(version)));
        }
        (Some(number), None) => {
            sentence
                .push_str(&format!(" The policy was then version {number}, which is not kept."));
        }
        (None, None) => {}
    }
    RecordedVerdict { policy: version.cloned(), sentence, record }
}

pub(super) fn sentence(
    case: &Case<'_>,
    at_device: &EndVerdict,
    at_gateway: &EndVerdict,
    allowed: bool,
) -> String {
    let refuses = |it: &&EndVerdict| it.action == Some(Action::Deny);
    let met = match case.opening.opener {
        Opener::Device => [at_device, at_gateway],
        Opener::Network => [at_gateway, at_device],
    };
    // Where neither refuses and yet it does not pass, there is no gateway to let it through.
    let deciding = met.into_iter().find(refuses).unwrap_or(at_gateway);
    let (device, user) = (&case.session.device, &case.session.user);
    let flow = flow(&case.opening, &format!("{user} on {device}"), allowed);
    let mut told = vec![format!("{flow}: {}.", deciding.words)];
    told.extend(said_by(case, deciding));
    told.extend(advice(case, deciding, allowed));
    if case.device == DeviceEnd::Stock {
        told.push(format!(
            "{device} runs a stock WireGuard client, which has no filter of its own: the gateway alone judges."
        ));
    }
    told.join(" ")
}

/// "alice@council on desk-1 may reach 10.2.0.5:443/tcp".
fn flow(opening: &Opening, near: &str, allowed: bool) -> String {
    let may = if allowed { "may" } else { "may not" };
    let (far, address, port) = (&opening.far, opening.far.address(), opening.far.port());
    match (opening.opener, far.protocol()) {
        (Opener::Device, Protocol::Icmp) => format!("{near} {may} ping {address}"),
        (Opener::Device, Protocol::Tcp | Protocol::Udp) => format!("{near} {may} reach {far}"),
        (Opener::Network, Protocol::Icmp) => format!("{address} {may} ping {near}"),
        (Opener::Network, protocol @ (Protocol::Tcp | Protocol::Udp)) => {
            format!("{address} {may} open {port}/{protocol} of {near}")
        }
    }
}

/// Whose rules they are; none where it did not come to them.
fn said_by(case: &Case<'_>, deciding: &EndVerdict) -> Option<String> {
    let by_rules = match deciding.drop {
        Some(WhyDrop::Denied | WhyDrop::NoRule) => true,
        Some(WhyDrop::NoConfig | WhyDrop::NoRoute | WhyDrop::WrongSource) => false,
        None => deciding.action.is_some(),
    };
    let organisation = &case.segment.organisation;
    by_rules.then(|| match case.version {
        Some(version) => format!("The policy of {organisation} is {}.", published(version)),
        None => {
            format!("{organisation} has no policy in force, and without one nothing is allowed.")
        }
    })
}

fn published(version: &PolicyVersion) -> String {
    let PolicyVersion { number, published_by, published_at, restored_from, mode: _ } = version;
    let as_was = restored_from.map(|earlier| format!(" (as version {earlier} was)"));
    let as_was = as_was.unwrap_or_default();
    format!("version {number}{as_was}, published by {published_by} at {published_at}")
}

fn advice(case: &Case<'_>, deciding: &EndVerdict, allowed: bool) -> Option<String> {
    let far = case.opening.far.address();
    let to_device = case.segment.pools.iter().any(|pool| pool.holds(far));
    let rules = case.policy.rules();
    let text = match deciding.drop {
        None if allowed && to_device => {
            "The other end is a device as well: ask for it too, with the opposite `--opened-by`."
        }
        Some(WhyDrop::NoRule) if case.version.is_none() => {
            "Write one and publish it: `partywallctl policy publish -f FILE`."
        }
        Some(WhyDrop::NoRule) if would_allow(rules, &case.opening).is_some() => {
            "Look at the rule's `who` and `when`, and at the session's groups, building, class and sign-in."
        }
        Some(WhyDrop::NoRule) if is_offered(case.segment, far) => {
            "If it should pass, write a rule for it and publish."
        }
        Some(WhyDrop::Denied) => {
            "If it should pass, narrow that rule, or put one that allows it before it."
        }
        Some(WhyDrop::NoRule) => ADD_TO_SEGMENT,
        Some(WhyDrop::NoRoute | WhyDrop::WrongSource) if case.gateway.is_some() => ADD_TO_SEGMENT,
        Some(WhyDrop::NoConfig | WhyDrop::NoRoute | WhyDrop::WrongSource) | None => return None,
    };
    Some(text.to_owned())
}
