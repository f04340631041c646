//! Refusals on their way out.
//!
//! Every refusal leaves through [`Refusal`], so that none is without its type, its detail and the
//! headers that go with its status.

use axum::Json;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use partywall_proto::problem::{MEDIA_TYPE, Problem};

use crate::app::AppError;

/// A problem as an answer.
#[derive(Debug)]
pub(super) struct Refusal {
    problem: Problem,
    retry_after_s: Option<u64>,
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        name: &str,
        title: &str,
        detail: impl Into<String>,
    ) -> Self {
        Problem::new(status.as_u16(), name, title, detail).into()
    }

    /// The request's syntax or content is at fault.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "Request not understood", detail)
    }
}

/// Any refusal, as the OpenAPI document tells of it: every operation may answer so.
#[derive(utoipa::IntoResponses)]
#[response(status = "default", description = "Refused", content_type = "application/problem+json")]
pub(super) struct Refused(#[expect(dead_code, reason = "for the document alone")] Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, retry_after_s: None }
    }
}

impl From<AppError> for Refusal {
    fn from(error: AppError) -> Self {
        let retry_after_s =
            if let AppError::TooSoon { wait_s } = &error { Some(*wait_s) } else { None };
        let problem = error.problem();
        if problem.status >= 500 {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "a request failed inside the controller");
        }
        Self { problem, retry_after_s }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait_s) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait_s));
        }
        response
    }
}

/// For a path that no route has.
pub(super) async fn no_such_route(uri: Uri) -> Refusal {
    let detail =
        format!("there is nothing at {}; /v1/openapi.json lists what there is", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
}

/// For a path that has routes, but none with this method.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let detail =
        format!("{} does not take {method}; /v1/openapi.json lists what it takes", uri.path());
    let mut response = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Method not allowed",
        detail,
    )
    .into_response();
    // RFC 9110 §15.5.6 asks for the header; the router adds what it knows, and an empty list is allowed.
    response.headers_mut().entry(ALLOW).or_insert(HeaderValue::from_static(""));
    response
}
