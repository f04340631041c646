//! What any bytes from an agent go through on their way to becoming a message.

use partywall_proto::admin::StoredFlow;
use partywall_proto::agent_api::{CLIENT_MESSAGE_MAX_BYTES, ClientMessage};

/// # Panics
/// If a message that was read is not written and read again as the same, or if a flow record in it does
/// not stay one line of JSON.
pub(crate) fn exercise(data: &[u8]) {
    // The stream takes no longer frame.
    let Ok(text) = std::str::from_utf8(&data[..data.len().min(CLIENT_MESSAGE_MAX_BYTES)]) else {
        return;
    };
    let Ok(message) = serde_json::from_str::<ClientMessage>(text) else { return };
    let written = serde_json::to_string(&message).expect("what was read is written");
    assert_eq!(serde_json::from_str::<ClientMessage>(&written).ok().as_ref(), Some(&message));
    match message {
        ClientMessage::Enrol { proof, .. } | ClientMessage::Hello { proof, .. } => {
            assert!(proof.verify("a nonce that nobody signed").is_err(), "a signature was forged");
        }
        ClientMessage::Flows { records, .. } => {
            for flow in records {
                let stored = StoredFlow {
                    reporter: "gateway/gw".parse().expect("a name"),
                    segment: "council".parse().expect("a name"),
                    user: None,
                    building: None,
                    flow,
                };
                let line = serde_json::to_string(&stored).expect("a record is written");
                assert!(!line.contains('\n'), "a record of several lines");
                assert_eq!(serde_json::from_str::<StoredFlow>(&line).ok(), Some(stored));
            }
        }
        ClientMessage::Applied { .. }
        | ClientMessage::Rejected { .. }
        | ClientMessage::SignIn { .. }
        | ClientMessage::SignOut { .. }
        | ClientMessage::Status { .. } => {}
    }
}
