//! From the TUN to the UDP socket: check addresses, judge, pad, seal.
//!
//! A packet that waits for a handshake is judged when it comes and once more when it goes.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Outbox, PACKET_MAX_BYTES, Role, Shard, check_travel, unreadable};
use crate::filter::{Direction, DropReason, Verdict};
use crate::packet::{self, Packet};
use crate::tunnel::{OVERHEAD_BYTES, padded_bytes};

impl Shard {
    /// Takes a packet from the TUN.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant, out: &mut Outbox) {
        if let Err(reason) = self.send(packet, now, out) {
            self.counters.drop(reason);
        }
    }

    fn send(&mut self, bytes: &[u8], now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        let mtu = self.frame.as_ref().ok_or(DropReason::NoConfig)?.mtu;
        let packet = packet::parse(bytes).map_err(unreadable)?;
        let number = self.judge_outer(&packet, now)?;
        let entry = self.peers.at_mut(number).ok_or(DropReason::NoRoute)?;
        let endpoint = entry.endpoint.ok_or(DropReason::NoEndpoint)?;
        if entry.tunnel.is_connected() {
            return self.seal(number, endpoint, packet.bytes, mtu, now, out);
        }
        let waits = entry.waiting.len() < self.settings.limits.waiting_packets;
        if waits {
            entry.waiting.push_back(packet.bytes.to_vec());
        }
        self.call(number, now, out);
        if waits { Ok(()) } else { Err(DropReason::NoHandshake) }
    }

    /// Judges a packet from the TUN; the peer that it goes to.
    fn judge_outer(&mut self, packet: &Packet<'_>, now: Instant) -> Result<u32, DropReason> {
        check_travel(packet.source, packet.destination)?;
        if self.settings.role == Role::Device {
            let frame = self.frame.as_ref().ok_or(DropReason::NoConfig)?;
            if !frame.addresses.contains(&packet.source) {
                return Err(DropReason::WrongSource);
            }
        }
        let number = self.peers.by_address(packet.destination).ok_or(DropReason::NoRoute)?;
        let entry = self.peers.at(number).ok_or(DropReason::NoRoute)?;
        match self.filter.verdict(Direction::IntoTunnel, packet, &entry.view(), now) {
            Verdict::Pass => Ok(number),
            Verdict::Drop(reason) => Err(reason),
        }
    }

    fn seal(
        &mut self,
        number: u32,
        endpoint: SocketAddr,
        bytes: &[u8],
        mtu: u16,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let padded = padded_bytes(bytes.len(), mtu);
        let room = out.datagram_room(padded + OVERHEAD_BYTES).ok_or(DropReason::OutboxFull)?;
        let entry = self.peers.at_mut(number).ok_or(DropReason::NoRoute)?;
        // Packets of full size, which are most of the bytes, need no padding and no copy.
        let sealed = if padded == bytes.len() {
            entry.tunnel.seal(bytes, now, room)
        } else {
            debug_assert!(bytes.len() <= PACKET_MAX_BYTES);
            self.scratch[..bytes.len()].copy_from_slice(bytes);
            self.scratch[bytes.len()..padded].fill(0);
            entry.tunnel.seal(&self.scratch[..padded], now, room)
        };
        let sealed = sealed.ok_or(DropReason::NoHandshake)?;
        out.send(endpoint, sealed);
        entry.sent.add(bytes.len());
        self.counters.sent.add(bytes.len());
        Ok(())
    }
}
