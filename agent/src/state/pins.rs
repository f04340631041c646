//! The segments' signing keys that this machine holds to: trust on first use, one key per segment.
//!
//! A pinned key is never replaced by what the controller says: the controller is not trusted to
//! change what a segment's own organisation signs.

use std::collections::BTreeMap;

use partywall_proto::envelope::{Envelope, EnvelopeError, Payload};
use partywall_proto::ids::SegmentId;
use partywall_proto::keys::{KeyId, SegmentKey};

use super::{StateDir, StateError};

const FILE: &str = "segment_keys.json";

/// The controller offered another key for a segment whose key is pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the controller offers signing key {offered} for segment {segment}, but {pinned} is pinned here; \
     the pinned key stays. If the segment's organisation confirms the new key, enrol this machine again"
)]
pub struct PinConflict {
    /// Whose key.
    pub segment: SegmentId,
    /// What is pinned.
    pub pinned: KeyId,
    /// What was offered.
    pub offered: KeyId,
}

/// One pinned key per segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins(BTreeMap<SegmentId, SegmentKey>);

impl Pins {
    /// What is pinned so far.
    ///
    /// # Errors
    /// What the file system says, or a damaged file.
    pub fn read(state: &StateDir) -> Result<Self, StateError> {
        Ok(Self(state.read_json(FILE)?.unwrap_or_default()))
    }

    /// Records the pins, durably.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, state: &StateDir) -> Result<(), StateError> {
        state.write_json(FILE, &self.0)
    }

    /// Pins the keys of segments that are new here, keeps all others, and says where they differ.
    pub fn learn(&mut self, offered: &BTreeMap<SegmentId, SegmentKey>) -> Vec<PinConflict> {
        let mut conflicts = Vec::new();
        for (segment, key) in offered {
            let pinned = *self.0.entry(segment.clone()).or_insert(*key);
            if pinned != *key {
                conflicts.push(PinConflict {
                    segment: segment.clone(),
                    pinned: pinned.id(),
                    offered: key.id(),
                });
            }
        }
        conflicts
    }

    /// Opens an envelope with the pinned key that it names. Its payload is for the segment that
    /// this key belongs to, and no other.
    ///
    /// # Errors
    /// See [`EnvelopeError`]. A payload for another segment than the key's counts as a signature
    /// that is not valid.
    pub fn open(&self, envelope: &Envelope) -> Result<Payload, EnvelopeError> {
        let mut refusal = EnvelopeError::Signature;
        for (segment, key) in &self.0 {
            match envelope.open(key) {
                Ok(payload) if payload_segment(&payload) == segment => return Ok(payload),
                Ok(_) => refusal = EnvelopeError::Signature,
                Err(error @ EnvelopeError::UnknownKey { .. }) => refusal = error,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }
}

fn payload_segment(payload: &Payload) -> &SegmentId {
    match payload {
        Payload::Snapshot(config) => &config.segment,
        Payload::Delta(delta) => &delta.segment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::{council, device_config, nhs, segment_key};

    #[test]
    fn a_pinned_key_is_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        let mut pins = Pins::read(&state).unwrap();
        let first: SegmentKey = [1; 32].into();
        let other: SegmentKey = [2; 32].into();
        assert!(pins.learn(&[(council(), first)].into()).is_empty());
        pins.write(&state).unwrap();

        let mut pins = Pins::read(&state).unwrap();
        let conflicts = pins.learn(&[(council(), other), (nhs(), other)].into());
        assert_eq!(conflicts.len(), 1);
        assert!(conflicts[0].to_string().contains("council"), "{}", conflicts[0]);
        assert_eq!(pins.0[&council()], first);
        assert_eq!(pins.0[&nhs()], other);
    }

    #[test]
    fn a_segments_key_does_not_sign_for_another_segment() {
        let mut pins = Pins::default();
        let keys = [council(), nhs()].map(|segment| {
            (segment.clone(), segment_key(&segment).verifying_key().to_bytes().into())
        });
        pins.learn(&keys.into());
        let config = device_config("council", "s1", 1);
        let payload = Payload::Snapshot(Box::new(config));
        pins.open(&Envelope::seal(&payload, &segment_key(&council()))).unwrap();
        let forged = pins.open(&Envelope::seal(&payload, &segment_key(&nhs())));
        assert!(matches!(forged, Err(EnvelopeError::Signature)), "{forged:?}");
        let stranger = pins.open(&Envelope::seal(&payload, &segment_key(&"x".parse().unwrap())));
        assert!(matches!(stranger, Err(EnvelopeError::UnknownKey { .. })), "{stranger:?}");
    }
}
