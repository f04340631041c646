//! The signed envelope around overlay configs and deltas.
//!
//! The signature covers the payload's bytes as they came, not a re-encoding of them, so a reader
//! never has to reproduce what the writer wrote. The signing key is the *segment's*, pinned by the
//! agent: the controller's TLS alone is not enough to change what an agent enforces.

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::keys::{KeyId, SegmentKey};
use crate::overlay::{ConfigError, Delta, OverlayConfig};

/// Keeps a signature made here from meaning anything elsewhere.
const CONTEXT: &[u8] = b"partywall overlay config v1\0";

/// Largest payload in bytes: a gateway's snapshot of 10,000 peers takes about 6 MB.
pub const PAYLOAD_MAX_BYTES: usize = 64 << 20;

/// A payload as it travels and as it is cached, with the segment's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Which of the segment's keys signed.
    key: KeyId,
    /// JSON of a [`Payload`].
    payload: String,
    /// Ed25519 (RFC 8032) over [`CONTEXT`] and the payload, in base64.
    signature: String,
}

/// What an envelope holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "payload", rename_all = "lowercase")]
pub enum Payload {
    /// A whole config.
    Snapshot(Box<OverlayConfig>),
    /// A step from the config that the agent holds.
    Delta(Delta),
}

/// Why an envelope is refused.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Signed by a key that is not the pinned one.
    #[error("signed with key {found}, but the segment's pinned key is {pinned}")]
    UnknownKey {
        /// The key that the envelope names.
        found: KeyId,
        /// The key that this agent holds for the segment.
        pinned: KeyId,
    },
    /// The signature does not fit the payload.
    #[error("the signature is not valid")]
    Signature,
    /// The payload is larger than [`PAYLOAD_MAX_BYTES`].
    #[error("the payload of {bytes} bytes is over the limit of {PAYLOAD_MAX_BYTES}")]
    TooLarge {
        /// Size that was found.
        bytes: usize,
    },
    /// The payload is not one that this version understands.
    #[error("the payload is not understood")]
    Payload(#[source] serde_json::Error),
    /// The payload contradicts itself.
    #[error("the config is refused")]
    Config(#[from] ConfigError),
}

impl Envelope {
    /// Signs `payload` with the segment's key.
    ///
    /// # Panics
    /// Never: payloads are made of types that always have a JSON form.
    pub fn seal(payload: &Payload, key: &SigningKey) -> Self {
        let payload = serde_json::to_string(payload).expect("payloads have a JSON form");
        let signature = key.sign(&signed_bytes(&payload));
        Self {
            key: SegmentKey::from(key.verifying_key().to_bytes()).id(),
            payload,
            signature: data_encoding::BASE64.encode(&signature.to_bytes()),
        }
    }

    /// Checks the signature against the pinned key, then reads and checks the payload.
    ///
    /// # Errors
    /// See [`EnvelopeError`]. Nothing of the payload is looked at before its signature held.
    pub fn open(&self, pinned: &SegmentKey) -> Result<Payload, EnvelopeError> {
        if self.key != pinned.id() {
            return Err(EnvelopeError::UnknownKey { found: self.key.clone(), pinned: pinned.id() });
        }
        if self.payload.len() > PAYLOAD_MAX_BYTES {
            return Err(EnvelopeError::TooLarge { bytes: self.payload.len() });
        }
        let key =
            VerifyingKey::from_bytes(pinned.as_bytes()).map_err(|_| EnvelopeError::Signature)?;
        let signature = data_encoding::BASE64
            .decode(self.signature.as_bytes())
            .ok()
            .and_then(|bytes| Signature::from_slice(&bytes).ok())
            .ok_or(EnvelopeError::Signature)?;
        key.verify(&signed_bytes(&self.payload), &signature)
            .map_err(|_| EnvelopeError::Signature)?;
        Payload::from_json(&self.payload)
    }
}

impl Payload {
    /// Reads a payload whose signature has been checked.
    ///
    /// # Errors
    /// Text that is no payload, or a config that contradicts itself.
    pub fn from_json(text: &str) -> Result<Self, EnvelopeError> {
        let payload: Payload = serde_json::from_str(text).map_err(EnvelopeError::Payload)?;
        if let Payload::Snapshot(config) = &payload {
            config.check()?;
        }
        Ok(payload)
    }
}

fn signed_bytes(payload: &str) -> Vec<u8> {
    [CONTEXT, payload.as_bytes()].concat()
}
