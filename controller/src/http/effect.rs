//! What a policy would change, asked before it is published; nothing is changed by asking.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use partywall_proto::admin::{PolicyDiff, WhatIfReport};
use partywall_proto::ids::OrganisationId;
use partywall_proto::problem::Problem;
use serde::Deserialize;

use super::Edge;
use super::extract::{Bearer, Named, Params, Yaml};
use super::problem::{Refusal, Refused};

/// Say who would gain or lose what if a text took the place of the version in force.
#[utoipa::path(post, path = "/v1/policies/{organisation}/diff", tag = "policies",
    operation_id = "diff_policy",
    params(("organisation" = String, Path, description = "Whose policy")),
    request_body(content = String, content_type = "application/yaml"),
    responses(
        (status = 200, description = "The difference in effect", body = PolicyDiff),
        (status = 422, description = "Not valid; every finding is listed", body = Problem,
            content_type = "application/problem+json"), Refused))]
pub(super) async fn of_text(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(organisation): Named<OrganisationId>,
    Yaml(text): Yaml,
) -> Result<Json<PolicyDiff>, Refusal> {
    Ok(Json(edge.app.diff_policy(&principal, &organisation, &text).await?))
}

/// Which versions are compared.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffParams {
    /// The number of the earlier one.
    from: u64,
    /// The number of the later one; the version in force unless stated.
    to: Option<u64>,
}

/// Say who gained or lost what between two versions, for the people that there are now.
#[utoipa::path(get, path = "/v1/policies/{organisation}/diff", tag = "policies",
    operation_id = "diff_policy_versions",
    params(("organisation" = String, Path, description = "Whose policy"), DiffParams),
    responses(
        (status = 200, description = "The difference in effect", body = PolicyDiff), Refused))]
pub(super) async fn of_versions(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(organisation): Named<OrganisationId>,
    Params(DiffParams { from, to }): Params<DiffParams>,
) -> Result<Json<PolicyDiff>, Refusal> {
    Ok(Json(edge.app.diff_versions(&principal, &organisation, from, to).await?))
}

/// Which records are looked at.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhatIfParams {
    /// At this moment or later (RFC 3339); the last seven days unless stated.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
}

/// Say which recorded conversations a text would have cut, and which it would have allowed.
#[utoipa::path(post, path = "/v1/policies/{organisation}/what-if", tag = "policies",
    operation_id = "what_if",
    params(("organisation" = String, Path, description = "Whose policy"), WhatIfParams),
    request_body(content = String, content_type = "application/yaml"),
    responses(
        (status = 200, description = "By person and service", body = WhatIfReport),
        (status = 422, description = "Not valid; every finding is listed", body = Problem,
            content_type = "application/problem+json"), Refused))]
pub(super) async fn what_if(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(organisation): Named<OrganisationId>,
    Params(WhatIfParams { since }): Params<WhatIfParams>,
    Yaml(text): Yaml,
) -> Result<Json<WhatIfReport>, Refusal> {
    Ok(Json(edge.app.what_if(&principal, &organisation, &text, since).await?))
}
