//! Several shards of one gateway: what reaches the wrong one is the right one's in the end.

use super::lab::*;
use crate::filter::DropReason;
use crate::packet::Address;
use crate::shard::*;
use crate::testing::{packet, udp, wall_clock};

const SHARDS: u16 = 2;
/// The shard of [`DEVICE`], whose address ends in 5.
const OWNER: usize = 1;

/// A gateway of two shards that know of a device, and how many calls each lets in.
fn gateway(now: Instant, calls_per_s: [u64; 2]) -> [Shard; 2] {
    let mut number = 0;
    calls_per_s.map(|handshakes_per_s| {
        let limits = Limits { handshakes_per_s, ..Limits::for_role(Role::Device) };
        let (private_key, wall_clock) = (PrivateKey::from([2; 32]), wall_clock(now));
        let role = Role::Gateway;
        let (shard, shards) = (number, SHARDS);
        let settings = Settings { shard, shards, role, private_key, wall_clock, limits };
        let mut shard = Shard::new(settings, now);
        number += 1;
        let peers = [device_peer("desk-1", 1, 9, DESK_1)];
        shard.apply(&replace(gateway_config(&peers), RULES), now, &mut Outbox::new());
        shard
    })
}

/// A device's call to its gateway.
fn call(lab: &mut Lab) -> Vec<u8> {
    lab.at_device(&replace(device_config("council", "s1", 9), RULES));
    lab.wire.pop().unwrap().1
}

fn feed(shard: &mut Shard, datagram: &[u8], now: Instant) -> Outbox {
    let mut out = Outbox::new();
    shard.handle_datagram(SocketAddr::from(DEVICE_AT), datagram, now, &mut out);
    out
}

#[test]
fn a_call_is_let_in_once_by_the_shard_that_it_reaches_and_answered_by_its_owner() {
    let mut lab = Lab::apart();
    // The owner would let none in.
    let [mut first, mut owner] = gateway(lab.now, [200, 0]);
    let call = call(&mut lab);
    let out = feed(&mut first, &call, lab.now);
    assert_eq!(out.datagrams().len(), 0);
    let [handed] = out.calls() else { panic!("{} calls", out.calls().len()) };
    assert_eq!((usize::from(handed.owner), handed.from), (OWNER, DEVICE_AT.into()));

    let mut out = Outbox::new();
    owner.handle_call(handed, lab.now, &mut out);
    let answer = out.datagrams().next().unwrap().bytes.to_vec();
    lab.datagram(true, &answer);
    let sealed = lab.wire.pop().unwrap().1;
    assert_eq!(first.owner_of_datagrams()(&sealed), Some(1));
    assert_eq!(owner.owner_of_datagrams()(&sealed), None);
    feed(&mut owner, &sealed, lab.now);
    assert!(owner.peer_status(lab.now)[0].handshake_age.is_some());
    assert!(first.peer_status(lab.now).is_empty());
    assert_eq!(
        first.counters().drops().chain(owner.counters().drops()).map(|it| it.1).sum::<u64>(),
        0
    );
}

#[test]
fn a_call_that_names_a_peers_key_without_holding_it_is_refused_by_the_owner_too() {
    let mut lab = Lab::apart();
    let [mut first, mut owner] = gateway(lab.now, [200, 200]);
    let mut handed = feed(&mut first, &call(&mut lab), lab.now).calls()[0];
    // The encrypted static key: whoever it names now, it is not who was found.
    handed.bytes[50] ^= 1;
    let mut out = Outbox::new();
    owner.handle_call(&handed, lab.now, &mut out);
    assert!(out.is_empty());
    assert_eq!(owner.counters().dropped(DropReason::BadHandshake), 1);
}

#[test]
fn a_shard_knows_whose_a_packet_is_and_drops_what_it_is_fed_of_anothers() {
    let lab = Lab::apart();
    let [mut first, owner] = gateway(lab.now, [200, 200]);
    for device in [DEVICE, DEVICE_V6] {
        let server = if device == DEVICE { SERVER } else { SERVER_V6 };
        let packet = packet(server, device, &udp(53, 5000, 1));
        assert_eq!(
            (first.owner_of_packet(&packet), owner.owner_of_packet(&packet)),
            (Some(1), None)
        );
        first.handle_packet(&packet, lab.now, &mut Outbox::new());
    }
    assert_eq!(first.counters().dropped(DropReason::OtherShard), 2);
    let address = Address::from(DEVICE.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(usize::from(owner_of_address(address, SHARDS)), OWNER);
    let nobodys = packet(SERVER, "10.64.0.7", &udp(53, 5000, 1));
    for nothing in [&nobodys[..], &nobodys[..19], &[0x60; 39], &[]] {
        assert_eq!(first.owner_of_packet(nothing), None);
    }
}

#[test]
fn a_call_for_a_shard_that_does_not_know_its_peer_yet_is_dropped() {
    let mut lab = Lab::apart();
    let [mut first, mut owner] = gateway(lab.now, [200, 200]);
    let handed = feed(&mut first, &call(&mut lab), lab.now).calls()[0];
    let mut out = Outbox::new();
    owner.apply(&Update::PeerGone("device/desk-1".parse().unwrap()), lab.now, &mut out);
    owner.handle_call(&handed, lab.now, &mut out);
    // And one that went round in a circle.
    first.handle_call(&handed, lab.now, &mut out);
    assert!(out.is_empty());
    assert_eq!(owner.counters().dropped(DropReason::UnknownPeer), 1);
    assert_eq!(first.counters().dropped(DropReason::OtherShard), 1);
}
