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
#[serde(tag = "role", rename_all = "kebab-case")]
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
#[serde(try_from = "TokenRequestFields")]
pub struct TokenRequest {
    /// What it may do.
    #[serde(flatten)]
    pub role: TokenRole,
    /// Whose hands it goes into, for the audit trail.
    pub holder: String,
    /// How long it lives, in seconds.
    pub lifetime_s: u64,
}

// Serde cannot refuse unknown fields around a flattened enum, so a flat twin reads the request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequestFields {
    role: RoleName,
    organisation: Option<OrganisationId>,
    holder: String,
    lifetime_s: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RoleName {
    Facilities,
    Admin,
    Auditor,
}

impl TryFrom<TokenRequestFields> for TokenRequest {
    type Error = &'static str;

    fn try_from(fields: TokenRequestFields) -> Result<Self, Self::Error> {
        let TokenRequestFields { role, organisation, holder, lifetime_s } = fields;
        let role = match (role, organisation) {
            (RoleName::Facilities, None) => TokenRole::Facilities,
            (RoleName::Admin, Some(organisation)) => TokenRole::Admin { organisation },
            (RoleName::Auditor, Some(organisation)) => TokenRole::Auditor { organisation },
            (RoleName::Facilities, Some(_)) => {
                return Err(
                    "a facilities token belongs to no organisation; leave `organisation` out",
                );
            }
            (RoleName::Admin | RoleName::Auditor, None) => {
                return Err("missing field `organisation`: whose admin or auditor is it?");
            }
        };
        Ok(Self { role, holder, lifetime_s })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_request_is_read_strictly() {
        let read = |text: &str| serde_json::from_str::<TokenRequest>(text);
        let admin = r#"{"role":"admin","organisation":"council","holder":"Ann","lifetime_s":60}"#;
        let request = read(admin).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), admin);
        read(r#"{"role":"facilities","holder":"Bo","lifetime_s":60}"#).unwrap();
        for bad in [
            admin.replace("holder", "owner"),
            admin.replace(r#""holder""#, r#""scope":"all","holder""#),
            admin.replace("admin", "root"),
            admin.replace("admin", "facilities"),
            admin.replace(r#""organisation":"council","#, ""),
        ] {
            assert!(read(&bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_created_token_is_read_back_whatever_its_role() {
        for role in [r#""role":"facilities""#, r#""role":"admin","organisation":"council""#] {
            let text = format!(
                r#"{{"id":"t-1",{role},"holder":"Ann","expires_at":"2026-11-22T12:00:00Z","secret":"hunter2"}}"#
            );
            let created: TokenCreated = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&created).unwrap(), text);
            assert!(!format!("{created:?}").contains("hunter2"));
        }
    }

    #[test]
    fn no_answer_or_request_prints_a_secret() {
        let code: EnrolmentCodeCreated =
            serde_json::from_str(r#"{"code":"hunter2","expires_at":"2026-11-22T12:00:00Z"}"#)
                .unwrap();
        let credentials: CredentialCreated =
            serde_json::from_str(r#"{"otpauth_uri":"hunter2","qr":"hunter2"}"#).unwrap();
        let password: CredentialRequest =
            serde_json::from_str(r#"{"password":"hunter2"}"#).unwrap();
        let sign_in: SignInRequest = serde_json::from_str(
            r#"{"device":"phone","segment":"nhs","user":"nina@nhs","password":"hunter2","code":"hunter2"}"#,
        )
        .unwrap();
        let shown = format!("{code:?}{credentials:?}{password:?}{sign_in:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
