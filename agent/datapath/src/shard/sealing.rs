//! Packets of one peer that are sealed at once: they are written next to each other into the outbox, each with
//! room around it for what makes a datagram of it.

use std::time::Instant;

use arrayvec::ArrayVec;
use partywall_aead::BATCH;

use super::Traffic;
use super::outbox::Rooms;
use crate::tunnel::{HEADER_BYTES, OVERHEAD_BYTES, Tunnel, padded_bytes};

/// Packets that are about to be sealed.
pub(super) struct Sealing<'a> {
    rooms: Rooms<'a>,
    mtu: u16,
    datagrams: ArrayVec<&'a mut [u8], BATCH>,
    inner: Traffic,
}

/// The sizes of datagrams that lie where the outbox has room for the next ones.
#[derive(Debug)]
pub(super) struct Sealed {
    bytes: ArrayVec<usize, BATCH>,
    inner: Traffic,
}

impl Sealed {
    /// How large they are, in order.
    pub(super) fn datagrams(&self) -> &[usize] {
        &self.bytes
    }

    /// What their packets are.
    pub(super) fn inner(&self) -> Traffic {
        self.inner
    }
}

impl<'a> Sealing<'a> {
    /// None yet, for a tunnel of this MTU.
    pub(super) fn new(rooms: Rooms<'a>, mtu: u16) -> Self {
        Self { rooms, mtu, datagrams: ArrayVec::new(), inner: Traffic::default() }
    }

    /// Where the next packet, of so many bytes, is to be written; none if there is no room for it now.
    pub(super) fn place(&mut self, bytes: usize) -> Option<&mut [u8]> {
        if self.datagrams.is_full() {
            return None;
        }
        let padded = padded_bytes(bytes, self.mtu);
        self.datagrams.push(self.rooms.take(padded + OVERHEAD_BYTES)?);
        self.inner.add(bytes);
        let datagram = self.datagrams.last_mut()?;
        let (packet, padding) = datagram[HEADER_BYTES..][..padded].split_at_mut(bytes);
        padding.fill(0);
        Some(packet)
    }

    /// Seals what was placed; none if that is nothing, or the tunnel has no keys.
    pub(super) fn seal(mut self, tunnel: &mut Tunnel, now: Instant) -> Option<Sealed> {
        if self.datagrams.is_empty() {
            return None;
        }
        tunnel.seal(&mut self.datagrams, now)?;
        let bytes = self.datagrams.iter().map(|datagram| datagram.len()).collect();
        Some(Sealed { bytes, inner: self.inner })
    }
}
