//! `why` over the API and the command line.

use std::path::PathBuf;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::command_line::Place;
use crate::controller::Controller;
use crate::stream::SignedIn;

#[tokio::test]
async fn why_tells_both_verdicts_to_the_sessions_own_organisation_alone() {
    let controller = Controller::in_memory().await;
    let SignedIn { council, nhs, gateway: _gateway, desk: _desk, .. } =
        SignedIn::alice(&controller).await;

    let ask = |query: &'static str, token: String| {
        let controller = &controller;
        let path = format!("/v1/why?{query}");
        async move { controller.ok(Method::GET, &path, &token, None).await }
    };
    let allowed = ask("from=desk-1&to=10.1.0.10:443/tcp", council.clone()).await;
    let shown = |it: &Value| json!([it["agent"], it["action"], it["rule"], it["drop"]]);
    let ends = |it: &Value| [shown(&it["at_device"]), shown(&it["at_gateway"])];
    assert_eq!(
        ends(&allowed),
        [
            json!(["device/desk-1", "allow", "intranet", null]),
            json!(["gateway/gw-council", "allow", "intranet", null]),
        ]
    );
    let session = &allowed["session"];
    assert_eq!(
        json!([session["user"], session["segment"], session["building"], session["class"]]),
        json!(["alice@council", "council", "old-town-hall", "shared-desk"])
    );
    assert_eq!((&allowed["allowed"], &allowed["policy"]["number"]), (&json!(true), &json!(1)));
    let by = allowed["policy"]["published_by"].as_str().unwrap();
    assert!(by.starts_with("council network team"), "{by}");
    let network = ask("from=desk-1&to=10.1.0.10:443/tcp&opened_by=network", council.clone()).await;
    let refused = |agent: &str| json!([agent, "deny", null, "no-rule"]);
    assert_eq!(ends(&network), [refused("device/desk-1"), refused("gateway/gw-council")]);

    let other = ask("from=desk-1&to=10.1.0.10:443/tcp", nhs).await;
    assert_eq!((&other["session"], &other["at_gateway"]), (&Value::Null, &Value::Null));
    assert!(!other.to_string().contains("alice"), "{other}");

    let whole = "/v1/why?from=desk-1&to=10.1.0.10:443/tcp";
    controller
        .refused(Method::GET, whole, &controller.facilities, None, StatusCode::FORBIDDEN)
        .await;
    for bad in [
        "",
        "from=desk-1",
        "to=10.1.0.10:443/tcp",
        "from=desk-1&to=10.1.0.10",
        "from=desk-1&to=10.1.0.10:443/tcp&opened_by=moon",
        "from=desk-1&to=10.1.0.10:443/tcp&flow=00000000000000aa",
        "flow=00000000000000aa&opened_by=device",
        "flow=aa",
        "form=desk-1&to=10.1.0.10:443/tcp",
    ] {
        let path = format!("/v1/why?{bad}");
        controller.refused(Method::GET, &path, &council, None, StatusCode::BAD_REQUEST).await;
    }
}

#[test]
fn why_on_the_command_line_says_it_in_words_first() {
    let place = Place::initialised();
    let _serving = place.serve();
    let facilities = place.path("token");
    let building = place.file("building.yaml", "organisations: [{ name: council, title: C }]\n");
    place.ctl(&facilities, &["apply", "-f", &building]);
    let create =
        ["token", "create", "--role", "admin", "--organisation", "council", "--holder", "n"];
    let admin = PathBuf::from(place.file("admin-token", &place.ctl(&facilities, &create)));
    let ask = ["why", "--from", "desk-1", "--to", "10.2.0.5:443/tcp"];
    let said = place.ctl(&admin, &ask);
    assert!(
        said.starts_with("desk-1 may not reach 10.2.0.5:443/tcp: nobody of council is signed in"),
        "{said}"
    );
    let said = place.ctl(&admin, &[&ask[..], &["--json"]].concat());
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["allowed"], &said["far"]), (&json!(false), &json!("10.2.0.5:443/tcp")));
    let output = place.ctl_with(&admin, &["why", "--flow", "00000000000000aa"], "");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("flow 00000000000000aa"), "{text}");
}
