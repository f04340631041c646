//! Flow records made up for tests.

use jiff::{SignedDuration, Timestamp};
use partywall_proto::admin::StoredFlow;
use serde_json::json;

/// The hour that every test begins in.
pub(super) fn hours_from_start(hours: i64) -> Timestamp {
    let start: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
    start + SignedDuration::from_hours(hours)
}

/// A flow of alice's that was opened at `device`, `seconds` after the start.
pub(super) fn flow(device: &str, seconds: i64) -> StoredFlow {
    serde_json::from_value(json!({
        "reporter": "gateway/gw-council", "segment": "council", "user": "alice@council", "building": "hq",
        "flow": {
            "id": "00000000000000aa", "event": "opened",
            "at": hours_from_start(0) + SignedDuration::from_secs(seconds),
            "device": device, "session": "s-1", "opener": "device",
            "device_address": "100.64.0.2", "network_address": "10.1.0.80", "protocol": "tcp",
            "device_port": 40000, "network_port": 443, "rule": "web", "policy": 7,
            "to_network": { "packets": 1, "bytes": 60 }, "to_device": { "packets": 0, "bytes": 0 },
        },
    }))
    .unwrap()
}
