//! Why a flow passes or does not: what each end of a session says to it, and whose words those are.
//!
//! An answer is about one session of the asker's own organisation. Where there is none, it says nothing
//! of the device, not even that it exists: that may be another organisation's business.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DeviceClass, Endpoint, PolicyVersion, SignInStrength, StoredFlow};
use crate::ids::{AgentId, BuildingId, DeviceId, RuleId, SegmentId, SessionId, UserId};
use crate::rules::{Action, Opener};

/// Answer to why a flow passes or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhyReport {
    /// The whole answer in plain words, with what to do about it.
    pub sentence: String,
    /// Whether both ends let the flow be opened, as things stand.
    pub allowed: bool,
    /// The device at one end.
    pub device: DeviceId,
    /// The side that opens the flow.
    pub opened_by: Opener,
    /// The other end's address, with the responder's port: the destination where the device opens, the
    /// source and the device's own port where the network does.
    pub far: Endpoint,
    /// The session on the device; none where the asker's organisation has none there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<WhySession>,
    /// What the device's agent says; none where there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_device: Option<EndVerdict>,
    /// What the gateway's agent says; none where there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_gateway: Option<EndVerdict>,
    /// The policy version that is in force; none where there is no policy, which allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyVersion>,
    /// What took place, where a recorded flow was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<RecordedVerdict>,
}

/// What policy knows of the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhySession {
    /// The session.
    pub id: SessionId,
    /// Who signed in.
    pub user: UserId,
    /// Where to.
    pub segment: SegmentId,
    /// Where the device stands; none for one that moves about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<BuildingId>,
    /// What the device is taken for.
    pub class: DeviceClass,
    /// How the person signed in.
    pub sign_in: SignInStrength,
    /// When it began.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub began_at: Timestamp,
    /// When it ends.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ends_at: Timestamp,
}

/// What one end says to a flow's first packet, by the rules that the controller sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndVerdict {
    /// The agent that judges; none where there is none at this end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// What it does with the packet; none where nothing judges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The rule that decides; none where none matches or it does not come to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// Why the packet is dropped; none where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<WhyDrop>,
    /// The same in words, as the end of a sentence.
    pub words: String,
}

/// Those of the data path's drop reasons that can be foretold; the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WhyDrop {
    /// The agent has no overlay config.
    NoConfig,
    /// The destination is no peer's.
    NoRoute,
    /// The source is not one that the sender may use.
    WrongSource,
    /// A rule denies the flow.
    Denied,
    /// No rule allows the flow.
    NoRule,
}

impl WhyDrop {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::NoConfig, Self::NoRoute, Self::WrongSource, Self::Denied, Self::NoRule];
}

impl fmt::Display for WhyDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoConfig => "no-config",
            Self::NoRoute => "no-route",
            Self::WrongSource => "wrong-source",
            Self::Denied => "denied",
            Self::NoRule => "no-rule",
        })
    }
}

/// What a gateway recorded of the flow, and by whose policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordedVerdict {
    /// The record of its opening or refusal; of its end where no other is kept.
    pub record: StoredFlow,
    /// The version that the record names; none where it names none, or one that is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyVersion>,
    /// The same in plain words.
    pub sentence: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_reason_reads_as_it_is_written() {
        for reason in WhyDrop::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.to_string());
        }
    }
}
