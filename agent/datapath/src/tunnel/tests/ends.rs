//! Our end of a tunnel, with what it has to say in buffers of its own.

use std::time::Instant;

use partywall_proto::keys::{PresharedKey, WireguardKey};
use x25519_dalek::{PublicKey, StaticSecret};

use super::super::*;
use crate::settings::{Limits, PrivateKey, Role};
use crate::testing::{packet, udp, wall_clock};

/// One end.
pub(super) struct End {
    pub(super) identity: Identity,
    pub(super) tunnel: Tunnel,
}

/// The public key that goes with a private one.
pub(super) fn public(key: u8) -> PublicKey {
    PublicKey::from(&StaticSecret::from([key; 32]))
}

/// Some packet of so many bytes in all.
pub(super) fn inner(bytes: usize) -> Vec<u8> {
    packet("10.0.0.1", "10.0.0.2", &udp(1, 2, bytes - 28))
}

impl End {
    /// The end with the private key `own`, towards whoever has `peer`.
    pub(super) fn new(own: u8, peer: u8, preshared: Option<u8>, now: Instant) -> Self {
        let limits = Limits::for_role(Role::Gateway);
        let identity = Identity::new(&PrivateKey::from([own; 32]), wall_clock(now), &limits, now);
        let peer = WireguardKey::from(*public(peer).as_bytes());
        let preshared = preshared.map(|byte| PresharedKey::from([byte; 32]));
        let tunnel = Tunnel::new(&peer, preshared.as_ref(), None, u32::from(own));
        Self { identity, tunnel }
    }

    pub(super) fn calls(&mut self, now: Instant) -> Vec<u8> {
        let mut out = vec![0; HANDSHAKE_MAX_BYTES];
        let bytes = self.tunnel.call(&self.identity, true, now, &mut out).unwrap();
        out.truncate(bytes);
        out
    }

    pub(super) fn answers(&mut self, call: &[u8], now: Instant) -> Result<Vec<u8>, TunnelError> {
        let caller = self.identity.caller(call).ok_or(TunnelError::Handshake)?;
        let mut out = vec![0; HANDSHAKE_MAX_BYTES];
        let bytes = self.tunnel.answer(&self.identity, caller, now, &mut out)?;
        out.truncate(bytes);
        Ok(out)
    }

    /// Takes an answer; the keepalive that confirms it.
    pub(super) fn hears(&mut self, answer: &[u8], now: Instant) -> Result<Vec<u8>, TunnelError> {
        let mut out = vec![0; HANDSHAKE_MAX_BYTES];
        let bytes = self.tunnel.was_answered(&self.identity, answer, now, &mut out)?;
        out.truncate(bytes);
        Ok(out)
    }

    pub(super) fn seals(&mut self, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let mut datagram = [&[0; 16], packet, &[0; 16]].concat();
        datagram.resize(32 + packet.len().next_multiple_of(16), 0);
        self.tunnel.seal(&mut [&mut datagram], now)?;
        Some(datagram)
    }

    pub(super) fn opens(&mut self, datagram: &[u8], now: Instant) -> Result<Vec<u8>, TunnelError> {
        let mut datagram = datagram.to_vec();
        let opened = self.tunnel.open(&mut [&mut datagram], now);
        opened[0].map(|bytes| datagram[16..16 + bytes].to_vec())
    }

    pub(super) fn ticks(&mut self, now: Instant) -> (Due, Vec<u8>) {
        let mut out = vec![0; HANDSHAKE_MAX_BYTES];
        let due = self.tunnel.tick(&self.identity, now, &mut out);
        match due {
            Due::Call(bytes) | Due::Keepalive(bytes) => out.truncate(bytes),
            Due::Nothing | Due::GivenUp => out.clear(),
        }
        (due, out)
    }

    pub(super) fn places(&self) -> [bool; 3] {
        let live = self.tunnel.live.as_ref();
        Place::ALL.map(|place| live.is_some_and(|live| live.sessions.at(place).is_some()))
    }
}
