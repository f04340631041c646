//! Tokens, enrolment codes, credentials and sessions: who gets in, and for how long.
//!
//! A secret appears in exactly one answer, the one that made it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, DeviceId, OrganisationId, SegmentId, SessionId, TokenId, UserId};
use crate::keys::Secret;

/// What a token may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "role", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TokenRole {
    /// Organisations (to add them, with their first admin), buildings and the devices in them.
    Facilities,
    /// Everything of one organisation, and nothing of another.
    Admin {
        /// Which one.
        organisation: OrganisationId,
    },
    /// Reads one organisation's sessions and audit trail.
    Auditor {
        /// Which one.
        organisation: OrganisationId,
    },
}

/// A token is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it may do.
    #[serde(flatten)]
    pub role: TokenRole,
    /// Whose hands it goes into, for the audit trail.
    pub holder: String,
    /// How long it lives, in seconds.
    pub lifetime_s: u64,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Names it in lists and in the audit trail.
    pub id: TokenId,
    /// What it may do.
    #[serde(flatten)]
    pub role: TokenRole,
    /// Whose hands it went into.
    pub holder: String,
    /// When it ends.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires_at: Timestamp,
}

/// A token with its secret, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenCreated {
    /// The token.
    #[serde(flatten)]
    pub token: Token,
    /// For the `Authorization: Bearer` header.
    pub secret: Secret,
}

/// A code is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrolmentCodeRequest {
    /// The device or gateway that it admits. It must be set up already.
    pub agent: AgentId,
    /// How long it lives, in seconds.
    pub lifetime_s: u64,
}

/// A code, shown once. A new code for the same agent voids the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolmentCodeCreated {
    /// For `partywall-agent enrol`.
    pub code: Secret,
    /// When it ends.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub expires_at: Timestamp,
}

/// A user's password and token are set anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CredentialRequest {
    /// At least 12 characters.
    pub password: Secret,
}

/// A user's new one-time-code secret, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialCreated {
    /// `otpauth://totp/…`, for an authenticator app.
    pub otpauth_uri: Secret,
    /// The same as a QR code, drawn in Unicode blocks.
    pub qr: Secret,
}

/// A person signs in for a stock client, which cannot do so itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignInRequest {
    /// The stock client.
    pub device: DeviceId,
    /// Where to.
    pub segment: SegmentId,
    /// Its owner.
    pub user: UserId,
    /// What they know.
    pub password: Secret,
    /// What they hold.
    pub code: Secret,
}

/// A session as an admin of its segment's organisation sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionView {
    /// For `partywallctl revoke`.
    pub id: SessionId,
    /// Who signed in.
    pub user: UserId,
    /// Where.
    pub device: DeviceId,
    /// Where to.
    pub segment: SegmentId,
    /// Overlay addresses of the device in this segment.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<std::net::IpAddr>,
    /// When it began.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub began_at: Timestamp,
    /// When it ends.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ends_at: Timestamp,
}
