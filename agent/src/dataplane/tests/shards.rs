//! Several devices at a gateway of several shards, on real TUNs: every flow keeps its order, whoever finds
//! the owner, the kernel or the shards among themselves.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{COMMON, DEADLINE, GATEWAY_KEY, PSK, SESSION, options, public, replace};
use crate::dataplane::{DataPlane, Options, PrivateKey, Report, Role, Update};
use crate::sys::netns::{Elsewhere, in_private_network, shell};

/// Devices by the last part of their addresses: one and more for each of up to four shards.
const DEVICES: [u8; 5] = [5, 6, 7, 8, 9];
/// UDP flows of each device, half of them over IPv6.
const FLOWS: usize = 4;
/// Messages of each flow.
const MESSAGES: u32 = 1500;
/// Messages of a flow that are under way at a time.
const WINDOW: u32 = 16;
/// After this a message is lost: a busy machine loses some, and that is not what this is about.
const PATIENCE: Duration = Duration::from_secs(1);
const STREAM_BYTES: usize = 2 << 20;

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

fn key(device: u8) -> [u8; 32] {
    [device; 32]
}

fn gateway_update() -> Update {
    let peer = |device: &u8| {
        format!(
            r#"{{"agent":"device/desk-{device}","public_key":"{}","preshared_key":"{PSK}",
            "allowed_ips":["100.64.0.{device}","fd00:64::{device}"],"session":{SESSION}}}"#,
            public(key(*device))
        )
    };
    let peers = DEVICES.iter().map(peer).collect::<Vec<_>>().join(",");
    replace(format!(
        r#"{{{COMMON},"agent":"gateway/gw","interface":{{"addresses":["100.64.0.1","fd00:64::1"],"mtu":1380,
        "listen_port":51820}},"role":"gateway","forwarding":"routed","pools":["100.64.0.0/16","fd00:64::/64"],
        "prefixes":["10.0.0.0/8","fd00:10::/32"],"peers":[{peers}]}}"#
    ))
}

fn device_update(device: u8) -> Update {
    replace(format!(
        r#"{{{COMMON},"agent":"device/desk-{device}","interface":{{"addresses":["100.64.0.{device}",
        "fd00:64::{device}"],"mtu":1380}},"role":"device","session":{SESSION},"tunnel":"split",
        "prefixes":["10.0.0.0/8","fd00:10::/32"],"dns":{{}},"peers":[{{"agent":"gateway/gw",
        "public_key":"{}","preshared_key":"{PSK}","endpoints":["192.0.2.1:51820"],
        "allowed_ips":["10.0.0.0/8","fd00:10::/32"]}}]}}"#,
        public(GATEWAY_KEY)
    ))
}

/// The gateway, with the organisation's network on its own `lo`: echoes of UDP and of TCP. Messages that
/// overtook others on their way here are counted.
fn gateway(shards: u16, steering: bool, overtaking: Arc<AtomicU64>) -> DataPlane {
    shell(
        "ip link set lo up; ip link set gw0 up; ip addr add 192.0.2.1/24 dev gw0;
        ip addr add 10.0.0.1/32 dev lo; ip addr add fd00:10::1/128 dev lo nodad",
    );
    let options = options(Role::Gateway, GATEWAY_KEY, Some(51820));
    let plane = DataPlane::start(Options { shards, steering, ..options }).unwrap();
    shell(
        "ip link set pw-test0 mtu 1380 up; ip route add 100.64.0.0/16 dev pw-test0;
        ip route add fd00:64::/64 dev pw-test0",
    );
    let echo = UdpSocket::bind("[::]:7").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&echo, 4 << 20).unwrap();
    let stream = TcpListener::bind("10.0.0.1:7").unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        let mut last = BTreeMap::new();
        while let Ok((length, from)) = echo.recv_from(&mut bytes) {
            let number = number(&bytes);
            if last.insert(from, number).is_some_and(|last| last >= number) {
                overtaking.fetch_add(1, Ordering::Relaxed);
            }
            let _ = echo.send_to(&bytes[..length], from);
        }
    });
    std::thread::spawn(move || {
        while let Ok((forth, _)) = stream.accept() {
            std::thread::spawn(move || {
                let (mut forth, mut back) = (forth.try_clone().unwrap(), forth);
                let _ = std::io::copy(&mut forth, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
        }
    });
    wait(plane.apply(gateway_update())).unwrap();
    plane
}

/// A device. They share a network, where a packet's source says whose tunnel it takes.
fn device(device: u8) -> DataPlane {
    let tun_name = format!("pw-desk{device}");
    let options = options(Role::Device, key(device), None);
    let private_key = PrivateKey::from(key(device));
    let plane =
        DataPlane::start(Options { tun_name: tun_name.clone(), private_key, ..options }).unwrap();
    shell(&format!(
        "ip link set {tun_name} mtu 1380 up; ip addr add 100.64.0.{device}/32 dev {tun_name};
        ip addr add fd00:64::{device}/128 dev {tun_name} nodad;
        ip rule add from 100.64.0.{device} lookup {device}; ip -6 rule add from fd00:64::{device} lookup {device};
        ip route add 10.0.0.0/8 dev {tun_name} table {device};
        ip -6 route add fd00:10::/32 dev {tun_name} table {device}"
    ));
    wait(plane.apply(device_update(device))).unwrap();
    plane
}

fn number(message: &[u8]) -> u32 {
    u32::from_be_bytes(*message.first_chunk().unwrap())
}

/// One flow of numbered messages to the echo and back.
struct Flow {
    socket: UdpSocket,
    sent: u32,
    /// What follows the last one received.
    next: u32,
    /// What is before this is not waited for any more.
    written_off: u32,
    received: u32,
}

impl Flow {
    fn open(device: u8, ipv6: bool) -> Self {
        let (from, to) = match ipv6 {
            true => (format!("[fd00:64::{device}]:0"), "[fd00:10::1]:7"),
            false => (format!("100.64.0.{device}:0"), "10.0.0.1:7"),
        };
        let socket = UdpSocket::bind(from).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, sent: 0, next: 0, written_off: 0, received: 0 }
    }

    fn send(&mut self) {
        let mut message = [0xa5; 600];
        message[..4].copy_from_slice(&self.sent.to_be_bytes());
        let length = 4 + (self.sent as usize * 37) % 596;
        self.socket.send(&message[..length]).unwrap();
        self.sent += 1;
    }

    /// Waits until fewer than so many are under way.
    fn wait(&mut self, under_way: u32) {
        while self.sent - self.next.max(self.written_off) > under_way {
            let mut message = [0; 2048];
            if self.socket.recv(&mut message).is_err() {
                self.written_off = self.sent;
                return;
            }
            let number = number(&message);
            assert!(number >= self.next, "{number} was overtaken by {}", self.next - 1);
            self.next = number + 1;
            self.received += 1;
        }
    }
}

fn messages_keep_their_order(device: u8) {
    let mut flows: Vec<_> = (0..FLOWS).map(|flow| Flow::open(device, flow % 2 == 1)).collect();
    // The first waits for the handshake, and shows that the way is open.
    let began = Instant::now();
    for flow in &mut flows {
        while flow.received == 0 {
            assert!(began.elapsed() < DEADLINE, "nothing comes back");
            flow.send();
            flow.wait(0);
        }
    }
    for flow in (1..MESSAGES).flat_map(|_| 0..FLOWS) {
        flows[flow].send();
        flows[flow].wait(WINDOW);
    }
    for flow in &flows {
        assert!(flow.received > MESSAGES / 10 * 8, "only {} came back", flow.received);
    }
}

fn a_stream_comes_back_whole(device: u8) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from([100, 64, 0, device]), 0).into()).unwrap();
    socket.connect_timeout(&SocketAddr::from(([10, 0, 0, 1], 7)).into(), DEADLINE).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent: Vec<u8> = (0..STREAM_BYTES).map(|at| (at % 251) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::with_capacity(sent.len());
        stream.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} of {} bytes are as they were", received.len(), sent.len());
    });
}

/// Everything at once through a gateway of so many shards; what the gateway tells afterwards.
fn carry(shards: u16, steering: bool) -> Report {
    let gateways_network = Elsewhere::new();
    in_private_network(|| {
        shell(&format!(
            "ip link set lo up; ip link add lan0 type veth peer name gw0;
            ip link set gw0 netns {}; ip link set lan0 up; ip addr add 192.0.2.5/24 dev lan0",
            gateways_network.thread_id()
        ));
        let overtaking = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&overtaking);
        let gateway = gateways_network.run(move || gateway(shards, steering, counted));
        let devices = DEVICES.map(device);
        std::thread::scope(|scope| {
            for device in DEVICES {
                scope.spawn(move || messages_keep_their_order(device));
                scope.spawn(move || a_stream_comes_back_whole(device));
            }
        });
        assert_eq!(overtaking.load(Ordering::Relaxed), 0, "overtaken on the way to the gateway");
        let report = wait(gateway.report()).unwrap();
        assert_eq!(report.peers.len(), DEVICES.len());
        wait(gateway.stop());
        devices.into_iter().for_each(|device| wait(device.stop()));
        report
    })
}

#[test]
fn with_one_shard_every_flow_keeps_its_order() {
    assert_eq!(carry(1, true).handed_over, 0);
}

#[test]
fn with_several_shards_the_kernel_finds_the_owner_and_every_flow_keeps_its_order() {
    for shards in [2, 3, 4] {
        assert_eq!(carry(shards, true).handed_over, 0, "{shards} shards");
    }
}

#[test]
fn without_steering_shards_hand_over_and_every_flow_keeps_its_order() {
    for shards in [2, 3, 4] {
        let report = carry(shards, false);
        let sent = DEVICES.len() * FLOWS * MESSAGES as usize;
        // All but one of the shards' packets, which are read by that one, and its share of datagrams.
        assert!(report.handed_over > sent as u64 / 2, "{} of {sent}", report.handed_over);
        assert_eq!(report.drops["other-shard"], 0);
    }
}
