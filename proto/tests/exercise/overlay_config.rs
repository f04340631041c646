//! What any bytes go through on their way to becoming an overlay config.

use ed25519_dalek::SigningKey;
use partywall_proto::envelope::{Envelope, Payload};
use partywall_proto::keys::SegmentKey;

const HELD: &str = include_str!("../golden/config-v1-gateway.json");

/// # Panics
/// If something that was read is not written and read again as the same.
pub(crate) fn exercise(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = SigningKey::from_bytes(&[1; 32]);
    let pinned = SegmentKey::from(key.verifying_key().to_bytes());
    if let Ok(envelope) = serde_json::from_str::<Envelope>(text) {
        assert!(envelope.open(&pinned).is_err(), "a signature was forged");
    }
    let Ok(payload) = Payload::from_json(text) else { return };
    let opened = Envelope::seal(&payload, &key).open(&pinned);
    assert_eq!(opened.expect("what was read once is read again"), payload);
    let Ok(Payload::Snapshot(held)) = Payload::from_json(HELD) else {
        panic!("the golden config is a snapshot")
    };
    match payload {
        Payload::Delta(delta) => {
            if let Ok(next) = held.with(&delta) {
                assert_eq!(next.check(), Ok(()), "a delta led to a config that is refused");
            }
        }
        Payload::Snapshot(next) => {
            if let Some(changes) = held.changes_to(&next) {
                assert!(changes.len() <= held.peers.len() + next.peers.len() + 1);
            }
        }
    }
}
