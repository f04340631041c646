//! Flow records as their organisation reads them, and what it sets about them.
//!
//! They are one organisation's alone: no other may read them, and facilities may not either.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::flows::{FlowId, FlowRecord};
use crate::ids::{AgentId, BuildingId, OrganisationId, SegmentId, SinkId, UserId};
use crate::rules::Opener;

fn retention_days() -> u32 {
    30
}

/// What an organisation wants done with its flow records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FlowSettingsSpec {
    /// Whose they are.
    pub organisation: OrganisationId,
    /// Days that the controller keeps them, 1 to 400; fewer where its disk has no room.
    #[serde(default = "retention_days")]
    pub retention_days: u32,
    /// Where else they go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<FlowSink>,
}

/// A place where flow records go as they come. One that cannot be reached for long loses some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "to", rename_all = "lowercase", deny_unknown_fields)]
pub enum FlowSink {
    /// JSON lines on the controller's machine, in the folder that whoever runs it has set aside.
    File {
        /// Names the sink, and the file below the organisation's own folder.
        name: SinkId,
    },
    /// Syslog (RFC 5424) over TLS 1.3 (RFC 5425).
    Syslog {
        /// Names the sink.
        name: SinkId,
        /// `host:port`; the port of RFC 5425 is 6514.
        server: String,
        /// The CA that signs for the server, in PEM; nothing else is trusted.
        ca: String,
    },
    /// OpenTelemetry logs over HTTP, as JSON.
    Otlp {
        /// Names the sink.
        name: SinkId,
        /// `https://host:port/v1/logs`.
        url: String,
        /// The CA that signs for the server, in PEM; nothing else is trusted.
        ca: String,
    },
}

impl FlowSink {
    /// Its name, unique in the organisation.
    pub fn name(&self) -> &SinkId {
        match self {
            Self::File { name } | Self::Syslog { name, .. } | Self::Otlp { name, .. } => name,
        }
    }
}

/// A flow record with what the controller knew when it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoredFlow {
    /// The agent that says so: a gateway, or of a refusal the device's own.
    pub reporter: AgentId,
    /// The gateway's segment, or that of the device's session.
    pub segment: SegmentId,
    /// Whose session it was; none where the record names no session, or one that ended before a restart
    /// of the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// Where the session's device stands; none for one that moves about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<BuildingId>,
    /// What the agent said.
    pub flow: FlowRecord,
}

/// What became of an organisation's flow records since the controller started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowStatus {
    /// Records that came in.
    pub received: u64,
    /// Of these, written to the controller's disk.
    pub stored: u64,
    /// Of these, dropped because the disk could not keep up, was full or broken, or because they were
    /// older than the retention.
    pub dropped: u64,
    /// Records that gateways dropped before they came here.
    pub lost_at_gateways: u64,
    /// Records of devices' own agents that these dropped, by what they say, or that were more than one
    /// device may bring.
    pub lost_at_devices: u64,
    /// Bytes on the controller's disk.
    pub bytes: u64,
    /// Most bytes there; the oldest records make room.
    pub budget_bytes: u64,
    /// Where else they go.
    pub sinks: Vec<FlowSinkStatus>,
}

/// How one sink is doing, since it was set up or the controller started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowSinkStatus {
    /// Its name.
    pub name: SinkId,
    /// Records that it took.
    pub sent: u64,
    /// Records that it did not take in time.
    pub dropped: u64,
    /// What is wrong just now, in words; none while all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What another policy would have meant for conversations that took place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhatIfReport {
    /// Conversations that were looked at.
    pub conversations: u64,
    /// Those that were allowed and would be refused, the most frequent first.
    pub cut: Vec<WhatIfLine>,
    /// Those that were refused and would be allowed, the most frequent first.
    pub allowed: Vec<WhatIfLine>,
    /// Conversations that changed as well, but are of too many kinds to list.
    pub unlisted: u64,
    /// False where there were more records than one question may go through, which is two gibibytes; the
    /// oldest were looked at.
    #[serde(default)]
    pub complete: bool,
}

/// Conversations of one person with one service or destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhatIfLine {
    /// Who; none where the records do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The side that opened them.
    pub opener: Opener,
    /// A service of the policy, or where it has none the far side's address with what is spoken: the
    /// destination where the device opens, the source and the device's port where the network does.
    pub destination: String,
    /// How many.
    pub conversations: u64,
    /// The last of them, to look up.
    pub last: FlowId,
    /// When that was.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub last_at: Timestamp,
}
