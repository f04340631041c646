//! Everything that admins have set up.

use std::collections::BTreeMap;

use partywall_proto::admin::{
    BuildingSpec, DeviceSpec, FlowSettingsSpec, GatewaySpec, GroupSpec, OrganisationSpec,
    PolicySpec, SegmentSpec, UserSpec, Versioned,
};
use partywall_proto::ids::{BuildingId, DeviceId, GatewayId, OrganisationId, SegmentId, UserId};

use super::group_key::GroupKey;

/// One kind of resource, by what names it.
pub type Table<Key, Spec> = BTreeMap<Key, Versioned<Spec>>;

/// Everything that admins have set up.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// Bodies that own networks.
    pub organisations: Table<OrganisationId, OrganisationSpec>,
    /// Sites.
    pub buildings: Table<BuildingId, BuildingSpec>,
    /// Networks as offered on the overlay.
    pub segments: Table<SegmentId, SegmentSpec>,
    /// Agents that join a segment to its real network.
    pub gateways: Table<GatewayId, GatewaySpec>,
    /// Machines.
    pub devices: Table<DeviceId, DeviceSpec>,
    /// Sets of users.
    pub groups: Table<GroupKey, GroupSpec>,
    /// People.
    pub users: Table<UserId, UserSpec>,
    /// Who may reach what, one for each organisation.
    pub policies: Table<OrganisationId, PolicySpec>,
    /// What is done with flow records.
    pub flow_settings: Table<OrganisationId, FlowSettingsSpec>,
}
