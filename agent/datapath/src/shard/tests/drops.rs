//! One row for each drop reason: what provokes it, and that it is counted as that and nothing else.

use super::super::*;
use super::lab::*;
use crate::packet::Ecn;
use crate::testing::*;

/// Which end counts.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Device,
    Gateway,
}
use At::{Device, Gateway};

/// Provokes a drop in a connected lab.
type Act = fn(&mut Lab);

/// A row for each reason. All packets are such as a hostile end could send.
fn row(reason: DropReason) -> (At, Act) {
    use DropReason as D;
    match reason {
        D::NoConfig => (Gateway, |lab| {
            lab.at_gateway(&Update::Clear);
            lab.network_sends(&packet(SERVER, DEVICE, &udp(53, 5000, 1)));
        }),
        D::GarbageDatagram => (Gateway, |lab| {
            lab.datagram(false, &[0xff; 200]);
        }),
        D::OtherShard => (Gateway, |lab| {
            lab.gateway.settings.shards = 2;
            lab.gateway.settings.shard = 1 - owner_of(&data(lab), 2).unwrap();
            let sealed = data(lab);
            lab.datagram(false, &sealed);
        }),
        D::BadMac => (Gateway, |lab| {
            let mut call = lab.wire[0].1.clone();
            call[120] ^= 1;
            lab.datagram(false, &call);
        }),
        D::UnderLoad => (Gateway, |lab| {
            let limits = Limits { handshakes_per_s: 0, ..lab.gateway.settings.limits };
            lab.gateway.identity = {
                let key = PrivateKey::from([2; 32]);
                Identity::new(&key, wall_clock(lab.now), &limits, lab.now)
            };
            let call = lab.wire[0].1.clone();
            // The cookie goes back to the device, which holds it for its next call.
            let said = lab.wire.len();
            lab.datagram(false, &call);
            assert_eq!(lab.wire[said].1.len(), 64);
        }),
        D::UnknownPeer => (Gateway, |lab| {
            // The first call of somebody who has the gateway's public key and no session.
            let mut stranger = shard(Role::Device, 77, lab.now);
            let mut out = Outbox::new();
            stranger.apply(&replace(device_config("council", "s9", 9), RULES), lab.now, &mut out);
            let call = out.datagrams().next().unwrap().bytes.to_vec();
            lab.datagram(false, &call);
        }),
        D::UnknownIndex => (Gateway, |lab| {
            let mut sealed = data(lab);
            sealed[5] ^= 0x55;
            lab.datagram(false, &sealed);
        }),
        D::BadHandshake => (Gateway, |lab| {
            let call = lab.wire[0].1.clone();
            lab.datagram(false, &call);
        }),
        D::NoKeys => (Gateway, |lab| {
            let mut sealed = data(lab);
            sealed[4] ^= 0x02;
            lab.datagram(false, &sealed);
        }),
        D::Replayed => (Gateway, |lab| {
            let sealed = data(lab);
            lab.datagram(false, &sealed);
            lab.datagram(false, &sealed);
        }),
        D::Unauthentic => (Gateway, |lab| {
            let mut sealed = data(lab);
            sealed[20] ^= 1;
            lab.datagram(false, &sealed);
        }),
        D::NoEndpoint => (Gateway, |lab| {
            let other = device_peer("desk-2", 3, 8, r#""10.64.0.6""#);
            lab.at_gateway(&Update::PeerSet(Box::new(peer(&other))));
            lab.network_sends(&packet("10.1.7.3", "10.64.0.6", &tcp(1, 22, SYN)));
        }),
        D::NoHandshake => (Device, |lab| {
            let limit = lab.device.settings.limits.waiting_packets;
            // Another preshared key, so that the call comes to nothing.
            let now = lab.now;
            let update = replace(device_config("council", "s2", 10), RULES);
            let mut out = Outbox::new();
            lab.device.apply(&update, now, &mut out);
            for _ in 0..=limit {
                lab.device.handle_packet(&packet(DEVICE, SERVER, &udp(1, 53, 1)), now, &mut out);
            }
        }),
        D::OutboxFull => (Device, |lab| {
            let mut out = Outbox::new();
            let big = packet(DEVICE, SERVER, &udp(1, 53, 1300));
            while lab.device.counters().dropped(D::OutboxFull) == 0 {
                lab.device.handle_packet(&big, lab.now, &mut out);
            }
            assert!(out.is_full());
        }),
        D::Malformed => (Gateway, |lab| {
            let mut query = packet(DEVICE, SERVER, &udp(5000, 53, 20));
            query[0] = 0x4f;
            lab.forged_by_device(&query);
        }),
        D::UnsupportedProtocol => (Gateway, |lab| {
            lab.forged_by_device(&packet(DEVICE, SERVER, &gre()));
        }),
        D::ExtensionHeaders => (Gateway, |lab| {
            let many = [(60, [0; 7]); 9];
            lab.forged_by_device(&with_extensions(DEVICE_V6, SERVER_V6, &udp(1, 53, 1), &many));
        }),
        D::CongestionUnheard => (Gateway, |lab| {
            let from = Origin { address: DEVICE_AT.into(), ecn: Ecn::Congested };
            let sealed = data(lab);
            let mut out = Outbox::new();
            lab.gateway.handle_datagram(from, &sealed, lab.now, &mut out);
            assert!(out.packets().is_empty());
        }),
        D::SourceRoute => (Gateway, |lab| {
            let loose = [131, 7, 4, 10, 9, 9, 9, 0];
            lab.forged_by_device(&with_options(DEVICE, SERVER, &udp(1, 53, 1), &loose));
        }),
        D::Martian => (Gateway, |lab| {
            lab.forged_by_device(&packet(DEVICE, "127.0.0.1", &udp(1, 53, 1)));
        }),
        D::NoRoute => (Gateway, |lab| {
            lab.network_sends(&packet(SERVER, "10.64.9.9", &udp(53, 1, 1)));
        }),
        D::WrongSource => (Gateway, |lab| {
            lab.forged_by_device(&packet("10.64.0.6", SERVER, &udp(1, 53, 1)));
        }),
        D::WrongDestination => (Device, |lab| {
            lab.forged_by_gateway(&packet(SERVER, "10.64.0.6", &udp(53, 1, 1)));
        }),
        D::Denied => (Gateway, |lab| {
            lab.forged_by_device(&packet(DEVICE, "10.1.0.99", &tcp(1, 443, SYN)));
        }),
        D::NoRule => (Gateway, |lab| {
            lab.forged_by_device(&packet(DEVICE, SERVER, &tcp(1, 25, SYN)));
        }),
        D::FlowCut => (Gateway, |lab| {
            lab.device_sends(&packet(DEVICE, SERVER, &udp(1, 53, 1)));
            lab.at_gateway(&Update::RulesSet(table("[]")));
            lab.network_sends(&packet(SERVER, DEVICE, &udp(53, 1, 1)));
        }),
        D::FlowTableFull => (Gateway, |lab| {
            for port in 0..9 {
                lab.forged_by_device(&packet(DEVICE, SERVER, &udp(port, 53, 1)));
            }
        }),
        D::TcpNoFlow => (Gateway, |lab| {
            lab.forged_by_device(&packet(DEVICE, SERVER, &tcp(1, 25, ACK)));
        }),
        D::TcpBadFlags => (Gateway, |lab| {
            lab.forged_by_device(&packet(DEVICE, SERVER, &tcp(1, 443, SYN | 1)));
        }),
        D::IcmpNoFlow => (Gateway, |lab| {
            lab.forged_by_device(&packet(DEVICE, SERVER, &pong(7, true)));
        }),
        D::IcmpType => (Gateway, |lab| {
            lab.forged_by_device(&packet(DEVICE, SERVER, &icmp(5, 137, 0, &[0; 28], true)));
        }),
        D::FragmentTooShort => (Gateway, |lab| {
            lab.forged_by_device(&part(DEVICE, SERVER, &tcp(1, 443, SYN), 0..16, 1));
        }),
        D::FragmentWithoutFirst => (Gateway, |lab| {
            lab.forged_by_device(&part(DEVICE, SERVER, &udp(1, 53, 100), 16..32, 1));
        }),
        D::FragmentOverlap => (Gateway, |lab| {
            lab.forged_by_device(&part(DEVICE, SERVER, &udp(1, 53, 100), 0..32, 1));
            lab.forged_by_device(&part(DEVICE, SERVER, &udp(1, 53, 100), 8..40, 1));
        }),
        D::FragmentTableFull => (Gateway, |lab| {
            for id in 0..5 {
                lab.forged_by_device(&part(DEVICE, SERVER, &udp(1, 53, 100), 0..32, id));
            }
        }),
    }
}

/// A sealed packet of the device that the gateway has not seen.
fn data(lab: &mut Lab) -> Vec<u8> {
    let mut out = Outbox::new();
    lab.device.handle_packet(&packet(DEVICE, SERVER, &udp(5000, 53, 1)), lab.now, &mut out);
    out.datagrams().next().unwrap().bytes.to_vec()
}

#[test]
fn every_drop_reason_is_reached_by_what_provokes_it_and_by_nothing_else() {
    for reason in DropReason::ALL {
        let mut lab = Lab::connected();
        let (at, act) = row(reason);
        act(&mut lab);
        let shard = if at == Device { &lab.device } else { &lab.gateway };
        let counted: Vec<_> = shard.counters().drops().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(reason, 1)], "{}", reason.sentence());
    }
}

#[test]
fn garbage_never_panics_and_is_always_counted() {
    let mut lab = Lab::connected();
    let valid: Vec<_> = lab.wire.iter().map(|(_, bytes)| bytes.clone()).collect();
    let mut sent = 0;
    // A cheap generator with a fixed seed, so that a failure repeats.
    let mut seed = 0x9e37_79b9_u32;
    for round in 0..3000_usize {
        let mut bytes = valid[round % valid.len()].clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = seed as usize % bytes.len();
            bytes[at] ^= (seed >> 24) as u8 | 1;
        }
        bytes.truncate(if round % 5 == 0 { seed as usize % 150 } else { bytes.len() });
        assert!(lab.datagram(false, &bytes).nowhere());
        sent += 1;
    }
    let dropped: u64 = lab.gateway.counters().drops().map(|(_, count)| count).sum();
    assert_eq!(dropped, sent);
}
