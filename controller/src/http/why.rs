//! Why something is let through or refused.

use axum::Json;
use axum::extract::State;
use partywall_proto::admin::{Endpoint, WhyReport};
use partywall_proto::flows::FlowId;
use partywall_proto::ids::DeviceId;
use partywall_proto::rules::Opener;
use serde::Deserialize;

use super::Edge;
use super::extract::{Bearer, Params};
use super::problem::{Refusal, Refused};
use crate::app::Opening;

/// What is asked about: either `from` and `to`, or `flow`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhyParams {
    /// The device, or the session's id.
    #[param(value_type = Option<String>)]
    from: Option<DeviceId>,
    /// The far end, as in `10.2.0.5:443/tcp`, `[fd10::10]:53/udp` or `10.2.0.5/icmp`; where the network
    /// opens the flow, its source with the device's own port.
    #[param(value_type = Option<String>)]
    to: Option<Endpoint>,
    /// The side that opens the flow: `device` unless stated, or `network`.
    opened_by: Option<Opener>,
    /// A recorded flow, by the id in its record.
    #[param(value_type = Option<String>)]
    flow: Option<FlowId>,
}

/// Say why something is let through or refused: the verdict at each end of a session of the asker's
/// organisation, with rule, policy version and who published it.
#[utoipa::path(get, path = "/v1/why", tag = "policies", params(WhyParams), operation_id = "why",
    responses(
        (status = 200, description = "The verdicts, and the answer in plain words", body = WhyReport),
        Refused))]
pub(super) async fn answer(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Params(params): Params<WhyParams>,
) -> Result<Json<WhyReport>, Refusal> {
    match params {
        WhyParams { from: Some(from), to: Some(far), opened_by, flow: None } => {
            let opening = Opening { opener: opened_by.unwrap_or(Opener::Device), far };
            Ok(Json(edge.app.why(&principal, &from, opening).await?))
        }
        WhyParams { from: None, to: None, opened_by: None, flow: Some(flow) } => {
            Ok(Json(edge.app.why_flow(&principal, flow).await?))
        }
        WhyParams { .. } => Err(Refusal::bad_request(
            "ask with `from` and `to` (and `opened_by`), or with `flow` alone",
        )),
    }
}
