//! Super-packets through a shard, and marks of congestion through the tunnel.

use super::super::*;
use super::lab::*;
use super::trains::train;
use crate::offload::{Burst, Coalescer, Gathered, Merging};
use crate::packet::Ecn;
use crate::packet::checksum::{Sum, pseudo_header};
use crate::testing::*;

/// What a TUN gives for one write of an application: a UDP super-packet of `count` queries.
fn queries(to: &str, count: usize, bytes: usize) -> Vec<u8> {
    let mut inner = packet(DEVICE, to, &udp(5000, 53, count * bytes));
    let checksum = Sum::of(&inner[..20]).checksum();
    inner[10..12].copy_from_slice(&checksum.to_be_bytes());
    let partial = pseudo_header(&inner[12..20], 17, inner.len() - 20).fold();
    inner[26..28].copy_from_slice(&partial.to_be_bytes());
    let mut read = vec![1, 5, 28, 0];
    read.extend((bytes as u16).to_ne_bytes());
    read.extend(20_u16.to_ne_bytes());
    read.extend(6_u16.to_ne_bytes());
    read.extend(inner);
    read
}

/// Sends what a TUN gave, and returns what the network has of it and how often the outbox was full.
fn send(lab: &mut Lab, read: &mut [u8]) -> (Vec<Vec<u8>>, usize) {
    let mut said = Vec::new();
    let mut flushes = 0;
    let mut keep = |out: &mut Outbox| {
        said.extend(out.datagrams().map(|datagram| datagram.bytes.to_vec()));
        out.clear();
        flushes += 1;
    };
    let mut out = Outbox::new();
    let mut burst = Burst::read(read).unwrap();
    lab.device.handle_burst(&mut burst, lab.now, &mut out, &mut keep);
    keep(&mut out);
    let arrived = said.iter().flat_map(|bytes| lab.datagram(false, bytes).at_network).collect();
    (arrived, flushes - 1)
}

#[test]
fn a_burst_arrives_as_the_packets_that_it_is_made_of() {
    let mut lab = Lab::connected();
    let (arrived, flushes) = send(&mut lab, &mut queries(SERVER, 20, 1000));
    assert_eq!((arrived.len(), flushes), (20, 0));
    for packet in &arrived {
        assert_eq!(packet.len(), 1028);
        assert!(pseudo_header(&packet[12..20], 17, 1008).and(&packet[20..]).holds());
    }
    assert_eq!(lab.device.counters().sent.packets, 20);
    assert_eq!(lab.gateway.counters().received.bytes, 20 * 1028);
}

#[test]
fn a_burst_of_more_than_the_outbox_holds_goes_in_several_parts() {
    let mut lab = Lab::connected();
    let (arrived, flushes) = send(&mut lab, &mut queries(SERVER, 3000, 16));
    assert_eq!(arrived.len(), 3000);
    assert!(flushes >= 2);
}

#[test]
fn a_burst_that_is_refused_counts_as_the_packets_that_it_is_made_of() {
    let mut lab = Lab::connected();
    let (arrived, _) = send(&mut lab, &mut queries("10.9.0.1", 7, 100));
    assert!(arrived.is_empty());
    assert_eq!(lab.device.counters().dropped(DropReason::NoRoute), 7);
}

#[test]
fn what_comes_behind_the_end_of_a_packet_does_not_travel() {
    let mut lab = Lab::connected();
    let query = packet(DEVICE, SERVER, &udp(5000, 53, 100));
    let mut read = query.clone();
    read.extend([0x5a; 300]);
    let mut out = Outbox::new();
    let mut burst = Burst::single(&mut read);
    lab.device.handle_burst(&mut burst, lab.now, &mut out, |_| panic!("one fits"));
    let sealed = out.datagrams().next().unwrap().bytes.to_vec();
    assert_eq!(sealed.len(), query.len() + 32);
    assert_eq!(lab.datagram(false, &sealed).at_network, [query]);
    assert_eq!(lab.device.counters().sent.bytes, 128);
}

#[test]
fn what_a_burst_says_of_congestion_is_on_every_datagram_and_a_mark_comes_through() {
    let mut lab = Lab::connected();
    let mut read = queries(SERVER, 3, 100);
    Ecn::Capable0.write(&mut read[10..]);
    let mut out = Outbox::new();
    let mut burst = Burst::read(&mut read).unwrap();
    lab.device.handle_burst(&mut burst, lab.now, &mut out, |_| panic!("three fit"));
    assert!(out.datagrams().all(|datagram| datagram.ecn == Ecn::Capable0));
    assert_eq!(out.runs().count(), 1);
    let mut far = Outbox::new();
    for (datagram, ecn) in out.datagrams().zip([Ecn::Capable0, Ecn::Congested, Ecn::NotCapable]) {
        let from = Origin { address: DEVICE_AT.into(), ecn };
        lab.gateway.handle_datagram(from, datagram.bytes, lab.now, &mut far);
    }
    let marks: Vec<_> = far.packets().packets().map(Ecn::of).collect();
    assert_eq!(marks, [Ecn::Capable0, Ecn::Congested, Ecn::Capable0]);
    assert!(far.packets().packets().all(|packet| Sum::of(&packet[..20]).holds()));
}

/// A query with its checksum right; over IPv4 not to be fragmented, so that its identification says nothing.
fn query(from: &str, to: &str) -> Vec<u8> {
    let mut query = packet(from, to, &udp(5000, 53, 100));
    let (addresses, above) = if query[0] >> 4 == 4 { (12..20, 20) } else { (8..40, 40) };
    let sum = pseudo_header(&query[addresses], 17, 108).and(&query[above..]);
    query[above + 6..above + 8].copy_from_slice(&sum.checksum().to_be_bytes());
    if above == 20 {
        query[6] = 0x40;
        query[10..12].fill(0);
        let checksum = Sum::of(&query[..20]).checksum();
        query[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    Ecn::Capable0.write(&mut query);
    query
}

#[test]
fn what_arrives_together_is_written_together_but_for_a_checksum_that_is_wrong() {
    for (from, to) in [(DEVICE, SERVER), (DEVICE_V6, SERVER_V6)] {
        let mut lab = Lab::connected();
        let mut far = Outbox::new();
        let mut writes = |packets: &[Vec<u8>], ecn| {
            far.clear();
            let (mut bytes, segment_bytes) = train(&mut lab, packets);
            let from = Origin { address: DEVICE_AT.into(), ecn };
            let (gateway, now) = (&mut lab.gateway, lab.now);
            gateway.handle_datagrams(from, &mut bytes, segment_bytes, now, &mut far, |_| {});
            let mut coalescer = Coalescer::new(Merging { tcp: true, udp: true }, Outbox::ITEMS);
            coalescer.gather(far.packets()).map(|gathered| gathered.count()).collect::<Vec<_>>()
        };
        let mut packets = vec![query(from, to); 6];
        assert_eq!(writes(&packets, Ecn::Capable0), [6]);
        // The mark is written into each packet on arrival.
        assert_eq!(writes(&packets, Ecn::Congested), [6]);
        packets[2][60] ^= 1;
        assert_eq!(writes(&packets, Ecn::Capable0), [2, 1, 3]);
    }
}

#[test]
fn a_burst_allocates_nothing_on_its_way() {
    let mut lab = Lab::connected();
    let read = queries(SERVER, 40, 1392);
    send(&mut lab, &mut read.clone());
    let (mut near, mut far) = (Outbox::new(), Outbox::new());
    let mut coalescer = Coalescer::new(Merging { tcp: true, udp: true }, Outbox::ITEMS);
    let mut scratch = read.clone();
    let mut arrived = vec![0; 65_536];
    let Lab { device, gateway, now, .. } = &mut lab;
    let allocations = allocation_counter::measure(|| {
        for _ in 0..10 {
            scratch.copy_from_slice(&read);
            let mut burst = Burst::read(&mut scratch).unwrap();
            near.clear();
            device.handle_burst(&mut burst, *now, &mut near, |_| {});
            far.clear();
            for run in near.runs() {
                let from = Origin { address: DEVICE_AT.into(), ecn: run.ecn };
                let bytes = &mut arrived[..run.bytes.len()];
                bytes.copy_from_slice(run.bytes);
                gateway.handle_datagrams(from, bytes, run.segment_bytes, *now, &mut far, |_| {});
            }
            let gathered = coalescer.gather(far.packets());
            assert_eq!(gathered.map(|gathered: Gathered<'_>| gathered.count()).sum::<usize>(), 40);
        }
    });
    assert_eq!(allocations.count_total, 0);
}

#[test]
fn super_packets_of_a_runs_length_are_parted_on_no_side() {
    /// As many as an outbox has room for.
    const FITTING: usize = 8;
    let mut lab = Lab::connected();
    let mtu = lab.device.frame.as_ref().unwrap().mtu;
    let count = Outbox::run_packets(mtu);
    let mut out = Outbox::new();
    for _ in 0..FITTING {
        assert!(!out.is_full(), "the worker would not read another one");
        let mut read = queries(SERVER, count, usize::from(mtu) - 28);
        let mut burst = Burst::read(&mut read).unwrap();
        lab.device.handle_burst(&mut burst, lab.now, &mut out, |_| panic!("it fits"));
    }
    let mut trains: Vec<_> =
        out.runs().map(|run| (run.bytes.to_vec(), run.segment_bytes)).collect();
    assert!(out.is_full());
    assert_eq!(trains.len(), FITTING);
    assert!(trains.iter().all(|(bytes, segment_bytes)| bytes.len() == count * segment_bytes));

    // One more, sealed as another.
    let mut last = Outbox::new();
    let mut read = queries(SERVER, count, usize::from(mtu) - 28);
    let mut burst = Burst::read(&mut read).unwrap();
    lab.device.handle_burst(&mut burst, lab.now, &mut last, |_| panic!("it fits"));
    trains.extend(last.runs().map(|run| (run.bytes.to_vec(), run.segment_bytes)));
    let (mut arrived, mut at_flush) = (Outbox::new(), Vec::new());
    for (bytes, segment_bytes) in &mut trains {
        let from = SocketAddr::from(DEVICE_AT);
        lab.gateway.handle_datagrams(from, bytes, *segment_bytes, lab.now, &mut arrived, |out| {
            at_flush.push(out.packets().packets().count());
            out.clear();
        });
    }
    assert_eq!(at_flush, [FITTING * count]);
}
