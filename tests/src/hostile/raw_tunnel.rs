//! A WireGuard initiator that seals whatever bytes it is given, IP or not.
//!
//! Written from the WireGuard paper (§5.4) and apart from the data path on purpose: it shares no code
//! with what it attacks, and no honest client would carry what it carries.

use anyhow::{Context, Result, ensure};
use blake2::digest::{FixedOutput, KeyInit, Mac, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, Payload};
use hmac::SimpleHmac;
use jiff::Timestamp;
use x25519_dalek::{PublicKey, StaticSecret};

use super::Datagram;

type Bytes32 = [u8; 32];

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// A tunnel that is up, sending side.
#[derive(Debug)]
pub struct RawTunnel {
    receiver: [u8; 4],
    key: Bytes32,
    counter: u64,
}

/// What a peer holds.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The peer's own private key.
    pub private: Bytes32,
    /// The gateway's public key.
    pub gateway: Bytes32,
    /// Zeros where there is none.
    pub preshared: Bytes32,
}

/// A handshake that has begun.
pub struct Handshake {
    keys: Keys,
    ephemeral: StaticSecret,
    chain: Bytes32,
    hash: Bytes32,
    index: [u8; 4],
    /// The initiation as it goes onto the wire.
    pub message: Vec<u8>,
}

impl Handshake {
    /// The first message (§5.4.2).
    pub fn begin(keys: &Keys) -> Self {
        let secret = StaticSecret::from(keys.private);
        let gateway = PublicKey::from(keys.gateway);
        let ephemeral = StaticSecret::from(rand::random::<Bytes32>());
        let index = rand::random::<[u8; 4]>();
        let mut message = [&[1, 0, 0, 0], index.as_slice()].concat();
        let mut chain = hash(&[CONSTRUCTION]);
        let mut hashed = hash(&[&hash(&[&chain, IDENTIFIER]), &keys.gateway]);

        let public = PublicKey::from(&ephemeral).to_bytes();
        [chain] = derive(&chain, &public);
        message.extend(public);
        hashed = hash(&[&hashed, &public]);

        let mut key;
        [chain, key] = derive(&chain, ephemeral.diffie_hellman(&gateway).as_bytes());
        let sealed = seal(&key, 0, PublicKey::from(&secret).as_bytes(), &hashed);
        message.extend(&sealed);
        hashed = hash(&[&hashed, &sealed]);

        [chain, key] = derive(&chain, secret.diffie_hellman(&gateway).as_bytes());
        let sealed = seal(&key, 0, &tai64n(), &hashed);
        message.extend(&sealed);
        hashed = hash(&[&hashed, &sealed]);

        message.extend(mac1(&keys.gateway, &message));
        message.extend([0; 16]);
        Self { keys: keys.clone(), ephemeral, chain, hash: hashed, index, message }
    }

    /// An initiation that is right as far as anybody can tell without a Diffie-Hellman exchange: its
    /// first mac holds, the rest is noise. What a flood is made of.
    pub fn begin_nonsense(gateway: &Bytes32) -> Vec<u8> {
        let mut message = [&[1, 0, 0, 0], rand::random::<Bytes32>().as_slice()].concat();
        message.extend(rand::random::<Bytes32>());
        message.extend(rand::random::<Bytes32>());
        message.resize(116, 0x5a);
        message.extend(mac1(gateway, &message));
        message.extend([0; 16]);
        message
    }

    /// The answer (§5.4.3) and the keys that follow from it (§5.4.5).
    ///
    /// # Errors
    /// It is no answer to this handshake, or the preshared keys differ.
    pub fn finish(self, answer: &[u8]) -> Result<RawTunnel> {
        ensure!(answer.len() == 92 && answer[0] == 2, "not a handshake response");
        ensure!(answer[8..12] == self.index, "a response to another handshake");
        let theirs: Bytes32 = answer[12..44].try_into()?;
        let public = PublicKey::from(theirs);
        let secret = StaticSecret::from(self.keys.private);
        let [chain] = derive(&self.chain, &theirs);
        let hashed = hash(&[&self.hash, &theirs]);
        let [chain] = derive(&chain, self.ephemeral.diffie_hellman(&public).as_bytes());
        let [chain] = derive(&chain, secret.diffie_hellman(&public).as_bytes());
        let [chain, mixed, key] = derive(&chain, &self.keys.preshared);
        let hashed = hash(&[&hashed, &mixed]);
        let sealed = Payload { msg: &answer[44..60], aad: &hashed };
        ChaCha20Poly1305::new(&key.into())
            .decrypt(&nonce(0), sealed)
            .ok()
            .context("the response does not hold: is the preshared key right?")?;
        let [key, _receiving] = derive(&chain, &[]);
        Ok(RawTunnel { receiver: answer[4..8].try_into()?, key, counter: 0 })
    }
}

impl RawTunnel {
    /// Brings a tunnel up.
    ///
    /// # Errors
    /// The gateway does not answer, or not to these keys.
    pub fn connect(socket: &Datagram, keys: &Keys) -> Result<Self> {
        let handshake = Handshake::begin(keys);
        socket.send(&handshake.message)?;
        let answer = socket.receive().context("the gateway does not answer the handshake")?;
        let mut tunnel = handshake.finish(&answer)?;
        // The gateway uses the new keys once it has seen data under them; an empty packet is a
        // keepalive (§6.5).
        let confirmation = tunnel.seal(&[]);
        socket.send(&confirmation)?;
        Ok(tunnel)
    }

    /// A data message (§5.4.6) around `packet`, padded to 16 bytes.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut padded = packet.to_vec();
        padded.resize(packet.len().next_multiple_of(16), 0);
        let mut message = [&[4, 0, 0, 0], self.receiver.as_slice()].concat();
        message.extend(self.counter.to_le_bytes());
        message.extend(seal(&self.key, self.counter, &padded, &[]));
        self.counter += 1;
        message
    }
}

fn hash(parts: &[&[u8]]) -> Bytes32 {
    let mut hash = Blake2s256::new();
    parts.iter().for_each(|part| Digest::update(&mut hash, part));
    hash.finalize().into()
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Bytes32 {
    let mut mac =
        <SimpleHmac<Blake2s256> as KeyInit>::new_from_slice(key).expect("HMAC takes any key");
    parts.iter().for_each(|part| Update::update(&mut mac, part));
    Mac::finalize(mac).into_bytes().into()
}

/// KDF_n of §5.4: HKDF with HMAC-BLAKE2s.
fn derive<const N: usize>(chain: &Bytes32, input: &[u8]) -> [Bytes32; N] {
    let secret = hmac(chain, &[input]);
    let mut last: Vec<u8> = Vec::new();
    let mut number = 0;
    [(); N].map(|()| {
        number += 1;
        let next = hmac(&secret, &[&last, &[number]]);
        last = next.to_vec();
        next
    })
}

fn mac1(gateway: &Bytes32, message: &[u8]) -> [u8; 16] {
    let key = hash(&[b"mac1----", gateway]);
    let mut mac = <Blake2sMac<blake2::digest::consts::U16> as KeyInit>::new_from_slice(&key)
        .expect("the key is 32 bytes");
    Update::update(&mut mac, message);
    mac.finalize_fixed().into()
}

fn seal(key: &Bytes32, counter: u64, text: &[u8], aad: &[u8]) -> Vec<u8> {
    ChaCha20Poly1305::new(&(*key).into())
        .encrypt(&nonce(counter), Payload { msg: text, aad })
        .expect("a short text is sealed")
}

fn nonce(counter: u64) -> chacha20poly1305::Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce.into()
}

/// TAI64N: a gateway takes each initiation once, and only a later one than before.
fn tai64n() -> [u8; 12] {
    let now = Timestamp::now();
    let mut bytes = [0; 12];
    let seconds = (1u64 << 62) + 10 + now.as_second().cast_unsigned();
    bytes[..8].copy_from_slice(&seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&now.subsec_nanosecond().cast_unsigned().to_be_bytes());
    bytes
}
