//! The versions of an organisation's policy, and what is said of a text before it becomes one.
//!
//! Numbers count from 1 for each organisation and never repeat, also where a policy was deleted meanwhile.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::problem::Finding;

/// What becomes of a version once it is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// Agents enforce it.
    #[default]
    Enforce,
    /// Gateways ask it beside the version in force, and flow records say what it would have decided. It
    /// drops nothing and allows nothing.
    Observe,
}

/// One version of an organisation's policy, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyVersion {
    /// From 1. Configs, flow records and `why` name it.
    pub number: u64,
    /// Who published it, as the audit trail names them.
    pub published_by: String,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub published_at: Timestamp,
    /// What it was published to do.
    #[serde(default)]
    pub mode: PolicyMode,
    /// The earlier version that this one brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<u64>,
}

/// One version of an organisation's policy as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyVersionText {
    /// Which one.
    pub version: PolicyVersion,
    /// YAML as its author wrote it; what came as part of a manifest or as JSON is written anew.
    pub text: String,
}

/// A version that was just published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyPublished {
    /// Which one.
    #[serde(flatten)]
    pub version: PolicyVersion,
    /// Rules of it that never decide, with line and column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Finding>,
}

/// Which versions of an organisation's policy agents know of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyStatus {
    /// The version that is enforced; none where there is no policy, which allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<PolicyVersion>,
    /// The version that is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<PolicyVersion>,
}

/// What is said of a text that could be published. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyReport {
    /// What is wrong, with line and column; empty means that it could be published now.
    pub findings: Vec<Finding>,
    /// What is allowed but surely not meant, with line and column: rules that never decide. Known where there
    /// are no findings, for segments that have a gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Finding>,
    /// How many tests it has. They all hold where there are no findings.
    pub tests: usize,
    /// How many rules it has, as written, in all segments.
    pub rules: usize,
}
