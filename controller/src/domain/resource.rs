//! What an admin can write, list and delete: one trait for all kinds.
//!
//! A kind's word in paths, store keys, findings and the audit trail is the same: [`Resource::KIND`].

use std::fmt::{Debug, Display};

use partywall_proto::admin::{
    BuildingSpec, DeviceSpec, FlowSettingsSpec, GatewaySpec, GroupSpec, OrganisationSpec,
    PolicySpec, SegmentSpec, UserSpec,
};
use partywall_proto::ids::{BuildingId, DeviceId, GatewayId, OrganisationId, SegmentId, UserId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::catalogue::{Catalogue, Table};
use super::group_key::GroupKey;
use super::scope::Scope;

/// A kind of thing that an admin sets up. Implemented by the specs themselves.
pub trait Resource:
    Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The kind in the plural: `segments`.
    const KIND: &'static str;
    /// What names one of them.
    type Key: Debug + Clone + Ord + Display + Send + Sync + 'static;

    /// The name of this one.
    fn key(&self) -> Self::Key;
    /// Where a catalogue keeps this kind.
    fn table(catalogue: &Catalogue) -> &Table<Self::Key, Self>;
    /// As [`Resource::table`], to change it.
    fn table_mut(catalogue: &mut Catalogue) -> &mut Table<Self::Key, Self>;

    /// Whose it is; none where it names something that is not there, which checks refuse.
    fn scope(&self, catalogue: &Catalogue) -> Option<Scope>;

    /// This one as a path: `segments/council`.
    fn path(&self) -> String {
        path_of::<Self>(&self.key())
    }
}

/// The path of `key` among its kind: `groups/council/staff`.
pub fn path_of<K: Resource>(key: &K::Key) -> String {
    format!("{}/{key}", K::KIND)
}

macro_rules! resources {
    ($($spec:ident = $kind:literal, $table:ident, $key:ty, |$this:ident| $name:expr,
        |$that:ident, $all:ident| $scope:expr;)*) => {$(
        impl Resource for $spec {
            const KIND: &'static str = $kind;
            type Key = $key;

            fn key(&self) -> $key {
                let $this = self;
                $name
            }

            fn scope(&self, $all: &Catalogue) -> Option<Scope> {
                let $that = self;
                $scope
            }

            fn table(catalogue: &Catalogue) -> &Table<Self::Key, Self> {
                &catalogue.$table
            }

            fn table_mut(catalogue: &mut Catalogue) -> &mut Table<Self::Key, Self> {
                &mut catalogue.$table
            }
        }
    )*};
}

resources! {
    OrganisationSpec = "organisations", organisations, OrganisationId, |it| it.name.clone(),
        |it, _all| Some(Scope::Organisation(it.name.clone()));
    BuildingSpec = "buildings", buildings, BuildingId, |it| it.name.clone(),
        |_it, _all| Some(Scope::Facilities);
    SegmentSpec = "segments", segments, SegmentId, |it| it.name.clone(),
        |it, _all| Some(Scope::Organisation(it.organisation.clone()));
    GatewaySpec = "gateways", gateways, GatewayId, |it| it.name.clone(),
        |it, all| {
            let segment = all.segments.get(&it.segment)?;
            Some(Scope::Organisation(segment.spec.organisation.clone()))
        };
    DeviceSpec = "devices", devices, DeviceId, |it| it.name.clone(),
        |it, _all| Some(match &it.owner {
            Some(owner) => Scope::Organisation(owner.organisation().clone()),
            None => Scope::Facilities,
        });
    GroupSpec = "groups", groups, GroupKey,
        |it| GroupKey { organisation: it.organisation.clone(), name: it.name.clone() },
        |it, _all| Some(Scope::Organisation(it.organisation.clone()));
    UserSpec = "users", users, UserId, |it| it.name.clone(),
        |it, _all| Some(Scope::Organisation(it.name.organisation().clone()));
    PolicySpec = "policies", policies, OrganisationId, |it| it.organisation.clone(),
        |it, _all| Some(Scope::Organisation(it.organisation.clone()));
    FlowSettingsSpec = "flow-settings", flow_settings, OrganisationId, |it| it.organisation.clone(),
        |it, _all| Some(Scope::Organisation(it.organisation.clone()));
}
