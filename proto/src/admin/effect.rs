//! What a change of policy means: who gains or loses what.
//!
//! It is told of what policies do, never of their words: a rule that is renamed, moved without effect or
//! split in two changes nothing here.

use serde::{Deserialize, Serialize};

use crate::ids::{BuildingId, GroupId, RuleId, SegmentId, UserId};
use crate::rules::Opener;

use super::{DeviceClass, SignInStrength};

/// How two policies of an organisation differ for the people that it has now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyDiff {
    /// Segment by segment, losses first; empty means that nobody's reach changes.
    pub changes: Vec<PolicyEffect>,
    /// Changes that are left out because nobody would read so many.
    #[serde(default)]
    pub unlisted: u64,
    /// False where the two differ in so many ways that not all was looked at.
    pub complete: bool,
}

/// Something that people gain or lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyEffect {
    /// In which segment.
    pub segment: SegmentId,
    /// Whether they gain it or lose it.
    pub effect: EffectKind,
    /// Who.
    pub who: EffectAudience,
    /// Under which conditions; all that are stated hold together.
    #[serde(default, skip_serializing_if = "EffectConditions::is_empty")]
    pub when: EffectConditions,
    /// The side that opens it.
    pub opened_by: Opener,
    /// What: services of the policy by name, else prefix, protocol and ports as in
    /// `10.1.0.0/16 tcp 443, 8000-8099`. The first few.
    pub what: Vec<String>,
    /// How many more there are.
    #[serde(default)]
    pub what_unlisted: u64,
    /// The rule that allows it now, or did.
    pub rule: RuleId,
}

/// Gained or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum EffectKind {
    /// It was allowed and is not any more.
    Loses,
    /// It is allowed and was not.
    Gains,
}

/// Some people of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EffectAudience {
    /// They are all people that the organisation has.
    #[serde(default)]
    pub everyone: bool,
    /// They are the members of this group of the organisation, and nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// How many they are.
    pub people: u64,
    /// The first few of them.
    pub users: Vec<UserId>,
}

/// Conditions of a change. What is empty makes no difference to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EffectConditions {
    /// The device is of one of these classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceClass>,
    /// The device stands in one of these buildings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buildings: Vec<BuildingId>,
    /// Or, where true, in any that neither policy names, or in none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// The person signed in in one of these ways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sign_in: Vec<SignInStrength>,
    /// It is one of these times of the week, as in `Mon 08:00 to Mon 18:00`, by the clock of the newer policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<String>,
}

impl EffectConditions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
