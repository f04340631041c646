//! A device's and a gateway's data path on real TUNs, in two network namespaces with a cable
//! between them.
//!
//! Each end lives on a thread of its own namespace, and so do its worker and its sockets.

mod shards;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use partywall_datapath::RuleTable;
use partywall_datapath::shard::{PrivateKey, Role, Update};
use partywall_proto::flows::{FlowEvent, FlowRecord};
use partywall_proto::ids::RuleId;
use partywall_proto::keys::WireguardKey;
use partywall_proto::nets::Protocol;
use partywall_proto::overlay::OverlayConfig;
use socket2::{Domain, Socket, Type};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{DataPlane, DataPlaneError, FlowQueue, Offloads, Options, SHARDS_MAX};
use crate::sys::netns::{self, shell};

const FWMARK: u32 = 0x5057;
const DEVICE_KEY: [u8; 32] = [1; 32];
const GATEWAY_KEY: [u8; 32] = [2; 32];
/// Past this something is broken, not slow.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long silence must last to count as cut: a thousand round trips.
const SILENCE: Duration = Duration::from_millis(300);
const BULK_BYTES: usize = 8 << 20;

fn options(role: Role, key: [u8; 32], listen_port: Option<u16>) -> Options {
    let tun_name = "pw-test0".to_owned();
    Options {
        tun_name,
        private_key: PrivateKey::from(key),
        role,
        listen_port,
        shards: 1,
        fwmark: FWMARK,
        offloads: Offloads::default(),
        steering: true,
        flows: FlowQueue::default(),
    }
}

fn public(private: [u8; 32]) -> WireguardKey {
    PublicKey::from(&StaticSecret::from(private)).to_bytes().into()
}

fn replace(json: String) -> Update {
    let config: OverlayConfig = serde_json::from_str(&json).unwrap();
    config.check().unwrap();
    let rules = Arc::new(RuleTable::compile(&config.rules));
    Update::Replace { config: Arc::new(config), rules }
}

const SESSION: &str = r#"{"id":"s1","user":"alice@council","ends_at":"2099-01-01T00:00:00Z"}"#;
const COMMON: &str = r#""version":1,"segment":"council","generation":1,"issued_at":"2026-01-01T00:00:00Z",
    "valid_until":"2099-01-01T00:00:00Z","rules":[
    {"id":"closed-4","action":"deny","match":{"opener":"device","prefix":"10.0.0.9"}},
    {"id":"closed-6","action":"deny","match":{"opener":"device","prefix":"fd00:10::9"}},
    {"id":"all-4","action":"allow","match":{"opener":"device","prefix":"10.0.0.0/8"}},
    {"id":"all-6","action":"allow","match":{"opener":"device","prefix":"fd00:10::/32"}}]"#;
const PSK: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";

fn device_update(gateway: &str) -> Update {
    replace(format!(
        r#"{{{COMMON},"agent":"device/desk-1","interface":{{"addresses":["100.64.0.5","fd00:64::5"],"mtu":1380}},
        "role":"device","session":{SESSION},"tunnel":"split","prefixes":["10.0.0.0/8","fd00:10::/32"],"dns":{{}},
        "peers":[{{"agent":"gateway/gw","public_key":"{}","preshared_key":"{PSK}","endpoints":["{gateway}"],
        "allowed_ips":["10.0.0.0/8","fd00:10::/32"]}}]}}"#,
        public(GATEWAY_KEY)
    ))
}

fn gateway_update() -> Update {
    replace(format!(
        r#"{{{COMMON},"agent":"gateway/gw","interface":{{"addresses":["100.64.0.1","fd00:64::1"],"mtu":1380,
        "listen_port":51820}},"role":"gateway","forwarding":"routed","pools":["100.64.0.0/16","fd00:64::/64"],
        "prefixes":["10.0.0.0/8","fd00:10::/32"],"peers":[{{"agent":"device/desk-1","public_key":"{}",
        "preshared_key":"{PSK}","allowed_ips":["100.64.0.5","fd00:64::5"],"session":{SESSION}}}]}}"#,
        public(DEVICE_KEY)
    ))
}

/// What the device asks of the gateway's thread.
enum Ask {
    Cut,
    Finish,
}

/// The gateway's end. Its own `lo` plays the organisation's network: a UDP echo and a TCP echo.
fn gateway(offloads: Offloads, thread: &Sender<i32>, asks: &Receiver<Ask>, done: &Sender<()>) {
    thread.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(matches!(asks.recv().unwrap(), Ask::Finish));
    shell(
        "ip link set lo up; ip link set gw0 up; ip addr add 192.0.2.1/24 dev gw0;
        ip addr add 10.0.0.1/32 dev lo; ip addr add fd00:10::1/128 dev lo nodad",
    );
    let options = options(Role::Gateway, GATEWAY_KEY, Some(51820));
    let flows = options.flows.clone();
    let plane = DataPlane::start(Options { offloads, ..options }).unwrap();
    assert_eq!(plane.local_port(), 51820);
    shell(
        "ip link set pw-test0 mtu 1380 up; ip route add 100.64.0.0/16 dev pw-test0;
        ip route add fd00:64::/64 dev pw-test0",
    );
    let echo = UdpSocket::bind("[::]:7").unwrap();
    let stream = TcpListener::bind("10.0.0.1:7").unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = echo.recv_from(&mut bytes) {
            if echo.send_to(&bytes[..length], from).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((connection, _)) = stream.accept() {
            let mut back = connection.try_clone().unwrap();
            let mut forth = connection;
            let _ = std::io::copy(&mut forth, &mut back);
            let _ = back.shutdown(Shutdown::Write);
        }
    });
    runtime.block_on(plane.apply(gateway_update())).unwrap();
    done.send(()).unwrap();
    while let Ok(Ask::Cut) = asks.recv() {
        runtime.block_on(plane.apply(Update::Clear)).unwrap();
        done.send(()).unwrap();
    }
    runtime.block_on(plane.stop());
    conversations_were_recorded(&flows);
}

/// Each conversation of the test was told of from its opening to its end, with what passed.
fn conversations_were_recorded(flows: &FlowQueue) {
    let records: Vec<_> = std::iter::from_fn(|| flows.take()).flat_map(|b| b.records).collect();
    let of = |event| records.iter().filter(move |record: &&FlowRecord| record.event == event);
    let opened: BTreeSet<_> = of(FlowEvent::Opened).map(|record| record.id).collect();
    let ended: BTreeSet<_> = of(FlowEvent::Ended).map(|record| record.id).collect();
    assert!(opened.len() >= 5 && opened == ended, "{records:?}");
    let bulk = of(FlowEvent::Ended).find(|record| record.protocol == Protocol::Tcp).unwrap();
    let sums = [bulk.to_network.bytes, bulk.to_device.bytes];
    assert!(sums.into_iter().all(|bytes| bytes > BULK_BYTES as u64), "{bulk:?}");
    assert!(sums.into_iter().all(|bytes| bytes < BULK_BYTES as u64 * 5 / 4), "{bulk:?}");
    let rule = bulk.rule.as_ref().map(RuleId::as_str);
    assert_eq!((bulk.device.as_str(), bulk.network_port, rule), ("desk-1", 7, Some("all-4")));
    assert_eq!(flows.lost_ever(), 0);
}

fn echoes(to: &str, wait: Duration) -> bool {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    let mut answer = [0; 16];
    socket.send(b"hello").is_ok()
        && socket.recv(&mut answer).is_ok_and(|length| &answer[..length] == b"hello")
}

/// Opens a connection that policy refuses: the program hears of it from its own machine, by the error, or
/// by the reset behind it where its kernel does not heed that.
fn is_refused_at_once(to: &str, by_error: i32) {
    let began = Instant::now();
    let to: SocketAddr = to.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    // `connect_timeout` asks for the reason in a second call, and now and then there is none any more.
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    let refused = socket.connect(&to.into()).unwrap_err();
    let known = [by_error, libc::ECONNREFUSED].map(Some).contains(&refused.raw_os_error());
    assert!(known, "{to}: {refused}");
    assert!(began.elapsed() < Duration::from_secs(1), "{to}: after {:?}", began.elapsed());
}

/// Sends a lot through a TCP echo and has every byte back.
fn bulk_comes_back_whole() {
    let sent: Vec<u8> = (0..BULK_BYTES).map(|at| (at % 251) as u8).collect();
    let mut stream = TcpStream::connect("10.0.0.1:7").unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::with_capacity(sent.len());
        stream.read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == sent, "{} of {} bytes came back as they were", received.len(), sent.len());
}

#[test]
fn a_device_reaches_what_is_behind_its_gateway_until_the_gateway_cuts_it() {
    device_and_gateway(Offloads { tun: true, udp: true });
}

#[test]
fn so_it_does_where_the_kernel_does_nothing_for_many_packets_at_once() {
    device_and_gateway(Offloads { tun: false, udp: true });
    device_and_gateway(Offloads { tun: true, udp: false });
    device_and_gateway(Offloads { tun: false, udp: false });
}

fn device_and_gateway(offloads: Offloads) {
    let (tell, thread) = channel();
    let (ask, asks) = channel();
    let (tell_done, done) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            netns::in_private_network(move || gateway(offloads, &tell, &asks, &tell_done))
        });
        netns::in_private_network_async(move || async move {
            let gateways_network = thread.recv().unwrap();
            shell(&format!(
                "ip link set lo up; ip link add lan0 type veth peer name gw0; ip link set gw0 netns {gateways_network};
                ip link set lan0 up; ip addr add 192.0.2.5/24 dev lan0"
            ));
            ask.send(Ask::Finish).unwrap();
            done.recv().unwrap();
            let options = options(Role::Device, DEVICE_KEY, None);
            let plane = DataPlane::start(Options { offloads, ..options }).unwrap();
            shell(
                "ip link set pw-test0 mtu 1380 up; ip addr add 100.64.0.5/32 dev pw-test0;
                ip addr add fd00:64::5/128 dev pw-test0 nodad; ip route add 10.0.0.0/8 dev pw-test0;
                ip route add fd00:10::/32 dev pw-test0",
            );
            assert!(
                !echoes("10.0.0.1:7", SILENCE),
                "something is carried before anything is allowed"
            );
            movable(plane.apply(device_update("192.0.2.1:51820"))).await.unwrap();
            assert!(echoes("10.0.0.1:7", DEADLINE) && echoes("[fd00:10::1]:7", DEADLINE));
            shell("ping -c 1 -W 5 10.0.0.1; ping -c 1 -W 5 fd00:10::1");
            bulk_comes_back_whole();
            is_refused_at_once("10.0.0.9:7", libc::EHOSTUNREACH);
            is_refused_at_once("[fd00:10::9]:7", libc::EACCES);
            shell(
                "nft 'table inet deaf { chain c { type filter hook input priority 0;
                icmp type destination-unreachable drop; icmpv6 type destination-unreachable drop; }; }'",
            );
            is_refused_at_once("10.0.0.9:7", libc::ECONNREFUSED);
            is_refused_at_once("[fd00:10::9]:7", libc::ECONNREFUSED);

            let report = movable(plane.report()).await.unwrap();
            assert!(
                report.received.bytes > BULK_BYTES as u64 && report.sent.bytes > BULK_BYTES as u64
            );
            assert!(report.drops["no-config"] > 0);
            assert!(report.peers[0].handshake_age.is_some_and(|age| age < DEADLINE));

            ask.send(Ask::Cut).unwrap();
            done.recv().unwrap();
            assert!(!echoes("10.0.0.1:7", SILENCE) && !echoes("[fd00:10::1]:7", SILENCE));
            drop(ask);
            movable(plane.stop()).await;
            netns::wait_until_gone("pw-test0");
        });
    });
}

#[test]
fn a_gateway_that_does_not_answer_is_called_again() {
    netns::in_private_network_async(|| async {
        shell("ip link set lo up");
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        silent.set_read_timeout(Some(DEADLINE)).unwrap();
        let plane = DataPlane::start(options(Role::Device, DEVICE_KEY, None)).unwrap();
        plane.apply(device_update(&silent.local_addr().unwrap().to_string())).await.unwrap();
        for _ in 0..2 {
            let mut datagram = [0; 2048];
            let (length, from) = silent.recv_from(&mut datagram).unwrap();
            // A handshake initiation (WireGuard whitepaper §5.4.2).
            assert_eq!((length, datagram[0], from.port()), (148, 1, plane.local_port()));
        }
        plane.stop().await;
    });
}

fn movable<T: Send>(value: T) -> T {
    value
}

#[test]
fn no_shards_are_refused_and_so_is_a_tun_that_somebody_holds() {
    netns::in_private_network_async(|| async {
        for asked in [0, SHARDS_MAX + 1] {
            let options = Options { shards: asked, ..options(Role::Device, DEVICE_KEY, None) };
            let refused = DataPlane::start(options);
            assert!(
                matches!(refused, Err(DataPlaneError::Shards { asked: again }) if again == asked)
            );
        }
        let first = DataPlane::start(options(Role::Device, DEVICE_KEY, None)).unwrap();
        let refused = DataPlane::start(options(Role::Device, DEVICE_KEY, None)).unwrap_err();
        assert!(refused.to_string().contains("another program holds it"), "{refused}");
        first.stop().await;
        netns::wait_until_gone("pw-test0");
        DataPlane::start(options(Role::Device, DEVICE_KEY, None)).unwrap().stop().await;
    });
}

#[test]
fn a_data_path_that_is_dropped_stops_carrying() {
    netns::in_private_network_async(|| async {
        let plane = DataPlane::start(options(Role::Device, DEVICE_KEY, None)).unwrap();
        let mut died = plane.died.clone();
        drop(plane);
        // The worker owns the other end, and drops it as it ends.
        let ended = tokio::time::timeout(DEADLINE, died.changed()).await.unwrap();
        assert!(ended.is_err(), "the worker died instead of stopping");
    });
}

#[test]
fn a_worker_that_loses_its_tun_is_told_and_whoever_asks_it_is_not_left_waiting() {
    netns::in_private_network_async(|| async {
        let plane = DataPlane::start(options(Role::Device, DEVICE_KEY, None)).unwrap();
        plane.apply(Update::Clear).await.unwrap();
        shell("ip link set pw-test0 up; ip link del pw-test0");
        let died = tokio::time::timeout(DEADLINE, movable(plane.stopped())).await.unwrap();
        assert!(died.to_string().contains("TUN"), "{died}");
        let refused = tokio::time::timeout(DEADLINE, plane.apply(Update::Clear)).await.unwrap();
        assert!(matches!(refused, Err(DataPlaneError::WorkerDied { shard: 0, .. })));
    });
}
