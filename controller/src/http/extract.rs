//! What handlers take out of a request, each with a refusal that says which part of it is wrong.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use partywall_proto::admin::BODY_MAX_BYTES;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Edge;
use super::problem::Refusal;
use crate::app::{AppError, Principal};

/// Time for a body to come in; 10 MiB over 4 Mb/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Items on a page where the request does not say.
const PAGE_DEFAULT: usize = 100;
/// Most items on a page.
const PAGE_MAX: usize = 1000;

/// The bearer of a valid token.
pub(super) struct Bearer(pub(super) Principal);

impl FromRequestParts<Edge> for Bearer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refusal> {
        let token = bearer(&parts.headers).ok_or(AppError::Unauthenticated)?;
        Ok(Self(edge.app.authenticate(token).await?))
    }
}

/// The token in the header; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A JSON body. A field that is not known refuses the whole.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Edge> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Refusal> {
        match tokio::time::timeout(BODY_TIMEOUT, Json::from_request(request, edge)).await {
            Ok(Ok(Json(value))) => Ok(Self(value)),
            Ok(Err(rejection)) => Err(refused_body(&rejection)),
            Err(_elapsed) => Err(too_slow()),
        }
    }
}

/// A policy's text: YAML (RFC 9512).
pub(super) struct Yaml(pub(super) String);

impl FromRequest<Edge> for Yaml {
    type Rejection = Refusal;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Refusal> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/yaml") {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "Body is not YAML",
                "send YAML, with `Content-Type: application/yaml`",
            ));
        }
        match tokio::time::timeout(BODY_TIMEOUT, String::from_request(request, edge)).await {
            Ok(Ok(text)) => Ok(Self(text)),
            Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(too_large())
            }
            Ok(Err(rejection)) => Err(Refusal::bad_request(rejection.body_text())),
            Err(_elapsed) => Err(too_slow()),
        }
    }
}

fn too_large() -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-large",
        "Body too large",
        format!("a body has at most {BODY_MAX_BYTES} bytes; split the change"),
    )
}

fn too_slow() -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        "timeout",
        "Body too slow",
        "the body did not arrive in time; nothing was changed",
    )
}

fn refused_body(rejection: &JsonRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Body is not JSON",
            "send JSON, with `Content-Type: application/json`",
        ),
        _ => Refusal::bad_request(without_type_talk(&rejection.body_text())),
    }
}

/// axum says where in the body it stopped, behind a sentence about Rust types that helps nobody.
fn without_type_talk(text: &str) -> String {
    let at = text
        .strip_prefix("Failed to deserialize the JSON body into the target type: ")
        .or_else(|| text.strip_prefix("Failed to parse the request body as JSON: "));
    match at {
        Some(at) => format!("the body is not understood at {at}"),
        None => text.to_owned(),
    }
}

/// The names in the path.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Edge> for Named<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refusal> {
        match Path::from_request_parts(parts, edge).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(PathRejection::FailedToDeserializePathParams(refused)) => {
                Err(Refusal::bad_request(format!(
                    "the path holds a name that cannot be one: {}",
                    refused.body_text()
                )))
            }
            Err(other) => Err(Refusal::bad_request(other.body_text())),
        }
    }
}

/// The query. A parameter that is not known refuses the request: `dryrun` must not mean "do it".
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Edge> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, edge).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(QueryRejection::FailedToDeserializeQueryString(refused)) => {
                Err(Refusal::bad_request(format!(
                    "the query is not understood: {}",
                    refused.body_text()
                )))
            }
            Err(other) => Err(Refusal::bad_request(other.body_text())),
        }
    }
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// `next` of the page before; absent for the first page.
    pub(super) cursor: Option<String>,
    /// Most items on the page: 1 to 1000, 100 unless stated.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

impl PageParams {
    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        page_limit(self.limit)
    }
}

pub(super) fn page_limit(limit: Option<usize>) -> Result<usize, Refusal> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        limit => {
            Err(Refusal::bad_request(format!("limit={limit}: a page has 1 to {PAGE_MAX} items")))
        }
    }
}
