//! What ten thousand peers cost one gateway shard: memory, and how many handshakes a core answers.
//!
//! `cargo run --release -p partywall-datapath --example peers [PEERS]`. Devices are shards of their own in
//! the same thread; only the gateway's share is timed.
#![expect(clippy::print_stdout, reason = "it is a program that prints")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::error::Error;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall_datapath::RuleTable;
use partywall_datapath::shard::{Limits, Outbox, PrivateKey, Role, Settings, Shard, Update};
use partywall_proto::keys::WireguardKey;
use partywall_proto::overlay::{OverlayConfig, Peer};
use x25519_dalek::{PublicKey, StaticSecret};

type Outcome<T> = Result<T, Box<dyn Error>>;

const GATEWAY: u32 = u32::MAX;

fn main() -> Outcome<()> {
    let peers: u32 = std::env::args().nth(1).map_or(Ok(10_000), |text| text.parse())?;
    let configs = (0..peers).map(device_peer).collect::<Outcome<Vec<Peer>>>()?;
    let config = gateway_config(configs)?;
    let before_kb = resident_kb()?;

    let begun = Instant::now();
    let mut gateway = shard(Role::Gateway, GATEWAY, Limits::for_role(Role::Gateway), begun);
    let mut out = Outbox::new();
    gateway.apply(&carry(config), begun, &mut out);
    println!("{peers} peers set in {:?}", begun.elapsed());
    println!("resident: {} KB; {before_kb} before", resident_kb()?);
    let stated = Shard::worst_case_bytes(&Limits::for_role(Role::Gateway), peers as usize);
    println!("stated as the worst: {} KB", stated / 1024);
    println!("due next, with no session: {:?}", gateway.poll_timeout());

    let mut handshakes = Cost::default();
    let mut first_data = Cost::default();
    for number in 0..peers {
        let now = Instant::now();
        let limits = Limits { flows: 16, fragments: 1, ..Limits::for_role(Role::Device) };
        let mut device = shard(Role::Device, number, limits, now);
        out.clear();
        device.apply(&carry(device_config(number)?), now, &mut out);
        let call = only(&out)?;
        let from = SocketAddr::from((Ipv4Addr::from_bits(0xc612_0000 | number), 51_820));
        handshakes.time(&mut gateway, from, &call, &mut out);
        let answer = only(&out)?;
        out.clear();
        let gateway_at = SocketAddr::from(([192, 0, 2, 1], 51_820));
        device.handle_datagram(gateway_at, &answer, Instant::now(), &mut out);
        let alive = only(&out)?;
        first_data.time(&mut gateway, from, &alive, &mut out);
    }
    println!("handshakes answered: {handshakes}");
    println!("first keepalives opened: {first_data}");
    println!("resident with all connected: {} KB", resident_kb()?);

    let (mut looks, begun) = (0_u32, Instant::now());
    let mut spent = Duration::ZERO;
    let until = begun + Duration::from_secs(120);
    // Time is not waited for: the tunnels find nothing due, and what is counted is the looks.
    while let Some(due) = gateway.poll_timeout().filter(|&due| due < until) {
        out.clear();
        let at = Instant::now();
        gateway.handle_timeout(due, &mut out);
        spent += at.elapsed();
        looks += 1;
    }
    println!("two idle minutes with all connected: {looks} wake-ups, {spent:?} of work");
    for (reason, count) in gateway.counters().drops().filter(|(_, count)| *count > 0) {
        println!("dropped: {count}, {}", reason.sentence());
    }
    Ok(())
}

/// How long each took, so that what the machine did meanwhile can be told from it.
#[derive(Default)]
struct Cost {
    took: Vec<Duration>,
}

impl Cost {
    fn time(&mut self, gateway: &mut Shard, from: SocketAddr, datagram: &[u8], out: &mut Outbox) {
        out.clear();
        let now = Instant::now();
        gateway.handle_datagram(from, datagram, now, out);
        self.took.push(now.elapsed());
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut took = self.took.clone();
        took.sort();
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        let mean = took.iter().sum::<Duration>() / took.len().max(1) as u32;
        let per_s = Duration::from_secs(1).as_nanos() / median.as_nanos().max(1);
        write!(f, "{}: median {median:?} ({per_s} a second), mean {mean:?}", took.len())
    }
}

fn only(out: &Outbox) -> Outcome<Vec<u8>> {
    Ok(out.datagrams().next().ok_or("nothing was said")?.bytes.to_vec())
}

fn shard(role: Role, number: u32, limits: Limits, now: Instant) -> Shard {
    let private_key = PrivateKey::from(secret(number));
    // Nobody is asked for a cookie: what is measured is the handshake.
    let limits = Limits { handshakes_per_s: u64::MAX, ..limits };
    Shard::new(Settings { shard: 0, shards: 1, role, private_key, limits }, now)
}

fn carry(config: OverlayConfig) -> Update {
    Update::Replace { config: Arc::new(config), rules: Arc::new(RuleTable::compile(&[])) }
}

fn secret(number: u32) -> [u8; 32] {
    let mut secret = [7; 32];
    // Not the first bytes: three of their bits say nothing (RFC 7748 §5).
    secret[8..12].copy_from_slice(&number.to_le_bytes());
    secret
}

fn public(number: u32) -> WireguardKey {
    let public = PublicKey::from(&StaticSecret::from(secret(number)));
    WireguardKey::from(*public.as_bytes())
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a40_0000 | (number + 2))
}

fn device_peer(number: u32) -> Outcome<Peer> {
    let mut json = format!(r#"{{"agent":"device/desk-{number}","public_key":"{}""#, public(number));
    let session = format!("session-{number}");
    write!(
        json,
        r#","session":{{"id":"{session}","user":"user-{number}@council","ends_at":"2026-01-01T08:00:00Z"}}
        ,"allowed_ips":["{}","fd64::{number:x}"],"classes":[1,2,3]}}"#,
        address(number)
    )?;
    Ok(serde_json::from_str(&json)?)
}

fn gateway_config(peers: Vec<Peer>) -> Outcome<OverlayConfig> {
    let role = r#""role":"gateway","forwarding":"nat","pools":["10.64.0.0/16"],"prefixes":["10.1.0.0/16"]"#;
    let mut config = config("gateway/gw", "10.64.0.1", role)?;
    config.peers = peers;
    Ok(config)
}

fn device_config(number: u32) -> Outcome<OverlayConfig> {
    let session = r#"{"id":"s1","user":"alice@council","ends_at":"2026-01-01T08:00:00Z"}"#;
    let role = format!(
        r#""role":"device","session":{session},"tunnel":"split","prefixes":["10.1.0.0/16"],"dns":{{}}"#
    );
    let address = address(number).to_string();
    let mut config = config(&format!("device/desk-{number}"), &address, &role)?;
    let gateway = format!(
        r#"{{"agent":"gateway/gw","public_key":"{}","endpoints":["192.0.2.1:51820"],
        "allowed_ips":["10.1.0.0/16"],"classes":[1]}}"#,
        public(GATEWAY)
    );
    config.peers = vec![serde_json::from_str(&gateway)?];
    Ok(config)
}

fn config(agent: &str, address: &str, role: &str) -> Outcome<OverlayConfig> {
    Ok(serde_json::from_str(&format!(
        r#"{{"version":1,"agent":"{agent}","segment":"council","generation":1,
        "issued_at":"2026-01-01T00:00:00Z","valid_until":"2026-01-02T00:00:00Z",
        "interface":{{"addresses":["{address}"],"mtu":1420}},{role},"peers":[],"rules":[]}}"#
    ))?)
}

/// What of this process is in memory (proc(5), `/proc/pid/status`).
fn resident_kb() -> Outcome<i64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmRSS")?;
    Ok(kb.parse()?)
}
