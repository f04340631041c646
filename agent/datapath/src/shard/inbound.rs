//! From the UDP socket: who a datagram is for, and handshakes.
//!
//! Nothing that a datagram says counts before it was authenticated, its source address included.

use std::net::SocketAddr;
use std::time::Instant;

use partywall_aead::BATCH;

use super::opening::{take_batch, unopened};
use super::{Call, Outbox, Shard, canonical};
use crate::filter::DropReason;
use crate::packet::Ecn;
use crate::tunnel::{Caller, HANDSHAKE_MAX_BYTES, Message, Refusal};

impl Shard {
    /// Takes what one read of the UDP socket brought: datagrams of one sender, each of `segment_bytes`, but the
    /// last may be shorter. They are opened in place. It may be more than the outbox holds: `flush` is
    /// called whenever that is full, and must [clear](Outbox::clear) it.
    pub fn handle_datagrams(
        &mut self,
        from: impl Into<Origin>,
        mut bytes: &mut [u8],
        segment_bytes: usize,
        now: Instant,
        out: &mut Outbox,
        mut flush: impl FnMut(&mut Outbox),
    ) {
        let Origin { address, ecn } = from.into();
        let from = Origin { address: canonical(address), ecn };
        let segment_bytes = segment_bytes.max(1);
        loop {
            if out.is_full_for_packets(bytes.len().min(BATCH * segment_bytes)) {
                flush(out);
            }
            let end = bytes.len().min(segment_bytes);
            let message = Message::read(&bytes[..end]);
            let (count, received) = if let Some(Message::Data(index)) = message {
                let mut sealed = take_batch(&mut bytes, segment_bytes, index);
                (sealed.len(), self.data(index, from, &mut sealed, now, out))
            } else {
                // An empty datagram is one too, that somebody sent.
                let datagram = bytes.split_off_mut(..end).unwrap_or_default();
                (1, self.receive(from.address, message, datagram, now, out))
            };
            if let Err(reason) = received {
                (0..count).for_each(|_| self.counters.drop(reason));
            }
            if bytes.is_empty() {
                return;
            }
        }
    }

    fn data(
        &mut self,
        index: u32,
        from: Origin,
        sealed: &mut [&mut [u8]],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let number = self.number_of(index)?;
        self.receive_data(number, from, sealed, now, out)
    }

    /// The peer whose tunnel has this index.
    fn number_of(&self, index: u32) -> Result<u32, DropReason> {
        if self.frame.is_none() {
            return Err(DropReason::NoConfig);
        }
        let owner = index % u32::from(self.settings.shards.max(1));
        if owner != u32::from(self.settings.shard) {
            return Err(DropReason::OtherShard);
        }
        self.peers.by_index(index).ok_or(DropReason::UnknownIndex)
    }

    fn receive(
        &mut self,
        from: SocketAddr,
        message: Option<Message>,
        datagram: &[u8],
        now: Instant,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        if self.frame.is_none() {
            return Err(DropReason::NoConfig);
        }
        let message = message.ok_or(DropReason::GarbageDatagram)?;
        match message {
            Message::Data(_) => Err(DropReason::GarbageDatagram),
            Message::CookieReply(index) => {
                let number = self.number_of(index)?;
                let entry = self.peers.at_mut(number).ok_or(DropReason::UnknownIndex)?;
                // It proves that somebody holds the peer's public key, which is no secret.
                entry.tunnel.take_cookie(datagram, now).map_err(unopened)
            }
            Message::Response(index) => {
                let number = self.number_of(index)?;
                self.admit(from, datagram, now, out)?;
                self.receive_answer(number, from, datagram, now, out)
            }
            Message::Initiation => {
                self.admit(from, datagram, now, out)?;
                let caller = self.identity.caller(datagram).ok_or(DropReason::BadHandshake)?;
                let key = caller.key();
                let number = self.peers.by_key(&key).ok_or(DropReason::UnknownPeer)?;
                if let Some(owner) = self.peers.owner(number) {
                    let call = Call::new(owner, from, key, datagram);
                    return out.hand_over(call).ok_or(DropReason::OtherShard);
                }
                self.receive_call(number, from, caller, now, out)
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

    /// A peer was heard: if its tunnel came up by that, what waited for it goes.
    pub(super) fn peer_spoke(&mut self, number: u32, now: Instant, out: &mut Outbox) {
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
