//! From the TUN to the UDP socket: check addresses, judge, pad, seal.
//!
//! A burst is judged once: its packets differ in nothing that a rule or a flow could see. A packet that
//! waits for a handshake is judged when it comes and once more when it goes.

use std::net::SocketAddr;
use std::time::Instant;

use partywall_proto::flows::Traffic;

use super::{Outbox, Role, Shard, check_travel, unreadable};
use crate::filter::{Direction, DropReason, Verdict};
use crate::offload::Burst;
use crate::packet::{self, Ecn, Packet};
use crate::tunnel::{HEADER_BYTES, OVERHEAD_BYTES, padded_bytes};

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
        while let Some(packet) = burst.next_packet() {
            if out.is_full() {
                flush(out);
            }
            // A packet that came by itself may have bytes behind its end that nobody judged; a segment
            // is never longer than the whole.
            let packet = &packet[..packet.len().min(path.bytes)];
            if let Err(reason) = self.send_along(&path, packet, now, out) {
                self.counters.drop(reason);
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
        if entry.tunnel.is_connected(now) {
            return self.seal(path, packet, now, out);
        }
        // Keys may have ended since anybody looked; what waits goes when the tunnel comes up again.
        entry.note_connection(now);
        let waits = self.waiting.push(path.number, packet, &self.settings.limits);
        self.call(path.number, now, out);
        if waits { Ok(()) } else { Err(DropReason::NoHandshake) }
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

    fn seal(
        &mut self,
        path: &Path,
        bytes: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let padded = padded_bytes(bytes.len(), path.mtu);
        let room = out.datagram_room(padded + OVERHEAD_BYTES).ok_or(DropReason::OutboxFull)?;
        let entry = self.peers.at_mut(path.number).ok_or(DropReason::NoRoute)?;
        let (packet, padding) = room[HEADER_BYTES..HEADER_BYTES + padded].split_at_mut(bytes.len());
        packet.copy_from_slice(bytes);
        padding.fill(0);
        entry.tunnel.seal(&mut [room], now).ok_or(DropReason::NoHandshake)?;
        out.send_marked(path.endpoint, path.ecn, padded + OVERHEAD_BYTES);
        entry.sent.add(bytes.len());
        self.counters.sent.add(bytes.len());
        self.keep_time(path.number);
        Ok(())
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
