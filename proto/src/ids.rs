//! Names of things: short, readable, and typed, so that a segment is never taken for a device.
//!
//! A name is what an admin writes in YAML and what the audit trail shows; there is no second,
//! hidden identifier that could disagree with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name in bytes: a DNS label (RFC 1035 §2.3.4), so that a name can become one.
pub const NAME_MAX_BYTES: usize = 63;

/// Why a text is no name. The text is quoted, the rule is stated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {rule}")]
pub struct NameError {
    /// What was to be named.
    pub kind: &'static str,
    /// The refused text, cut to [`NAME_MAX_BYTES`] characters.
    pub text: String,
    /// The rule that the text broke.
    pub rule: &'static str,
}

impl NameError {
    pub(crate) fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        let text = text.chars().take(NAME_MAX_BYTES).collect();
        Self { kind, text, rule }
    }
}

const LABEL_RULE: &str =
    "use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or a digit";

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= NAME_MAX_BYTES
        && bytes.iter().all(|&b| inner(b) || b == b'-')
        && inner(bytes[0])
        && inner(bytes[bytes.len() - 1])
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_label(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError::new($kind, text, LABEL_RULE))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A body that owns a network: the council, the NHS trust.
    OrganisationId = "organisation name";
    /// One organisation's network as offered on the overlay. Unique over the controller.
    SegmentId = "segment name";
    /// A site with one shared LAN.
    BuildingId = "building name";
    /// An agent that joins a segment to its organisation's real network.
    GatewayId = "gateway name";
    /// A machine with its own WireGuard key.
    DeviceId = "device name";
    /// A set of users of one organisation. Unique within it.
    GroupId = "group name";
    /// A named destination in a policy. Unique within it.
    ServiceId = "service name";
    /// A rule's name in a policy, unique within it; it is what `why` and audit show.
    RuleId = "rule name";
    /// A session, drawn at random by the controller.
    SessionId = "session id";
    /// A place where an organisation's flow records go. Unique within it.
    SinkId = "sink name";
    /// An admin API token's public half, for lists and revocation.
    TokenId = "token id";
}

/// A named person of one organisation, written `alice@council`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId {
    local: String,
    organisation: OrganisationId,
}

const USER_RULE: &str = "write it as name@organisation, the name of a-z, 0-9, '.', '_' and '-'";

impl UserId {
    /// The part before the `@`.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The organisation that employs this person.
    pub fn organisation(&self) -> &OrganisationId {
        &self.organisation
    }
}

impl FromStr for UserId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::new("user", text, USER_RULE);
        let (local, organisation) = text.split_once('@').ok_or_else(refuse)?;
        let plain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        if local.is_empty() || local.len() > NAME_MAX_BYTES || !local.bytes().all(plain) {
            return Err(refuse());
        }
        let organisation = organisation.parse().map_err(|_| refuse())?;
        Ok(Self { local: local.to_owned(), organisation })
    }
}

impl TryFrom<String> for UserId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(user: UserId) -> String {
        user.to_string()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.organisation)
    }
}

/// A machine that speaks the agent API, written `device/desk-1` or `gateway/gw-council`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AgentId {
    /// A staff machine.
    Device(DeviceId),
    /// A gateway.
    Gateway(GatewayId),
}

impl FromStr for AgentId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some(("device", name)) => Ok(Self::Device(name.parse()?)),
            Some(("gateway", name)) => Ok(Self::Gateway(name.parse()?)),
            Some(_) | None => {
                Err(NameError::new("agent", text, "write it as device/NAME or gateway/NAME"))
            }
        }
    }
}

impl TryFrom<String> for AgentId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<AgentId> for String {
    fn from(agent: AgentId) -> String {
        agent.to_string()
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "device/{name}"),
            Self::Gateway(name) => write!(f, "gateway/{name}"),
        }
    }
}

crate::openapi::text_schema!(UserId, AgentId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_in_lower_case() {
        for good in ["a", "desk-1", "0", &"x".repeat(63)] {
            assert_eq!(good.parse::<DeviceId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "Desk", "a_b", "a.b", "a/b", "é", &"x".repeat(64)] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad:?} was taken for a name");
        }
    }

    #[test]
    fn a_user_belongs_to_exactly_one_organisation() {
        let user: UserId = "alice.smith@council".parse().unwrap();
        assert_eq!((user.local(), user.organisation().as_str()), ("alice.smith", "council"));
        assert_eq!(user.to_string(), "alice.smith@council");
        for bad in ["alice", "@council", "alice@", "a@b@c", "Alice@council", "a b@council"] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?} was taken for a user");
        }
    }

    #[test]
    fn an_agent_id_survives_json() {
        let agent: AgentId = serde_json::from_str("\"gateway/gw-1\"").unwrap();
        assert_eq!(serde_json::to_string(&agent).unwrap(), "\"gateway/gw-1\"");
        assert!(serde_json::from_str::<AgentId>("\"edge/e1\"").is_err());
    }

    #[test]
    fn a_refused_name_is_quoted_within_bounds() {
        let refused = "é".repeat(10_000).parse::<SegmentId>().unwrap_err();
        assert_eq!(refused.text.chars().count(), NAME_MAX_BYTES);
    }
}
