//! What an admin sets up, apart from policy.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::policy::DeviceClass;
use crate::ids::{BuildingId, DeviceId, GatewayId, GroupId, OrganisationId, SegmentId, UserId};
use crate::keys::WireguardKey;
use crate::nets::Prefix;
use crate::overlay::{Dns, Forwarding, LanService, TunnelMode};

fn code_step_s() -> u32 {
    30
}

fn session_length_s() -> u64 {
    10 * 3600
}

fn staleness_limit_s() -> u64 {
    24 * 3600
}

fn mtu() -> u16 {
    1420
}

/// A body that owns a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OrganisationSpec {
    /// Its name.
    pub name: OrganisationId,
    /// In words.
    pub title: String,
    /// Step of its users' one-time codes in seconds, 8 to 60 (RFC 6238's X).
    #[serde(default = "code_step_s")]
    pub code_step_s: u32,
}

/// A site with one shared LAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BuildingSpec {
    /// Its name.
    pub name: BuildingId,
    /// In words.
    pub title: String,
    /// The LAN's own prefixes.
    pub underlay: Vec<Prefix>,
    /// What machines on the LAN may open towards devices with a session; nothing unless stated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lan: Vec<LanService>,
}

/// One organisation's network as offered on the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SegmentSpec {
    /// Its name: what staff write after `partywall login`.
    pub name: SegmentId,
    /// Whose it is. Cannot change.
    pub organisation: OrganisationId,
    /// In words.
    pub title: String,
    /// Overlay addresses are given out of these: one IPv4 prefix, one IPv6 prefix, or one of each.
    pub pools: Vec<Prefix>,
    /// The organisation's networks that devices reach through the gateways.
    pub prefixes: Vec<Prefix>,
    /// Names inside the segment.
    #[serde(default)]
    pub dns: Dns,
    /// Full or split tunnel.
    pub tunnel: TunnelMode,
    /// How long a session lasts, in seconds.
    #[serde(default = "session_length_s")]
    pub session_length_s: u64,
    /// How long agents go on without the controller, in seconds.
    #[serde(default = "staleness_limit_s")]
    pub staleness_limit_s: u64,
    /// Largest inner packet in bytes.
    #[serde(default = "mtu")]
    pub mtu: u16,
}

/// An agent that joins a segment to the organisation's real network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GatewaySpec {
    /// Its name.
    pub name: GatewayId,
    /// The segment that it joins.
    pub segment: SegmentId,
    /// Where devices reach it on the underlay, best first. The first one's port is listened on.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub endpoints: Vec<SocketAddr>,
    /// NAT or routed.
    pub forwarding: Forwarding,
}

/// What runs on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "runs", rename_all = "lowercase", from = "DeviceKindFields")]
pub enum DeviceKind {
    /// Our agent; keys are made at enrolment.
    Agent,
    /// A stock WireGuard client, whose public key is registered here.
    Stock {
        /// Made on the device; its private half never leaves it.
        wireguard_key: WireguardKey,
    },
}

// Serde lets unknown fields pass beside the tag of a unit variant; this twin has none.
#[derive(Deserialize)]
#[serde(tag = "runs", rename_all = "lowercase", deny_unknown_fields)]
enum DeviceKindFields {
    Agent {},
    Stock { wireguard_key: WireguardKey },
}

impl From<DeviceKindFields> for DeviceKind {
    fn from(fields: DeviceKindFields) -> Self {
        match fields {
            DeviceKindFields::Agent {} => Self::Agent,
            DeviceKindFields::Stock { wireguard_key } => Self::Stock { wireguard_key },
        }
    }
}

/// A machine with its own WireGuard key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceSpec {
    /// Its name.
    pub name: DeviceId,
    /// Where it stands; none for one that moves about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<BuildingId>,
    /// The one person who may sign in on it; none for a shared desk. A stock client needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserId>,
    /// Our agent or a stock client.
    pub kind: DeviceKind,
    /// How far it can be trusted. Unless stated a stock client is agentless, a device without an owner
    /// a shared desk, and any other personal: that a device is managed is for its admin to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<DeviceClass>,
}

impl DeviceSpec {
    /// What policy takes this device for.
    pub fn class(&self) -> DeviceClass {
        match (&self.kind, self.class, &self.owner) {
            (DeviceKind::Stock { .. }, _, _) => DeviceClass::Agentless,
            (DeviceKind::Agent, Some(class), _) => class,
            (DeviceKind::Agent, None, None) => DeviceClass::SharedDesk,
            (DeviceKind::Agent, None, Some(_)) => DeviceClass::Personal,
        }
    }
}

/// A set of users of one organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Whose it is.
    pub organisation: OrganisationId,
    /// Its name, unique in the organisation.
    pub name: GroupId,
    /// In words.
    pub title: String,
}

/// A named person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// `name@organisation`.
    pub name: UserId,
    /// As colleagues know them.
    pub title: String,
    /// Groups of the same organisation.
    #[serde(default)]
    pub groups: Vec<GroupId>,
    /// True ends their sessions and lets nobody sign in under this name.
    #[serde(default)]
    pub disabled: bool,
}
