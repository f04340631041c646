//! The codes at the end of every handshake message, and the cookies that one of them proves
//! (WireGuard paper §5.3, §5.4.4 and §5.4.7), from the side of whoever sends them.
//!
//! A cookie proves nothing of the peer: whoever holds its public key, which is no secret, and sees our
//! message can make one.

use std::time::{Duration, Instant};

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use x25519_dalek::PublicKey;
use zeroize::Zeroizing;

use super::message::{COOKIE_REPLY_BYTES, SENDER, word};
use super::noise::hash;

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";
const MAC_BYTES: usize = 16;
/// Bytes of both codes.
const MACS_BYTES: usize = 2 * MAC_BYTES;
/// A cookie is good for two minutes, less what it may have been on its way (Linux:
/// `COOKIE_SECRET_MAX_AGE` - `COOKIE_SECRET_LATENCY`).
const COOKIE_MAX_AGE: Duration = Duration::from_secs(115);

type Mac = [u8; MAC_BYTES];

/// What is kept of the last message, and the last cookie.
#[derive(Default)]
pub(super) struct Macs {
    /// Sender index and first code of the last message, while it has had no cookie for answer.
    last: Option<(u32, Mac)>,
    cookie: Option<(Zeroizing<Mac>, Instant)>,
}

impl Macs {
    /// Writes both codes at the end of `message`, which goes to `peer`.
    pub(super) fn write(&mut self, peer: &PublicKey, message: &mut [u8], now: Instant) {
        let Some(body_bytes) = message.len().checked_sub(MACS_BYTES) else { return };
        let (body, macs) = message.split_at_mut(body_bytes);
        let first = mac(&hash(&[LABEL_MAC1, peer.as_bytes()]), &[body]);
        self.cookie.take_if(|(_, came_at)| now >= *came_at + COOKIE_MAX_AGE);
        let second = self.cookie.as_ref().map(|(cookie, _)| mac(&**cookie, &[body, &first]));
        self.last = word(body, SENDER.start).map(|sender| (sender, first));
        macs[..MAC_BYTES].copy_from_slice(&first);
        macs[MAC_BYTES..].copy_from_slice(&second.unwrap_or_default());
    }

    /// Takes a cookie for the next messages; none if it is no answer to the last one.
    pub(super) fn take_cookie(
        &mut self,
        peer: &PublicKey,
        message: &[u8],
        now: Instant,
    ) -> Option<()> {
        let message: &[u8; COOKIE_REPLY_BYTES] = message.try_into().ok()?;
        let (receiver, first) = self.last?;
        if word(message, 4)? != receiver {
            return None;
        }
        let mut cookie = Zeroizing::new(Mac::default());
        cookie.copy_from_slice(&message[32..48]);
        let cipher = XChaCha20Poly1305::new((&hash(&[LABEL_COOKIE, peer.as_bytes()])).into());
        let (nonce, tag) = (XNonce::from_slice(&message[8..32]), Tag::from_slice(&message[48..]));
        cipher.decrypt_in_place_detached(nonce, &first, &mut *cookie, tag).ok()?;
        self.cookie = Some((cookie, now));
        self.last = None;
        Some(())
    }
}

/// Keyed BLAKE2s with 16 bytes of output (RFC 7693).
fn mac(key: &[u8], parts: &[&[u8]]) -> Mac {
    let state = Blake2sMac::<U16>::new_from_slice(key);
    let mut state = state.unwrap_or_else(|_| unreachable!("keys are of 16 or 32 bytes"));
    parts.iter().for_each(|part| state.update(part));
    state.finalize_fixed().into()
}
