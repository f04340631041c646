//! Flow records: what a gateway says about one conversation when it opens, is refused or ends, and what a
//! device's own agent says about one that it refused.
//!
//! A record is evidence, and never needed for anything to work: whoever has no room for one drops it
//! and counts it. What a record leaves out (person, building, organisation) the controller joins from
//! what it knows itself, and takes from no agent.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, NameError, RuleId, SessionId};
use crate::nets::Protocol;
use crate::rules::{Action, Opener};

/// Most records in one message; the largest ones there are fit
/// [`CLIENT_MESSAGE_MAX_BYTES`](crate::agent_api::CLIENT_MESSAGE_MAX_BYTES).
pub const FLOWS_PER_MESSAGE_MAX: usize = 500;

/// Records of one device's own agent that a controller takes at once, and then one more in each
/// [`DEVICE_FLOW_STEP_S`]. A hostile one can so have a fifth of the default budget of its organisation in
/// thirty days, at 450 bytes a record, and not all of it in one.
pub const DEVICE_FLOWS_AT_ONCE: u32 = 1000;

/// Seconds; see [`DEVICE_FLOWS_AT_ONCE`].
pub const DEVICE_FLOW_STEP_S: u32 = 6;

/// What an agent says about one flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowRecord {
    /// The same in the records of a flow's beginning and end.
    pub id: FlowId,
    /// What happened.
    pub event: FlowEvent,
    /// When, by the agent's clock.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub at: Timestamp,
    /// The device at one end.
    pub device: DeviceId,
    /// The session that admitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The side that opened the flow, or tried to.
    pub opener: Opener,
    /// The device's overlay address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub device_address: IpAddr,
    /// The other end's address: in the organisation's network, or another device's.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub network_address: IpAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// The device's port; 0 for ICMP.
    pub device_port: u16,
    /// The other end's port; 0 for ICMP.
    pub network_port: u16,
    /// The rule that decided. None where no rule did, or where the rules have been replaced since the
    /// flow was last judged: the record of its opening names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
    /// Of a refused flow the drop reason; of an ended one why it ended: `idle`, `closed`, `policy`,
    /// `session`, `evicted` or `shutdown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The version of the policy that decided, where the config told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<u64>,
    /// What the version on trial would have said, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<ObservedVerdict>,
    /// From the device so far.
    pub to_network: Traffic,
    /// To the device so far.
    pub to_device: Traffic,
}

/// What happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FlowEvent {
    /// Its first packet was let through.
    Opened,
    /// Its first packet was dropped. Said once for a while, however many more are tried.
    Refused,
    /// It is over.
    Ended,
}

impl fmt::Display for FlowEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opened => "opened",
            Self::Refused => "refused",
            Self::Ended => "ended",
        })
    }
}

/// What a policy version that is only observed would have said to a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ObservedVerdict {
    /// The version on trial.
    pub version: u64,
    /// What its rule says; none where it has no rule for the flow, which is a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// That rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleId>,
}

/// Packets and bytes in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Traffic {
    /// IP packets.
    pub packets: u64,
    /// Bytes of the inner packets, IP headers included.
    pub bytes: u64,
}

/// A flow's number, unique per agent; written as 16 hexadecimal digits, for a JSON number of 64 bits
/// is rounded by much that reads JSON (RFC 8259 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlowId(pub u64);

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for FlowId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::new("flow id", text, "write its 16 digits of 0-9 and a-f");
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(digit) {
            return Err(refuse());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| refuse())
    }
}

impl TryFrom<String> for FlowId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<FlowId> for String {
    fn from(id: FlowId) -> String {
        id.to_string()
    }
}

crate::openapi::text_schema!(FlowId);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_api::{CLIENT_MESSAGE_MAX_BYTES, ClientMessage};
    use crate::ids::NAME_MAX_BYTES;

    #[test]
    fn a_message_of_the_largest_records_is_within_the_limit() {
        let name = "x".repeat(NAME_MAX_BYTES);
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        let most = Traffic { packets: u64::MAX, bytes: u64::MAX };
        let record = FlowRecord {
            id: FlowId(u64::MAX),
            event: FlowEvent::Refused,
            at: "2026-11-22T12:00:00.123456789Z".parse().unwrap(),
            device: name.parse().unwrap(),
            session: Some(name.parse().unwrap()),
            opener: Opener::Network,
            device_address: address,
            network_address: address,
            protocol: Protocol::Icmp,
            device_port: u16::MAX,
            network_port: u16::MAX,
            rule: Some(name.parse().unwrap()),
            // No drop reason's text is longer.
            reason: Some("x".repeat(NAME_MAX_BYTES)),
            policy: Some(u64::MAX),
            observed: Some(ObservedVerdict {
                version: u64::MAX,
                action: Some(Action::Allow),
                rule: Some(name.parse().unwrap()),
            }),
            to_network: most,
            to_device: most,
        };
        let records = vec![record; FLOWS_PER_MESSAGE_MAX];
        let message = ClientMessage::Flows { records, lost: u64::MAX };
        let bytes = serde_json::to_string(&message).unwrap().len();
        assert!(bytes <= CLIENT_MESSAGE_MAX_BYTES, "{bytes} bytes");
    }

    #[test]
    fn a_flow_id_is_sixteen_digits() {
        let id: FlowId = serde_json::from_str("\"00000000deadbeef\"").unwrap();
        assert_eq!((id, id.to_string().as_str()), (FlowId(0xdead_beef), "00000000deadbeef"));
        for bad in ["", "deadbeef", "00000000DEADBEEF", "+0000000deadbeef", "00000000deadbeef0"] {
            assert!(bad.parse::<FlowId>().is_err(), "{bad:?} was taken for a flow id");
        }
    }
}
