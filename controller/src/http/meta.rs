//! The API about itself: its OpenAPI document and its health.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::Edge;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Partywall controller",
        description = "Admin API. Every refusal is a problem (RFC 9457); an unknown field or parameter is refused.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    modifiers(&BearerScheme),
    security(("token" = []))
)]
pub(super) struct Document;

/// The document with all that the routes add to it.
pub(super) type Whole = Arc<utoipa::openapi::OpenApi>;

struct BearerScheme;

impl Modify for BearerScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token that `partywallctl token create` or `init` made"))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "meta", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn document(Extension(whole): Extension<Whole>) -> Json<utoipa::openapi::OpenApi> {
    Json(utoipa::openapi::OpenApi::clone(&whole))
}

/// Whether the controller answers.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Health {
    /// Always `ok`; a controller that cannot say so does not answer.
    status: &'static str,
    /// The controller's version.
    version: &'static str,
}

/// Whether the controller answers. Says nothing about anybody, so it takes no token.
#[utoipa::path(get, path = "/v1/health", tag = "meta", security(()),
    responses((status = 200, description = "It does", body = Health)))]
pub(super) async fn health(State(_edge): State<Edge>) -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}
