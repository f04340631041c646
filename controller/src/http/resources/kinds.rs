//! The handlers of each kind, spelt out once for all: an entry below is a kind's paths and its types.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use partywall_proto::admin::{
    BuildingSpec, DeviceSpec, FlowSettingsSpec, GatewaySpec, GroupSpec, OrganisationSpec, Page,
    PolicySpec, SegmentSpec, UserSpec, Versioned,
};
use partywall_proto::ids::{BuildingId, DeviceId, GatewayId, OrganisationId, SegmentId, UserId};
use partywall_proto::problem::Problem;

use super::verbs::{self, GroupPath};
use crate::http::Edge;
use crate::http::extract::{Bearer, Body, Named, PageParams, Params};
use crate::http::problem::{Refusal, Refused};
use crate::http::revision::{Expected, Tagged};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $spec:ident, $key:ty,
        list $list:tt, one $one:tt, params($($param:tt)*);)*) => {$(
        $(#[$doc])*
        pub(in crate::http) mod $kind {
            use super::*;

            /// List them, in the order of their names.
            #[utoipa::path(get, path = $list, tag = stringify!($kind), params(PageParams),
                operation_id = concat!("list_", stringify!($kind)),
                responses(
                    (status = 200, description = "One page", body = Page<Versioned<$spec>>), Refused))]
            pub(in crate::http) async fn list(
                State(edge): State<Edge>,
                Bearer(principal): Bearer,
                Params(page): Params<PageParams>,
            ) -> Result<Json<Page<Versioned<$spec>>>, Refusal> {
                verbs::list(&edge, &principal, &page).await
            }

            /// Read one.
            #[utoipa::path(get, path = $one, tag = stringify!($kind), params($($param)*),
                operation_id = concat!("read_", stringify!($kind)),
                responses(
                    (status = 200, description = "The resource", body = Versioned<$spec>,
                        headers(("ETag" = String, description = "Its revision, for If-Match"))), Refused))]
            pub(in crate::http) async fn read(
                State(edge): State<Edge>,
                Bearer(principal): Bearer,
                Named(key): Named<$key>,
            ) -> Result<Tagged<$spec>, Refusal> {
                verbs::read(&edge, &principal, &key.into()).await
            }

            /// Create or replace one.
            #[utoipa::path(put, path = $one, tag = stringify!($kind), request_body = $spec,
                params($($param)*,
                    ("If-Match" = Option<String>, Header,
                        description = "Write only on top of this revision; as the ETag came"),
                    ("If-None-Match" = Option<String>, Header,
                        description = "`*`: write only if there is none yet")),
                operation_id = concat!("write_", stringify!($kind)),
                responses(
                    (status = 200, description = "As stored", body = Versioned<$spec>,
                        headers(("ETag" = String, description = "Its new revision"))),
                    (status = 412, description = "Changed meanwhile", body = Problem,
                        content_type = "application/problem+json"), Refused))]
            pub(in crate::http) async fn write(
                State(edge): State<Edge>,
                Bearer(principal): Bearer,
                Named(key): Named<$key>,
                expected: Expected,
                Body(spec): Body<$spec>,
            ) -> Result<Tagged<$spec>, Refusal> {
                verbs::write(&edge, &principal, &key.into(), expected, spec).await
            }

            /// Delete one. Refused while others build on it; the answer names them.
            #[utoipa::path(delete, path = $one, tag = stringify!($kind),
                params($($param)*,
                    ("If-Match" = Option<String>, Header,
                        description = "Delete only this revision; as the ETag came")),
                operation_id = concat!("delete_", stringify!($kind)),
                responses(
                    (status = 204, description = "Gone"),
                    (status = 412, description = "Changed meanwhile", body = Problem,
                        content_type = "application/problem+json"), Refused))]
            pub(in crate::http) async fn remove(
                State(edge): State<Edge>,
                Bearer(principal): Bearer,
                Named(key): Named<$key>,
                expected: Expected,
            ) -> Result<StatusCode, Refusal> {
                verbs::remove::<$spec>(&edge, &principal, &key.into(), expected).await
            }
        }
    )*};
}

kinds! {
    /// Bodies that own a network.
    organisations: OrganisationSpec, OrganisationId,
        list "/v1/organisations", one "/v1/organisations/{organisation}",
        params(("organisation" = String, Path, description = "Its name"));
    /// Sites with one shared LAN.
    buildings: BuildingSpec, BuildingId,
        list "/v1/buildings", one "/v1/buildings/{building}",
        params(("building" = String, Path, description = "Its name"));
    /// Organisations' networks as offered on the overlay.
    segments: SegmentSpec, SegmentId,
        list "/v1/segments", one "/v1/segments/{segment}",
        params(("segment" = String, Path, description = "Its name"));
    /// Agents that join a segment to its organisation's network.
    gateways: GatewaySpec, GatewayId,
        list "/v1/gateways", one "/v1/gateways/{gateway}",
        params(("gateway" = String, Path, description = "Its name"));
    /// Machines with a WireGuard key of their own.
    devices: DeviceSpec, DeviceId,
        list "/v1/devices", one "/v1/devices/{device}",
        params(("device" = String, Path, description = "Its name"));
    /// Sets of users.
    groups: GroupSpec, GroupPath,
        list "/v1/groups", one "/v1/organisations/{organisation}/groups/{group}",
        params(("organisation" = String, Path, description = "Whose it is"),
            ("group" = String, Path, description = "Its name"));
    /// Named persons.
    users: UserSpec, UserId,
        list "/v1/users", one "/v1/users/{user}",
        params(("user" = String, Path, description = "name@organisation"));
    /// Who may reach what, in all segments of an organisation.
    policies: PolicySpec, OrganisationId,
        list "/v1/policies", one "/v1/policies/{organisation}",
        params(("organisation" = String, Path, description = "Whose it is"));
    /// What is done with flow records.
    flow_settings: FlowSettingsSpec, OrganisationId,
        list "/v1/flow-settings", one "/v1/organisations/{organisation}/flow-settings",
        params(("organisation" = String, Path, description = "Whose records they are"));
}
