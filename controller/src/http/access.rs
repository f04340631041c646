//! Tokens, enrolment codes, credentials and sessions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use partywall_proto::admin::{
    CredentialCreated, CredentialRequest, EnrolmentCodeCreated, EnrolmentCodeRequest, Page,
    SessionView, SignInRequest, Token, TokenCreated, TokenRequest,
};
use partywall_proto::ids::{DeviceId, SegmentId, SessionId, TokenId, UserId};
use partywall_proto::problem::Problem;
use serde::Deserialize;

use super::Edge;
use super::extract::{Bearer, Body, Named, PageParams, Params};
use super::problem::{Refusal, Refused};

/// List tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(PageParams),
    responses(
        (status = 200, description = "One page", body = Page<Token>), Refused))]
pub(super) async fn list_tokens(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<Token>>, Refusal> {
    let limit = page.limit()?;
    Ok(Json(edge.app.list_tokens(&principal, page.cursor.as_deref(), limit).await?))
}

/// Make a token. Its secret is in this answer and in no other.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses(
        (status = 201, description = "The token with its secret", body = TokenCreated), Refused))]
pub(super) async fn create_token(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<TokenCreated>), Refusal> {
    let created = edge.app.create_token(&principal, request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Make a token useless.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens",
    params(("token" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "Revoked"), Refused))]
pub(super) async fn revoke_token(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(token): Named<TokenId>,
) -> Result<StatusCode, Refusal> {
    edge.app.revoke_token(&principal, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make a single-use code that lets one machine enrol.
#[utoipa::path(post, path = "/v1/enrolment-codes", tag = "enrolment",
    request_body = EnrolmentCodeRequest,
    responses(
        (status = 201, description = "The code", body = EnrolmentCodeCreated), Refused))]
pub(super) async fn create_enrolment_code(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Body(request): Body<EnrolmentCodeRequest>,
) -> Result<(StatusCode, Json<EnrolmentCodeCreated>), Refusal> {
    let created = edge.app.create_enrolment_code(&principal, request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Set a user's password and make a new one-time-code secret, which is in this answer alone.
#[utoipa::path(put, path = "/v1/users/{user}/credentials", tag = "users",
    params(("user" = String, Path, description = "name@organisation")),
    request_body = CredentialRequest,
    responses(
        (status = 200, description = "The new secret", body = CredentialCreated), Refused))]
pub(super) async fn set_credentials(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(user): Named<UserId>,
    Body(request): Body<CredentialRequest>,
) -> Result<Json<CredentialCreated>, Refusal> {
    Ok(Json(edge.app.set_credentials(&principal, &user, request).await?))
}

/// List the live sessions that the asker may see.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(PageParams),
    responses(
        (status = 200, description = "One page", body = Page<SessionView>), Refused))]
pub(super) async fn list_sessions(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<SessionView>>, Refusal> {
    let limit = page.limit()?;
    Ok(Json(edge.app.sessions(&principal, page.cursor.as_deref(), limit).await?))
}

/// End a session. Its open flows are cut at once.
#[utoipa::path(delete, path = "/v1/sessions/{session}", tag = "sessions",
    params(("session" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "Ended"), Refused))]
pub(super) async fn revoke_session(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(session): Named<SessionId>,
) -> Result<StatusCode, Refusal> {
    edge.app.revoke_session(&principal, &session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign a person in for a stock client. Takes no token: password and code are the proof.
#[utoipa::path(post, path = "/v1/sign-in", tag = "sessions", request_body = SignInRequest,
    security(()),
    responses(
        (status = 201, description = "The session", body = SessionView),
        (status = 429, description = "Too many failures; Retry-After says how long to wait",
            body = Problem, content_type = "application/problem+json"), Refused))]
pub(super) async fn sign_in(
    State(edge): State<Edge>,
    Body(request): Body<SignInRequest>,
) -> Result<(StatusCode, Json<SessionView>), Refusal> {
    let session = edge.app.sign_in_stock(request).await?;
    Ok((StatusCode::CREATED, Json(session)))
}

/// Which segment's config.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StockConfigParams {
    /// The segment.
    #[param(value_type = String)]
    segment: SegmentId,
}

/// A wg-quick file for a stock client, without its private key, which never leaves the device.
#[utoipa::path(get, path = "/v1/devices/{device}/stock-config", tag = "devices",
    params(("device" = String, Path, description = "The stock client"), StockConfigParams),
    responses(
        (status = 200, description = "The file", body = String, content_type = "text/plain"), Refused))]
pub(super) async fn stock_config(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Named(device): Named<DeviceId>,
    Params(params): Params<StockConfigParams>,
) -> Result<String, Refusal> {
    let config = edge.app.stock_config(&principal, &device, &params.segment).await?;
    Ok(config.expose().to_owned())
}
