//! The audit trail as it is read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One thing that happened. Each record carries the hash of the one before in the same chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditRecord {
    /// The chain: an organisation's name, or `facilities`.
    pub chain: String,
    /// Counts from 1 without a gap within the chain.
    pub sequence: u64,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub time: Timestamp,
    /// Who: a token's holder, a user or an agent.
    pub actor: String,
    /// What, in kebab case: `sign-in`, `policy-set`.
    pub action: String,
    /// To what, as a path: `segments/council`.
    pub subject: String,
    /// Whether it was done (`done`) or refused, and then why.
    pub outcome: String,
    /// What changed, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub detail: Option<serde_json::Value>,
    /// Hash of the record before, in hex; 64 zeros for the first.
    pub previous: String,
    /// SHA-256 over all of the above, in hex.
    pub hash: String,
}

/// Whether a chain holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditVerdict {
    /// The chain.
    pub chain: String,
    /// Records that were read.
    pub records: u64,
    /// Hash of the last one: kept elsewhere, it shows later that nothing before it was changed.
    pub head: String,
    /// Where the chain breaks and how; none if it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}
