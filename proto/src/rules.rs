//! What a policy compiles to for one agent: an ordered list of rules, the first match decides, and
//! where nothing matches the packet is dropped.
//!
//! A rule reads the same at both ends of a tunnel because it speaks of who *opens* a flow, the device
//! or the network behind the gateway, and never of "in" and "out". An action or a match that this
//! version does not know refuses the whole config: dropping one match would widen the rule.

use serde::{Deserialize, Serialize};

use crate::ids::RuleId;
use crate::nets::{PortRange, Prefix, Protocol};

/// What happens to a flow's first packet, and through it to the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The flow is opened, its replies included.
    Allow,
    /// The packet is dropped and counted.
    Deny,
}

/// The side that opens a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Opener {
    /// The device; the matched prefix is the flow's destination.
    Device,
    /// The network behind the gateway (or another device, through it); the matched prefix is the flow's source.
    Network,
}

/// A set of devices that policy treats alike. Meaningful within one overlay config only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClassId(pub u32);

/// Ports were given for a protocol that has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ports are matched, but the protocol is not tcp or udp")]
pub struct PortsWithoutProtocol;

/// What a flow's first packet must be for a rule to apply. All conditions hold together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "MatchFields")]
pub struct Match {
    opener: Opener,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<ClassId>,
    prefix: Prefix,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortRange>,
}

// An unknown field here is an unknown match, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchFields {
    opener: Opener,
    class: Option<ClassId>,
    prefix: Prefix,
    protocol: Option<Protocol>,
    #[serde(default)]
    ports: Vec<PortRange>,
}

impl TryFrom<MatchFields> for Match {
    type Error = PortsWithoutProtocol;

    fn try_from(fields: MatchFields) -> Result<Self, Self::Error> {
        let MatchFields { opener, class, prefix, protocol, ports } = fields;
        Self::new(opener, class, prefix, protocol, ports)
    }
}

impl Match {
    /// A match. `class` none is every device, `protocol` none is TCP, UDP and ICMP echo, `ports`
    /// empty is every port. Ports are those of the responder, and sorted here.
    ///
    /// # Errors
    /// Ports without TCP or UDP.
    pub fn new(
        opener: Opener,
        class: Option<ClassId>,
        prefix: Prefix,
        protocol: Option<Protocol>,
        mut ports: Vec<PortRange>,
    ) -> Result<Self, PortsWithoutProtocol> {
        let has_ports = matches!(protocol, Some(Protocol::Tcp | Protocol::Udp));
        if !ports.is_empty() && !has_ports {
            return Err(PortsWithoutProtocol);
        }
        ports.sort_unstable();
        Ok(Self { opener, class, prefix, protocol, ports })
    }

    /// The side that opens the flow.
    pub fn opener(&self) -> Opener {
        self.opener
    }

    /// The devices concerned; none is all.
    pub fn class(&self) -> Option<ClassId> {
        self.class
    }

    /// The far side's addresses: destination where the device opens, source where the network does.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// The protocol; none is any that the filter tracks.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The responder's ports, sorted; empty is all.
    pub fn ports(&self) -> &[PortRange] {
        &self.ports
    }
}

/// One rule for one agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The policy's rule that this one was compiled from. Several rules may share it.
    pub id: RuleId,
    /// What happens to a flow that matches.
    pub action: Action,
    /// Which flows match.
    #[serde(rename = "match")]
    pub matches: Match,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Rule, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn an_unknown_action_or_match_is_refused_and_another_unknown_field_is_not() {
        let rule =
            r#"{"id":"web","action":"allow","match":{"opener":"device","prefix":"10.0.0.0/8"}}"#;
        parse(rule).unwrap();
        parse(&rule.replace(r#""id""#, r#""colour":"red","id""#)).unwrap();
        assert!(parse(&rule.replace("allow", "log")).is_err());
        assert!(parse(&rule.replace(r#""prefix""#, r#""hour":9,"prefix""#)).is_err());
        assert!(parse(&rule.replace("device", "printer")).is_err());
    }

    #[test]
    fn ports_need_a_protocol_that_has_them() {
        let rule = r#"{"id":"w","action":"allow","match":{"opener":"device","prefix":"::/0","protocol":"tcp","ports":[80]}}"#;
        parse(rule).unwrap();
        assert!(parse(&rule.replace("tcp", "icmp")).is_err());
        assert!(parse(&rule.replace(r#""protocol":"tcp","#, "")).is_err());
    }
}
