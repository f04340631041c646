//! What a device's own programs are told when policy refuses what they send.

use super::super::*;
use super::lab::*;
use crate::offload::Burst;
use crate::packet::{self, Icmp, Payload};
use crate::testing::*;

/// What comes back into a shard's TUN for a packet out of it.
fn told(shard: &mut Shard, packet: &[u8], now: Instant) -> Vec<Vec<u8>> {
    let mut out = Outbox::new();
    shard.handle_packet(packet, now, &mut out);
    assert_eq!(out.datagrams().len(), 0);
    out.packets().packets().map(<[u8]>::to_vec).collect()
}

#[test]
fn a_program_on_the_device_is_told_at_once_that_policy_refuses() {
    let mut lab = Lab::connected();
    for (from, to, upper) in [
        (DEVICE, SERVER, tcp(40_000, 80, SYN)),
        (DEVICE, "10.1.0.99", tcp(40_000, 443, SYN)),
        (DEVICE_V6, SERVER_V6, tcp(40_000, 80, SYN)),
    ] {
        let refused = packet(from, to, &upper);
        let told = told(&mut lab.device, &refused, lab.now);
        assert_eq!(told.len(), 2);
        let (error, refused) = (packet::parse(&told[0]).unwrap(), packet::parse(&refused).unwrap());
        assert_eq!((error.source, error.destination), (refused.destination, refused.source));
        let quoted = matches!(error.payload, Payload::Icmp(Icmp::Error { quoted: Some(_) }));
        assert!(quoted, "{error:?}");
        let reset = packet::parse(&told[1]).unwrap();
        assert_eq!((reset.source, reset.destination), (refused.destination, refused.source));
        assert!(matches!(reset.payload, Payload::Tcp(tcp) if tcp.flags.rst()), "{reset:?}");
    }
}

#[test]
fn what_passes_and_what_is_dropped_for_another_reason_is_not_answered() {
    let mut lab = Lab::connected();
    let mut out = Outbox::new();
    let asked = packet(DEVICE, SERVER, &tcp(40_000, 443, SYN));
    lab.device.handle_packet(&asked, lab.now, &mut out);
    assert_eq!((out.datagrams().len(), out.packets().packets().count()), (1, 0));
    for dropped in [
        packet(DEVICE, SERVER, &tcp(40_001, 80, ACK)),
        packet("10.64.0.6", SERVER, &tcp(40_000, 80, SYN)),
        packet(DEVICE, "10.2.0.1", &tcp(40_000, 80, SYN)),
        packet(DEVICE, SERVER, &gre()),
        packet(DEVICE, "224.0.0.251", &udp(5353, 5353, 30)),
        packet(DEVICE, SERVER, &unreachable(&packet(SERVER, DEVICE, &udp(53, 1, 9)), true)),
    ] {
        assert!(told(&mut lab.device, &dropped, lab.now).is_empty());
    }
}

#[test]
fn a_gateway_refuses_in_silence() {
    let mut lab = Lab::connected();
    let unasked = packet(SERVER, DEVICE, &tcp(443, 22, SYN));
    assert!(told(&mut lab.gateway, &unasked, lab.now).is_empty());
    assert_eq!(counted(&lab.gateway, DropReason::NoRule), 1);
}

#[test]
fn a_scan_is_answered_at_a_pace_and_each_answer_costs_no_allocation() {
    let mut lab = Lab::connected();
    let ports: Vec<_> =
        (1..400).map(|port| packet(DEVICE, SERVER, &tcp(40_000, port, SYN))).collect();
    let mut out = Outbox::new();
    let taken = allocation_counter::measure(|| {
        for scan in &ports {
            lab.device.handle_packet(scan, lab.now, &mut out);
        }
    });
    // An error and a reset each.
    assert_eq!(out.packets().packets().count(), 2 * 50);
    assert_eq!(taken.count_total, 0);
}

#[test]
fn a_refused_burst_is_answered_once() {
    let mut lab = Lab::connected();
    let mut out = Outbox::new();
    let mut refused = packet(DEVICE, SERVER, &tcp(40_000, 80, SYN));
    let mut burst = Burst::single(&mut refused);
    lab.device.handle_burst(&mut burst, lab.now, &mut out, |_| panic!("it was not full"));
    assert_eq!(out.packets().packets().count(), 2);
}
