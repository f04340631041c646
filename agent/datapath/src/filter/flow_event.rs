//! What the filter tells of a flow: that it opened, was refused, or ended.
//!
//! An event names its device, its session and its rules by shared values of the moment in which it
//! happened, so that whoever reads it later, when the peer or the rules are gone, reads the same.

use std::sync::Arc;

use partywall_proto::flows::{ObservedVerdict, Traffic};
use partywall_proto::ids::{AgentId, RuleId, SessionId};

use super::DropReason;
use super::flow_key::{FlowKey, Side};
use super::rule_table::{Decision, RuleTable};

/// Whose flow it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The device: at a gateway the peer, at a device the agent itself.
    pub agent: AgentId,
    /// The session that admits it.
    pub session: Option<SessionId>,
}

/// Something that happened to a flow.
#[derive(Debug, Clone)]
pub struct FlowEvent {
    /// The same in all events of a flow; unique in its shard.
    pub number: u64,
    /// What happened.
    pub happening: Happening,
    /// Whose flow it is.
    pub party: Arc<Party>,
    /// The side that the device is on.
    pub device: Side,
    /// Its ends.
    pub key: FlowKey,
    /// The end that opened it, or tried to.
    pub originator: Side,
    /// What decided; none where the rules were replaced since the flow was last judged.
    pub judgement: Option<Judgement>,
    /// From this side of the tunnel, so far.
    pub from_local: Traffic,
    /// From beyond the tunnel, so far.
    pub from_remote: Traffic,
}

/// What happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// Its first packet passed.
    Opened,
    /// Its first packet was dropped.
    Refused(DropReason),
    /// It is over.
    Ended(FlowEnd),
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEnd {
    /// Nothing came for as long as it is held.
    Idle,
    /// Both ends finished, or one reset.
    Closed,
    /// New rules or classes do not allow it.
    Policy,
    /// Its device's session, or its tunnel's keys, are gone.
    Session,
    /// The agent carries nothing any more.
    Shutdown,
}

impl FlowEnd {
    /// As flow records have it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Closed => "closed",
            Self::Policy => "policy",
            Self::Session => "session",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What the rules said to a flow.
#[derive(Debug, Clone)]
pub struct Judgement {
    pub(super) rules: Arc<RuleTable>,
    pub(super) rule: Option<u32>,
    /// What the rules on trial say, where they were asked.
    pub(super) trial: Option<Option<Decision>>,
}

impl Judgement {
    /// The rule that decided; none where no rule matches.
    pub fn rule(&self) -> Option<&RuleId> {
        self.rules.id(self.rule?)
    }

    /// The policy version that the rules come from, if it is known.
    pub fn policy(&self) -> Option<u64> {
        self.rules.policy()
    }

    /// What the policy version on trial would have said, if there is one and it was asked.
    pub fn observed(&self) -> Option<ObservedVerdict> {
        let (version, rules) = self.rules.trial()?;
        let decision = self.trial?;
        let rule = decision.and_then(|decision| rules.id(decision.rule)).cloned();
        Some(ObservedVerdict { version, action: decision.map(|decision| decision.action), rule })
    }
}
