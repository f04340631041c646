//! The gate that handshake messages go through before they cost anything (WireGuard paper §5.3): the only
//! file that names boringtun, whose rate limiter it is.
//!
//! Functions take `now` although boringtun's limiter reads the clock itself.

use std::net::IpAddr;
use std::time::Instant;

use boringtun::noise::TunnResult;
use boringtun::noise::rate_limiter::RateLimiter;
use x25519_dalek::PublicKey;

use super::senders::Senders;
use crate::settings::Limits;

/// Why a handshake message is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was not made for our public key.
    BadMac,
    /// Too many come; a cookie of this many bytes was written as answer.
    UnderLoad(usize),
    /// Too many come, and too many of them from this address, which is proved.
    TooMany,
}

/// What was let in lately.
pub(super) struct Gate {
    limiter: RateLimiter,
    senders: Senders,
}

impl Gate {
    /// The memory that it takes.
    pub(super) const WORST_CASE_BYTES: usize = size_of::<RateLimiter>() + Senders::BYTES;

    /// The gate of whoever has this key.
    pub(super) fn new(public: &PublicKey, limits: &Limits, now: Instant) -> Self {
        let limiter = RateLimiter::new(public, limits.handshakes_per_s);
        let senders = Senders::new(limits.handshakes_per_address_s, now);
        Self { limiter, senders }
    }

    /// Checks a handshake message. A cookie is written to `reply`, which holds
    /// [`HANDSHAKE_MAX_BYTES`](super::HANDSHAKE_MAX_BYTES).
    pub(super) fn admit(
        &mut self,
        from: IpAddr,
        message: &[u8],
        reply: &mut [u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        // It does so once a second at most, however often it is told.
        self.limiter.reset_count();
        match self.limiter.verify_packet(Some(from), message, reply) {
            // Under load only what carries a cookie comes here, and boringtun lets in all of it.
            Ok(_) if has_cookie(message) && !self.senders.admit(from, now) => Err(Refusal::TooMany),
            Ok(_) => Ok(()),
            Err(TunnResult::WriteToNetwork(cookie)) => Err(Refusal::UnderLoad(cookie.len())),
            Err(
                TunnResult::Done
                | TunnResult::Err(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..),
            ) => Err(Refusal::BadMac),
        }
    }
}

/// Whether the message's second code is there, which proves a cookie (WireGuard paper §5.4.4).
fn has_cookie(message: &[u8]) -> bool {
    message.last_chunk::<16>().is_some_and(|code| *code != [0; 16])
}
