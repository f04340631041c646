//! Flow records: read them, and see how they fare.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use partywall_proto::admin::{FlowStatus, Page, StoredFlow};
use partywall_proto::flows::FlowEvent;
use partywall_proto::ids::{BuildingId, DeviceId, RuleId, UserId};
use partywall_proto::nets::Prefix;
use serde::Deserialize;

use super::Edge;
use super::extract::{Bearer, Params, page_limit};
use super::problem::{Refusal, Refused};
use crate::app::FlowFilter;

/// Which records. What is not stated does not narrow.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FlowParams {
    /// At this moment or later (RFC 3339).
    #[param(value_type = Option<String>)]
    from: Option<Timestamp>,
    /// Before this moment (RFC 3339).
    #[param(value_type = Option<String>)]
    until: Option<Timestamp>,
    /// Of this user's sessions.
    #[param(value_type = Option<String>)]
    user: Option<UserId>,
    /// Of this device.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// Of devices in this building.
    #[param(value_type = Option<String>)]
    building: Option<BuildingId>,
    /// `opened`, `refused` or `ended`.
    event: Option<FlowEvent>,
    /// With this address, or one in this prefix, at either end.
    #[param(value_type = Option<String>)]
    address: Option<Prefix>,
    /// Decided by this rule.
    #[param(value_type = Option<String>)]
    rule: Option<RuleId>,
    /// `true`: only where the policy version on trial would have decided otherwise.
    #[serde(default)]
    differing: bool,
    /// `next` of the page before; absent for the first page.
    cursor: Option<String>,
    /// Most items on the page: 1 to 1000, 100 unless stated.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Read the flow records of the asker's organisation, hour by hour, oldest first. A page may be short,
/// or empty, and still have a `next`: a filter that matches little is worked through in steps.
#[utoipa::path(get, path = "/v1/flows", tag = "flows", params(FlowParams),
    operation_id = "list_flows",
    responses(
        (status = 200, description = "One page", body = Page<StoredFlow>), Refused))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Params(params): Params<FlowParams>,
) -> Result<Json<Page<StoredFlow>>, Refusal> {
    let FlowParams {
        from,
        until,
        user,
        device,
        building,
        event,
        address,
        rule,
        differing,
        cursor,
        limit,
    } = params;
    let filter =
        FlowFilter { from, until, user, device, building, event, address, rule, differing };
    let limit = page_limit(limit)?;
    Ok(Json(edge.app.flows(&principal, filter, cursor.as_deref(), limit).await?))
}

/// What became of the flow records of the asker's organisation: kept, dropped, passed on.
#[utoipa::path(get, path = "/v1/flows/status", tag = "flows", operation_id = "flow_status",
    responses(
        (status = 200, description = "Counted since the controller started", body = FlowStatus), Refused))]
pub(super) async fn status(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
) -> Result<Json<FlowStatus>, Refusal> {
    Ok(Json(edge.app.flow_status(&principal).await?))
}
