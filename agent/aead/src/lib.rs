//! ChaCha20-Poly1305 (RFC 8439) for up to [`BATCH`] packets under one key at a time, as WireGuard's data
//! messages have it: no associated data, and a 64-bit counter as nonce.
//!
//! Packets of one key have nothing to do with each other, so that a processor with wide registers works on
//! all of them at once; one by one, most of its lanes are idle. Where it has none, and for few packets, ring
//! does the work. Both ways give the same bytes, which the tests hold.
#![warn(missing_docs)]

#[cfg(target_arch = "x86_64")]
mod wide;

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes of a tag (RFC 8439 §2.5).
pub const TAG_BYTES: usize = 16;
/// How many packets are worked on at once at most.
pub const BATCH: usize = 16;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A packet to be sealed or opened in place.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Its nonce: sealing the same one twice under one key gives the key away.
    pub counter: u64,
    /// The message, and behind it [`TAG_BYTES`] for its tag.
    pub bytes: &'a mut [u8],
}

/// Which pieces of a batch are authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authentic(u16);

impl Authentic {
    /// Whether the piece at this place is.
    pub fn is(self, at: usize) -> bool {
        at < BATCH && self.0 & (1 << at) != 0
    }
}

/// A key, ready for use.
pub struct Key {
    single: LessSafeKey,
    #[cfg(target_arch = "x86_64")]
    wide: Option<wide::Key>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl Key {
    /// Readies a key; the caller wipes its own copy.
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self {
            single: single(key),
            #[cfg(target_arch = "x86_64")]
            wide: wide::Key::new(key),
        }
    }

    /// Seals all pieces: ciphertext takes the place of each message, and its tag is written behind it.
    ///
    /// # Panics
    /// If there are more than [`BATCH`], or one has no room for a tag.
    pub fn seal(&self, pieces: &mut [Piece<'_>]) {
        check(pieces);
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = self.wide.as_ref().filter(|_| pieces.len() >= wide::PIECES_MIN) {
            return wide.seal(pieces);
        }
        for piece in pieces {
            let (message, room) = split(piece.bytes);
            let sealed =
                self.single.seal_in_place_separate_tag(nonce(piece.counter), Aad::empty(), message);
            // ring refuses what is longer than 256 GB and nothing else.
            let tag = sealed.unwrap_or_else(|_| unreachable!("a packet is not that long"));
            room.copy_from_slice(tag.as_ref());
        }
    }

    /// Opens all pieces: the message takes the place of its ciphertext where that is authentic. A piece
    /// that is not is of no further use: its bytes are unspecified, and none of them is the message's.
    ///
    /// # Panics
    /// If there are more than [`BATCH`], or one is shorter than a tag.
    pub fn open(&self, pieces: &mut [Piece<'_>]) -> Authentic {
        check(pieces);
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = self.wide.as_ref().filter(|_| pieces.len() >= wide::PIECES_MIN) {
            return Authentic(wide.open(pieces));
        }
        let mut authentic = 0;
        for (at, piece) in pieces.iter_mut().enumerate() {
            let opened = self.single.open_in_place(nonce(piece.counter), Aad::empty(), piece.bytes);
            authentic |= u16::from(opened.is_ok()) << at;
        }
        Authentic(authentic)
    }
}

fn single(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    match UnboundKey::new(&CHACHA20_POLY1305, key) {
        Ok(key) => LessSafeKey::new(key),
        // ring refuses a key of another length and nothing else.
        Err(_) => unreachable!("a key has {KEY_BYTES} bytes"),
    }
}

fn check(pieces: &[Piece<'_>]) {
    assert!(pieces.len() <= BATCH, "{} pieces are more than a batch", pieces.len());
    assert!(
        pieces.iter().all(|piece| piece.bytes.len() >= TAG_BYTES),
        "a piece has no room for its tag"
    );
}

/// The message and its tag.
fn split(bytes: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    bytes.split_at_mut(bytes.len() - TAG_BYTES)
}

/// As WireGuard makes it of a counter (paper §5.4.6): 32 zero bits, and the counter in little-endian.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests;
