//! The signed envelope around overlay configs and deltas.
//!
//! The signature covers the payload's bytes as they came, not a re-encoding of them, so a reader
//! never has to reproduce what the writer wrote. The signing key is the *segment's*, pinned by the
//! agent: the controller's TLS alone is not enough to change what an agent enforces.

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::keys::{KeyId, SegmentKey};
use crate::overlay::{ConfigError, Delta, OverlayConfig, VERSION};

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
        // A newer version may have another layout; the version is what its reader needs to hear of.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let payload: Payload = serde_json::from_str(text).map_err(|error| {
            match serde_json::from_str::<Versioned>(text) {
                Ok(Versioned { version }) if version != VERSION => {
                    ConfigError::Version { found: version }.into()
                }
                Ok(_) | Err(_) => EnvelopeError::Payload(error),
            }
        })?;
        match &payload {
            Payload::Snapshot(config) => config.check()?,
            Payload::Delta(delta) => crate::overlay::check_version(delta.version)?,
        }
        Ok(payload)
    }
}

fn signed_bytes(payload: &str) -> Vec<u8> {
    [CONTEXT, payload.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::tests::gateway_config;

    fn key(seed: u8) -> (SigningKey, SegmentKey) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = SegmentKey::from(key.verifying_key().to_bytes());
        (key, public)
    }

    fn payload() -> Payload {
        Payload::Snapshot(Box::new(gateway_config()))
    }

    #[test]
    fn a_payload_survives_being_sealed_sent_and_opened() {
        let (key, public) = key(1);
        let text = serde_json::to_string(&Envelope::seal(&payload(), &key)).unwrap();
        let envelope: Envelope = serde_json::from_str(&text).unwrap();
        assert_eq!(envelope.open(&public).unwrap(), payload());
    }

    #[test]
    fn another_segments_key_opens_nothing() {
        let mut envelope = Envelope::seal(&payload(), &key(1).0);
        let pinned = key(2).1;
        assert!(matches!(envelope.open(&pinned), Err(EnvelopeError::UnknownKey { .. })));
        // Nor does naming the pinned key help whoever does not hold it.
        envelope.key = pinned.id();
        assert!(matches!(envelope.open(&pinned), Err(EnvelopeError::Signature)));
    }

    #[test]
    fn an_altered_payload_is_refused_wherever_it_is_altered() {
        let (key, public) = key(1);
        let sealed = Envelope::seal(&payload(), &key);
        for at in (0..sealed.payload.len()).step_by(97) {
            let mut altered = sealed.clone();
            let other = if &altered.payload[at..=at] == "0" { "1" } else { "0" };
            altered.payload.replace_range(at..=at, other);
            let refused = matches!(altered.open(&public), Err(EnvelopeError::Signature));
            assert!(refused, "altered at {at}");
            altered = sealed.clone();
            altered.payload.truncate(at);
            let refused = matches!(altered.open(&public), Err(EnvelopeError::Signature));
            assert!(refused, "cut at {at}");
        }
    }

    #[test]
    fn a_damaged_signature_is_refused() {
        let (key, public) = key(1);
        let sealed = Envelope::seal(&payload(), &key);
        for damaged in ["", "AAAA", "!", &sealed.signature[1..], &"A".repeat(88)] {
            let envelope = Envelope { signature: damaged.to_owned(), ..sealed.clone() };
            assert!(matches!(envelope.open(&public), Err(EnvelopeError::Signature)), "{damaged}");
        }
    }

    #[test]
    fn a_signature_from_another_context_is_refused() {
        let (key, public) = key(1);
        let mut envelope = Envelope::seal(&payload(), &key);
        for context in ["", "partywall agent identity v1\0"] {
            let elsewhere = key.sign(&[context.as_bytes(), envelope.payload.as_bytes()].concat());
            envelope.signature = data_encoding::BASE64.encode(&elsewhere.to_bytes());
            assert!(matches!(envelope.open(&public), Err(EnvelopeError::Signature)));
        }
    }

    #[test]
    fn a_signed_config_that_contradicts_itself_is_refused() {
        let (key, public) = key(1);
        let mut config = gateway_config();
        config.peers.swap(0, 1);
        let envelope = Envelope::seal(&Payload::Snapshot(Box::new(config)), &key);
        assert!(matches!(envelope.open(&public), Err(EnvelopeError::Config(_))));
    }
}
