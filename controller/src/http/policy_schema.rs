//! The policy language as a JSON Schema, for editors that complete and check what somebody writes.
//!
//! It is a part of the OpenAPI document, whose schemas are of the same dialect, and so cannot say anything
//! else than what the API takes. What names refer to it does not know: that is for `check`.

use std::collections::BTreeMap;

use axum::{Extension, Json};
use partywall_proto::admin::PolicySpec;
use serde_json::{Value, json};
use utoipa::ToSchema as _;

use super::meta::Whole;

/// Where the schemas of an OpenAPI document are.
const COMPONENTS: &str = "#/components/schemas/";

/// The policy language as a JSON Schema (2020-12).
#[utoipa::path(get, path = "/v1/policy-schema.json", tag = "meta", security(()),
    operation_id = "policy_schema",
    responses((status = 200, description = "JSON Schema 2020-12", body = Object)))]
pub(super) async fn policy_schema(Extension(whole): Extension<Whole>) -> Json<Value> {
    Json(policy_schema_of(&whole))
}

/// The schema of a policy, with all that it refers to, out of `document`.
pub fn policy_schema_of(document: &utoipa::openapi::OpenApi) -> Value {
    let schemas = document.components.as_ref().map(|it| &it.schemas);
    let schema = |name: &str| serde_json::to_value(schemas?.get(name)?).ok();
    let whole = PolicySpec::name().into_owned();
    let mut found = BTreeMap::new();
    let mut ahead = vec![whole.clone()];
    while let Some(name) = ahead.pop() {
        if !found.contains_key(&name)
            && let Some(mut schema) = schema(&name)
        {
            refer_to_definitions(&mut schema, &mut ahead);
            found.insert(name, schema);
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Partywall policy, version 1",
        "$ref": format!("#/$defs/{whole}"),
        "$defs": found,
    })
}

/// Moves every reference in `schema` to the schema's own definitions; `names` gets those that are meant.
fn refer_to_definitions(schema: &mut Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (field, value) in fields {
                let target = value.as_str().and_then(|it| it.strip_prefix(COMPONENTS));
                match target.map(str::to_owned).filter(|_| field == "$ref") {
                    Some(name) => {
                        *value = format!("#/$defs/{name}").into();
                        names.push(name);
                    }
                    None => refer_to_definitions(value, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|it| refer_to_definitions(it, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
