//! What an admin writes about who may reach what: one document for each organisation. The compiler
//! makes [`crate::rules`] of it.
//!
//! An unknown field, word or version is refused at every level: a condition that is not understood
//! must not be a condition that is not there.

mod trial;
mod when;
mod who;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, OrganisationId, RuleId, SegmentId, ServiceId};
use crate::nets::{PortRange, Prefix, Protocol};
use crate::rules::{Action, Opener};

pub use trial::{Destination, Endpoint, EndpointError, Expectation, Given, PolicyTest};
pub use when::{Day, DeviceClass, Hours, SignInStrength, TimeOfDay, TimeOfDayError, When};
pub use who::{Members, Who};

/// Longest text of a policy in bytes. A policy of 2,000 rules and 200 groups takes a tenth of it.
pub const POLICY_MAX_BYTES: usize = 4 << 20;

fn time_zone() -> String {
    "Europe/London".to_owned()
}

fn allow() -> Action {
    Action::Allow
}

fn device() -> Opener {
    Opener::Device
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One organisation's policy, for all its segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// Of the language that it is written in.
    pub version: LanguageVersion,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// What hours are read in: a name of the IANA time zone database.
    #[serde(default = "time_zone")]
    pub time_zone: String,
    /// Groups besides the organisation's own, which may stand in them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<GroupId, Members>,
    /// Named destinations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceId, ServiceSpec>,
    /// Rules, by the segment that they govern.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub segments: BTreeMap<SegmentId, SegmentPolicy>,
    /// What must be allowed and what must be refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<PolicyTest>,
}

/// The version of the policy language; 1 is the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum LanguageVersion {
    /// What this page describes.
    One,
}

/// The policy is written in a language that this version does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("version {0} of the policy language is not known here; write `version: 1`")]
pub struct LanguageVersionError(u32);

impl TryFrom<u32> for LanguageVersion {
    type Error = LanguageVersionError;

    fn try_from(version: u32) -> Result<Self, Self::Error> {
        match version {
            1 => Ok(Self::One),
            unknown => Err(LanguageVersionError(unknown)),
        }
    }
}

impl From<LanguageVersion> for u32 {
    fn from(version: LanguageVersion) -> Self {
        match version {
            LanguageVersion::One => 1,
        }
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for LanguageVersion {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{Object, Type};
        let mut schema = Object::with_type(Type::Integer);
        schema.enum_values = Some(vec![1.into()]);
        schema.into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for LanguageVersion {}

/// A named destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Where it is; inside the prefixes or pools of each segment whose rules name it.
    pub prefixes: Vec<Prefix>,
    /// None is TCP, UDP and ICMP echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Empty is every port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
}

/// The rules of one segment. They are read in order, the first match decides, no match is a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SegmentPolicy {
    /// What its rules say unless they say it themselves.
    #[serde(default, skip_serializing_if = "is_default")]
    pub defaults: Defaults,
    /// In order.
    #[serde(default)]
    pub rules: Vec<PolicyRule>,
}

/// What the rules of a segment say unless they say it themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Conditions of every rule that allows, each unless the rule states that very condition. Rules
    /// that deny do not take them: a default may narrow what is allowed and never what is denied.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when: When,
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

/// Who → what, under conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// Shown by `why` and in the audit trail. Unique in the segment.
    pub name: RuleId,
    /// Whom it concerns.
    pub who: Who,
    /// What they may reach, or with `opened_by: network` what may reach their device.
    pub what: Vec<Target>,
    /// Under which conditions; all of them hold together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when: When,
    /// Allow unless stated.
    #[serde(default = "allow")]
    pub action: Action,
    /// The device unless stated.
    #[serde(default = "device")]
    pub opened_by: Opener,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_another_language_version_is_refused() {
        let policy = |version: &str| {
            let text = format!(r#"{{"version": {version}, "organisation": "council"}}"#);
            serde_json::from_str::<PolicySpec>(&text)
        };
        let empty = policy("1").unwrap();
        assert_eq!(empty.time_zone, "Europe/London");
        assert!(policy("2").unwrap_err().to_string().contains("version: 1"));
        assert!(serde_json::from_str::<PolicySpec>(r#"{"organisation": "council"}"#).is_err());
    }
}
