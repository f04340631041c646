//! What speaks against a version: a packet that would pass although it must not, or an address that is
//! another's.

use std::fmt;

use partywall_proto::ids::{AgentId, DeviceId, RuleId, SegmentId};
use partywall_proto::nets::Prefix;
use partywall_proto::rules::ClassId;

use crate::domain::policy::Opening;

/// What was found, where, and which rule did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refutation {
    /// The segment that the agent carries.
    pub segment: SegmentId,
    /// The agent that would do it.
    pub agent: AgentId,
    /// What it would do.
    pub flaw: Flaw,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// A packet would pass between this segment and another, and no live publication offers that.
    CrossesSegments {
        /// The other segment.
        other: SegmentId,
        /// The rule that lets it.
        rule: RuleId,
        /// Which devices.
        whom: Whom,
        /// The packet.
        packet: Opening,
    },
    /// A packet would pass between devices, and the rule was not written for devices: its prefix is
    /// wider than the pool.
    BetweenDevices {
        /// The rule that lets it.
        rule: RuleId,
        /// Its prefix.
        prefix: Prefix,
        /// Which devices.
        whom: Whom,
        /// The packet.
        packet: Opening,
    },
    /// A device and its gateway do not allow the same.
    EndsDisagree {
        /// The device; the refutation's agent is the gateway.
        device: DeviceId,
        /// The device's classes at the gateway.
        classes: Vec<ClassId>,
        /// The packet that one of them lets pass.
        packet: Opening,
        /// What the device says.
        at_device: Answer,
        /// What the gateway says.
        at_gateway: Answer,
    },
    /// Addresses of another segment's pool would be taken for a peer's.
    ForeignAddress {
        /// The other segment.
        other: SegmentId,
        /// Its pool.
        pool: Prefix,
        /// Whose they would be.
        peer: AgentId,
        /// The addresses.
        prefix: Prefix,
    },
}

/// The devices that something concerns: all that have these classes and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whom {
    /// The classes; empty is every device.
    pub classes: Vec<ClassId>,
    /// One that has a session and is concerned, if there is one now.
    pub example: Option<DeviceId>,
}

/// What an agent's rules say to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This rule allows it.
    Allowed(RuleId),
    /// This rule denies it.
    Denied(RuleId),
    /// No rule matches, so it is dropped.
    NoRule,
}

impl fmt::Display for Refutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, agent, flaw } = self;
        write!(f, "in segment {segment}, {agent} ")?;
        // A device's own rules concern nobody else.
        let to = |whom: &Whom| match agent {
            AgentId::Device(_) => String::new(),
            AgentId::Gateway(_) => format!(" {whom}"),
        };
        match flaw {
            Flaw::CrossesSegments { other, rule, whom, packet } => write!(
                f,
                "would let pass {packet}, which is segment {other}'s: rule {rule} allows it{}, \
                 and no publication offers it",
                to(whom)
            ),
            Flaw::BetweenDevices { rule, prefix, whom, packet } => write!(
                f,
                "would let pass {packet}, which is in the pool of devices: rule {rule} allows it{} \
                 because its prefix {prefix} covers the pool; write a rule for the pool itself, or a \
                 narrower prefix",
                to(whom)
            ),
            Flaw::EndsDisagree { device, packet, at_device, at_gateway, .. } => write!(
                f,
                "and {device} disagree about {packet}: at the device {at_device}, at the gateway \
                 {at_gateway}"
            ),
            Flaw::ForeignAddress { other, pool, peer, prefix } => write!(
                f,
                "would take {prefix} for {peer}'s, but it is of the pool {pool} of segment {other}"
            ),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.classes.as_slice(), &self.example) {
            ([], _) => f.write_str("to every device"),
            (classes, example) => {
                let classes: Vec<_> = classes.iter().map(|class| class.0.to_string()).collect();
                write!(f, "to devices of class {}", classes.join(", "))?;
                example.as_ref().map_or(Ok(()), |device| write!(f, ", such as {device}"))
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(rule) => write!(f, "rule {rule} allows it"),
            Self::Denied(rule) => write!(f, "rule {rule} denies it"),
            Self::NoRule => f.write_str("no rule allows it"),
        }
    }
}
