//! What an admin writes about who may reach what. The compiler makes [`crate::rules`] of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, OrganisationId, RuleId, SegmentId, ServiceId};
use crate::nets::{PortRange, Prefix, Protocol};
use crate::rules::{Action, Opener};

fn allow() -> Action {
    Action::Allow
}

fn device() -> Opener {
    Opener::Device
}

/// One organisation's policy. Rules are read in order, the first match decides, no match is a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Which of its segments it governs.
    pub segment: SegmentId,
    /// Named destinations.
    #[serde(default)]
    pub services: BTreeMap<ServiceId, ServiceSpec>,
    /// In order.
    pub rules: Vec<PolicyRule>,
}

/// A named destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Where it is; inside the segment's prefixes or pools.
    pub prefixes: Vec<Prefix>,
    /// None is TCP, UDP and ICMP echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Empty is every port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
}

/// The people of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Who {
    /// Everybody who has a session in the segment.
    Everyone,
    /// Members of any of these groups. Must not be empty.
    Groups(Vec<GroupId>),
}

/// A destination of a rule: a named service or one written in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Target {
    /// One of the policy's services.
    Service(ServiceId),
    /// Written in place.
    Net(ServiceSpec),
}

/// Who → what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// Shown by `why` and in the audit trail.
    pub name: RuleId,
    /// Whom it concerns.
    pub who: Who,
    /// What they may reach, or with `opened_by: network` what may reach their device.
    pub what: Vec<Target>,
    /// Allow unless stated.
    #[serde(default = "allow")]
    pub action: Action,
    /// The device unless stated.
    #[serde(default = "device")]
    pub opened_by: Opener,
}
