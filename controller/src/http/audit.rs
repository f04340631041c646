//! The audit trail: read it, verify it.

use axum::Json;
use axum::extract::State;
use partywall_proto::admin::{AuditRecord, AuditVerdict, Page};
use serde::Deserialize;

use super::Edge;
use super::extract::{Bearer, Params, page_limit};
use super::problem::{Refusal, Refused};

/// Which part of the audit trail.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// An organisation's name or `facilities`; the asker's own chain unless stated.
    chain: Option<String>,
    /// `next` of the page before; absent for the first page.
    cursor: Option<String>,
    /// Most items on the page: 1 to 1000, 100 unless stated.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Read a chain, oldest first.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(AuditParams),
    responses(
        (status = 200, description = "One page", body = Page<AuditRecord>), Refused))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
    Params(params): Params<AuditParams>,
) -> Result<Json<Page<AuditRecord>>, Refusal> {
    let limit = page_limit(params.limit)?;
    let (chain, cursor) = (params.chain.as_deref(), params.cursor.as_deref());
    Ok(Json(edge.app.audit(&principal, chain, cursor, limit).await?))
}

/// Recompute the hashes of every chain that the asker may see.
#[utoipa::path(get, path = "/v1/audit/verify", tag = "audit",
    responses(
        (status = 200, description = "One verdict for each chain", body = Vec<AuditVerdict>), Refused))]
pub(super) async fn verify(
    State(edge): State<Edge>,
    Bearer(principal): Bearer,
) -> Result<Json<Vec<AuditVerdict>>, Refusal> {
    Ok(Json(edge.app.audit_verify(&principal).await?))
}
