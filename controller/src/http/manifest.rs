//! Everything at once: apply and export.

use axum::Json;
use axum::extract::State;
use partywall_proto::admin::{ApplyReport, Manifest};
use partywall_proto::problem::Problem;
use serde::Deserialize;

use super::Edge;
use super::extract::{Bearer, Body, Params};
use super::problem::{Refusal, Refused};

/// How to apply.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ApplyParams {
    /// True answers what would change, and changes nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Set up everything that the manifest describes, as one change: all of it or nothing.
#[utoipa::path(post, path = "/v1/apply", tag = "manifest", params(ApplyParams),
    request_body = Manifest,
    responses(
        (status = 200, description = "What was, or would be, changed", body = ApplyReport),
        (status = 422, description = "Not valid; every finding is listed", body = Problem,
            content_type = "application/problem+json"), Refused))]
pub(super) async fn apply(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Params(params): Params<ApplyParams>,
    Body(manifest): Body<Manifest>,
) -> Result<Json<ApplyReport>, Refusal> {
    Ok(Json(edge.app.apply(&principal, manifest, params.dry_run).await?))
}

/// Everything that the asker may see, as a manifest.
#[utoipa::path(get, path = "/v1/export", tag = "manifest",
    responses(
        (status = 200, description = "The manifest", body = Manifest), Refused))]
pub(super) async fn export(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
) -> Result<Json<Manifest>, Refusal> {
    Ok(Json(edge.app.export(&principal).await?))
}
