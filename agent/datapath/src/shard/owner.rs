//! Whose something is that came from outside: for whoever runs several shards and hands over what
//! reaches the wrong one.
//!
//! Asked before a shard is fed, and only where there is more than one. A shard that is fed what is
//! another's drops it, so that nothing can go round in circles while shards differ on who owns a peer.

use std::net::SocketAddr;

use partywall_proto::keys::WireguardKey;

use super::{Settings, Shard};
use crate::packet::Address;
use crate::tunnel::{HANDSHAKE_MAX_BYTES, Message};

/// The shard that a datagram belongs to, out of `shards`; none for a handshake initiation, which any
/// shard may take and only the peer's own can answer, and for what is not WireGuard.
///
/// The owner is `index mod shards`, where the index is the upper 24 bits of the receiver index: the
/// lower 8 number the peer's successive sessions.
pub fn owner_of(datagram: &[u8], shards: u16) -> Option<u16> {
    let index = Message::read(datagram)?.receiver()?;
    // A remainder by a u16 fits one.
    Some((index % u32::from(shards.max(1))) as u16)
}

/// A handshake initiation that one shard let in and another is to answer. What it says of its caller is
/// not proven yet; the owner's tunnel does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The shard that is to answer.
    pub owner: u16,
    /// The sender, as the underlay has it.
    pub from: SocketAddr,
    /// Whose key the call names.
    pub caller: WireguardKey,
    /// The datagram.
    pub bytes: [u8; HANDSHAKE_MAX_BYTES],
}

impl Call {
    /// `datagram` is an initiation, which has just the one length.
    pub(super) fn new(owner: u16, from: SocketAddr, caller: WireguardKey, datagram: &[u8]) -> Self {
        let mut bytes = [0; HANDSHAKE_MAX_BYTES];
        for (to, byte) in bytes.iter_mut().zip(datagram) {
            *to = *byte;
        }
        Self { owner, from, caller, bytes }
    }
}

impl Shard {
    /// Says which other shard a datagram belongs to; none if this one is to take it.
    pub fn owner_of_datagrams(&self) -> impl Fn(&[u8]) -> Option<u16> + use<> {
        let Settings { shard, shards, .. } = self.settings;
        move |datagram| owner_of(datagram, shards).filter(|&owner| owner != shard)
    }

    /// The other shard that a packet from the TUN belongs to; none if this one is to take it, be it
    /// to drop it.
    pub fn owner_of_packet(&self, packet: &[u8]) -> Option<u16> {
        self.peers.owner(self.peers.by_address(destination(packet)?)?)
    }
}

/// Where a packet goes (RFC 791 §3.1, RFC 8200 §3); none for what is none.
fn destination(packet: &[u8]) -> Option<Address> {
    match packet.first()? >> 4 {
        4 => Some(Address::v4(*packet.get(16..)?.first_chunk()?)),
        6 => Some(Address::v6(*packet.get(24..)?.first_chunk()?)),
        _ => None,
    }
}
