//! Where the controller's state is kept: ordered keys, transactions with preconditions, and a watch.
//!
//! A transaction that was answered with a revision is durable: it is there after a `kill -9`. Nothing
//! here may lean on what only one implementation can do; etcd is to fit behind the same trait.

pub mod feed;
pub mod memory;
pub mod sled;

#[cfg(test)]
mod conformance;

use futures_util::future::BoxFuture;

pub use feed::Watch;

/// Counts transactions from 1; 0 is the empty store. Never goes back.
pub type Revision = u64;

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Ordered as bytes.
    pub key: Vec<u8>,
    /// What was written.
    pub value: Vec<u8>,
    /// The revision of the last write to this key.
    pub revision: Revision,
}

/// What must hold for a transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// The key's last write was at this revision.
    At(Vec<u8>, Revision),
    /// The key does not exist.
    Absent(Vec<u8>),
}

/// One key's new value; none deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which key.
    pub key: Vec<u8>,
    /// Its new value.
    pub value: Option<Vec<u8>>,
}

/// Writes that happen together, if all preconditions hold, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All must hold.
    pub preconditions: Vec<Precondition>,
    /// In order; a later write to the same key wins.
    pub writes: Vec<Write>,
}

/// What a transaction changed, as a watch delivers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The transaction's revision.
    pub revision: Revision,
    /// Its writes.
    pub writes: Vec<Write>,
}

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A precondition does not hold; nothing was written.
    #[error("{} was changed meanwhile", String::from_utf8_lossy(.key))]
    Conflict {
        /// The first key that was not as stated.
        key: Vec<u8>,
    },
    /// The disk is nearly full; nothing was written, and writes go on once there is room.
    #[error("the disk has only {free_bytes} bytes left; free some space")]
    Full {
        /// What the file system reports.
        free_bytes: u64,
    },
    /// The disk failed. It is not known whether the last writes are there; no more are taken until
    /// the store is opened again.
    #[error("the disk failed ({reason}); repair it and start the controller again")]
    Broken {
        /// What the disk said.
        reason: String,
    },
    /// Another process has the store open, or its files cannot be read.
    #[error("the store at {path} cannot be opened ({reason})")]
    Open {
        /// Where it is.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// A watch asks for changes that are no longer kept; read the range and watch from its revision.
    #[error("changes before revision {oldest} are no longer kept")]
    Compacted {
        /// The oldest change that is.
        oldest: Revision,
    },
}

/// Ordered keys with transactions and a watch.
pub trait Store: Send + Sync + 'static {
    /// Applies `transaction` and answers its revision once it is durable. Transactions take their
    /// place in order when this is called, not when the future is first polled.
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// One key.
    fn get(&self, key: &[u8]) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;

    /// Up to `limit` entries whose keys begin with `prefix`, in order, those after `after` only.
    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>>;

    /// The revision of the last durable transaction.
    fn revision(&self) -> Revision;

    /// Every change after revision `from`, in order and without a gap.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] where the oldest of them is no longer kept.
    fn watch(&self, from: Revision) -> Result<Watch, StoreError>;
}
