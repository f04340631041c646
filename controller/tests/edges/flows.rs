//! Flow records from a gateway's stream to the API and the command line, and over a kill.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use partywall_controller::flows::{FlowLimits, Flows, SinkLimits};
use partywall_proto::agent_api::{ClientMessage, IdentityProof, ServerMessage};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::flows::FlowRecord;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::command_line::Place;
use crate::controller::Controller;
use crate::stream::{DEADLINE, SignedIn, Wire, enrolment};

#[tokio::test]
async fn a_gateways_records_are_read_by_its_organisation_alone() {
    let controller = Controller::in_memory().await;
    let flows = Flows::open(&controller.directory.path().join("flows"), LIMITS).unwrap();
    controller.app.keep_flows(flows.clone());
    let SignedIn { council, nhs, mut gateway, session, mut desk } =
        SignedIn::alice(&controller).await;

    let now = controller.now();
    let records = [("opened", 443_u16), ("refused", 22)].map(|(event, port)| {
        let mut record = record(u64::from(port), now);
        record["event"] = event.into();
        record["session"] = session.clone().into();
        record["network_port"] = port.into();
        serde_json::from_value::<FlowRecord>(record).unwrap()
    });
    let message = ClientMessage::Flows { records: records.to_vec(), lost: 3 };
    gateway.wire.say(&message).await;
    let status = |token: String| {
        let controller = &controller;
        async move { controller.ok(Method::GET, "/v1/flows/status", &token, None).await }
    };
    let begun = Instant::now();
    while status(council.clone()).await["stored"] != 2 {
        assert!(begun.elapsed() < DEADLINE, "the records do not arrive");
    }
    assert_eq!(status(council.clone()).await["lost_at_gateways"], 3);
    let get = |query: &'static str, token: String| {
        let controller = &controller;
        let path = format!("/v1/flows{query}");
        async move { controller.ok(Method::GET, &path, &token, None).await["items"].clone() }
    };
    let all = get("", council.clone()).await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(
        (&all[0]["user"], &all[0]["building"]),
        (&json!("alice@council"), &json!("old-town-hall"))
    );
    assert_eq!(all[0]["flow"]["id"], "00000000000001bb");
    for (query, ports) in [
        ("?event=refused", vec![22]),
        ("?user=alice@council&limit=1", vec![443]),
        ("?address=10.1.0.0/24&rule=web", vec![443, 22]),
        ("?building=old-town-hall&device=desk-1", vec![443, 22]),
        ("?from=2099-01-01T00:00:00Z", vec![]),
        ("?until=2020-01-01T00:00:00Z", vec![]),
    ] {
        let found = get(query, council.clone()).await;
        let found: Vec<_> =
            found.as_array().unwrap().iter().map(|it| it["flow"]["network_port"].clone()).collect();
        assert_eq!(found, ports, "{query}");
    }
    assert_eq!(get("", nhs).await, json!([]));
    let facilities = &controller.facilities;
    controller.refused(Method::GET, "/v1/flows", facilities, None, StatusCode::FORBIDDEN).await;
    for (bad, status) in [
        ("cursor=3", StatusCode::UNPROCESSABLE_ENTITY),
        ("event=closed", StatusCode::BAD_REQUEST),
        ("usr=alice@council", StatusCode::BAD_REQUEST),
    ] {
        controller.refused(Method::GET, &format!("/v1/flows?{bad}"), &council, None, status).await;
    }

    // A device has nothing to report.
    desk.wire.say(&message).await;
    desk.refused_at_last().await;
}

#[tokio::test]
async fn a_killed_controller_keeps_what_was_reported_a_second_before() {
    let place = Place::initialised();
    let facilities = place.path("token");
    let mut serving = place.serve();
    let building = place.file("building.yaml", BUILDING);
    place.ctl(&facilities, &["apply", "-f", &building]);
    let create =
        ["token", "create", "--role", "admin", "--organisation", "council", "--holder", "n"];
    let admin = PathBuf::from(place.file("admin-token", &place.ctl(&facilities, &create)));
    place.ctl(&admin, &["apply", "-f", &place.file("council.yaml", COUNCIL)]);
    let code = place.ctl(&admin, &["enrol-code", "gateway/gw-council"]);
    let code: EnrolmentCode = code.trim().parse().unwrap();

    let key = SigningKey::from_bytes(&[5; 32]);
    let (address, ca) = (SocketAddr::from(([127, 0, 0, 1], place.port)), place.path("data/ca.pem"));
    let mut wire = Wire::open_at(address, &ca).await;
    let challenge = wire.challenge().await;
    wire.say(&enrolment(&code, &challenge, &key, 5)).await;
    assert!(matches!(wire.next().await, ServerMessage::Welcome { .. }));
    let now = Timestamp::now();
    for number in 0..200 {
        wire.say(&batch(number, now)).await;
    }
    let stored = || {
        let status = place.ctl(&admin, &["flows", "status", "--json"]);
        serde_json::from_str::<Value>(&status).unwrap()["stored"].as_u64().unwrap()
    };
    let begun = Instant::now();
    while stored() < 2000 {
        assert!(begun.elapsed() < DEADLINE, "the records are not written");
    }
    // More is on its way when the blow falls.
    for number in 200..300 {
        wire.say(&batch(number, now)).await;
    }
    let id = serving.0.id().to_string();
    assert!(Command::new("kill").args(["-KILL", &id]).status().unwrap().success());
    serving.0.wait().unwrap();

    let _serving = place.serve();
    let mut wire = Wire::open_at(address, &ca).await;
    let challenge = wire.challenge().await;
    let hello = ClientMessage::Hello {
        agent: "gateway/gw-council".parse().unwrap(),
        proof: IdentityProof::sign(&challenge, &key),
        holding: None,
        software: "test".to_owned(),
    };
    wire.say(&hello).await;
    wire.next().await;
    wire.say(&batch(1000, now)).await;
    let begun = Instant::now();
    while stored() < 10 {
        assert!(begun.elapsed() < DEADLINE, "nothing is written after the kill");
    }
    let listed = place.ctl(&admin, &["flows", "--json", "--limit", "100000"]);
    let ids: Vec<u64> = listed
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            u64::from_str_radix(line["flow"]["id"].as_str().unwrap(), 16).unwrap()
        })
        .collect();
    let (after, before): (Vec<u64>, Vec<u64>) = ids.iter().partition(|id| **id >= 10_000);
    assert!((2000..=3000).contains(&before.len()), "{} records are left", before.len());
    assert_eq!(before, (0..before.len() as u64).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(after, (10_000..10_010).collect::<Vec<_>>());
    let table = place.ctl(&admin, &["flows", "--limit", "3"]);
    assert!(table.contains("10.1.0.80:443") && table.lines().count() == 4, "{table}");
}

pub(crate) const LIMITS: FlowLimits =
    FlowLimits { budget_bytes: 1 << 30, sinks: SinkLimits { files: None, networks: Vec::new() } };

const BUILDING: &str = "\
organisations:
  - { name: council, title: The Council }
";

const COUNCIL: &str = "\
segments:
  - { name: council, organisation: council, title: Council, pools: [100.64.0.0/16], prefixes: [10.0.0.0/8], tunnel: split }
gateways:
  - { name: gw-council, segment: council, endpoints: ['198.51.100.10:51820'], forwarding: nat }
";

/// Ten records, numbered through.
fn batch(number: u64, at: Timestamp) -> ClientMessage {
    let records = (number * 10..number * 10 + 10)
        .map(|id| serde_json::from_value(record(id, at)).unwrap())
        .collect();
    ClientMessage::Flows { records, lost: 0 }
}

pub(crate) fn record(id: u64, at: Timestamp) -> Value {
    json!({
        "id": format!("{id:016x}"), "event": "opened", "at": at, "device": "desk-1",
        "opener": "device", "device_address": "100.64.0.2", "network_address": "10.1.0.80",
        "protocol": "tcp", "device_port": 40000, "network_port": 443, "rule": "web",
        "to_network": { "packets": 1, "bytes": 60 }, "to_device": { "packets": 0, "bytes": 0 },
    })
}
