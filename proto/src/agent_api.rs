//! The agent API: what an agent and the controller say to each other over one WebSocket at
//! [`STREAM_PATH`], one JSON message per text frame.
//!
//! The controller speaks first, with a [`ServerMessage::Challenge`]. The agent answers with
//! [`ClientMessage::Enrol`] (once in its life) or [`ClientMessage::Hello`], each signed over the
//! challenge with its identity key. Only then does anything else count.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::flows::FlowRecord;
use crate::ids::{AgentId, OrganisationId, SegmentId, UserId};
use crate::keys::{IdentityKey, Secret, SegmentKey, WireguardKey};
use crate::overlay::{Generation, Session};
use crate::problem::Problem;

/// Path of the WebSocket.
pub const STREAM_PATH: &str = "/agent/v1/stream";
/// Largest message from an agent in bytes: as many flow records as go into one, each as large as can be.
pub const CLIENT_MESSAGE_MAX_BYTES: usize = 512 << 10;
/// Largest message from the controller in bytes: an envelope and its JSON quoting.
pub const SERVER_MESSAGE_MAX_BYTES: usize = 2 * crate::envelope::PAYLOAD_MAX_BYTES;
/// Seconds between WebSocket pings from the controller; three without an answer close the stream.
pub const PING_INTERVAL_S: u64 = 10;

const IDENTITY_CONTEXT: &[u8] = b"partywall agent identity v1\0";

/// From the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ServerMessage {
    /// First on every connection.
    Challenge {
        /// Random, used once; base64 of 32 bytes.
        nonce: String,
        /// The controller's clock, so that an agent can tell its own skew.
        time: Timestamp,
    },
    /// The agent is known: who it is, and what it may be told.
    Welcome {
        /// The agent's name.
        agent: AgentId,
        /// The segments' signing keys, to pin. A pinned key is never replaced by this message.
        segment_keys: BTreeMap<SegmentId, SegmentKey>,
        /// The segments that staff may sign in to from here; empty at a gateway.
        segments: Vec<SegmentOffer>,
    },
    /// A snapshot or a delta.
    Config {
        /// Signed by the segment.
        envelope: Envelope,
    },
    /// The agent is to carry nothing: no session, or a gateway that was taken out of its segment.
    Nothing {
        /// Why, for the person at the desk.
        reason: String,
    },
    /// Answer to [`ClientMessage::SignIn`].
    SignedIn {
        /// The request's number.
        request: u32,
        /// The new session.
        session: Session,
        /// Its segment.
        segment: SegmentId,
    },
    /// Answer to [`ClientMessage::SignOut`].
    SignedOut {
        /// The request's number.
        request: u32,
    },
    /// A request, or where `request` is none the connection itself, is refused.
    Refused {
        /// The request's number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<u32>,
        /// Why, and what to do.
        problem: Problem,
    },
}

/// A segment that a person at this device may sign in to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentOffer {
    /// What to write after `partywall login`.
    pub segment: SegmentId,
    /// Whose it is.
    pub organisation: OrganisationId,
    /// In words.
    pub title: String,
}

/// From the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ClientMessage {
    /// Uses up an enrolment code.
    Enrol {
        /// The code's token, base64 of 16 bytes.
        token: Secret,
        /// The new machine's keys, with proof that it holds the identity key.
        proof: IdentityProof,
        /// The new machine's WireGuard public key.
        wireguard_key: WireguardKey,
        /// The agent's version, for the device list.
        software: String,
    },
    /// An enrolled agent is back.
    Hello {
        /// Who it says it is.
        agent: AgentId,
        /// Proof of it.
        proof: IdentityProof,
        /// What it already holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holding: Option<Holding>,
        /// The agent's version, for the device list.
        software: String,
    },
    /// A config is enforced from now on.
    Applied {
        /// What is enforced.
        holding: Holding,
    },
    /// A config was refused; the previous one stays. The controller answers with a snapshot, once.
    Rejected {
        /// Why.
        problem: Problem,
    },
    /// A person at this device signs in.
    SignIn {
        /// Repeated in the answer.
        request: u32,
        /// Where to.
        segment: SegmentId,
        /// Who.
        user: UserId,
        /// What they know.
        password: Secret,
        /// What they hold: the one-time code.
        code: Secret,
    },
    /// The person at this device signs out.
    SignOut {
        /// Repeated in the answer.
        request: u32,
    },
    /// Sent now and then, and never needed for anything to work.
    Status {
        /// Packets dropped since the agent started, by drop reason.
        drops: BTreeMap<String, u64>,
        /// Peers with a handshake in the last three minutes.
        live_peers: u32,
        /// The agent's clock less the controller's, in seconds.
        clock_skew_s: i64,
    },
    /// What became of flows, from a gateway; sent at least once a second while there is something to say.
    Flows {
        /// At most [`FLOWS_PER_MESSAGE_MAX`](crate::flows::FLOWS_PER_MESSAGE_MAX), oldest first.
        records: Vec<FlowRecord>,
        /// Records dropped for want of room since the last such message.
        lost: u64,
    },
}

/// The config that an agent enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Its segment.
    pub segment: SegmentId,
    /// Its generation.
    pub generation: Generation,
}

/// Proof that the sender holds an identity key, good for one challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityProof {
    /// The key that signs.
    pub identity_key: IdentityKey,
    /// Ed25519 over the context and the nonce, in base64.
    pub signature: String,
}

/// The identity proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the identity proof does not fit the challenge")]
pub struct ProofError;

impl IdentityProof {
    /// Signs `nonce` as it came in the challenge.
    pub fn sign(nonce: &str, key: &SigningKey) -> Self {
        let signature = key.sign(&[IDENTITY_CONTEXT, nonce.as_bytes()].concat());
        Self {
            identity_key: key.verifying_key().to_bytes().into(),
            signature: data_encoding::BASE64.encode(&signature.to_bytes()),
        }
    }

    /// Checks the proof against the nonce that this connection was given.
    ///
    /// # Errors
    /// A signature that does not fit. Whether the key is the *right* one is the caller's question.
    pub fn verify(&self, nonce: &str) -> Result<(), ProofError> {
        let key = VerifyingKey::from_bytes(self.identity_key.as_bytes()).map_err(|_| ProofError)?;
        let bytes =
            data_encoding::BASE64.decode(self.signature.as_bytes()).map_err(|_| ProofError)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| ProofError)?;
        key.verify(&[IDENTITY_CONTEXT, nonce.as_bytes()].concat(), &signature)
            .map_err(|_| ProofError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    #[test]
    fn a_proof_holds_for_its_own_challenge_and_key_only() {
        let proof = IdentityProof::sign("nonce-1", &key());
        assert_eq!(proof.verify("nonce-1"), Ok(()));
        for nonce in ["nonce-2", "nonce-", "nonce-11", ""] {
            assert_eq!(proof.verify(nonce), Err(ProofError), "accepted for {nonce:?}");
        }
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes().into();
        let stolen = IdentityProof { identity_key: other, ..proof };
        assert_eq!(stolen.verify("nonce-1"), Err(ProofError));
    }

    #[test]
    fn a_signature_over_the_bare_nonce_is_no_proof() {
        let signature = data_encoding::BASE64.encode(&key().sign(b"nonce-1").to_bytes());
        let proof = IdentityProof { signature, ..IdentityProof::sign("nonce-1", &key()) };
        assert_eq!(proof.verify("nonce-1"), Err(ProofError));
    }

    #[test]
    fn a_damaged_proof_is_refused() {
        let proof = IdentityProof::sign("nonce-1", &key());
        for damaged in ["", "AAAA", "!", &proof.signature[1..]] {
            let proof = IdentityProof { signature: damaged.to_owned(), ..proof.clone() };
            assert_eq!(proof.verify("nonce-1"), Err(ProofError), "accepted {damaged:?}");
        }
    }

    #[test]
    fn no_message_prints_a_secret() {
        let messages = [
            r#"{"type":"enrol","token":"hunter2","software":"0.1.0","proof":{"identity_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","signature":""},"wireguard_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}"#,
            r#"{"type":"sign-in","request":1,"segment":"council","user":"alice@council","password":"hunter2","code":"hunter2"}"#,
        ];
        for text in messages {
            let message: ClientMessage = serde_json::from_str(text).unwrap();
            let shown = format!("{message:?} {message:#?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn an_unknown_message_is_refused_and_an_unknown_field_is_not() {
        let read = |text: &str| serde_json::from_str::<ServerMessage>(text);
        assert!(read(r#"{"type":"self-destruct"}"#).is_err());
        let known = read(r#"{"type":"signed-out","request":3,"farewell":"soon"}"#).unwrap();
        assert_eq!(known, ServerMessage::SignedOut { request: 3 });
    }
}
