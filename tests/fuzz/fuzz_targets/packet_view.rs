//! Any bytes as an inner packet, and what a device answers to it if its policy refuses everything. Seeds:
//! `agent/datapath/corpus/packet_view`.
#![no_main]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall_datapath::RuleTable;
use partywall_datapath::packet::{Packet, parse};
use partywall_datapath::shard::{
    Limits, Outbox, PrivateKey, Role, Settings, Shard, Update, WallClock,
};
use partywall_proto::overlay::OverlayConfig;

/// A device that has the packet's source as its own address and a gateway for its destination, and no
/// rules; none if these are no addresses for that.
fn device(packet: &Packet<'_>, now: Instant, out: &mut Outbox) -> Option<Shard> {
    let (own, there) = (IpAddr::from(packet.source), IpAddr::from(packet.destination));
    let config: OverlayConfig = serde_json::from_str(&format!(
        r#"{{"version":1,"segment":"council","generation":1,"issued_at":"2026-01-01T00:00:00Z",
        "valid_until":"2026-01-02T00:00:00Z","rules":[],"agent":"device/desk",
        "interface":{{"addresses":["{own}"],"mtu":1420}},"role":"device","tunnel":"split",
        "session":{{"id":"s1","user":"alice@council","ends_at":"2026-01-01T08:00:00Z"}},
        "prefixes":["{there}"],"dns":{{}},"peers":[{{"agent":"gateway/gw",
        "public_key":"zo060cy2M+x7cMF4FKXHbs0CloUFDTRHRboFhw5YfVk=",
        "endpoints":["192.0.2.1:51820"],"allowed_ips":["{there}"]}}]}}"#
    ))
    .ok()?;
    let settings = Settings {
        shard: 0,
        shards: 1,
        role: Role::Device,
        private_key: PrivateKey::from([1; 32]),
        wall_clock: WallClock { read_at: now, since_epoch: Duration::from_secs(1_700_000_000) },
        limits: Limits { flows: 64, flows_per_peer: 64, ..Limits::for_role(Role::Device) },
    };
    let rules = Arc::new(RuleTable::compile(&config.rules));
    let mut shard = Shard::new(settings, now);
    shard.apply(&Update::Replace { config: Arc::new(config), rules }, now, out);
    Some(shard)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(packet) = parse(data) else { return };
    let (now, mut out) = (Instant::now(), Outbox::new());
    let Some(mut device) = device(&packet, now, &mut out) else { return };
    out.clear();
    device.handle_packet(data, now, &mut out);
    assert!(out.packets().packets().count() <= 2, "an error and a reset, and no more");
    for answer in out.packets().packets() {
        let read = parse(answer).expect("it is one of our own");
        assert_eq!(read.bytes.len(), answer.len());
        assert_eq!((read.source, read.destination), (packet.destination, packet.source));
    }
});
