//! The policy language's JSON Schema: what people write passes, and a slip does not.

use partywall_controller::http;
use reqwest::Method;
use serde_json::{Value, json};

use crate::controller::Controller;

/// The policies of a manifest, as they are written.
fn policies(manifest: &str) -> Vec<Value> {
    let manifest: Value = serde_saphyr::from_str(manifest).unwrap();
    manifest["policies"].as_array().unwrap().clone()
}

#[test]
fn the_schema_takes_what_is_documented_and_what_the_lab_uses_and_refuses_slips() {
    let schema = http::policy_schema_of(&http::openapi());
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let page = include_str!("../../../docs/policy-model.md");
    let documented = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let council = include_str!("../../../tests/manifests/council.yaml");
    let nhs = include_str!("../../../tests/manifests/nhs.yaml");
    for policy in [documented, council, nhs].into_iter().flat_map(policies) {
        let errors: Vec<_> = schema.iter_errors(&policy).map(|it| it.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{policy}");
    }
    let good = policies(documented).remove(0);
    for (at, slip) in [
        ("/version", json!(2)),
        ("/segments/council/rules/0/who", json!("nobody")),
        ("/segments/council/rules/0/action", json!("drop")),
        ("/segments/council/rules/0/whom", json!("everyone")),
        ("/segments/council/rules/2/when/device", json!(["managed"])),
        ("/services/intranet/ports", json!(80)),
        ("/tests/0/expect", json!("pass")),
    ] {
        let mut policy = good.clone();
        let (parent, field) = at.rsplit_once('/').unwrap();
        policy.pointer_mut(parent).unwrap()[field] = slip.clone();
        assert!(!schema.is_valid(&policy), "{at} {slip}");
    }
}

#[tokio::test]
async fn the_schema_is_served_to_anybody() {
    let controller = Controller::in_memory().await;
    let served = controller.ok(Method::GET, "/v1/policy-schema.json", "", None).await;
    assert_eq!(served, http::policy_schema_of(&http::openapi()));
}
