//! What one transaction is to do: writes, and the audit records that go with them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use partywall_proto::admin::PolicySpec;
use partywall_proto::ids::OrganisationId;
use serde::Serialize;
use serde_json::Value;

use super::records::{HoursRecord, audit_key, chain_key, hours_key, observed_key};
use super::state::State;
use crate::domain::audit::{DONE, Event};
use crate::domain::policy::Compiled;
use crate::domain::resource::path_of;
use crate::store::{Precondition, Transaction, Write};

/// Writes and events that happen together. The last write to a key wins.
#[derive(Debug, Default)]
pub(super) struct Change {
    writes: BTreeMap<String, Option<Vec<u8>>>,
    events: Vec<(String, Event)>,
}

impl Change {
    /// Writes `value` under `key`.
    pub(super) fn put(&mut self, key: String, value: &impl Serialize) {
        let value = serde_json::to_vec(value).expect("records have a JSON form");
        self.writes.insert(key, Some(value));
    }

    /// Deletes `key`; nothing if it does not exist.
    pub(super) fn delete(&mut self, key: String) {
        self.writes.insert(key, None);
    }

    /// Reads the hours of an organisation's policies, in force and on trial, as of `now`, until the next of
    /// their edges.
    pub(super) fn read_hours<'a>(
        &mut self,
        organisation: &OrganisationId,
        policies: impl IntoIterator<Item = &'a PolicySpec>,
        now: Timestamp,
    ) {
        let edges = policies.into_iter().flat_map(|policy| {
            policy.segments.keys().filter_map(|it| Compiled::of(policy, it).next_change(now))
        });
        match edges.min() {
            Some(until) => self.put(hours_key(organisation), &HoursRecord { at: now, until }),
            None => self.delete(hours_key(organisation)),
        }
    }

    /// Ends the trial of an organisation's version.
    pub(super) fn end_observation(
        &mut self,
        organisation: &OrganisationId,
        version: u64,
        actor: &str,
        now: Timestamp,
    ) {
        self.delete(observed_key(organisation));
        let subject = format!("{}/versions/{version}", path_of::<PolicySpec>(organisation));
        let chain = organisation.as_str();
        self.done(chain, now, actor, "policy-observation-end", subject, None);
    }

    /// Records what was done.
    pub(super) fn done(
        &mut self,
        chain: &str,
        now: Timestamp,
        actor: &str,
        action: &str,
        subject: String,
        detail: Option<Value>,
    ) {
        let event = Event {
            time: now,
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject,
            outcome: DONE.to_owned(),
            detail,
        };
        self.events.push((chain.to_owned(), event));
    }

    /// Records what was not done, and why.
    pub(super) fn refused(
        &mut self,
        chain: &str,
        now: Timestamp,
        actor: &str,
        action: &str,
        subject: String,
        why: &str,
    ) {
        let event = Event {
            time: now,
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject,
            outcome: format!("refused: {why}"),
            detail: None,
        };
        self.events.push((chain.to_owned(), event));
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.events.is_empty()
    }

    /// Whether `key` is written.
    pub(super) fn writes(&self, key: &str) -> bool {
        self.writes.contains_key(key)
    }

    /// The keys that are written, audit apart.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.writes.keys().map(String::as_str)
    }

    /// The store transaction, with each key held to what `state` knows of it.
    pub(super) fn into_transaction(mut self, state: &State) -> Transaction {
        let mut heads = BTreeMap::new();
        for (chain, event) in self.events {
            let head = heads
                .entry(chain.clone())
                .or_insert_with(|| state.chains.get(&chain).cloned().unwrap_or_default());
            let (record, next) = head.append(&chain, event);
            *head = next;
            let value = serde_json::to_vec(&record).expect("audit records have a JSON form");
            self.writes.insert(audit_key(&chain, record.sequence), Some(value));
        }
        for (chain, head) in heads {
            let value = serde_json::to_vec(&head).expect("chain heads have a JSON form");
            self.writes.insert(chain_key(&chain), Some(value));
        }
        let precondition = |key: &String| match state.revision_of(key) {
            Some(revision) => Precondition::At(key.clone().into_bytes(), revision),
            None => Precondition::Absent(key.clone().into_bytes()),
        };
        Transaction {
            preconditions: self.writes.keys().map(precondition).collect(),
            writes: self
                .writes
                .into_iter()
                .map(|(key, value)| Write { key: key.into_bytes(), value })
                .collect(),
        }
    }
}
