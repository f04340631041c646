//! The admin API over real TLS: what is promised of every route.

use std::sync::Arc;

use crate::controller::{Controller, building, organisation, problem};
use partywall_controller::store::Store;
use partywall_controller::store::sled::SledStore;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn what_was_applied_comes_back_in_the_export() {
    let directory = tempfile::tempdir().unwrap();
    let on_disk: Arc<dyn Store> = Arc::new(SledStore::open(directory.path()).unwrap());
    for controller in [Controller::in_memory().await, Controller::start(on_disk).await] {
        let (council, _nhs) = controller.two_organisations().await;
        let exported = controller.ok(Method::GET, "/v1/export", &council, None).await;
        let manifest = organisation("council", 0);
        for kind in ["segments", "gateways", "groups", "users", "policies"] {
            let name = |value: &Value| value["name"].clone();
            assert_eq!(
                exported[kind].as_array().map(|all| all.iter().map(name).collect::<Vec<_>>()),
                manifest[kind].as_array().map(|all| all.iter().map(name).collect::<Vec<_>>()),
                "{kind}"
            );
        }
        // Once more is no change, and so is a dry run of it.
        for path in ["/v1/apply", "/v1/apply?dry_run=true"] {
            let report = controller.ok(Method::POST, path, &council, Some(manifest.clone())).await;
            assert_eq!(report["changes"], json!([]), "{path}");
        }
        let facilities = &controller.facilities;
        let exported = controller.ok(Method::GET, "/v1/export", facilities, None).await;
        assert_eq!(exported["buildings"], building()["buildings"]);
    }
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let controller = Controller::in_memory().await;
    let path = "/v1/apply?dry_run=true";
    let facilities = &controller.facilities;
    let report = controller.ok(Method::POST, path, facilities, Some(building())).await;
    assert_eq!(report["changes"].as_array().unwrap().len(), 5);
    let exported = controller.ok(Method::GET, "/v1/export", facilities, None).await;
    assert_eq!(exported, json!({}));
}

#[tokio::test]
async fn a_bad_manifest_is_refused_whole_with_every_finding() {
    let controller = Controller::in_memory().await;
    let (council, _nhs) = controller.two_organisations().await;
    let before = controller.ok(Method::GET, "/v1/export", &council, None).await;
    let mut manifest = organisation("council", 1); // the NHS's pool
    manifest["users"][0]["groups"] = json!(["nobodys-group"]);
    manifest["policies"][0]["services"]["intranet"]["prefixes"] = json!(["203.0.113.0/24"]);
    let refused = controller
        .refused(
            Method::POST,
            "/v1/apply",
            &council,
            Some(manifest),
            StatusCode::UNPROCESSABLE_ENTITY,
        )
        .await;
    let findings = refused["errors"].as_array().unwrap();
    for at in ["segments/council", "users/alice@council", "policies/council"] {
        assert!(
            findings.iter().any(|finding| finding["at"].as_str().unwrap().starts_with(at)),
            "no finding at {at}: {refused}"
        );
    }
    assert_eq!(controller.ok(Method::GET, "/v1/export", &council, None).await, before);
}

#[tokio::test]
async fn an_unknown_field_or_parameter_is_refused_and_named() {
    let controller = Controller::in_memory().await;
    let facilities = controller.facilities.clone();
    let mut typo = building();
    typo["devices"][1]["bilding"] = json!("old-town-hall");
    let refused = controller
        .refused(Method::POST, "/v1/apply", &facilities, Some(typo), StatusCode::BAD_REQUEST)
        .await;
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("bilding") && detail.contains("devices[1]"), "{detail}");
    for (method, path, body) in [
        (Method::POST, "/v1/apply?dryrun=true", Some(building())),
        (Method::GET, "/v1/segments?curser=x", None),
        (Method::GET, "/v1/segments?limit=0", None),
        (Method::GET, "/v1/segments?limit=1001", None),
        (
            Method::POST,
            "/v1/tokens",
            Some(json!({"role": "facilities", "holder": "x", "lifetime_s": 60, "lifetime": 1})),
        ),
    ] {
        controller.refused(method, path, &facilities, body, StatusCode::BAD_REQUEST).await;
    }
    assert_eq!(controller.ok(Method::GET, "/v1/export", &facilities, None).await, json!({}));
}

#[tokio::test]
async fn a_write_on_top_of_an_old_revision_is_refused() {
    let controller = Controller::in_memory().await;
    controller.two_organisations().await;
    let facilities = &controller.facilities;
    let path = "/v1/buildings/old-town-hall";
    let first = controller.request(Method::GET, path, facilities).send().await.unwrap();
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let spec = |title: &str| json!({"name": "old-town-hall", "title": title, "underlay": ["192.168.77.0/24"]});
    let put = |title: &str, tag: &str| {
        controller
            .request(Method::PUT, path, facilities)
            .header("If-Match", tag)
            .json(&spec(title))
            .send()
    };
    let written = put("one", &tag).await.unwrap();
    assert_eq!(written.status(), StatusCode::OK);
    let newer = written.headers()["etag"].to_str().unwrap().to_owned();
    assert_ne!(newer, tag);
    problem(put("two", &tag).await.unwrap(), StatusCode::PRECONDITION_FAILED).await;
    let stored = controller.ok(Method::GET, path, facilities, None).await;
    assert_eq!(stored["spec"]["title"], "one");
    assert_eq!(format!("\"{}\"", stored["revision"]), newer);
    let only_new = controller
        .request(Method::PUT, path, facilities)
        .header("If-None-Match", "*")
        .json(&spec("three"))
        .send()
        .await
        .unwrap();
    problem(only_new, StatusCode::PRECONDITION_FAILED).await;
    let weak = put("four", "W/\"1\"").await.unwrap();
    problem(weak, StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn a_body_cannot_name_another_resource_than_its_path() {
    let controller = Controller::in_memory().await;
    let body = json!({"name": "annexe", "title": "Annexe", "underlay": ["192.168.78.0/24"]});
    let facilities = controller.facilities.clone();
    let path = "/v1/buildings/old-town-hall";
    let refused = controller
        .refused(Method::PUT, path, &facilities, Some(body), StatusCode::BAD_REQUEST)
        .await;
    assert!(refused["detail"].as_str().unwrap().contains("annexe"), "{refused}");
}

#[tokio::test]
async fn a_token_reaches_what_is_its_own_alone() {
    let controller = Controller::in_memory().await;
    let (council, nhs) = controller.two_organisations().await;
    let facilities = &controller.facilities;
    for (token, path) in [
        (&council, "/v1/gateways/gw-nhs"),
        (&council, "/v1/users/alice@nhs"),
        (&council, "/v1/policies/nhs"),
        (&council, "/v1/organisations/nhs/groups/staff"),
        (&nhs, "/v1/users/alice@council"),
        (facilities, "/v1/users/alice@council"),
        (facilities, "/v1/policies/council"),
    ] {
        let answer = controller.request(Method::GET, path, token).send().await.unwrap();
        let status = answer.status();
        assert!(
            matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND),
            "{path}: {status}"
        );
    }
    for (path, own) in [("/v1/users", "alice@council"), ("/v1/policies", "council")] {
        let listed = controller.ok(Method::GET, path, &council, None).await;
        let text = listed.to_string();
        assert!(text.contains(own) && !text.contains("nhs"), "{path}: {text}");
    }
    let chain =
        controller.request(Method::GET, "/v1/audit?chain=nhs", &council).send().await.unwrap();
    problem(chain, StatusCode::FORBIDDEN).await;
    let own = controller.ok(Method::GET, "/v1/audit?limit=2", &council, None).await;
    assert_eq!(own["items"].as_array().unwrap().len(), 2);
    assert!(own["next"].is_string());
    let verdicts = controller.ok(Method::GET, "/v1/audit/verify", &council, None).await;
    assert!(verdicts.as_array().unwrap().iter().all(|one| one.get("broken").is_none()));
}

#[tokio::test]
async fn a_revoked_token_is_a_stranger() {
    let controller = Controller::in_memory().await;
    let (council, _nhs) = controller.two_organisations().await;
    let tokens = controller.ok(Method::GET, "/v1/tokens", &council, None).await;
    let id = tokens["items"][0]["id"].as_str().unwrap();
    controller.ok(Method::DELETE, &format!("/v1/tokens/{id}"), &council, None).await;
    controller.refused(Method::GET, "/v1/tokens", &council, None, StatusCode::UNAUTHORIZED).await;
}

#[tokio::test]
async fn every_refusal_is_a_problem_that_says_what_to_do() {
    let controller = Controller::in_memory().await;
    let token = controller.facilities.clone();
    let cases = [
        (Method::GET, "/nowhere", token.as_str(), StatusCode::NOT_FOUND),
        (Method::GET, "/v1/segments/none", &token, StatusCode::NOT_FOUND),
        (Method::PATCH, "/v1/segments/council", &token, StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/v1/segments", "", StatusCode::UNAUTHORIZED),
        (Method::GET, "/v1/segments", "wrong", StatusCode::UNAUTHORIZED),
        (Method::GET, "/v1/segments/No_Name", &token, StatusCode::BAD_REQUEST),
        (Method::GET, "/agent/v1/stream", "", StatusCode::BAD_REQUEST),
    ];
    for (method, path, token, status) in cases {
        let refused = controller.refused(method, path, token, None, status).await;
        assert!(!refused["detail"].as_str().unwrap().is_empty(), "{refused}");
    }
    let raw = |body: Vec<u8>, kind: &'static str| {
        let request = controller.request(Method::POST, "/v1/apply", &token);
        request.header("content-type", kind).body(body).send()
    };
    let json_kind = "application/json";
    let refused =
        problem(raw(b"{".to_vec(), json_kind).await.unwrap(), StatusCode::BAD_REQUEST).await;
    assert!(refused["detail"].as_str().unwrap().contains("line 1"), "{refused}");
    let yaml = raw(b"{}".to_vec(), "application/yaml").await.unwrap();
    problem(yaml, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    let large = raw(vec![b' '; (10 << 20) + 1], json_kind).await.unwrap();
    problem(large, StatusCode::PAYLOAD_TOO_LARGE).await;
}

#[tokio::test]
async fn answers_are_nobodys_to_keep() {
    let controller = Controller::in_memory().await;
    let answer = controller.request(Method::GET, "/v1/health", "").send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.json::<Value>().await.unwrap()["status"], "ok");
}
