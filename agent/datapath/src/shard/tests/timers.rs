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
