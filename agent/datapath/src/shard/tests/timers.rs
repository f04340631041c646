//! What is due when, as far as it does not depend on the clock that WireGuard's own timers read.

use std::time::Duration;

use super::super::*;
use super::lab::*;
use crate::filter::DropReason;
use crate::testing::*;
use crate::tunnel::Due;

#[test]
fn what_is_over_is_forgotten_when_time_passes() {
    let mut lab = Lab::connected();
    lab.device_sends(&packet(DEVICE, SERVER, &udp(5000, 53, 1)));
    assert_eq!(lab.gateway.filter.flows(), 1);
    lab.wait(31);
    let mut out = Outbox::new();
    assert!(lab.gateway.poll_timeout().unwrap() <= lab.now);
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert_eq!(lab.gateway.filter.flows(), 0);
    assert!(lab.gateway.poll_timeout().unwrap() > lab.now);
}

#[test]
fn a_device_goes_on_calling_after_the_tunnel_has_given_up() {
    let mut lab = Lab::connected();
    let mut out = Outbox::new();
    lab.device.say(0, Due::GivenUp, lab.now, &mut out);
    assert_eq!(out.datagrams().map(|call| call.bytes.len()).collect::<Vec<_>>(), [148]);
    out.clear();
    lab.gateway.say(0, Due::GivenUp, lab.now, &mut out);
    assert!(out.is_empty(), "a gateway waits to be called");
}

#[test]
fn a_tick_that_fills_the_outbox_goes_on_after_the_flush() {
    let mut lab = Lab::connected();
    lab.wait(1);
    let mut out = Outbox::new();
    while !out.is_full() {
        out.datagram_room(1400).unwrap();
        out.send(DEVICE_AT.into(), 1400);
    }
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert!(lab.gateway.poll_timeout().unwrap() <= lab.now, "it is still due");
    out.clear();
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert!(lab.gateway.poll_timeout().unwrap() > lab.now);
}

#[test]
fn a_call_that_comes_before_the_gateway_knows_the_device_is_soon_repeated() {
    let mut lab = Lab::apart();
    lab.at_gateway(&replace(gateway_config(&[]), RULES));
    lab.at_device(&replace(device_config("council", "s1", 9), RULES));
    assert_eq!(counted(&lab.gateway, DropReason::UnknownPeer), 1);
    let desk = device_peer("desk-1", 1, 9, DESK_1);
    lab.at_gateway(&Update::PeerSet(Box::new(peer(&desk))));
    lab.now = lab.device.poll_timeout().unwrap().max(lab.now + Duration::from_millis(50));
    lab.device_waits();
    assert!(lab.is_connected());
}

#[test]
fn an_unanswered_call_is_repeated_ever_more_slowly_and_not_for_ever() {
    let mut lab = Lab::apart();
    lab.at_device(&replace(device_config("council", "s1", 9), RULES));
    let begun = lab.now;
    let mut calls = Vec::new();
    while lab.now < begun + Duration::from_secs(4) {
        lab.now = lab.device.poll_timeout().unwrap().max(lab.now + Duration::from_millis(1));
        let before = lab.wire.len();
        lab.device_waits();
        calls.extend((before < lab.wire.len()).then(|| (lab.now - begun).as_millis()));
    }
    assert_eq!(calls, [50, 150, 350, 750, 1550, 3150]);
    assert!(lab.device.repetitions.is_empty());
}

#[test]
fn ten_thousand_peers_without_a_session_are_never_looked_at() {
    let mut gateway = shard(Role::Gateway, 2, start());
    let mut out = Outbox::new();
    let mut config = gateway_config(&[]);
    config.peers = many_peers(10_000);
    gateway.apply(&replace(config, RULES), start(), &mut out);
    assert_eq!(gateway.poll_timeout(), None);
    assert!(out.is_empty());
}

#[test]
fn an_idle_tunnel_is_hardly_looked_at() {
    let mut lab = Lab::connected();
    let begun = lab.now;
    let mut looks = 0;
    let mut out = Outbox::new();
    // No further: what ends keys is the clock that WireGuard's own timers read.
    while let Some(due) =
        lab.gateway.poll_timeout().filter(|due| *due < begun + Duration::from_secs(500))
    {
        lab.gateway.handle_timeout(due, &mut out);
        looks += 1;
    }
    assert!(looks <= 9, "{looks} looks");
    assert!(out.is_empty());
}

#[test]
fn flows_are_swept_only_while_there_are_some() {
    let mut lab = Lab::connected();
    let mut out = Outbox::new();
    let due = |lab: &Lab| lab.gateway.poll_timeout().unwrap() - lab.now;
    lab.wait(1);
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert!(due(&lab) > Duration::from_secs(20));
    lab.device_sends(&packet(DEVICE, SERVER, &udp(5000, 53, 1)));
    lab.wait(1);
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert_eq!(lab.gateway.filter.flows(), 1);
    lab.gateway.deadlines.clear();
    assert_eq!(lab.gateway.poll_timeout(), Some(lab.gateway.sweep_at));
    assert!(due(&lab) <= Duration::from_secs(16));
}

#[test]
fn a_tunnel_is_looked_at_before_anything_is_done_with_it() {
    // Tunnels check that they were, in builds like this one.
    let mut lab = Lab::connected();
    let (query, answer) =
        (packet(DEVICE, SERVER, &udp(5000, 53, 1)), packet(SERVER, DEVICE, &udp(53, 5000, 1)));
    lab.wait(1);
    assert_eq!(lab.device_sends(&query).at_network.len(), 1);
    lab.wait(1);
    assert_eq!(lab.network_sends(&answer).at_device.len(), 1);
    lab.wait(1);
    let mut out = Outbox::new();
    lab.device.call(0, lab.now, &mut out);
    let call = out.datagrams().next().unwrap().bytes.to_vec();
    assert!(lab.datagram(false, &call).nowhere());
    assert!(lab.is_connected());
}

/// Peers of a gateway with keys that nobody holds.
fn many_peers(count: u32) -> Vec<partywall_proto::overlay::Peer> {
    let model = peer(&device_peer("desk", 1, 9, DESK_1));
    let numbered = |number: u32| {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let [.., high, low] = number.to_be_bytes();
        let mut peer = model.clone();
        peer.agent = format!("device/desk-{number}").parse().unwrap();
        peer.public_key = key.into();
        peer.allowed_ips = vec![format!("10.64.{high}.{low}").parse().unwrap()];
        peer
    };
    (0..count).map(numbered).collect()
}

#[test]
fn many_idle_tunnels_are_looked_at_in_few_wake_ups() {
    let mut gateway = shard(Role::Gateway, 2, start());
    let begun = start();
    let mut out = Outbox::new();
    let mut config = gateway_config(&[]);
    config.peers = many_peers(1000);
    gateway.apply(&replace(config, RULES), begun, &mut out);
    for number in 0..1000 {
        gateway.attend(number, begun + Duration::from_millis(number.into()), &mut out).unwrap();
    }
    let mut wake_ups = 0;
    while let Some(due) = gateway.poll_timeout() {
        gateway.handle_timeout(due, &mut out);
        wake_ups += 1;
    }
    assert!(wake_ups <= 6, "{wake_ups}");
}
