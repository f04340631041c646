//! The other end of a tunnel, and the session that admits it.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, SessionId, UserId};
use crate::keys::{PresharedKey, WireguardKey};
use crate::nets::Prefix;
use crate::rules::ClassId;

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which agent this is. Unique in a config.
    pub agent: AgentId,
    /// Its WireGuard public key. Unique in a config.
    pub public_key: WireguardKey,
    /// Fresh for each session; none only for a stock client that was set up without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<PresharedKey>,
    /// Where to reach it, best first; empty where it calls us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<SocketAddr>,
    /// Sources that are accepted from it and destinations that are sent to it. No two peers' overlap.
    pub allowed_ips: Vec<Prefix>,
    /// Persistent keepalive in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_s: Option<u16>,
    /// The classes that rules may name, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassId>,
    /// At a gateway: the session that admits this device. The agent cuts the peer at its end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// A user's time-limited membership of the segment on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session's id.
    pub id: SessionId,
    /// Who signed in.
    pub user: UserId,
    /// When it ends unless it is renewed.
    pub ends_at: Timestamp,
}
