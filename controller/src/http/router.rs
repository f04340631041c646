//! Every route, one line each.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use partywall_proto::admin::BODY_MAX_BYTES;
use partywall_proto::agent_api::STREAM_PATH;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Refusal, no_such_method, no_such_route};
use super::resources::{
    buildings, devices, flow_settings, gateways, groups, organisations, policies, segments, users,
};
use super::{
    Edge, access, audit, effect, flows, manifest, meta, policy_schema, stream, versions, why,
};

/// Longest time from a request's head to its answer's; an apply of a building takes a fraction.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole edge as a service.
pub fn router(edge: Edge) -> Router {
    let (router, document) = routes().split_for_parts();
    router
        .layer(Extension(meta::Whole::new(document)))
        .route(STREAM_PATH, get(stream::open))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(to_its_end))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        // Answers hold secrets and personal data: they are nobody's to keep.
        .layer(header(CACHE_CONTROL, "no-store"))
        .layer(header(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(TraceLayer::new_for_http())
        .with_state(edge)
}

/// The OpenAPI document, as generated from the handlers.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The admin API; what is here is in the OpenAPI document.
fn routes() -> OpenApiRouter<Edge> {
    OpenApiRouter::with_openapi(meta::Document::openapi())
        .routes(routes!(meta::document))
        .routes(routes!(meta::health))
        .routes(routes!(policy_schema::policy_schema))
        .routes(routes!(manifest::apply))
        .routes(routes!(manifest::export))
        .routes(routes!(organisations::list))
        .routes(routes!(organisations::read, organisations::write, organisations::remove))
        .routes(routes!(buildings::list))
        .routes(routes!(buildings::read, buildings::write, buildings::remove))
        .routes(routes!(segments::list))
        .routes(routes!(segments::read, segments::write, segments::remove))
        .routes(routes!(gateways::list))
        .routes(routes!(gateways::read, gateways::write, gateways::remove))
        .routes(routes!(devices::list))
        .routes(routes!(devices::read, devices::write, devices::remove))
        .routes(routes!(groups::list))
        .routes(routes!(groups::read, groups::write, groups::remove))
        .routes(routes!(users::list))
        .routes(routes!(users::read, users::write, users::remove))
        .routes(routes!(policies::list))
        .routes(routes!(policies::read, policies::write, policies::remove))
        .routes(routes!(versions::check))
        .routes(routes!(effect::of_text, effect::of_versions))
        .routes(routes!(effect::what_if))
        .routes(routes!(versions::list, versions::publish))
        .routes(routes!(versions::read))
        .routes(routes!(versions::restore))
        .routes(routes!(versions::status))
        .routes(routes!(versions::end_observation))
        .routes(routes!(flow_settings::list))
        .routes(routes!(flow_settings::read, flow_settings::write, flow_settings::remove))
        .routes(routes!(flows::list))
        .routes(routes!(flows::status))
        .routes(routes!(why::answer))
        .routes(routes!(access::list_tokens, access::create_token))
        .routes(routes!(access::revoke_token))
        .routes(routes!(access::create_enrolment_code))
        .routes(routes!(access::set_credentials))
        .routes(routes!(access::list_sessions))
        .routes(routes!(access::revoke_session))
        .routes(routes!(access::sign_in))
        .routes(routes!(access::stock_config))
        .routes(routes!(audit::list))
        .routes(routes!(audit::verify))
}

fn header(
    name: axum::http::HeaderName,
    value: &'static str,
) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

/// Runs the request as a task of its own, so that an asker who hangs up cannot leave a change half
/// done, and bounds the wait for its answer.
async fn to_its_end(request: Request, next: Next) -> Response {
    let task = tokio::spawn(next.run(request));
    match tokio::time::timeout(REQUEST_TIMEOUT, task).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panicked)) => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The controller failed",
            "this is a fault of the controller; its log says more",
        )
        .into_response(),
        Err(_elapsed) => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            "Took too long",
            "no answer within 30 s; look whether the change was made before you repeat it",
        )
        .into_response(),
    }
}
