//! What the store holds besides what admins write, and under which keys.
//!
//! Secrets that people carry (tokens, codes) are kept as hashes; those that the controller must use
//! (one-time-code secrets, signing keys, PSK secrets) are kept as they are and leave by no API.

use std::net::IpAddr;

use jiff::Timestamp;
use partywall_proto::admin::{PolicySpec, Token, TokenRole};
use partywall_proto::ids::{
    AgentId, DeviceId, OrganisationId, SegmentId, SessionId, TokenId, UserId,
};
use partywall_proto::keys::{IdentityKey, WireguardKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::domain::password::PasswordHash;
use crate::domain::resource::{Resource, path_of};
use crate::domain::totp::TotpSecret;

/// The controller itself; made by `bootstrap`.
pub(super) const CONTROLLER_KEY: &str = "meta/controller";

/// What the controller says about itself in enrolment codes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ControllerRecord {
    pub(super) name: String,
    /// `host:port`.
    pub(super) address: String,
    /// SHA-256 of the CA certificate in DER.
    pub(super) ca_fingerprint: [u8; 32],
}

/// SHA-256 of a secret with 128 bits or more of randomness. Compared in constant time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SecretHash([u8; 32]);

impl SecretHash {
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    pub(super) fn fits(&self, secret: &[u8]) -> bool {
        self.0.ct_eq(&Self::of(secret).0).into()
    }
}

/// An admin API token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    pub(super) id: TokenId,
    pub(super) role: TokenRole,
    pub(super) holder: String,
    pub(super) expires_at: Timestamp,
    pub(super) secret: SecretHash,
}

impl TokenRecord {
    /// The token without what it is checked by.
    pub(super) fn token(&self) -> Token {
        Token {
            id: self.id.clone(),
            role: self.role.clone(),
            holder: self.holder.clone(),
            expires_at: self.expires_at,
        }
    }
}

/// An enrolment code that waits to be used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CodeRecord {
    pub(super) token: SecretHash,
    pub(super) expires_at: Timestamp,
}

/// An enrolled agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AgentRecord {
    pub(super) identity_key: IdentityKey,
    pub(super) wireguard_key: WireguardKey,
    pub(super) software: String,
    pub(super) enrolled_at: Timestamp,
}

/// A user's password and one-time-code secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CredentialRecord {
    pub(super) password: PasswordHash,
    pub(super) totp: TotpSecret,
    /// The step in seconds that the token was set up with: a token does not learn of a new one.
    pub(super) step_s: u32,
    /// The step of the last code that was used: neither it nor an earlier one is taken again.
    pub(super) last_step: Option<u64>,
}

/// How the hours of an organisation's policy are read: as they were at one instant, until the next one
/// at which something changes. Agents must not be sent different things under one generation, so the
/// time that a config depends on is a write of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HoursRecord {
    pub(super) at: Timestamp,
    pub(super) until: Timestamp,
}

/// The policy that an organisation has on trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ObservedRecord {
    pub(super) version: u64,
    pub(super) policy: PolicySpec,
}

/// A device's overlay addresses in one segment, kept over its sessions.
pub(super) type AddressRecord = Vec<IpAddr>;

pub(super) fn resource_key<K: Resource>(key: &K::Key) -> String {
    format!("resource/{}", path_of::<K>(key))
}

pub(super) fn hours_key(organisation: &OrganisationId) -> String {
    format!("hours/{organisation}")
}

/// The number is padded so that versions sort.
pub(super) fn policy_version_key(organisation: &OrganisationId, number: u64) -> String {
    format!("policy-version/{organisation}/{number:020}")
}

pub(super) fn observed_key(organisation: &OrganisationId) -> String {
    format!("observed/{organisation}")
}

pub(super) fn agent_key(agent: &AgentId) -> String {
    format!("agent/{agent}")
}

pub(super) fn code_key(agent: &AgentId) -> String {
    format!("code/{agent}")
}

pub(super) fn session_key(session: &SessionId) -> String {
    format!("session/{session}")
}

pub(super) fn address_key(segment: &SegmentId, device: &DeviceId) -> String {
    format!("address/{segment}/{device}")
}

pub(super) fn credential_key(user: &UserId) -> String {
    format!("credential/{user}")
}

pub(super) fn throttle_key(name: &str) -> String {
    format!("throttle/{name}")
}

pub(super) fn token_key(token: &TokenId) -> String {
    format!("token/{token}")
}

pub(super) fn segment_key(segment: &SegmentId) -> String {
    format!("segment-key/{segment}")
}

pub(super) fn stock_secret_key(device: &DeviceId) -> String {
    format!("stock-secret/{device}")
}

pub(super) fn chain_key(chain: &str) -> String {
    format!("chain/{chain}")
}

/// Keys of a chain's records; the sequence is padded so that they sort.
pub(super) fn audit_prefix(chain: &str) -> String {
    format!("audit/{chain}/")
}

pub(super) fn audit_key(chain: &str, sequence: u64) -> String {
    format!("audit/{chain}/{sequence:020}")
}
