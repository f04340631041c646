//! Steering by the real kernel: every datagram and packet arrives where the data path says it belongs.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use partywall_datapath::shard::{owner_of, owner_of_address};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::sys::netns::{self, shell};
use crate::sys::tun::{Features, TunQueue};

const SHARDS: [u16; 4] = [1, 2, 3, 4];
const MESSAGES: u32 = 200;

/// Sockets that share a port of `lo`.
fn group(shards: u16) -> Vec<UdpSocket> {
    let mut port = 0;
    (0..shards)
        .map(|_| {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM.nonblocking(), None).unwrap();
            socket.set_only_v6(false).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&SocketAddr::from(([0_u16; 8], port)).into()).unwrap();
            port = socket.local_addr().unwrap().as_socket().unwrap().port();
            socket.into()
        })
        .collect()
}

/// A WireGuard message as far as steering looks, of the length that its type has.
fn message(kind: u8, receiver: u32) -> Vec<u8> {
    let (length, at) = match kind {
        2 => (92, 8),
        3 => (64, 4),
        _ => (96, 4),
    };
    let mut bytes = vec![0xa5; length];
    bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
    bytes[at..at + 4].copy_from_slice(&receiver.to_le_bytes());
    bytes
}

/// What the one socket that has something has.
fn arrived(sockets: &[UdpSocket]) -> (u16, Vec<u8>) {
    let mut bytes = [0; 2048];
    let mut all = sockets.iter().enumerate().filter_map(|(number, socket)| {
        let length = socket.recv(&mut bytes).ok()?;
        Some((number as u16, bytes[..length].to_vec()))
    });
    let one = all.next().unwrap();
    assert_eq!(all.next(), None);
    one
}

#[test]
fn each_datagram_arrives_at_the_socket_of_its_owner_over_both_families() {
    netns::in_private_network(|| {
        shell("ip link set lo up");
        for shards in SHARDS {
            let sockets = group(shards);
            steer_datagrams(&sockets[0], shards).unwrap();
            let port = sockets[0].local_addr().unwrap().port();
            for ip in ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()] {
                let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let sender = UdpSocket::bind(any).unwrap();
                for number in 0..MESSAGES {
                    let receiver = number.wrapping_mul(0x9e37_79b9);
                    for kind in [2, 3, 4] {
                        let sent = message(kind, receiver);
                        sender.send_to(&sent, (ip, port)).unwrap();
                        let owner = owner_of(&sent, shards).unwrap();
                        assert_eq!(arrived(&sockets), (owner, sent), "{kind} {receiver:#x}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_senders_calls_all_arrive_at_one_socket_and_different_senders_at_all() {
    netns::in_private_network(|| {
        shell("ip link set lo up");
        let sockets = group(2);
        steer_datagrams(&sockets[0], 2).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        let mut reached = [false; 2];
        for _ in 0..64 {
            let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
            let at = [1, 2, 3].map(|index| {
                sender.send_to(&message(1, index << 8), ("127.0.0.1", port)).unwrap();
                arrived(&sockets).0
            });
            assert!(at.iter().all(|&number| number == at[0]));
            reached[usize::from(at[0])] = true;
        }
        assert_eq!(reached, [true, true]);
        for garbage in [&[][..], &[4], &[2, 0, 0], &[0xff; 64]] {
            let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
            sender.send_to(garbage, ("127.0.0.1", port)).unwrap();
            assert_eq!(arrived(&sockets).1, garbage);
        }
    });
}

#[test]
fn each_packet_arrives_at_the_queue_of_its_destinations_owner() {
    for shards in SHARDS {
        netns::in_private_network(|| {
            let features = Features { multi_queue: true, offload: false };
            let queues: Vec<_> =
                (0..shards).map(|_| TunQueue::open("pw-test0", features).unwrap()).collect();
            steer_packets(&queues[0], shards).unwrap();
            shell(
                "ip link set pw-test0 up; ip addr add 10.9.0.1/32 dev pw-test0;
                ip addr add fd09::1/128 dev pw-test0 nodad; ip route add 100.64.0.0/16 dev pw-test0;
                ip route add fd64::/64 dev pw-test0",
            );
            let sockets = ["10.9.0.1:0", "[fd09::1]:0"].map(|from| UdpSocket::bind(from).unwrap());
            let mut packet = [0; 2048];
            for number in 0..MESSAGES {
                let [high, low] = (number as u16).wrapping_mul(331).to_be_bytes();
                let v4 = IpAddr::from([100, 64, high, low]);
                let v6 = IpAddr::from([0xfd64, 0, 0, 0, 0, 0, 7, u16::from_be_bytes([high, low])]);
                for (socket, to) in sockets.iter().zip([v4, v6]) {
                    socket.send_to(b"hello", (to, 9)).unwrap();
                    let owner = owner_of_address(to.into(), shards);
                    let queue = &queues[usize::from(owner)];
                    // Others, such as router solicitations, are in the way.
                    let found = std::iter::from_fn(|| {
                        queue.read(&mut packet).ok().map(|n| packet[..n].to_vec())
                    })
                    .any(|bytes| bytes.ends_with(b"hello"));
                    assert!(found, "{to} of {shards}");
                }
            }
            for queue in &queues {
                while let Ok(length) = queue.read(&mut packet) {
                    assert!(!packet[..length].ends_with(b"hello"));
                }
                assert_eq!(queue.read(&mut packet).unwrap_err().kind(), ErrorKind::WouldBlock);
            }
        });
    }
}
