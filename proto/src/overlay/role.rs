//! What differs between a device and a gateway in an overlay config.
//!
//! An unknown role refuses the config. An unknown field of a [`LanService`] does too, because a match
//! that is left out would let more in; an unknown field of [`Dns`] only names something that this
//! version does not do, and is ignored here although the admin API refuses it.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::Session;
use crate::nets::{PortRange, Prefix, Protocol};

/// What differs between a device and a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Role {
    /// A staff machine with a session.
    Device {
        /// The session that this config exists for.
        session: Session,
        /// Full or split tunnel.
        tunnel: TunnelMode,
        /// The segment's prefixes: they leave through the tunnel or not at all.
        prefixes: Vec<Prefix>,
        /// The segment's names.
        #[serde(deserialize_with = "dns_of_any_version")]
        dns: Dns,
        /// Exceptions to "nothing on the LAN opens anything towards this device".
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lan: Vec<LanService>,
    },
    /// A gateway.
    Gateway {
        /// NAT or routed.
        forwarding: Forwarding,
        /// The overlay pools that this gateway routes into the tunnel.
        pools: Vec<Prefix>,
        /// The organisation's prefixes behind this gateway.
        prefixes: Vec<Prefix>,
    },
}

/// Which of a device's traffic goes into the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TunnelMode {
    /// Everything.
    Full,
    /// The segment's prefixes only.
    Split,
}

/// How a gateway joins the overlay to the organisation's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Devices appear under the gateway's own address.
    Nat,
    /// Devices appear under their overlay addresses; the network routes the pool to the gateway.
    Routed,
}

/// Names while the session is up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Resolvers inside the segment.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub servers: Vec<IpAddr>,
    /// Search domains.
    #[serde(default)]
    pub search: Vec<String>,
}

fn dns_of_any_version<'de, D: Deserializer<'de>>(from: D) -> Result<Dns, D::Error> {
    #[derive(Deserialize)]
    struct Known {
        #[serde(default)]
        servers: Vec<IpAddr>,
        #[serde(default)]
        search: Vec<String>,
    }
    let Known { servers, search } = Known::deserialize(from)?;
    Ok(Dns { servers, search })
}

/// Something that other machines on the LAN may open towards a device while a session is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LanService {
    /// Who may open it.
    pub from: Prefix,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The device's ports.
    pub ports: Vec<PortRange>,
}
