//! From the TUN to the UDP socket: check addresses, judge, pad, seal.
//!
//! A burst is judged once: its packets differ in nothing that a rule or a flow could see. They are written to
//! where they are to lie as datagrams, next to each other, and sealed there, a batch at a time. A packet
//! that waits for a handshake is judged when it comes and once more when it goes.

use std::net::SocketAddr;
use std::time::Instant;

use partywall_aead::BATCH;
use partywall_proto::flows::Traffic;

use super::sealing::{Sealed, Sealing};
use super::{Outbox, Role, Shard, check_travel, unreadable};
use crate::filter::{Direction, DropReason, Verdict};
use crate::offload::Burst;
use crate::packet::{self, Ecn, Packet};
use crate::tunnel::{OVERHEAD_BYTES, padded_bytes};

impl Shard {
    /// Takes a packet from the TUN.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant, out: &mut Outbox) {
        if let Err(reason) = self.send(packet, None, now, out) {
            self.counters.drop(reason);
            self.tell_sender(packet, reason, now, out);
        }
    }

    /// Takes a packet that has waited. Its flow counted it when it came.
    pub(super) fn handle_waited(&mut self, packet: &[u8], now: Instant, out: &mut Outbox) {
        if let Err(reason) = self.send(packet, Some(Traffic::default()), now, out) {
            self.counters.drop(reason);
        }
    }

    /// Takes what one read of the TUN brought. It may be more than the outbox holds: `flush` is called
    /// whenever that is full, and must [clear](Outbox::clear) it.
    pub fn handle_burst(
        &mut self,
        burst: &mut Burst<'_>,
        now: Instant,
        out: &mut Outbox,
        mut flush: impl FnMut(&mut Outbox),
    ) {
        let packets = burst.remaining();
        let path = match self.path(burst.whole(), burst.load(), now) {
            Ok(path) => path,
            Err(reason) => {
                (0..packets).for_each(|_| self.counters.drop(reason));
                return self.tell_sender(burst.whole(), reason, now, out);
            }
        };
        // Nobody judged what comes behind its end.
        burst.cut(path.bytes);
        while let Some(bytes) = burst.next_bytes() {
            let datagram_bytes = padded_bytes(bytes, path.mtu) + OVERHEAD_BYTES;
            if out.is_full_for_datagrams(burst.remaining().min(BATCH) * datagram_bytes) {
                flush(out);
            }
            if let Err(reason) = self.send_batch(&path, burst, now, out) {
                return (0..burst.remaining()).for_each(|_| self.counters.drop(reason));
            }
        }
    }

    fn send(
        &mut self,
        bytes: &[u8],
        load: Option<Traffic>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let path = self.path(bytes, load, now)?;
        self.send_along(&path, &bytes[..path.bytes], now, out)
    }

    /// Judges a packet, or a burst as one, and finds its way. Its flow counts `load`, or else the one
    /// packet.
    fn path(
        &mut self,
        bytes: &[u8],
        load: Option<Traffic>,
        now: Instant,
    ) -> Result<Path, DropReason> {
        let mtu = self.frame.as_ref().ok_or(DropReason::NoConfig)?.mtu;
        let packet = packet::parse(bytes).map_err(unreadable)?;
        let one = || Traffic { packets: 1, bytes: packet.bytes.len() as u64 };
        let number = self.judge_outer(&packet, load.unwrap_or_else(one), now)?;
        let entry = self.peers.at(number).ok_or(DropReason::NoRoute)?;
        let endpoint = entry.endpoint.ok_or(DropReason::NoEndpoint)?;
        Ok(Path { number, endpoint, mtu, ecn: Ecn::of(bytes), bytes: packet.bytes.len() })
    }

    /// Seals a packet that was judged, or has it wait for a handshake.
    fn send_along(
        &mut self,
        path: &Path,
        packet: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let entry = self.peers.at_mut(path.number).ok_or(DropReason::NoRoute)?;
        if !entry.tunnel.is_connected(now) {
            // Keys may have ended since anybody looked; what waits goes when the tunnel comes up again.
            entry.note_connection(now);
            let waits = self.waiting.push(path.number, packet, &self.settings.limits);
            self.call(path.number, now, out);
            return if waits { Ok(()) } else { Err(DropReason::NoHandshake) };
        }
        let mut sealing = Sealing::new(out.datagram_rooms(), path.mtu);
        let place = sealing.place(packet.len()).ok_or(DropReason::OutboxFull)?;
        place.copy_from_slice(packet);
        let sealed = sealing.seal(&mut entry.tunnel, now).ok_or(DropReason::NoHandshake)?;
        self.sent(path, &sealed, out);
        Ok(())
    }

    /// Seals as many of a burst's packets at once as there is room for, or has all of them wait for a
    /// handshake.
    ///
    /// # Errors
    /// Why those that are left have to be dropped.
    fn send_batch(
        &mut self,
        path: &Path,
        burst: &mut Burst<'_>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let entry = self.peers.at_mut(path.number).ok_or(DropReason::NoRoute)?;
        if !entry.tunnel.is_connected(now) {
            return self.hold(path.number, burst, now, out);
        }
        let mut sealing = Sealing::new(out.datagram_rooms(), path.mtu);
        while let Some(bytes) = burst.next_bytes()
            && let Some(place) = sealing.place(bytes)
        {
            burst.write_next(place);
        }
        let sealed = sealing.seal(&mut entry.tunnel, now).ok_or(DropReason::OutboxFull)?;
        self.sent(path, &sealed, out);
        Ok(())
    }

    /// Has a burst's packets wait for a handshake.
    fn hold(
        &mut self,
        number: u32,
        burst: &mut Burst<'_>,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        if let Some(entry) = self.peers.at_mut(number) {
            entry.note_connection(now);
        }
        while let Some(bytes) = burst.next_bytes() {
            // It is written to where it would be sealed, and kept elsewhere.
            let room = out.datagram_room(bytes).ok_or(DropReason::OutboxFull)?;
            burst.write_next(room);
            if !self.waiting.push(number, room, &self.settings.limits) {
                self.counters.drop(DropReason::NoHandshake);
            }
        }
        self.call(number, now, out);
        Ok(())
    }

    /// Has what was sealed go, and counts it.
    fn sent(&mut self, path: &Path, sealed: &Sealed, out: &mut Outbox) {
        for &bytes in sealed.datagrams() {
            out.send_marked(path.endpoint, path.ecn, bytes);
        }
        let inner = sealed.inner();
        self.counters.sent.add_all(inner);
        if let Some(entry) = self.peers.at_mut(path.number) {
            entry.sent.add_all(inner);
        }
        self.keep_time(path.number);
    }

    /// Judges a packet from the TUN; the peer that it goes to.
    fn judge_outer(
        &mut self,
        packet: &Packet<'_>,
        load: Traffic,
        now: Instant,
    ) -> Result<u32, DropReason> {
        check_travel(packet.source, packet.destination)?;
        if self.settings.role == Role::Device {
            let frame = self.frame.as_ref().ok_or(DropReason::NoConfig)?;
            if !frame.addresses.contains(&packet.source) {
                return Err(DropReason::WrongSource);
            }
        }
        let number = self.peers.by_address(packet.destination).ok_or(DropReason::NoRoute)?;
        let entry = self.peers.at(number).ok_or(DropReason::OtherShard)?;
        let view = entry.view();
        match self.filter.verdict_for(load, Direction::IntoTunnel, packet, &view, now) {
            Verdict::Pass => Ok(number),
            Verdict::Drop(reason) => Err(reason),
        }
    }
}

/// Where packets go that were judged.
struct Path {
    /// The peer.
    number: u32,
    endpoint: SocketAddr,
    mtu: u16,
    /// The packets' own, which the outer header repeats (RFC 6040 §4.1).
    ecn: Ecn,
    /// Of what was judged, the packet's own length.
    bytes: usize,
}
