//! Cases of super-packets: taken apart, sealed as they are taken apart, put together.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use partywall_datapath::offload::{Batch, Burst, Coalescer, Merging};
use partywall_datapath::shard::Outbox;

use super::cases::Work;
use super::packets;
use super::wire::Wire;

/// Full segments that fit a super-packet of 64 KiB.
const SEGMENTS: usize = 46;

/// A super-packet into packets.
pub(super) fn split() -> Result<Work> {
    let given = packets::super_packet(Wire::connected()?.ends, SEGMENTS);
    let mut bytes = given.clone();
    let mut room = given.clone();
    Ok(Box::new(move |meter| {
        bytes.copy_from_slice(&given);
        let mut taken = 0;
        meter.each(SEGMENTS, || {
            let Ok(mut burst) = Burst::read(&mut bytes) else { return };
            while let Some(count) = burst.next_bytes() {
                burst.write_next(&mut room[..count]);
                black_box(&room);
                taken += 1;
            }
        });
        assert_eq!(taken, SEGMENTS);
    }))
}

/// A super-packet into datagrams: judged once, split, sealed.
pub(super) fn seal_burst() -> Result<Work> {
    let Wire { mut device, ends, .. } = Wire::connected()?;
    let opening = packets::tcp(ends, packets::SYN, 0, 40);
    let mut out = Outbox::new();
    device.handle_packet(&opening, Instant::now(), &mut out);
    let given = packets::super_packet(ends, SEGMENTS);
    let mut bytes = given.clone();
    Ok(Box::new(move |meter| {
        bytes.copy_from_slice(&given);
        out.clear();
        let now = Instant::now();
        meter.each(SEGMENTS, || {
            if let Ok(mut burst) = Burst::read(&mut bytes) {
                device.handle_burst(&mut burst, now, &mut out, Outbox::clear);
            }
        });
        assert_eq!(out.datagrams().len(), SEGMENTS, "{:?}", device.counters());
    }))
}

/// Packets of one stream into a super-packet.
pub(super) fn coalesce() -> Result<Work> {
    let stream = packets::stream(Wire::connected()?.ends, SEGMENTS);
    let mut bytes = Vec::new();
    let mut items = Vec::new();
    for packet in &stream {
        items.push(bytes.len()..bytes.len() + packet.len());
        bytes.extend(packet);
    }
    let mut coalescer = Coalescer::new(Merging { tcp: true, udp: true }, Outbox::ITEMS);
    Ok(Box::new(move |meter| {
        let mut writes = 0;
        meter.each(SEGMENTS, || {
            for gathered in coalescer.gather(Batch::new(&bytes, &items)) {
                black_box(gathered.headers());
                gathered.payloads().for_each(|payload| {
                    black_box(payload);
                });
                writes += 1;
            }
        });
        assert_eq!(writes, 1, "the stream was not put together");
    }))
}
