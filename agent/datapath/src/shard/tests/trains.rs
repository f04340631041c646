//! Several datagrams in one read: opened together, judged by what tells them apart.

use super::super::*;
use super::lab::*;
use crate::filter::Happening;
use crate::testing::*;

/// Datagrams of one size, one after the other, sealed as by a device that has no filter.
pub(super) fn train(lab: &mut Lab, packets: &[Vec<u8>]) -> (Vec<u8>, usize) {
    let number = lab.device.peers.by_agent(&"gateway/gw".parse().unwrap()).unwrap();
    let mut bytes = Vec::new();
    for packet in packets {
        let mut out = Outbox::new();
        let entry = lab.device.peers.at_mut(number).unwrap();
        let count = sealed(entry, packet, lab.now, &mut out);
        out.send(GATEWAY_AT.into(), count);
        bytes.extend(out.datagrams().flat_map(|datagram| datagram.bytes.to_vec()));
    }
    let segment_bytes = bytes.len() / packets.len();
    (bytes, segment_bytes)
}

/// All of one size.
fn padded(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let longest = packets.iter().map(Vec::len).max().unwrap();
    packets.iter().map(|packet| [&packet[..], &vec![0; longest - packet.len()]].concat()).collect()
}

/// What comes out of the gateway's TUN.
fn arrive(lab: &mut Lab, bytes: &mut [u8], segment_bytes: usize) -> Vec<Vec<u8>> {
    let mut arrived = Vec::new();
    let mut keep = |out: &mut Outbox| {
        arrived.extend(out.packets().packets().map(<[u8]>::to_vec));
        out.clear();
    };
    let mut out = Outbox::new();
    let from = SocketAddr::from(DEVICE_AT);
    lab.gateway.handle_datagrams(from, bytes, segment_bytes, lab.now, &mut out, &mut keep);
    keep(&mut out);
    arrived
}

#[test]
fn flows_that_take_turns_in_a_train_are_judged_each_by_itself_and_keep_their_order() {
    let mut lab = Lab::connected();
    let name = |n: usize| packet(DEVICE, SERVER, &udp(5000 + n as u16 / 3 % 2, 53, 100 + n / 20));
    let allowed: Vec<_> = (0..45).map(name).collect();
    let others = packet("10.64.0.6", SERVER, &udp(5000, 53, 100));
    let refused = packet(DEVICE, SERVER, &tcp(40_000, 22, SYN));
    let mut packets = allowed.clone();
    for (at, bad) in [(3, others.clone()), (4, others), (20, refused)] {
        packets.insert(at, bad);
    }
    let (mut bytes, segment_bytes) = train(&mut lab, &padded(&packets));
    assert_eq!(arrive(&mut lab, &mut bytes, segment_bytes), allowed);
    assert_eq!(counted(&lab.gateway, DropReason::WrongSource), 2);
    assert_eq!(counted(&lab.gateway, DropReason::NoRule), 1);
    let inner: usize = allowed.iter().map(Vec::len).sum();
    let Counters { received, .. } = lab.gateway.counters();
    assert_eq!((received.packets, received.bytes), (45, inner as u64));
    lab.at_gateway(&Update::Clear);
    let told = std::iter::from_fn(|| lab.gateway.poll_flow_event());
    let ended = told.filter(|event| matches!(event.happening, Happening::Ended(_)));
    let sums = ended.fold((0, 0), |(packets, bytes), FlowEvent { from_remote, .. }| {
        (packets + from_remote.packets, bytes + from_remote.bytes)
    });
    assert_eq!(sums, (45, inner as u64), "flow records tell of every packet");
}

#[test]
fn a_forged_and_a_repeated_datagram_cost_a_train_nothing_but_themselves() {
    let mut lab = Lab::connected();
    let packets: Vec<_> =
        (0..6_u8).map(|n| packet(DEVICE, SERVER, &udp(5000, 53, 64 + usize::from(n)))).collect();
    let (mut bytes, segment_bytes) = train(&mut lab, &padded(&packets));
    let fifth = bytes[4 * segment_bytes..5 * segment_bytes].to_vec();
    bytes.extend(fifth);
    bytes[segment_bytes + 40] ^= 1;
    let expected: Vec<_> = [0, 2, 3, 4, 5].map(|at: usize| packets[at].clone()).into();
    assert_eq!(arrive(&mut lab, &mut bytes, segment_bytes), expected);
    assert_eq!(counted(&lab.gateway, DropReason::Unauthentic), 1);
    assert_eq!(counted(&lab.gateway, DropReason::Replayed), 1);
    let junk = &mut [7; 50];
    assert!(arrive(&mut lab, junk, 20).is_empty());
    assert!(arrive(&mut lab, &mut [], 1).is_empty());
    assert_eq!(counted(&lab.gateway, DropReason::GarbageDatagram), 3 + 1);
}
