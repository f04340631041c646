//! From the UDP socket to the TUN: admit, open, check addresses, judge.
//!
//! Nothing that a datagram says counts before it was authenticated, its source address included.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Call, Outbox, Role, Shard, canonical, check_travel, unreadable};
use crate::filter::{Direction, DropReason, Verdict};
use crate::packet::{self, Ecn, Packet};
use crate::tunnel::{Caller, HANDSHAKE_MAX_BYTES, HEADER_BYTES, Message, Refusal, TunnelError};

impl Shard {
    /// Takes a datagram from the UDP socket.
    pub fn handle_datagram(
        &mut self,
        from: impl Into<Origin>,
        datagram: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) {
        let Origin { address, ecn } = from.into();
        let from = Origin { address: canonical(address), ecn };
        if let Err(reason) = self.receive(from, datagram, now, out) {
            self.counters.drop(reason);
        }
    }

    fn receive(
        &mut self,
        from: Origin,
        datagram: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        if self.frame.is_none() {
            return Err(DropReason::NoConfig);
        }
        let message = Message::read(datagram).ok_or(DropReason::GarbageDatagram)?;
        if let Some(index) = message.receiver() {
            let owner = index % u32::from(self.settings.shards.max(1));
            if owner != u32::from(self.settings.shard) {
                return Err(DropReason::OtherShard);
            }
        }
        let by_index = |index| self.peers.by_index(index).ok_or(DropReason::UnknownIndex);
        match message {
            Message::Data(index) => {
                let number = by_index(index)?;
                self.receive_data(number, from, datagram, now, out)
            }
            Message::CookieReply(index) => {
                let number = by_index(index)?;
                let entry = self.peers.at_mut(number).ok_or(DropReason::UnknownIndex)?;
                // It proves that somebody holds the peer's public key, which is no secret.
                entry.tunnel.take_cookie(datagram, now).map_err(unopened)
            }
            Message::Response(index) => {
                let number = by_index(index)?;
                self.admit(from.address, datagram, now, out)?;
                self.receive_answer(number, from.address, datagram, now, out)
            }
            Message::Initiation => {
                self.admit(from.address, datagram, now, out)?;
                let caller = self.identity.caller(datagram).ok_or(DropReason::BadHandshake)?;
                let key = caller.key();
                let number = self.peers.by_key(&key).ok_or(DropReason::UnknownPeer)?;
                if let Some(owner) = self.peers.owner(number) {
                    let call = Call::new(owner, from.address, key, datagram);
                    return out.hand_over(call).ok_or(DropReason::OtherShard);
                }
                self.receive_call(number, from.address, caller, now, out)
            }
        }
    }

    /// Takes a call that another shard has let in: it was counted there, and is not counted again.
    pub fn handle_call(&mut self, call: &Call, now: Instant, out: &mut Outbox) {
        if let Err(reason) = self.answer(call, now, out) {
            self.counters.drop(reason);
        }
    }

    fn answer(&mut self, call: &Call, now: Instant, out: &mut Outbox) -> Result<(), DropReason> {
        if self.frame.is_none() {
            return Err(DropReason::NoConfig);
        }
        let number = self.peers.by_key(&call.caller).ok_or(DropReason::UnknownPeer)?;
        if self.peers.owner(number).is_some() {
            return Err(DropReason::OtherShard);
        }
        let caller = self.identity.caller(&call.bytes).ok_or(DropReason::BadHandshake)?;
        self.receive_call(number, call.from, caller, now, out)
    }

    fn admit(
        &mut self,
        from: SocketAddr,
        message: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let room = out.datagram_room(HANDSHAKE_MAX_BYTES).ok_or(DropReason::OutboxFull)?;
        match self.identity.admit(from.ip(), message, room, now) {
            Ok(()) => Ok(()),
            Err(Refusal::BadMac) => Err(DropReason::BadMac),
            Err(Refusal::TooMany) => Err(DropReason::UnderLoad),
            Err(Refusal::UnderLoad(bytes)) => {
                out.send(from, bytes);
                Err(DropReason::UnderLoad)
            }
        }
    }

    fn receive_call(
        &mut self,
        number: u32,
        from: SocketAddr,
        caller: Caller,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let room = out.datagram_room(HANDSHAKE_MAX_BYTES).ok_or(DropReason::OutboxFull)?;
        let entry = self.peers.at_mut(number).ok_or(DropReason::UnknownPeer)?;
        entry.note_connection(now);
        let answer = entry.tunnel.answer(&self.identity, caller, now, room);
        out.send(from, answer.map_err(unopened)?);
        entry.heard(from);
        self.peer_spoke(number, now, out);
        Ok(())
    }

    fn receive_answer(
        &mut self,
        number: u32,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let room = out.datagram_room(HANDSHAKE_MAX_BYTES).ok_or(DropReason::OutboxFull)?;
        let entry = self.peers.at_mut(number).ok_or(DropReason::UnknownIndex)?;
        entry.note_connection(now);
        let confirmation = entry.tunnel.was_answered(&self.identity, datagram, now, room);
        out.send(from, confirmation.map_err(unopened)?);
        entry.heard(from);
        self.peer_spoke(number, now, out);
        Ok(())
    }

    fn receive_data(
        &mut self,
        number: u32,
        from: Origin,
        datagram: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let room = out.packet_room(datagram.len()).ok_or(DropReason::OutboxFull)?;
        let entry = self.peers.at_mut(number).ok_or(DropReason::UnknownIndex)?;
        room.copy_from_slice(datagram);
        let [opened, ..] = entry.tunnel.open(&mut [room], now);
        if matches!(opened, Ok(_) | Err(TunnelError::NotIp)) {
            entry.heard(from.address);
        }
        let judged = match opened.map_err(unopened) {
            Ok(0) => Ok(()),
            Ok(bytes) => {
                room.copy_within(HEADER_BYTES..HEADER_BYTES + bytes, 0);
                let judged = self
                    .judge_inner(number, &room[..bytes], now)
                    .map(|packet| packet.bytes.len())
                    .and_then(|bytes| carry_mark(&mut room[..bytes], from.ecn).map(|()| bytes));
                judged.map(|bytes| {
                    out.deliver(bytes);
                    self.counters.received.add(bytes);
                    if let Some(entry) = self.peers.at_mut(number) {
                        entry.received.add(bytes);
                    }
                })
            }
            Err(reason) => Err(reason),
        };
        self.peer_spoke(number, now, out);
        judged
    }

    /// Judges a decrypted packet.
    fn judge_inner<'a>(
        &mut self,
        number: u32,
        bytes: &'a [u8],
        now: Instant,
    ) -> Result<Packet<'a>, DropReason> {
        let packet = packet::parse(bytes).map_err(unreadable)?;
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
        match self.filter.verdict(Direction::OutOfTunnel, &packet, &entry.view(), now) {
            Verdict::Pass => Ok(packet),
            Verdict::Drop(reason) => Err(reason),
        }
    }

    /// A peer was heard: if its tunnel came up by that, what waited for it goes.
    fn peer_spoke(&mut self, number: u32, now: Instant, out: &mut Outbox) {
        self.keep_time(number);
        let Some(entry) = self.peers.at_mut(number) else { return };
        if entry.note_connection(now) {
            // Judged once more: rules may have changed while they waited.
            for packet in self.waiting.take(number) {
                self.handle_waited(&packet, now, out);
            }
        }
    }
}

/// Tells the inner packet of congestion that the outer one met (RFC 6040 §4.2).
fn carry_mark(packet: &mut [u8], outer: Ecn) -> Result<(), DropReason> {
    let inner = Ecn::of(packet);
    let after = Ecn::after_tunnel(inner, outer).ok_or(DropReason::CongestionUnheard)?;
    if after != inner {
        after.write(packet);
    }
    Ok(())
}

/// Where a datagram came from, and what its header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The sender, as the underlay has it.
    pub address: SocketAddr,
    /// What the outer header said of congestion.
    pub ecn: Ecn,
}

impl From<SocketAddr> for Origin {
    /// A sender whose header said nothing.
    fn from(address: SocketAddr) -> Self {
        Self { address, ecn: Ecn::NotCapable }
    }
}

fn unopened(error: TunnelError) -> DropReason {
    match error {
        TunnelError::Handshake => DropReason::BadHandshake,
        TunnelError::NoKeys => DropReason::NoKeys,
        TunnelError::Replayed => DropReason::Replayed,
        TunnelError::Unauthentic => DropReason::Unauthentic,
        TunnelError::NotIp => DropReason::Malformed,
    }
}
