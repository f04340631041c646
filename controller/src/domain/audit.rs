//! The audit trail: for each organisation, and for facilities, a chain of records in which each one
//! carries the hash of the one before.
//!
//! A record is written in the same transaction as what it records. Changing, dropping or
//! inserting one breaks every hash after it; cutting the end off shows against the stored head.

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use partywall_proto::admin::{AuditRecord, AuditVerdict};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The chain that belongs to no organisation.
pub const FACILITIES_CHAIN: &str = "facilities";

/// The `outcome` of what was done.
pub const DONE: &str = "done";

const NO_RECORD_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What happened, before it has its place in a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// Who: a token's holder, a user or an agent.
    pub actor: String,
    /// What, in kebab case.
    pub action: String,
    /// To what, as a path.
    pub subject: String,
    /// [`DONE`], or why it was refused.
    pub outcome: String,
    /// What changed, without secrets.
    pub detail: Option<serde_json::Value>,
}

/// The end of a chain: what the next record builds on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// Records in the chain.
    pub sequence: u64,
    /// Hash of the last one.
    pub hash: String,
}

impl Default for ChainHead {
    fn default() -> Self {
        Self { sequence: 0, hash: NO_RECORD_HASH.to_owned() }
    }
}

impl ChainHead {
    /// The record of `event` at the end of the chain named `chain`, and the chain's new end.
    pub fn append(&self, chain: &str, event: Event) -> (AuditRecord, ChainHead) {
        let Event { time, actor, action, subject, outcome, detail } = event;
        let mut record = AuditRecord {
            chain: chain.to_owned(),
            sequence: self.sequence + 1,
            time,
            actor,
            action,
            subject,
            outcome,
            detail,
            previous: self.hash.clone(),
            hash: String::new(),
        };
        record.hash = hash_of(&record);
        let head = ChainHead { sequence: record.sequence, hash: record.hash.clone() };
        (record, head)
    }
}

/// Reads a chain from its beginning and tells where it breaks.
#[derive(Debug)]
pub struct Verifier {
    chain: String,
    reached: ChainHead,
    broken: Option<String>,
}

impl Verifier {
    /// Nothing read yet.
    pub fn new(chain: &str) -> Self {
        Self { chain: chain.to_owned(), reached: ChainHead::default(), broken: None }
    }

    /// Takes the next record, in order. After a break nothing more is looked at.
    pub fn record(&mut self, record: &AuditRecord) {
        if self.broken.is_some() {
            return;
        }
        let expected = self.reached.sequence + 1;
        let fault = if record.chain != self.chain {
            Some(format!("record {expected} belongs to the chain of {}", record.chain))
        } else if record.sequence != expected {
            Some(format!("record {expected} is missing; the next one is {}", record.sequence))
        } else if record.previous != self.reached.hash {
            Some(format!("record {expected} does not follow the one before it"))
        } else if record.hash != hash_of(record) {
            Some(format!("record {expected} was changed after it was written"))
        } else {
            None
        };
        match fault {
            Some(fault) => self.broken = Some(fault),
            None => {
                self.reached = ChainHead { sequence: expected, hash: record.hash.clone() };
            }
        }
    }

    /// The verdict, once every record was taken, against the end that is stored beside the chain.
    pub fn verdict(self, head: &ChainHead) -> AuditVerdict {
        let Self { chain, reached, mut broken } = self;
        if broken.is_none() && reached != *head {
            broken = Some(format!(
                "the chain ends at record {}, but record {} was written",
                reached.sequence, head.sequence
            ));
        }
        AuditVerdict { chain, records: reached.sequence, head: reached.hash, broken }
    }
}

/// SHA-256 over the record's JSON without its hash. The fields have a fixed order and the detail's
/// keys are sorted, so the same record has the same bytes wherever it is hashed.
fn hash_of(record: &AuditRecord) -> String {
    let hashed = AuditRecord { hash: String::new(), ..record.clone() };
    let bytes = serde_json::to_vec(&hashed).expect("audit records have a JSON form");
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> (Vec<AuditRecord>, ChainHead) {
        let mut head = ChainHead::default();
        let mut records = Vec::new();
        for n in 0..length {
            let event = Event {
                time: Timestamp::from_second(1_000 + i64::try_from(n).unwrap()).unwrap(),
                actor: "alice@council".into(),
                action: "sign-in".into(),
                subject: format!("devices/desk-{n}"),
                outcome: DONE.into(),
                detail: Some(serde_json::json!({ "b": n, "a": 1 })),
            };
            let (record, next) = head.append("council", event);
            records.push(record);
            head = next;
        }
        (records, head)
    }

    fn verdict(records: &[AuditRecord], head: &ChainHead) -> AuditVerdict {
        let mut verifier = Verifier::new("council");
        records.iter().for_each(|record| verifier.record(record));
        verifier.verdict(head)
    }

    #[test]
    fn an_untouched_chain_holds_also_after_it_was_stored() {
        let (records, head) = chain(5);
        let text = serde_json::to_string(&records).unwrap();
        let records: Vec<AuditRecord> = serde_json::from_str(&text).unwrap();
        let verdict = verdict(&records, &head);
        assert_eq!((verdict.records, verdict.broken), (5, None));
    }

    #[test]
    fn every_change_to_every_field_breaks_the_chain() {
        let (records, head) = chain(5);
        let changes: [fn(&mut AuditRecord); 9] = [
            |it| it.chain = "nhs".into(),
            |it| it.sequence += 1,
            |it| it.time = Timestamp::UNIX_EPOCH,
            |it| it.actor = "mallory@council".into(),
            |it| it.action = "sign-out".into(),
            |it| it.subject = "devices/desk-9".into(),
            |it| it.outcome = "refused".into(),
            |it| it.detail = None,
            |it| it.previous = NO_RECORD_HASH.into(),
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut records = records.clone();
            change(&mut records[2]);
            assert!(verdict(&records, &head).broken.is_some(), "change {n} went unnoticed");
        }
    }

    #[test]
    fn a_record_that_is_dropped_moved_or_cut_off_breaks_the_chain() {
        let (records, head) = chain(5);
        for at in 0..5 {
            let mut less = records.clone();
            less.remove(at);
            assert!(verdict(&less, &head).broken.is_some(), "dropping {at} went unnoticed");
        }
        let mut swapped = records;
        swapped.swap(1, 2);
        assert!(verdict(&swapped, &head).broken.is_some());
    }

    #[test]
    fn a_record_changed_together_with_its_hash_breaks_the_next_one() {
        let (mut records, head) = chain(5);
        records[2].actor = "mallory@council".into();
        records[2].hash = hash_of(&records[2]);
        let broken = verdict(&records, &head).broken.unwrap();
        assert!(broken.starts_with("record 4 "), "{broken}");
    }
}
