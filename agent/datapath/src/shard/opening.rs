//! Data messages, from the UDP socket to the TUN: opened a batch at a time, checked, judged, delivered.
//!
//! Packets that nothing tells apart are judged as one, as a burst is that goes the other way; what is
//! delivered of them is each by itself.

use std::time::Instant;

use arrayvec::ArrayVec;
use partywall_aead::BATCH;
use partywall_proto::flows::Traffic;

use super::{Origin, Outbox, Role, Shard, check_travel, unreadable};
use crate::filter::{Direction, DropReason, Verdict};
use crate::packet::checksum::Sum;
use crate::packet::{self, Ecn, Packet};
use crate::tunnel::{HEADER_BYTES, Message, TunnelError};

/// Takes the data messages for the tunnel with this index that `datagrams` begins with, as many as are opened at
/// once; each is of `segment_bytes`, but the last of all may be shorter.
pub(super) fn take_batch<'a>(
    datagrams: &mut &'a mut [u8],
    segment_bytes: usize,
    index: u32,
) -> ArrayVec<&'a mut [u8], BATCH> {
    let mut taken = ArrayVec::new();
    while !taken.is_full() {
        let end = datagrams.len().min(segment_bytes);
        if Message::read(&datagrams[..end]) != Some(Message::Data(index)) {
            break;
        }
        taken.push(datagrams.split_off_mut(..end).unwrap_or_default());
    }
    taken
}

impl Shard {
    /// Takes data messages for the tunnel of peer `number`.
    ///
    /// # Errors
    /// Why all of them are dropped.
    pub(super) fn receive_data(
        &mut self,
        number: u32,
        from: Origin,
        datagrams: &mut [&mut [u8]],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let entry = self.peers.at_mut(number).ok_or(DropReason::UnknownIndex)?;
        let opened = entry.tunnel.open(datagrams, now);
        if opened.iter().any(|opened| matches!(opened, Ok(_) | Err(TunnelError::NotIp))) {
            entry.heard(from.address);
        }
        // Those that nothing tells from the first one, of which the filter sees that alone.
        let mut alike = Alike::default();
        for (datagram, opened) in datagrams.iter().zip(opened) {
            let packet = match opened {
                Ok(0) => None,
                Ok(bytes) => self.read_inner(&datagram[HEADER_BYTES..][..bytes]),
                Err(error) => {
                    self.counters.drop(unopened(error));
                    None
                }
            };
            let Some(packet) = packet else { continue };
            if !alike.take(&packet) {
                self.deliver_run(number, &alike, from.ecn, now, out);
                alike.begin(&packet);
            }
        }
        self.deliver_run(number, &alike, from.ecn, now, out);
        self.peer_spoke(number, now, out);
        Ok(())
    }

    fn read_inner<'a>(&mut self, bytes: &'a [u8]) -> Option<Packet<'a>> {
        let packet = packet::parse(bytes);
        packet.map_err(|error| self.counters.drop(unreadable(error))).ok()
    }

    /// Delivers packets that nothing tells apart, if the first one may pass.
    fn deliver_run(
        &mut self,
        number: u32,
        run: &Alike<'_>,
        mark: Ecn,
        now: Instant,
        out: &mut Outbox,
    ) {
        let Some(first) = &run.first else { return };
        let judged = self.judge_inner(number, first, run.load, now);
        for packet in &run.packets {
            let delivered = judged.and_then(|()| deliver(packet, mark, out));
            match delivered {
                Ok(()) => {
                    self.counters.received.add(packet.len());
                    if let Some(entry) = self.peers.at_mut(number) {
                        entry.received.add(packet.len());
                    }
                }
                Err(reason) => self.counters.drop(reason),
            }
        }
    }

    /// Judges decrypted packets, `load` in all, by the first one.
    fn judge_inner(
        &mut self,
        number: u32,
        packet: &Packet<'_>,
        load: Traffic,
        now: Instant,
    ) -> Result<(), DropReason> {
        check_travel(packet.source, packet.destination)?;
        // Cryptokey routing: the peer speaks for the addresses that are routed to it, and no others.
        if self.peers.by_address(packet.source) != Some(number) {
            return Err(DropReason::WrongSource);
        }
        if self.settings.role == Role::Device {
            let frame = self.frame.as_ref().ok_or(DropReason::NoConfig)?;
            if !frame.addresses.contains(&packet.destination) {
                return Err(DropReason::WrongDestination);
            }
        }
        let entry = self.peers.at(number).ok_or(DropReason::UnknownIndex)?;
        match self.filter.verdict_for(load, Direction::OutOfTunnel, packet, &entry.view(), now) {
            Verdict::Pass => Ok(()),
            Verdict::Drop(reason) => Err(reason),
        }
    }
}

/// Packets that came one after the other and that nothing tells apart.
#[derive(Default)]
struct Alike<'a> {
    first: Option<Packet<'a>>,
    packets: ArrayVec<&'a [u8], BATCH>,
    load: Traffic,
}

impl<'a> Alike<'a> {
    /// Lets go of what there is for the first one of another kind.
    fn begin(&mut self, first: &Packet<'a>) {
        self.first = Some(*first);
        self.packets.clear();
        self.load = Traffic::default();
        self.add(first);
    }

    /// Takes one more, unless it is another kind.
    fn take(&mut self, packet: &Packet<'a>) -> bool {
        let is_like = self.first.as_ref().is_some_and(|first| packet.is_like(first));
        if is_like {
            self.add(packet);
        }
        is_like
    }

    fn add(&mut self, packet: &Packet<'a>) {
        self.packets.push(packet.bytes);
        self.load.packets += 1;
        self.load.bytes += packet.bytes.len() as u64;
    }
}

/// Has a packet go to the TUN, with the mark of congestion that the outer header had (RFC 6040 §4.2).
fn deliver(packet: &[u8], mark: Ecn, out: &mut Outbox) -> Result<(), DropReason> {
    let inner = Ecn::of(packet);
    let after = Ecn::after_tunnel(inner, mark).ok_or(DropReason::CongestionUnheard)?;
    let room = out.packet_room(packet.len()).ok_or(DropReason::OutboxFull)?;
    let sum = Sum::default().and_copied(packet, room);
    if after != inner {
        after.write(room);
    }
    out.deliver_summed(packet.len(), (after == inner).then_some(sum));
    Ok(())
}

pub(super) fn unopened(error: TunnelError) -> DropReason {
    match error {
        TunnelError::Handshake => DropReason::BadHandshake,
        TunnelError::NoKeys => DropReason::NoKeys,
        TunnelError::Replayed => DropReason::Replayed,
        TunnelError::Unauthentic => DropReason::Unauthentic,
        TunnelError::NotIp => DropReason::Malformed,
    }
}
