//! What a policy would change, asked over the API before it is published.

use std::time::Instant;

use partywall_controller::flows::Flows;
use partywall_proto::admin::TokenCreated;
use partywall_proto::agent_api::ClientMessage;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::controller::{Controller, problem};
use crate::flows::{LIMITS, record};
use crate::stream::{DEADLINE, SignedIn};

/// In other words than those in force, with a wider net and without the intranet.
const DRAFT: &str = "\
version: 1
organisation: council
services:
  shell: { prefixes: [10.1.0.80/32], protocol: tcp, ports: [22] }
segments:
  council:
    rules:
      - name: shell
        who: { groups: [staff] }
        when: { devices: [shared-desk], buildings: [old-town-hall], sign_in: code }
        what: [{ service: shell }]
";

/// What is in force, by another name.
const SAME: &str = "\
version: 1
organisation: council
segments:
  council:
    rules:
      - name: web
        who: { groups: [staff] }
        what: [{ net: { prefixes: [10.1.0.10/32], protocol: tcp, ports: [443] } }]
";

impl Controller {
    async fn asked(&self, path: &str, token: &str, text: &str) -> reqwest::Response {
        let request = self.request(Method::POST, &format!("/v1/policies/council/{path}"), token);
        let request = request.header("content-type", "application/yaml").body(text.to_owned());
        request.send().await.unwrap()
    }

    async fn answer(&self, path: &str, token: &str, text: &str) -> Value {
        let response = self.asked(path, token, text).await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

#[tokio::test]
async fn a_draft_is_judged_by_what_took_place_and_by_whom_it_concerns() {
    let controller = Controller::in_memory().await;
    let flows = Flows::open(&controller.directory.path().join("flows"), LIMITS).unwrap();
    controller.app.keep_flows(flows);
    let SignedIn { council, nhs, mut gateway, session, desk: _desk } =
        SignedIn::alice(&controller).await;
    let now = controller.now();
    let seen = [
        (1_u64, "opened", "10.1.0.10", 443_u16, Some(&session), json!(null)),
        (2, "opened", "10.1.0.10", 443, Some(&session), json!(null)),
        (3, "refused", "10.1.0.80", 22, Some(&session), json!("no-rule")),
        (4, "refused", "10.1.0.80", 22, None, json!("no-rule")),
        (5, "refused", "10.1.0.80", 22, Some(&session), json!("wrong-source")),
    ];
    let records = seen.into_iter().map(|(id, event, address, port, session, reason)| {
        let mut flow = record(id, now);
        flow["event"] = json!(event);
        flow["network_address"] = json!(address);
        flow["network_port"] = json!(port);
        flow["session"] = json!(session);
        flow["reason"] = reason;
        serde_json::from_value(flow).unwrap()
    });
    gateway.wire.say(&ClientMessage::Flows { records: records.collect(), lost: 0 }).await;
    let stored = || controller.ok(Method::GET, "/v1/flows/status", &council, None);
    let begun = Instant::now();
    while stored().await["stored"] != 5 {
        assert!(begun.elapsed() < DEADLINE, "the records do not arrive");
    }

    let auditor = json!({ "role": "auditor", "organisation": "council", "holder": "Ida", "lifetime_s": 3600 });
    let auditor = controller.ok(Method::POST, "/v1/tokens", &council, Some(auditor)).await;
    let auditor: TokenCreated = serde_json::from_value(auditor).unwrap();
    let auditor = auditor.secret.expose().to_owned();
    for token in [&council, &auditor] {
        let report = controller.answer("what-if", token, DRAFT).await;
        let lines = |side: &str| {
            let line = |it: &Value| {
                (it["user"].clone(), it["destination"].clone(), it["conversations"].clone())
            };
            report[side].as_array().unwrap().iter().map(line).collect::<Vec<_>>()
        };
        let alice = json!("alice@council");
        assert_eq!(lines("cut"), [(alice.clone(), json!("intranet"), json!(2))]);
        assert_eq!(lines("allowed"), [(alice, json!("shell"), json!(1))]);
        assert_eq!((&report["conversations"], &report["complete"]), (&json!(4), &json!(true)));

        let same = controller.answer("what-if", token, SAME).await;
        assert_eq!((&same["cut"], &same["allowed"]), (&json!([]), &json!([])));
        let later = controller.answer("what-if?since=2099-01-01T00:00:00Z", token, DRAFT).await;
        assert_eq!(later["conversations"], 0);

        let diff = controller.answer("diff", token, DRAFT).await;
        let told: Vec<_> = diff["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (it["effect"].clone(), it["what"].clone(), it["when"]["buildings"].clone()))
            .collect();
        assert_eq!(
            told,
            [
                (json!("loses"), json!(["intranet"]), json!(null)),
                (json!("gains"), json!(["shell"]), json!(["old-town-hall"])),
            ]
        );
        assert_eq!(controller.answer("diff", token, SAME).await["changes"], json!([]));
        for verb in ["diff", "what-if"] {
            let typo = DRAFT.replace("[staff]", "[stuff]");
            let refused = controller.asked(verb, token, &typo).await;
            let refused = problem(refused, StatusCode::UNPROCESSABLE_ENTITY).await;
            assert_eq!(refused["errors"][0]["line"], 9, "{refused}");
        }
        let versions = "/v1/policies/council/diff?from=1";
        let none = controller.ok(Method::GET, versions, token, None).await;
        assert_eq!((&none["changes"], &none["complete"]), (&json!([]), &json!(true)));
    }
    for token in [&nhs, &controller.facilities] {
        for verb in ["diff", "what-if"] {
            problem(controller.asked(verb, token, DRAFT).await, StatusCode::FORBIDDEN).await;
        }
        let versions = "/v1/policies/council/diff?from=1";
        controller.refused(Method::GET, versions, token, None, StatusCode::FORBIDDEN).await;
    }
}
