//! Everything that admins have set up.

use std::collections::BTreeMap;

use partywall_proto::admin::{
    BuildingSpec, DeviceSpec, GatewaySpec, GroupSpec, OrganisationSpec, PolicySpec, SegmentSpec,
    UserSpec, Versioned,
};

use super::resource::Resource;

/// One kind of resource, by name.
pub type Table<K> = BTreeMap<<K as Resource>::Key, Versioned<K>>;

/// Everything that admins have set up.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// Bodies that own networks.
    pub organisations: Table<OrganisationSpec>,
    /// Sites.
    pub buildings: Table<BuildingSpec>,
    /// Networks as offered on the overlay.
    pub segments: Table<SegmentSpec>,
    /// Agents that join a segment to its real network.
    pub gateways: Table<GatewaySpec>,
    /// Machines.
    pub devices: Table<DeviceSpec>,
    /// Sets of users.
    pub groups: Table<GroupSpec>,
    /// People.
    pub users: Table<UserSpec>,
    /// Who may reach what, by segment.
    pub policies: Table<PolicySpec>,
}
