//! This end of all tunnels: its keys, its clock, and the gate that handshakes go through.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use x25519_dalek::{PublicKey, StaticSecret};

use super::gate::{Gate, Refusal};
use super::handshake::{Caller, Keys};
use crate::settings::{Limits, PrivateKey, WallClock};

/// This end of all tunnels.
pub(crate) struct Identity {
    pub(super) keys: Keys,
    pub(super) clock: WallClock,
    gate: Gate,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("public", self.keys.public.as_bytes())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The memory that it takes.
    pub(crate) const WORST_CASE_BYTES: usize = size_of::<Self>() + Gate::WORST_CASE_BYTES;

    /// Whoever has this key.
    pub(crate) fn new(key: &PrivateKey, clock: WallClock, limits: &Limits, now: Instant) -> Self {
        let secret = StaticSecret::from(*key.expose());
        let public = PublicKey::from(&secret);
        let gate = Gate::new(&public, limits, now);
        Self { keys: Keys { secret, public }, clock, gate }
    }

    /// The wall clock was read again.
    pub(crate) fn set_wall_clock(&mut self, clock: WallClock) {
        self.clock = clock;
    }

    /// Checks a handshake message before it costs anything (WireGuard paper §5.3). A cookie is
    /// written to `reply`, which holds [`HANDSHAKE_MAX_BYTES`](super::HANDSHAKE_MAX_BYTES).
    pub(crate) fn admit(
        &mut self,
        from: IpAddr,
        message: &[u8],
        reply: &mut [u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        self.gate.admit(from, message, reply, now)
    }

    /// Who calls, as far as it says; none if the message does not open with our key.
    pub(crate) fn caller(&self, message: &[u8]) -> Option<Caller> {
        Caller::read(&self.keys, message)
    }
}
