//! What rules decide of one flow: the question behind `why`, a policy's tests and what-if.
//!
//! It reads rules as the data path does: in order, the first match decides, no match is a refusal.

use std::fmt;

use partywall_proto::admin::Endpoint;
use partywall_proto::ids::RuleId;
use partywall_proto::nets::{Prefix, Protocol};
use partywall_proto::rules::{Action, ClassId, Match, Opener, Rule};

/// A flow that somebody wants to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// The side that opens it.
    pub opener: Opener,
    /// The far side's address, and the responder's port: the network's where the device opens, the
    /// device's own where the network does.
    pub far: Endpoint,
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let far = &self.far;
        match (self.opener, far.protocol()) {
            (Opener::Device, Protocol::Icmp) => {
                write!(f, "a ping from a device to {}", far.address())
            }
            (Opener::Network, Protocol::Icmp) => {
                write!(f, "a ping from {} to a device", far.address())
            }
            (Opener::Device, Protocol::Tcp | Protocol::Udp) => {
                write!(f, "a device's packet to {far}")
            }
            (Opener::Network, protocol @ (Protocol::Tcp | Protocol::Udp)) => {
                write!(f, "{protocol} from {} to port {} of a device", far.address(), far.port())
            }
        }
    }
}

/// What rules decide of an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What the deciding rule says; none where no rule matches, which refuses.
    pub action: Option<Action>,
    /// The deciding rule.
    pub rule: Option<&'a RuleId>,
}

impl Decision<'_> {
    /// Whether the flow may be opened.
    pub fn allows(&self) -> bool {
        self.action == Some(Action::Allow)
    }
}

/// What `rules` decide of `opening` for a device of `classes`, which are sorted. The rules are a
/// gateway's with a session's classes, or a device's own with none.
pub fn decide<'a>(rules: &'a [Rule], classes: &[ClassId], opening: &Opening) -> Decision<'a> {
    first(rules.iter(), classes, opening)
}

/// The first of `rules` that would allow `opening` to a device of other classes.
pub fn would_allow<'a>(rules: &'a [Rule], opening: &Opening) -> Option<&'a RuleId> {
    let allowing = |rule: &&Rule| rule.action == Action::Allow && matches(&rule.matches, opening);
    rules.iter().find(allowing).map(|rule| &rule.id)
}

/// As [`decide`], over some of the rules.
pub(super) fn first<'a>(
    mut rules: impl Iterator<Item = &'a Rule>,
    classes: &[ClassId],
    opening: &Opening,
) -> Decision<'a> {
    let concerned =
        |it: &Match| it.class().is_none_or(|class| classes.binary_search(&class).is_ok());
    let rule = rules.find(|rule| concerned(&rule.matches) && matches(&rule.matches, opening));
    Decision { action: rule.map(|rule| rule.action), rule: rule.map(|rule| &rule.id) }
}

fn matches(it: &Match, opening: &Opening) -> bool {
    let far = &opening.far;
    it.opener() == opening.opener
        && it.prefix().covers(&Prefix::host(far.address()))
        && it.protocol().is_none_or(|protocol| protocol == far.protocol())
        && (it.ports().is_empty() || it.ports().iter().any(|range| range.holds(far.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_decides_and_no_match_refuses() {
        let rules: Vec<Rule> = serde_json::from_str(
            r#"[{"id":"no-lab","action":"deny","match":{"opener":"device","prefix":"10.9.0.0/16"}},
                {"id":"web","action":"allow","match":{"opener":"device","class":3,"prefix":"10.0.0.0/8","protocol":"tcp","ports":[80,"8000-8099"]}},
                {"id":"help","action":"allow","match":{"opener":"network","prefix":"10.1.0.0/16"}}]"#,
        )
        .unwrap();
        let decided = |classes: &[u32], opener, far: &str| {
            let classes: Vec<_> = classes.iter().copied().map(ClassId).collect();
            let opening = Opening { opener, far: far.parse().unwrap() };
            let decision = decide(&rules, &classes, &opening);
            assert_eq!(decision.allows(), decision.action == Some(Action::Allow));
            decision.rule.map(ToString::to_string)
        };
        let rule = |name: &str| Some(name.to_owned());
        assert_eq!(decided(&[3], Opener::Device, "10.9.0.1:80/tcp"), rule("no-lab"));
        assert_eq!(decided(&[1, 3], Opener::Device, "10.1.0.1:8099/tcp"), rule("web"));
        assert_eq!(decided(&[], Opener::Device, "10.1.0.1:80/tcp"), None);
        assert_eq!(decided(&[3], Opener::Device, "10.1.0.1:81/tcp"), None);
        assert_eq!(decided(&[3], Opener::Device, "10.1.0.1:80/udp"), None);
        assert_eq!(decided(&[], Opener::Network, "10.1.0.1/icmp"), rule("help"));
        assert_eq!(decided(&[3], Opener::Device, "[fd00::1]:80/tcp"), None);
    }
}
