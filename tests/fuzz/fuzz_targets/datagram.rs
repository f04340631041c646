//! Any bytes at both ends of a tunnel, between true ones and made out of them: nothing panics, each is
//! counted or taken, and no packet comes out that the other end did not send.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall_datapath::RuleTable;
use partywall_datapath::shard::{
    Limits, Outbox, PrivateKey, Role, Settings, Shard, Update, WallClock,
};

/// Private keys 1 and 2 have these public ones.
const DEVICE_KEY: &str = "pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk=";
const GATEWAY_KEY: &str = "zo060cy2M+x7cMF4FKXHbs0CloUFDTRHRboFhw5YfVk=";
const HEAD: &str = r#""version":1,"segment":"council","generation":1,"issued_at":"2026-01-01T00:00:00Z",
    "valid_until":"2026-01-02T00:00:00Z","rules":[{"id":"all","action":"allow","match":{"opener":"device",
    "prefix":"10.1.0.0/16"}}]"#;
/// What the device sends: UDP from 10.64.0.5 to 10.1.0.80.
const PACKET: [u8; 32] = [
    0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 64, 0, 5, 10, 1, 0, 80, 0, 99, 0, 53, 0, 12, 0,
    0, 1, 2, 3, 4,
];

fn shard(role: Role, key: u8, config: &str, now: Instant, out: &mut Outbox) -> Shard {
    let settings = Settings {
        shard: 0,
        shards: 1,
        role,
        private_key: PrivateKey::from([key; 32]),
        wall_clock: WallClock { read_at: now, since_epoch: Duration::from_secs(1_700_000_000) },
        limits: Limits { flows: 64, flows_per_peer: 64, ..Limits::for_role(Role::Device) },
    };
    let config: partywall_proto::overlay::OverlayConfig =
        serde_json::from_str(config).expect("the config is ours");
    let rules = Arc::new(RuleTable::compile(&config.rules));
    let mut shard = Shard::new(settings, now);
    shard.apply(&Update::Replace { config: Arc::new(config), rules }, now, out);
    shard
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut now = Instant::now();
    let mut out = Outbox::new();
    let gateway = format!(
        r#"{{{HEAD},"agent":"gateway/gw","interface":{{"addresses":["10.64.0.1"],"mtu":1420}},"role":"gateway",
        "forwarding":"nat","pools":["10.64.0.0/16"],"prefixes":["10.1.0.0/16"],
        "peers":[{{"agent":"device/desk","public_key":"{DEVICE_KEY}","allowed_ips":["10.64.0.5"]}}]}}"#
    );
    let device = format!(
        r#"{{{HEAD},"agent":"device/desk","interface":{{"addresses":["10.64.0.5"],"mtu":1420}},"role":"device",
        "session":{{"id":"s1","user":"alice@council","ends_at":"2026-01-01T08:00:00Z"}},"tunnel":"split",
        "prefixes":["10.1.0.0/16"],"dns":{{}},"peers":[{{"agent":"gateway/gw","public_key":"{GATEWAY_KEY}",
        "endpoints":["192.0.2.1:51820"],"allowed_ips":["10.1.0.0/16"]}}]}}"#
    );
    let mut ends = [
        shard(Role::Gateway, 2, &gateway, now, &mut out),
        shard(Role::Device, 1, &device, now, &mut out),
    ];
    let from = [([192, 0, 2, 5], 40_000), ([192, 0, 2, 1], 51_820)].map(SocketAddr::from);
    // What was said lately, and to which end: the call is the first.
    let mut said: Vec<(usize, Vec<u8>)> =
        out.datagrams().map(|datagram| (0, datagram.bytes.to_vec())).collect();
    // Each step: what to do, to which of the datagrams, at which byte, and what to do to it.
    for &[step, which, at, flip] in data.as_chunks().0 {
        out.clear();
        let mut to = usize::from(step >> 7);
        match step & 7 {
            0..4 => {
                let Some((end, mut bytes)) =
                    said.get(usize::from(which) % said.len().max(1)).cloned()
                else {
                    continue;
                };
                to = end;
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= if step & 3 == 0 { 0 } else { flip };
                if step & 7 == 3 {
                    bytes.truncate(at);
                }
                // Once, and then again in the same read.
                let count = bytes.len();
                if flip & 1 != 0 {
                    bytes.extend_from_within(..);
                }
                let flush = |out: &mut Outbox| out.clear();
                ends[to].handle_datagrams(from[to], &mut bytes, count, now, &mut out, flush);
            }
            4 => {
                let (bytes, segment_bytes) = (&mut data.to_vec(), usize::from(which));
                let flush = |out: &mut Outbox| out.clear();
                ends[to].handle_datagrams(from[to], bytes, segment_bytes, now, &mut out, flush);
            }
            5 => {
                to = 1;
                ends[to].handle_packet(&PACKET, now, &mut out);
            }
            _ => {
                now += Duration::from_millis(u64::from(which) * 100);
                ends[to].handle_timeout(now, &mut out);
            }
        }
        for packet in out.packets().packets() {
            assert!(to == 0 && packet == PACKET, "only the gateway has something for its network");
        }
        said.extend(out.datagrams().map(|datagram| (1 - to, datagram.bytes.to_vec())));
        let old = said.len().saturating_sub(64);
        said.drain(..old);
    }
});
