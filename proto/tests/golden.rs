//! Golden files: what crossed a process once must still be read, and written again to the same bytes.
//!
//! A file here is never edited to make a test pass. A new layout gets a new file beside the old one.

use std::fmt::Debug;

use partywall_proto::admin::{AuditRecord, Manifest};
use partywall_proto::agent_api::{ClientMessage, ServerMessage};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::envelope::Payload;
use partywall_proto::problem::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(golden: &str) -> T {
    let value: T = serde_json::from_str(golden).expect("a golden file is read");
    let written = serde_json::to_string_pretty(&value).expect("it is written") + "\n";
    assert_eq!(written, golden, "written anew:\n{written}");
    value
}

#[test]
fn overlay_configs_and_deltas_of_version_1_survive() {
    for golden in [
        include_str!("golden/config-v1-gateway.json"),
        include_str!("golden/config-v1-device.json"),
        include_str!("golden/delta-v1.json"),
        include_str!("golden/delta-v1-policy.json"),
    ] {
        let payload: Payload = survives(golden);
        assert_eq!(Payload::from_json(golden).unwrap(), payload);
    }
}

#[test]
fn the_golden_delta_leads_on_from_the_golden_config() {
    let config = Payload::from_json(include_str!("golden/config-v1-gateway.json")).unwrap();
    let delta = Payload::from_json(include_str!("golden/delta-v1.json")).unwrap();
    let (Payload::Snapshot(config), Payload::Delta(delta)) = (config, delta) else {
        panic!("the golden files are a snapshot and a delta");
    };
    let next = config.with(&delta).unwrap();
    let agents: Vec<String> = next.peers.iter().map(|peer| peer.agent.to_string()).collect();
    assert_eq!(agents, ["device/desk-1", "device/desk-2"]);
    assert_eq!((next.generation, next.rules.len()), (delta.generation, 1));
}

#[test]
fn every_agent_message_survives() {
    let mut sent: Vec<ClientMessage> = survives(include_str!("golden/client-messages.json"));
    let flows: Vec<ClientMessage> = survives(include_str!("golden/client-messages-flows.json"));
    sent.extend(flows);
    let kinds = |message: &ClientMessage| match message {
        ClientMessage::Enrol { .. } => 0,
        ClientMessage::Hello { .. } => 1,
        ClientMessage::Applied { .. } => 2,
        ClientMessage::Rejected { .. } => 3,
        ClientMessage::SignIn { .. } => 4,
        ClientMessage::SignOut { .. } => 5,
        ClientMessage::Status { .. } => 6,
        ClientMessage::Flows { .. } => 7,
    };
    all_of(8, sent.iter().map(kinds));
}

#[test]
fn every_controller_message_survives() {
    let sent: Vec<ServerMessage> = survives(include_str!("golden/server-messages.json"));
    let kinds = |message: &ServerMessage| match message {
        ServerMessage::Challenge { .. } => 0,
        ServerMessage::Welcome { .. } => 1,
        ServerMessage::Config { .. } => 2,
        ServerMessage::Nothing { .. } => 3,
        ServerMessage::SignedIn { .. } => 4,
        ServerMessage::SignedOut { .. } => 5,
        ServerMessage::Refused { .. } => 6,
    };
    all_of(7, sent.iter().map(kinds));
}

#[test]
fn what_admins_read_and_write_survives() {
    survives::<Manifest>(include_str!("golden/manifest.json"));
    survives::<AuditRecord>(include_str!("golden/audit-record.json"));
    survives::<Problem>(include_str!("golden/problem.json"));
}

#[test]
fn a_printed_enrolment_code_is_still_read() {
    let golden = include_str!("golden/enrolment-code.txt");
    let code: EnrolmentCode = golden.parse().unwrap();
    assert_eq!(code.address(), "controller.example:8443");
    assert_eq!((code.token(), code.ca_fingerprint()), (&[1; 16], &[2; 32]));
    assert_eq!(code.to_text() + "\n", golden);
}

/// Every kind has an example in the file.
fn all_of(count: usize, kinds: impl Iterator<Item = usize>) {
    let seen: std::collections::BTreeSet<usize> = kinds.collect();
    assert_eq!(seen, (0..count).collect());
}
