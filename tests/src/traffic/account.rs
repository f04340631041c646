//! Compares what took place with what flow records say of it.
//!
//! A conversation matches if exactly one record says that it opened and exactly one that it ended, both
//! under one id, and if what they count is what was sent.

use std::collections::HashMap;
use std::net::SocketAddr;

use partywall_proto::admin::StoredFlow;
use partywall_proto::flows::{FlowEvent, FlowRecord, Traffic};
use partywall_proto::nets::Protocol;
use partywall_proto::rules::Opener;

use super::Conversation;

/// A TCP header with all of its options (RFC 9293 §3.1), and one without.
const TCP_BYTES: std::ops::RangeInclusive<u64> = 20..=60;
const UDP_BYTES: u64 = 8;

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Account {
    /// Conversations of which the records say what took place.
    pub matched: usize,
    /// Conversations of which no record, or not every record, is there.
    pub missing: usize,
    /// What else is wrong with the records of a conversation.
    pub wrong: Vec<String>,
    /// Records of no conversation.
    pub strangers: Vec<StoredFlow>,
}

/// Compares. `records` are those of the device that had the `conversations`.
pub fn account(conversations: &[Conversation], records: &[StoredFlow]) -> Account {
    let mut by_name: HashMap<_, Vec<&StoredFlow>> = HashMap::new();
    for stored in records {
        by_name.entry(name(&stored.flow)).or_default().push(stored);
    }
    let mut account = Account::default();
    for conversation in conversations {
        let Conversation { protocol, from, to, .. } = *conversation;
        let mut told = by_name.remove(&(protocol, from, to)).unwrap_or_default();
        told.sort_by_key(|stored| stored.flow.event);
        match told.as_slice() {
            [opened, ended]
                if opened.flow.event == FlowEvent::Opened
                    && ended.flow.event == FlowEvent::Ended =>
            {
                match complaint(conversation, &opened.flow, &ended.flow) {
                    None => account.matched += 1,
                    Some(why) => account.wrong.push(format!("{why}: {opened:?} {ended:?}")),
                }
            }
            [] | [_] => account.missing += 1,
            others => account.wrong.push(format!("{conversation:?} is told as {others:?}")),
        }
    }
    account.strangers = by_name.into_values().flatten().cloned().collect();
    account
}

fn name(flow: &FlowRecord) -> (Protocol, SocketAddr, SocketAddr) {
    (
        flow.protocol,
        SocketAddr::new(flow.device_address, flow.device_port),
        SocketAddr::new(flow.network_address, flow.network_port),
    )
}

fn complaint(was: &Conversation, opened: &FlowRecord, ended: &FlowRecord) -> Option<String> {
    let mut wrong = Vec::new();
    if opened.id != ended.id {
        wrong.push("two ids".to_owned());
    }
    if opened.opener != Opener::Device || ended.opener != Opener::Device {
        wrong.push("the device opened it".to_owned());
    }
    if ended.reason.is_none() {
        wrong.push("it ended for a reason".to_owned());
    }
    // The packet that opened it is counted already.
    if (opened.to_network.packets, opened.to_device) != (1, Traffic::default()) {
        wrong.push("it opened with one packet".to_owned());
    }
    for (direction, counted) in [("network", ended.to_network), ("device", ended.to_device)] {
        if !is_plausible(was, counted) {
            wrong.push(format!("not what was sent to the {direction}"));
        }
    }
    (!wrong.is_empty()).then(|| wrong.join(", "))
}

fn is_plausible(was: &Conversation, counted: Traffic) -> bool {
    let Traffic { packets, bytes } = counted;
    let ip_bytes = if was.from.is_ipv4() { 20 } else { 40 };
    match was.protocol {
        Protocol::Udp => {
            let headers = was.datagrams * (ip_bytes + UDP_BYTES);
            (packets, bytes) == (was.datagrams, was.payload_bytes + headers)
        }
        Protocol::Tcp | Protocol::Icmp => {
            let least = was.payload_bytes + packets * (ip_bytes + TCP_BYTES.start());
            // Some of it may have been sent twice.
            let most = 2 * was.payload_bytes + packets * (ip_bytes + TCP_BYTES.end());
            packets >= 3 && (least..=most).contains(&bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Five bytes in one datagram, and the same back.
    fn was() -> Conversation {
        Conversation {
            protocol: Protocol::Udp,
            from: "100.64.0.9:10000".parse().unwrap(),
            to: "10.1.0.10:9000".parse().unwrap(),
            payload_bytes: 5,
            datagrams: 1,
        }
    }

    fn record(event: &str, id: &str, to_device: u64) -> StoredFlow {
        serde_json::from_value(json!({
            "reporter": "gateway/gw", "segment": "council",
            "flow": {
                "id": id, "event": event, "at": "2026-11-22T12:00:00Z", "device": "desk-1",
                "opener": "device", "device_address": "100.64.0.9", "network_address": "10.1.0.10",
                "protocol": "udp", "device_port": 10000, "network_port": 9000, "reason": "idle",
                "to_network": { "packets": 1, "bytes": 33 },
                "to_device": { "packets": to_device, "bytes": 33 * to_device },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_conversation_matches_only_what_took_place_told_once() {
        let (opened, ended) =
            (record("opened", "00000000000000aa", 0), record("ended", "00000000000000aa", 1));
        let of = |records: &[&StoredFlow]| {
            let records: Vec<_> = records.iter().copied().cloned().collect();
            let account = account(&[was()], &records);
            (account.matched, account.missing, account.wrong.len(), account.strangers.len())
        };
        assert_eq!(of(&[&ended, &opened]), (1, 0, 0, 0));
        assert_eq!(of(&[]), (0, 1, 0, 0));
        assert_eq!(of(&[&opened]), (0, 1, 0, 0));
        assert_eq!(of(&[&opened, &ended, &ended]), (0, 0, 1, 0));
        let other_id = record("ended", "00000000000000ab", 1);
        assert_eq!(of(&[&opened, &other_id]), (0, 0, 1, 0));
        let too_much = record("ended", "00000000000000aa", 2);
        assert_eq!(of(&[&opened, &too_much]), (0, 0, 1, 0));
        let mut stranger = opened.clone();
        stranger.flow.device_port = 10_001;
        assert_eq!(of(&[&opened, &ended, &stranger]), (1, 0, 0, 1));
    }
}
