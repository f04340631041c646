//! What both ends of a handshake work out step by step: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, as far as
//! WireGuard needs it (WireGuard paper §5.4.1 to §5.4.5; the Noise Protocol Framework, revision 34, §5.2).
//!
//! What is mixed in, and in which order, is all that there is to it: `handshake.rs` has the order.

use blake2::digest::{FixedOutput, KeyInit, Mac, Update};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use hmac::SimpleHmac;
use x25519_dalek::{PublicKey, SharedSecret};
use zeroize::Zeroizing;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// A key of the handshake; wiped when dropped.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// What was mixed so far. Its keys are wiped when it is dropped.
#[derive(Clone)]
pub(super) struct Noise {
    chain: Secret,
    /// For the next that is sealed, and that alone: every seal comes after another mix.
    key: Secret,
    hash: [u8; 32],
}

impl Noise {
    /// The start of a handshake with this responder.
    pub(super) fn towards(responder: &PublicKey) -> Self {
        let chain = hash(&[CONSTRUCTION]);
        let hash = hash(&[&hash(&[&chain, IDENTIFIER]), responder.as_bytes()]);
        Self { chain: Zeroizing::new(chain), key: Secret::default(), hash }
    }

    /// Mixes in an ephemeral key, which both can read.
    pub(super) fn mix_ephemeral(&mut self, key: &PublicKey) {
        self.mix_hash(key.as_bytes());
        self.mix_key(key.as_bytes());
    }

    /// Mixes in a secret that both worked out.
    pub(super) fn mix_shared(&mut self, shared: &SharedSecret) {
        self.mix_key(shared.as_bytes());
    }

    /// Mixes in the key that both were given.
    pub(super) fn mix_preshared(&mut self, key: &[u8; 32]) {
        let [chain, hash, key] = derive(&self.chain, key);
        self.chain = chain;
        self.mix_hash(&*hash);
        self.key = key;
    }

    /// Seals `text` into `sealed`, which is longer by a tag, and mixes that in.
    pub(super) fn seal(&mut self, text: &[u8], sealed: &mut [u8]) {
        let (room, tag_room) = sealed.split_at_mut(text.len());
        room.copy_from_slice(text);
        let cipher = ChaCha20Poly1305::new((&*self.key).into());
        let tag = cipher.encrypt_in_place_detached(&Nonce::default(), &self.hash, room);
        // It refuses what is longer than 256 GB and nothing else.
        let tag = tag.unwrap_or_else(|_| unreachable!("a handshake message is not that long"));
        tag_room.copy_from_slice(&tag);
        self.mix_hash(sealed);
    }

    /// Opens `sealed` into `text`, which is shorter by a tag, and mixes it in; none if it is not authentic.
    pub(super) fn open(&mut self, sealed: &[u8], text: &mut [u8]) -> Option<()> {
        let (body, tag) = sealed.split_at_checked(text.len())?;
        let tag: &[u8; 16] = tag.try_into().ok()?;
        text.copy_from_slice(body);
        let cipher = ChaCha20Poly1305::new((&*self.key).into());
        let tag = Tag::from_slice(tag);
        cipher.decrypt_in_place_detached(&Nonce::default(), &self.hash, text, tag).ok()?;
        self.mix_hash(sealed);
        Some(())
    }

    /// The keys that came of it: what the initiator seals with, and what it opens with.
    pub(super) fn split(self) -> [Secret; 2] {
        derive(&self.chain, &[])
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        [self.chain, self.key] = derive(&self.chain, input);
    }
}

/// HKDF with HMAC-BLAKE2s (RFC 5869, with the chain as salt and no info).
fn derive<const N: usize>(chain: &Secret, input: &[u8]) -> [Secret; N] {
    let extracted = Zeroizing::new(hmac(&**chain, input, &[]));
    let mut number = 0;
    let mut before: &[u8] = &[];
    let mut derived = std::array::from_fn(|_| Secret::default());
    for key in &mut derived {
        number += 1;
        **key = hmac(&*extracted, before, &[number]);
        before = &**key;
    }
    derived
}

/// BLAKE2s with 32 bytes of output (RFC 7693).
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    parts.iter().for_each(|part| Update::update(&mut state, part));
    state.finalize().into()
}

fn hmac(key: &[u8], data: &[u8], more: &[u8]) -> [u8; 32] {
    type HmacBlake2s = SimpleHmac<Blake2s256>;
    let state = <HmacBlake2s as Mac>::new_from_slice(key);
    let mut state = state.unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    Update::update(&mut state, data);
    Update::update(&mut state, more);
    state.finalize_fixed().into()
}
