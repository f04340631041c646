//! A flow record as a syslog message (RFC 5424) in its frame (RFC 5425 §4.3).
//!
//! What is in the record goes into the message as JSON, and not into structured data, whose names would
//! need an enterprise number of our own (RFC 5424 §7.2.2). JSON has no line breaks or control characters.

use std::io::Write as _;

use partywall_proto::admin::StoredFlow;
use partywall_proto::flows::FlowEvent;
use partywall_proto::ids::AgentId;

/// Facility 13, "log audit" (RFC 5424 §6.2.1).
const FACILITY: u8 = 13;
/// Severity "informational".
const INFORMATIONAL: u8 = 6;
/// Severity "notice", for what was refused.
const NOTICE: u8 = 5;

/// Appends `stored` to `text`, framed.
pub(super) fn write(stored: &StoredFlow, text: &mut Vec<u8>) {
    let message = message(stored);
    // Writing to memory does not fail.
    let _written = write!(text, "{} ", message.len());
    text.extend(message);
}

fn message(stored: &StoredFlow) -> Vec<u8> {
    let flow = &stored.flow;
    let severity = match flow.event {
        FlowEvent::Refused => NOTICE,
        FlowEvent::Opened | FlowEvent::Ended => INFORMATIONAL,
    };
    // RFC 5424 §6.2.3 allows six digits of a second.
    let time = flow.at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    // The machine that says so; RFC 5424 §6.2.4 has a host's name there, without its role.
    let host = match &stored.reporter {
        AgentId::Device(device) => device.as_str(),
        AgentId::Gateway(gateway) => gateway.as_str(),
    };
    let (priority, event) = (8 * FACILITY + severity, flow.event);
    let mut message =
        format!("<{priority}>1 {time} {host} partywall - flow-{event} - ").into_bytes();
    serde_json::to_writer(&mut message, stored).expect("records have a JSON form");
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::testing::flow;

    #[test]
    fn a_message_is_what_rfc_5424_asks_for_and_its_frame_says_its_length() {
        let mut stored = flow("desk-1", 1);
        stored.flow.event = FlowEvent::Refused;
        stored.flow.reason = Some("line\nbreak".to_owned());
        let mut text = Vec::new();
        write(&stored, &mut text);
        let text = String::from_utf8(text).unwrap();
        let (length, message) = text.split_once(' ').unwrap();
        assert_eq!(length, message.len().to_string());
        let head = "<109>1 2026-11-22T08:00:01.000000Z gw-council partywall - flow-refused - {";
        assert!(message.starts_with(head), "{message}");
        assert!(!message.contains('\n'));
        let json = &message[head.len() - 1..];
        assert_eq!(serde_json::from_str::<StoredFlow>(json).unwrap(), stored);
    }
}
