//! Taking apart and putting together, against each other and against packets made by hand.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::layout::{Layout, Upper};
use super::vnet::{Kind, VnetHeader};
use super::{Batch, Burst, Coalescer, Merging, VNET_HEADER_BYTES};
use crate::packet::checksum::Sum;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;
const ALL: Merging = Merging { tcp: true, udp: true };

/// A packet of flow `flow`, with every checksum right. Odd flows are IPv6; from 4 on they are UDP.
#[derive(Debug, Clone)]
struct Made {
    flow: u8,
    sequence: u32,
    id: u16,
    flags: u8,
    payload: Vec<u8>,
    is_corrupt: bool,
}

impl Made {
    fn of(flow: u8, sequence: u32, payload: &[u8]) -> Self {
        let payload = payload.to_vec();
        Self { flow, sequence, id: 7, flags: ACK, payload, is_corrupt: false }
    }

    fn upper(&self) -> Upper {
        if self.flow < 4 { Upper::Tcp } else { Upper::Udp }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut above = (1000 + u16::from(self.flow)).to_be_bytes().to_vec();
        above.extend(443_u16.to_be_bytes());
        match self.upper() {
            Upper::Tcp => {
                above.extend(self.sequence.to_be_bytes());
                above.extend([0, 0, 0, 9, 8 << 4, self.flags, 1, 0, 0, 0, 0, 0]);
                above.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
            }
            Upper::Udp => {
                above.extend((8 + self.payload.len() as u16).to_be_bytes());
                above.extend([0, 0]);
            }
        }
        above.extend(&self.payload);
        let mut bytes = if self.flow.is_multiple_of(2) {
            let mut bytes = vec![0x45, 0];
            bytes.extend((20 + above.len() as u16).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
            bytes.extend([0, 0, 64, self.upper().protocol(), 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = Sum::of(&bytes).checksum();
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            bytes
        } else {
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend((above.len() as u16).to_be_bytes());
            bytes.extend([self.upper().protocol(), 64]);
            bytes.extend([0xfd; 16]);
            bytes.extend([0xfc; 16]);
            bytes
        };
        bytes.extend(&above);
        let layout = Layout::of(&bytes).unwrap();
        let sum = layout.pseudo_header(&bytes, above.len()).and(&above).checksum();
        let sum = if sum == 0 && self.upper() == Upper::Udp { 0xffff } else { sum };
        let at = layout.transport + self.upper().checksum_at();
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        if self.is_corrupt {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        bytes
    }
}

/// What each write to the TUN would carry, whether or not sums are known.
fn writes(packets: &[Vec<u8>], merging: Merging) -> Vec<(usize, Vec<u8>)> {
    let mut arena = Vec::new();
    let mut items: Vec<Range<usize>> = Vec::new();
    for packet in packets {
        items.push(arena.len()..arena.len() + packet.len());
        arena.extend(packet);
    }
    let batch = Batch::new(&arena, &items);
    let sums = packets.iter().enumerate().map(|(at, packet)| (at % 3 < 2).then(|| Sum::of(packet)));
    let sums: Vec<_> = sums.collect();
    let writes = written(batch, merging);
    assert_eq!(written(batch.with_sums(&sums), merging), writes);
    writes
}

fn written(batch: Batch<'_>, merging: Merging) -> Vec<(usize, Vec<u8>)> {
    let mut coalescer = Coalescer::new(merging, batch.len());
    let gathered = coalescer.gather(batch);
    gathered
        .map(|gathered| {
            let mut bytes = gathered.headers().to_vec();
            gathered.payloads().for_each(|payload| bytes.extend(payload));
            assert_eq!(gathered.packets().count(), gathered.count());
            (gathered.count(), bytes)
        })
        .collect()
}

/// The packets that a kernel makes of a write again.
fn taken_apart(mut write: Vec<u8>) -> Vec<Vec<u8>> {
    let mut burst = Burst::read(&mut write).unwrap();
    let mut packets = Vec::new();
    let expected = burst.remaining();
    let load = burst.load();
    while let Some(bytes) = burst.next_bytes() {
        let mut packet = vec![0; bytes];
        burst.write_next(&mut packet);
        packets.push(packet);
    }
    assert_eq!(packets.len(), expected);
    if let Some(load) = load {
        let bytes = packets.iter().map(Vec::len).sum::<usize>();
        assert_eq!((load.packets, load.bytes), (expected as u64, bytes as u64));
    }
    packets
}

fn counts(made: &[Made]) -> Vec<usize> {
    let packets: Vec<_> = made.iter().map(Made::bytes).collect();
    writes(&packets, ALL).into_iter().map(|(count, _)| count).collect()
}

#[test]
fn a_stream_becomes_one_super_packet_and_the_same_segments_again() {
    for flow in 0..8 {
        let made: Vec<_> = (0..5_u32)
            .map(|n| {
                let payload = vec![n as u8; if n == 4 { 33 } else { 100 }];
                let flags = if n == 4 { ACK | PSH } else { ACK };
                let id = if flow % 2 == 0 { 7 + n as u16 } else { 7 };
                Made { flags, id, ..Made::of(flow, 50 + n * 100, &payload) }
            })
            .collect();
        let packets: Vec<_> = made.iter().map(Made::bytes).collect();
        let writes = writes(&packets, ALL);
        assert_eq!(writes.len(), 1, "flow {flow}");
        assert_eq!(taken_apart(writes[0].1.clone()), packets, "flow {flow}");
    }
}

#[test]
fn a_packet_of_ipv6_may_be_longer_than_its_length_field_says() {
    // Its 40 bytes of header do not count (RFC 8200 §3).
    let packet = Made::of(1, 5, &[3; 65_535 - 32]).bytes();
    assert_eq!(packet.len(), 65_575);
    let header = VnetHeader {
        kind: Kind::Tcp,
        segment_bytes: u16::MAX,
        checksum: Some((40, 16)),
        header_bytes: 72,
        congestion_reduced: false,
    };
    let write = [&header.write(6)[..], &packet].concat();
    assert_eq!(taken_apart(write), [packet]);
}

#[test]
fn what_a_receiver_would_see_differently_is_not_merged() {
    let first = Made::of(1, 100, &[1; 50]);
    let next = Made::of(1, 150, &[2; 50]);
    assert_eq!(counts(&[first.clone(), next.clone()]), [2]);
    let gap = Made { sequence: 151, ..next.clone() };
    let ends = Made { flags: ACK | FIN, ..first.clone() };
    let pushed = Made { flags: ACK | PSH, ..first.clone() };
    let larger = Made { payload: vec![2; 51], ..next.clone() };
    let reset = Made { flags: ACK | 0x04, ..next.clone() };
    let urgent = Made { flags: ACK | 0x20, ..next.clone() };
    let slower = Made { flags: ACK | CWR, ..next.clone() };
    let empty = Made { payload: vec![], ..next.clone() };
    let other = Made { flow: 3, ..next.clone() };
    for second in [gap, larger, reset, urgent, slower, empty, other] {
        assert_eq!(counts(&[first.clone(), second.clone()]), [1, 1], "{second:?}");
    }
    for first in [ends, pushed] {
        assert_eq!(counts(&[first.clone(), next.clone()]), [1, 1], "{first:?}");
    }
    // Of IPv4, an identification that does not go on; of UDP, an empty datagram.
    let other_id = Made { id: 9, ..Made::of(0, 150, &[2; 50]) };
    assert_eq!(counts(&[Made::of(0, 100, &[1; 50]), other_id]), [1, 1]);
    assert_eq!(counts(&[Made::of(5, 0, &[1; 50]), Made::of(5, 0, &[])]), [1, 1]);
}

#[test]
fn a_wrong_checksum_is_never_made_right() {
    for corrupt in 0..3 {
        for flow in [0, 1, 4, 5] {
            let made: Vec<_> = (0..3_u32)
                .map(|n| Made {
                    id: 7 + n as u16,
                    is_corrupt: n == corrupt,
                    ..Made::of(flow, n * 10, &[5; 10])
                })
                .collect();
            let packets: Vec<_> = made.iter().map(Made::bytes).collect();
            let seen: Vec<_> = writes(&packets, ALL)
                .into_iter()
                .flat_map(|(_, write)| taken_apart(write))
                .collect();
            assert_eq!(seen, packets, "packet {corrupt} of flow {flow}");
        }
    }
    // Nor the checksum of an IPv4 header, nor one that is not there.
    let mut packets: Vec<_> = (0..2_u32)
        .map(|n| Made { id: 7 + n as u16, ..Made::of(0, n * 10, &[5; 10]) }.bytes())
        .collect();
    packets[1][10] ^= 1;
    assert_eq!(writes(&packets, ALL).len(), 2);
    let mut packets: Vec<_> = (0..2).map(|_| Made::of(5, 0, &[5; 10]).bytes()).collect();
    packets.iter_mut().for_each(|packet| packet[46..48].fill(0));
    assert_eq!(writes(&packets, ALL).len(), 2);
}

#[test]
fn nothing_overtakes_a_packet_whose_flow_is_not_known() {
    // A part of a larger datagram, which may well be of the same flow.
    let mut part = Made::of(4, 0, &[9; 16]).bytes();
    part[6] = 0x20;
    let packets = vec![
        Made::of(4, 0, &[1; 16]).bytes(),
        part,
        Made { id: 8, ..Made::of(4, 0, &[2; 16]) }.bytes(),
    ];
    assert_eq!(
        writes(&packets, ALL).iter().map(|(count, _)| *count).collect::<Vec<_>>(),
        [1, 1, 1]
    );
}

#[test]
fn only_what_the_kernel_takes_is_merged() {
    let tcp: Vec<_> = (0..3_u32).map(|n| Made::of(1, n * 10, &[1; 10]).bytes()).collect();
    let udp: Vec<_> = (0..3_u32).map(|_| Made::of(5, 0, &[1; 10]).bytes()).collect();
    for (packets, of_tcp, of_udp) in [(&tcp, 1, 3), (&udp, 3, 1)] {
        assert_eq!(writes(packets, Merging { tcp: true, udp: false }).len(), of_tcp);
        assert_eq!(writes(packets, Merging { tcp: false, udp: true }).len(), of_udp);
    }
}

#[test]
fn a_group_stays_within_one_ip_packet_and_one_write() {
    let large: Vec<_> = (0..60_u32).map(|n| Made::of(1, n * 1400, &[1; 1400])).collect();
    let small: Vec<_> = (0..300_u32).map(|n| Made::of(1, n * 8, &[1; 8])).collect();
    assert_eq!(counts(&large), [46, 14]);
    assert_eq!(counts(&small), [128, 128, 44]);
}

#[test]
fn a_checksum_that_was_left_to_us_is_completed() {
    for flow in [0, 1, 4, 5] {
        let expected = Made::of(flow, 1, b"payload").bytes();
        let layout = Layout::of(&expected).unwrap();
        let at = layout.transport + layout.upper.checksum_at();
        let mut read = vec![1, 0, 0, 0, 0, 0];
        read.extend((layout.transport as u16).to_ne_bytes());
        read.extend((layout.upper.checksum_at() as u16).to_ne_bytes());
        read.extend(&expected);
        let partial = layout.pseudo_header(&expected, expected.len() - layout.transport).fold();
        read[VNET_HEADER_BYTES + at..][..2].copy_from_slice(&partial.to_be_bytes());
        assert_eq!(taken_apart(read), [expected]);
    }
}

proptest! {
    #[test]
    fn nothing_that_a_tun_could_give_is_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(mut burst) = Burst::read(&mut bytes) {
            let mut left = burst.remaining();
            while let Some(bytes) = burst.next_bytes() {
                burst.write_next(&mut vec![0; bytes]);
                left -= 1;
            }
            prop_assert_eq!(left, 0);
        }
    }

    #[test]
    fn nor_is_a_real_packet_under_a_false_header(
        header in any::<[u8; 10]>(), kind in 0_u8..7, flow in 0_u8..8, length in 0_usize..3000,
    ) {
        let mut bytes = header.to_vec();
        bytes[1] = kind;
        bytes.extend(Made::of(flow, 1, &vec![3; length]).bytes());
        if let Ok(mut burst) = Burst::read(&mut bytes) {
            while let Some(bytes) = burst.next_bytes() {
                burst.write_next(&mut vec![0; bytes]);
            }
        }
    }

    /// The promise: whatever comes in whatever order, each flow's receiver sees the same bytes in the
    /// same order.
    #[test]
    fn every_flow_comes_through_in_order_and_unaltered(
        steps in proptest::collection::vec((0_u8..8, 0_usize..4, 0_u8..24, any::<u8>()), 1..120),
    ) {
        let mut next: BTreeMap<u8, (u32, u16)> = BTreeMap::new();
        let mut packets = Vec::new();
        for (flow, size, chance, byte) in steps {
            let (sequence, id) = next.entry(flow).or_insert((0, 0));
            let payload = vec![byte; [64, 64, 63, 0][size]];
            let flags = match chance { 0 => ACK | PSH, 1 => ACK | FIN, 2 => ACK | CWR, 3 => 0x04, _ => ACK };
            // A lost one, and one that came twice.
            if chance == 4 { *sequence += 64; *id = id.wrapping_add(1); }
            let made = Made { flow, sequence: *sequence, id: *id, flags, payload, is_corrupt: chance == 5 };
            packets.push(made.bytes());
            if chance == 6 { packets.push(made.bytes()); }
            if chance == 7 {
                // Of the same flow, but it cannot be merged: an option of IPv4, or a fragment.
                let mut odd = made.bytes();
                if flow.is_multiple_of(2) { odd[6] |= 0x20; } else { odd[6] = 44; }
                packets.push(odd);
            }
            *sequence += made.payload.len() as u32;
            *id = id.wrapping_add(1);
        }
        let flow = |packet: &[u8]| if packet[0] >> 4 == 4 { packet[20..22].to_vec() } else { packet[40..42].to_vec() };
        let by_flow = |packets: Vec<Vec<u8>>| {
            let mut flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
            packets.into_iter().for_each(|packet| flows.entry(flow(&packet)).or_default().push(packet));
            flows
        };
        let seen = writes(&packets, ALL).into_iter().flat_map(|(_, write)| taken_apart(write)).collect();
        prop_assert_eq!(by_flow(seen), by_flow(packets));
    }
}
