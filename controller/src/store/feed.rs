//! The last changes, kept in memory for those who watch.
//!
//! A change enters only once it is durable: a watcher never sees what a crash could take back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Change, Revision, StoreError};

/// Changes that are kept for watchers that come late or read slowly.
const KEPT_CHANGES: usize = 4096;

/// Where a store puts its durable changes.
#[derive(Debug)]
pub(super) struct Feed {
    kept: Arc<Mutex<Kept>>,
    latest: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Kept {
    /// Revision just before the first change in `changes`.
    base: Revision,
    changes: VecDeque<Arc<Change>>,
}

impl Feed {
    /// A feed of a store that is at `revision`.
    pub(super) fn new(revision: Revision) -> Self {
        let kept = Kept { base: revision, changes: VecDeque::new() };
        Self { kept: Arc::new(Mutex::new(kept)), latest: watch::Sender::new(revision) }
    }

    /// Adds durable changes, in order.
    pub(super) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut kept = lock(&self.kept);
        for change in changes {
            kept.changes.push_back(Arc::new(change));
            if kept.changes.len() > KEPT_CHANGES
                && let Some(oldest) = kept.changes.pop_front()
            {
                kept.base = oldest.revision;
            }
        }
        let latest = kept.changes.back().map_or(kept.base, |change| change.revision);
        drop(kept);
        self.latest.send_replace(latest);
    }

    /// The revision of the last durable change.
    pub(super) fn latest(&self) -> Revision {
        *self.latest.borrow()
    }

    /// See [`super::Store::watch`].
    pub(super) fn watch(&self, from: Revision) -> Result<Watch, StoreError> {
        let base = lock(&self.kept).base;
        match from < base {
            true => Err(StoreError::Compacted { oldest: base + 1 }),
            false => Ok(Watch {
                kept: Arc::clone(&self.kept),
                latest: self.latest.subscribe(),
                seen: from,
            }),
        }
    }
}

/// Changes of a store from one revision on.
#[derive(Debug)]
pub struct Watch {
    kept: Arc<Mutex<Kept>>,
    latest: watch::Receiver<Revision>,
    seen: Revision,
}

impl Watch {
    /// The next change; waits for it.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] where the reader fell too far behind, [`StoreError::Closed`] once
    /// the store is gone and everything has been read.
    pub async fn next(&mut self) -> Result<Arc<Change>, StoreError> {
        loop {
            if let Some(change) = self.kept_after_seen()? {
                self.seen = change.revision;
                return Ok(change);
            }
            let seen = self.seen;
            let newer = self.latest.wait_for(|latest| *latest > seen).await;
            newer.map_err(|_| StoreError::Closed)?;
        }
    }

    fn kept_after_seen(&self) -> Result<Option<Arc<Change>>, StoreError> {
        let kept = lock(&self.kept);
        if self.seen < kept.base {
            return Err(StoreError::Compacted { oldest: kept.base + 1 });
        }
        let at = kept.changes.partition_point(|change| change.revision <= self.seen);
        Ok(kept.changes.get(at).cloned())
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
