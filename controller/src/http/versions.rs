//! Policies as texts, and their versions.
//!
//! `If-Match` holds the number of the version that a new one builds on, not a revision: it is what
//! people talk about.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use partywall_proto::admin::{
    Page, PolicyMode, PolicyPublished, PolicyReport, PolicyStatus, PolicyVersion, PolicyVersionText,
};
use partywall_proto::ids::OrganisationId;
use partywall_proto::problem::Problem;
use serde::Deserialize;

use super::Edge;
use super::extract::{Bearer, Named, PageParams, Params, Yaml};
use super::problem::{Refusal, Refused};
use super::revision::Expected;

/// The names in a version's path.
#[derive(Deserialize)]
pub(super) struct VersionPath {
    organisation: OrganisationId,
    number: u64,
}

/// A new version, with its number as `ETag`.
pub(super) struct Published(PolicyPublished);

impl IntoResponse for Published {
    fn into_response(self) -> Response {
        let tag = format!("\"{}\"", self.0.version.number);
        (StatusCode::CREATED, [(ETAG, tag)], Json(self.0)).into_response()
    }
}

/// Say what is wrong with a text, as publishing it now would; nothing is changed.
#[utoipa::path(post, path = "/v1/policies/{organisation}/check", tag = "policies",
    operation_id = "check_policy",
    params(("organisation" = String, Path, description = "Whose it is")),
    request_body(content = String, content_type = "application/yaml"),
    responses(
        (status = 200, description = "The findings; none means that it is good", body = PolicyReport),
        Refused))]
pub(super) async fn check(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(organisation): Named<OrganisationId>,
    Yaml(text): Yaml,
) -> Result<Json<PolicyReport>, Refusal> {
    Ok(Json(edge.app.check_policy(&principal, &organisation, &text).await?))
}

/// How a version is published.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PublishParams {
    /// `observe` puts it on trial beside the version in force; `enforce` unless stated.
    mode: Option<PolicyMode>,
}

/// Publish a text as the next version: in force, or on trial.
#[utoipa::path(post, path = "/v1/policies/{organisation}/versions", tag = "policies",
    operation_id = "publish_policy",
    params(("organisation" = String, Path, description = "Whose it is"), PublishParams,
        ("If-Match" = Option<String>, Header,
            description = "Publish only if this is the number of the last version, as in \"7\""),
        ("If-None-Match" = Option<String>, Header,
            description = "`*`: publish only if there is no version yet")),
    request_body(content = String, content_type = "application/yaml"),
    responses(
        (status = 201, description = "Agents are being told", body = PolicyPublished,
            headers(("ETag" = String, description = "Its number, for If-Match"))),
        (status = 412, description = "Published meanwhile; says by whom and when", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "Not valid; every finding is listed", body = Problem,
            content_type = "application/problem+json"), Refused))]
pub(super) async fn publish(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(organisation): Named<OrganisationId>,
    Params(params): Params<PublishParams>,
    Expected(if_match): Expected,
    Yaml(text): Yaml,
) -> Result<Published, Refusal> {
    let mode = params.mode.unwrap_or_default();
    let published = edge.app.publish_policy(&principal, &organisation, text, mode, if_match);
    Ok(Published(published.await?))
}

/// List the versions, the oldest first.
#[utoipa::path(get, path = "/v1/policies/{organisation}/versions", tag = "policies",
    operation_id = "list_policy_versions",
    params(("organisation" = String, Path, description = "Whose they are"), PageParams),
    responses((status = 200, description = "One page", body = Page<PolicyVersion>), Refused))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(organisation): Named<OrganisationId>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<PolicyVersion>>, Refusal> {
    let (cursor, limit) = (page.cursor.as_deref(), page.limit()?);
    Ok(Json(edge.app.policy_versions(&principal, &organisation, cursor, limit).await?))
}

/// Read one version, with its text.
#[utoipa::path(get, path = "/v1/policies/{organisation}/versions/{number}", tag = "policies",
    operation_id = "read_policy_version",
    params(("organisation" = String, Path, description = "Whose it is"),
        ("number" = u64, Path, description = "Which one")),
    responses((status = 200, description = "The version", body = PolicyVersionText), Refused))]
pub(super) async fn read(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(VersionPath { organisation, number }): Named<VersionPath>,
) -> Result<Json<PolicyVersionText>, Refusal> {
    Ok(Json(edge.app.policy_version(&principal, &organisation, number).await?))
}

/// Publish what an earlier version said as a new one, if it still holds.
#[utoipa::path(post, path = "/v1/policies/{organisation}/versions/{number}/restore", tag = "policies",
    operation_id = "restore_policy_version",
    params(("organisation" = String, Path, description = "Whose it is"),
        ("number" = u64, Path, description = "The earlier version"),
        ("If-Match" = Option<String>, Header,
            description = "Publish only if this is the number of the last version, as in \"7\"")),
    responses(
        (status = 201, description = "In force; agents are being told", body = PolicyPublished,
            headers(("ETag" = String, description = "Its number, for If-Match"))),
        (status = 412, description = "Published meanwhile; says by whom and when", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "Not valid any more; every finding is listed", body = Problem,
            content_type = "application/problem+json"), Refused))]
pub(super) async fn restore(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(VersionPath { organisation, number }): Named<VersionPath>,
    Expected(if_match): Expected,
) -> Result<Published, Refusal> {
    Ok(Published(edge.app.restore_policy(&principal, &organisation, number, if_match).await?))
}

/// Which version is in force, and which is on trial.
#[utoipa::path(get, path = "/v1/policies/{organisation}/status", tag = "policies",
    operation_id = "policy_status",
    params(("organisation" = String, Path, description = "Whose policy")),
    responses((status = 200, description = "The versions", body = PolicyStatus), Refused))]
pub(super) async fn status(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(organisation): Named<OrganisationId>,
) -> Result<Json<PolicyStatus>, Refusal> {
    Ok(Json(edge.app.policy_status(&principal, &organisation).await?))
}

/// End the trial of a version; the one in force stays.
#[utoipa::path(delete, path = "/v1/policies/{organisation}/observed", tag = "policies",
    operation_id = "end_policy_observation",
    params(("organisation" = String, Path, description = "Whose policy")),
    responses((status = 204, description = "Ended"), Refused))]
pub(super) async fn end_observation(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(organisation): Named<OrganisationId>,
) -> Result<StatusCode, Refusal> {
    edge.app.end_observation(&principal, &organisation).await?;
    Ok(StatusCode::NO_CONTENT)
}
