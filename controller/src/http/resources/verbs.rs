//! List, read, write and delete, for any kind.

use axum::Json;
use axum::http::StatusCode;
use partywall_proto::admin::{Page, Versioned};

use crate::app::{GroupKey, Principal, Resource};
use crate::http::Edge;
use crate::http::extract::PageParams;
use crate::http::problem::Refusal;
use crate::http::revision::{Expected, Tagged};

pub(super) async fn list<K: Resource>(
    edge: &Edge,
    principal: &Principal,
    page: &PageParams,
) -> Result<Json<Page<Versioned<K>>>, Refusal> {
    let limit = page.limit()?;
    Ok(Json(edge.app.list(principal, page.cursor.as_deref(), limit).await?))
}

pub(super) async fn read<K: Resource>(
    edge: &Edge,
    principal: &Principal,
    key: &K::Key,
) -> Result<Tagged<K>, Refusal> {
    let resource = edge.app.get::<K>(principal, key).await?;
    Ok(Tagged { status: StatusCode::OK, resource })
}

pub(super) async fn write<K: Resource>(
    edge: &Edge,
    principal: &Principal,
    key: &K::Key,
    Expected(if_match): Expected,
    spec: K,
) -> Result<Tagged<K>, Refusal> {
    if spec.key() != *key {
        return Err(Refusal::bad_request(format!(
            "the path names {key}, the body {}; a resource cannot be renamed",
            spec.key()
        )));
    }
    let resource = edge.app.put(principal, spec, if_match).await?;
    Ok(Tagged { status: StatusCode::OK, resource })
}

pub(super) async fn remove<K: Resource>(
    edge: &Edge,
    principal: &Principal,
    key: &K::Key,
    Expected(if_match): Expected,
) -> Result<StatusCode, Refusal> {
    edge.app.delete::<K>(principal, key, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The names in a group's path.
#[derive(serde::Deserialize)]
pub(in crate::http) struct GroupPath {
    organisation: partywall_proto::ids::OrganisationId,
    group: partywall_proto::ids::GroupId,
}

impl From<GroupPath> for GroupKey {
    fn from(path: GroupPath) -> Self {
        Self { organisation: path.organisation, name: path.group }
    }
}
