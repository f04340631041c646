//! A store that lives as long as the process, for tests and trials.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, ready};

use super::feed::Feed;
use super::{Change, Entry, Precondition, Revision, Store, StoreError, Transaction, Watch, Write};

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    entries: Mutex<BTreeMap<Vec<u8>, Entry>>,
    feed: Feed,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { entries: Mutex::default(), feed: Feed::new(0) }
    }
}

impl MemoryStore {
    fn commit(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for precondition in &transaction.preconditions {
            let (key, holds) = match precondition {
                Precondition::At(key, revision) => {
                    (key, entries.get(key).is_some_and(|entry| entry.revision == *revision))
                }
                Precondition::Absent(key) => (key, !entries.contains_key(key)),
            };
            if !holds {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
        let revision = self.feed.latest() + 1;
        for Write { key, value } in &transaction.writes {
            match value.clone() {
                Some(value) => {
                    entries.insert(key.clone(), Entry { key: key.clone(), value, revision });
                }
                None => drop(entries.remove(key)),
            }
        }
        // Published under the lock, so that changes enter the feed in the order of their revisions.
        self.feed.publish([Change { revision, writes: transaction.writes }]);
        Ok(revision)
    }
}

impl Store for MemoryStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>> {
        ready(self.commit(transaction)).boxed()
    }

    fn get(&self, key: &[u8]) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        ready(Ok(entries.get(key).cloned())).boxed()
    }

    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries
            .range::<[u8], _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(_, entry)| entry.clone())
            .collect();
        ready(Ok(found)).boxed()
    }

    fn revision(&self) -> Revision {
        self.feed.latest()
    }

    fn watch(&self, from: Revision) -> Result<Watch, StoreError> {
        self.feed.watch(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_keeps_the_store_contract() {
        super::super::conformance::run(|_| MemoryStore::default()).await;
    }
}
