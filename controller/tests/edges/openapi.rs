//! The OpenAPI document: committed, so that a change of the API shows in review, and complete.

use std::collections::BTreeSet;

use crate::controller::Controller;
use partywall_controller::http;
use reqwest::{Method, StatusCode};
use serde_json::Value;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi.json");

#[test]
fn the_document_is_the_committed_one() {
    let document = format!("{}\n", http::openapi().to_pretty_json().unwrap());
    if std::env::var_os("PARTYWALL_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(SNAPSHOT, &document).unwrap();
    }
    let committed = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    assert!(
        committed == document,
        "the API changed; look at the difference after PARTYWALL_UPDATE_SNAPSHOTS=1 cargo test -p partywall-controller --test edges, and commit it with the change"
    );
}

/// What design and guides promise; a route that comes or goes is a decision, not an accident.
const ROUTES: &str = "\
POST /v1/apply
GET /v1/audit
GET /v1/audit/verify
GET /v1/buildings
DELETE GET PUT /v1/buildings/{building}
GET /v1/devices
DELETE GET PUT /v1/devices/{device}
GET /v1/devices/{device}/stock-config
POST /v1/enrolment-codes
GET /v1/export
GET /v1/flow-settings
GET /v1/flows
GET /v1/flows/status
GET /v1/gateways
DELETE GET PUT /v1/gateways/{gateway}
GET /v1/groups
GET /v1/health
GET /v1/openapi.json
GET /v1/organisations
DELETE GET PUT /v1/organisations/{organisation}
DELETE GET PUT /v1/organisations/{organisation}/flow-settings
DELETE GET PUT /v1/organisations/{organisation}/groups/{group}
GET /v1/policies
DELETE GET PUT /v1/policies/{organisation}
POST /v1/policies/{organisation}/check
GET POST /v1/policies/{organisation}/diff
DELETE /v1/policies/{organisation}/observed
GET /v1/policies/{organisation}/status
GET POST /v1/policies/{organisation}/versions
GET /v1/policies/{organisation}/versions/{number}
POST /v1/policies/{organisation}/versions/{number}/restore
POST /v1/policies/{organisation}/what-if
GET /v1/policy-schema.json
GET /v1/segments
DELETE GET PUT /v1/segments/{segment}
GET /v1/sessions
DELETE /v1/sessions/{session}
POST /v1/sign-in
GET POST /v1/tokens
DELETE /v1/tokens/{token}
GET /v1/users
DELETE GET PUT /v1/users/{user}
PUT /v1/users/{user}/credentials
GET /v1/why
";

#[test]
fn every_route_is_in_the_document() {
    let routes: BTreeSet<String> = ROUTES.lines().flat_map(one_each).collect();
    assert_eq!(documented(), routes);
}

#[tokio::test]
async fn every_documented_route_is_served_and_wants_a_token_unless_it_says_otherwise() {
    let controller = Controller::in_memory().await;
    let served = controller.ok(Method::GET, "/v1/openapi.json", "", None).await;
    assert_eq!(served, serde_json::to_value(http::openapi()).unwrap());
    for route in documented() {
        let (method, path) = route.split_once(' ').unwrap();
        let open =
            served["paths"][path][method.to_lowercase()]["security"] == serde_json::json!([{}]);
        let method: Method = method.parse().unwrap();
        let filled = path.replace(['{', '}'], "");
        let answer = controller.request(method, &filled, "").send().await.unwrap();
        let expected = if open { answer.status() } else { StatusCode::UNAUTHORIZED };
        let found = answer.status();
        // A path that holds no name is looked at after the token.
        assert_eq!(found, expected, "{route}");
        assert!(
            found != StatusCode::NOT_FOUND && found != StatusCode::METHOD_NOT_ALLOWED,
            "{route}"
        );
    }
}

fn documented() -> BTreeSet<String> {
    let document = serde_json::to_value(http::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, verbs)| {
            let verbs: Vec<String> = verbs
                .as_object()
                .unwrap()
                .iter()
                .filter(|(_, operation)| operation.get("responses").is_some_and(Value::is_object))
                .map(|(verb, _)| format!("{} {path}", verb.to_uppercase()))
                .collect();
            verbs
        })
        .collect()
}

fn one_each(line: &str) -> Vec<String> {
    let (methods, path) = line.rsplit_once(' ').unwrap();
    methods.split(' ').map(|method| format!("{method} {path}")).collect()
}
