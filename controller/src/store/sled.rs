//! The embedded store: sled 0.34 behind one committer thread.
//!
//! The committer takes every waiting transaction, checks it against those before it, applies all of
//! them as one batch, flushes once and only then answers. sled writes its pages out but leaves the
//! file's size to the kernel, so the file is synced as well before anybody is told of success.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::sync::oneshot;

use super::feed::Feed;
use super::{Change, Entry, Precondition, Revision, Store, StoreError, Transaction, Watch, Write};

/// Free space in bytes under which writes are refused: room for sled to finish what it has begun
/// (its segments are 512 KiB and it copies some of them to reclaim others).
pub const RESERVE_BYTES: u64 = 16 << 20;

/// How long to wait for another one to let go of the files.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Most transactions that share a flush; keeps one batch well under sled's segment size.
const GROUP_MAX: usize = 256;

/// Where the counter is kept. Data keys carry another first byte.
const REVISION_KEY: &[u8] = b"r";
const DATA: u8 = b'd';
const REVISION_BYTES: usize = 8;

type Answer = oneshot::Sender<Result<Revision, StoreError>>;

/// A store in a directory.
#[derive(Debug)]
pub struct SledStore {
    tree: sled::Tree,
    feed: Arc<Feed>,
    broken: Arc<Mutex<Option<StoreError>>>,
    queue: Option<mpsc::Sender<(Transaction, Answer)>>,
    committer: Option<JoinHandle<()>>,
}

/// The committer thread's own things.
struct Committer {
    db: sled::Db,
    tree: sled::Tree,
    file: File,
    directory: PathBuf,
    reserve_bytes: u64,
    revision: Revision,
    feed: Arc<Feed>,
    broken: Arc<Mutex<Option<StoreError>>>,
}

impl SledStore {
    /// Opens or makes the store in `directory`.
    ///
    /// # Errors
    /// [`StoreError::Open`] where another process has it open or its files cannot be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with(directory, RESERVE_BYTES)
    }

    /// As [`SledStore::open`], with another reserve in bytes than [`RESERVE_BYTES`].
    ///
    /// # Errors
    /// As [`SledStore::open`].
    pub fn open_with(directory: &Path, reserve_bytes: u64) -> Result<Self, StoreError> {
        let refuse =
            |reason: String| StoreError::Open { path: directory.display().to_string(), reason };
        // Flushes are ours alone: sled's own timer would write with nobody to tell of a failure.
        let config = sled::Config::default().path(directory).flush_every_ms(None);
        let db = open_unlocked(&config).map_err(|error| refuse(error.to_string()))?;
        let tree = db.open_tree("partywall").map_err(|error| refuse(error.to_string()))?;
        let file = File::open(directory.join("db")).map_err(|error| refuse(error.to_string()))?;
        let revision = match tree.get(REVISION_KEY).map_err(|error| refuse(error.to_string()))? {
            Some(bytes) => {
                read_revision(&bytes)
                    .ok_or_else(|| refuse("the revision counter is damaged".to_owned()))?
                    .0
            }
            None => 0,
        };
        let feed = Arc::new(Feed::new(revision));
        let broken = Arc::new(Mutex::new(None));
        let committer = Committer {
            db,
            tree: tree.clone(),
            file,
            directory: directory.to_owned(),
            reserve_bytes,
            revision,
            feed: Arc::clone(&feed),
            broken: Arc::clone(&broken),
        };
        let (queue, waiting) = mpsc::channel();
        let committer = std::thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run(&waiting))
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Self { tree, feed, broken, queue: Some(queue), committer: Some(committer) })
    }

    fn failed(&self) -> Option<StoreError> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // The committer answers all that wait, then lets go of the files.
        drop(self.queue.take());
        if let Some(committer) = self.committer.take() {
            let _ = committer.join();
        }
    }
}

impl Store for SledStore {
    fn transact(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let (answer, answered) = oneshot::channel();
        if let Some(queue) = &self.queue {
            // A committer that is gone drops the answer's other end, which reads as closed below.
            let _ = queue.send((transaction, answer));
        }
        async move {
            match answered.await {
                Ok(result) => result,
                Err(_) => Err(self.failed().unwrap_or(StoreError::Closed)),
            }
        }
        .boxed()
    }

    fn get(&self, key: &[u8]) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let found = self.tree.get(data_key(key)).map_err(|error| broken(&error));
        ready(found.map(|value| value.and_then(|value| entry(key, &value)))).boxed()
    }

    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(data_key(after)),
            Some(_) | None => Bound::Included(data_key(prefix)),
        };
        let within = data_key(prefix);
        let found = self
            .tree
            .range((from, Bound::Unbounded))
            .take_while(|found| found.as_ref().map_or(true, |(key, _)| key.starts_with(&within)))
            .take(limit)
            .filter_map(|found| match found {
                Ok((key, value)) => entry(&key[1..], &value).map(Ok),
                Err(error) => Some(Err(broken(&error))),
            })
            .collect();
        ready(found).boxed()
    }

    fn revision(&self) -> Revision {
        self.feed.latest()
    }

    fn watch(&self, from: Revision) -> Result<Watch, StoreError> {
        self.feed.watch(from)
    }
}

impl Committer {
    fn run(mut self, waiting: &mpsc::Receiver<(Transaction, Answer)>) {
        while let Ok(first) = waiting.recv() {
            let rest = waiting.try_iter().take(GROUP_MAX - 1);
            let group: Vec<_> = std::iter::once(first).chain(rest).collect();
            self.commit(group);
        }
    }

    fn commit(&mut self, group: Vec<(Transaction, Answer)>) {
        if let Err(error) = self.ready() {
            for (_, answer) in group {
                let _ = answer.send(Err(error.clone()));
            }
            return;
        }
        let mut staged = Staged { batch: sled::Batch::default(), latest: HashMap::new() };
        let mut revision = self.revision;
        let mut changes = Vec::new();
        let mut answers = Vec::new();
        for (transaction, answer) in group {
            match self.check(&staged, &transaction) {
                Ok(()) => {
                    revision += 1;
                    staged.add(revision, &transaction.writes);
                    changes.push(Change { revision, writes: transaction.writes });
                    answers.push((revision, answer));
                }
                Err(error) => drop(answer.send(Err(error))),
            }
        }
        if changes.is_empty() {
            return;
        }
        staged.batch.insert(REVISION_KEY, &revision.to_be_bytes());
        match self.make_durable(staged.batch) {
            Ok(()) => {
                self.revision = revision;
                self.feed.publish(changes);
                for (revision, answer) in answers {
                    let _ = answer.send(Ok(revision));
                }
            }
            Err(error) => {
                *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                for (_, answer) in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Refuses before anything is begun, so that a full disk leaves sled whole.
    fn ready(&self) -> Result<(), StoreError> {
        if let Some(error) = &*self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.clone());
        }
        let free_bytes = free_bytes(&self.directory)
            .map_err(|error| StoreError::Broken { reason: error.to_string() })?;
        match free_bytes < self.reserve_bytes {
            true => Err(StoreError::Full { free_bytes }),
            false => Ok(()),
        }
    }

    fn check(&self, staged: &Staged, transaction: &Transaction) -> Result<(), StoreError> {
        for precondition in &transaction.preconditions {
            let (key, wanted) = match precondition {
                Precondition::At(key, revision) => (key, Some(*revision)),
                Precondition::Absent(key) => (key, None),
            };
            let current = match staged.latest.get(key) {
                Some(current) => *current,
                None => {
                    let value = self.tree.get(data_key(key)).map_err(|error| broken(&error))?;
                    value.and_then(|value| read_revision(&value).map(|(revision, _)| revision))
                }
            };
            if current != wanted {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
        Ok(())
    }

    fn make_durable(&self, batch: sled::Batch) -> Result<(), StoreError> {
        self.tree.apply_batch(batch).map_err(|error| broken(&error))?;
        self.db.flush().map_err(|error| broken(&error))?;
        self.file.sync_data().map_err(|error| StoreError::Broken { reason: error.to_string() })
    }
}

/// The transactions of one group so far.
struct Staged {
    batch: sled::Batch,
    /// Revision of each key that they wrote; none where they deleted it.
    latest: HashMap<Vec<u8>, Option<Revision>>,
}

impl Staged {
    fn add(&mut self, revision: Revision, writes: &[Write]) {
        for Write { key, value } in writes {
            match value {
                Some(value) => {
                    let value = [&revision.to_be_bytes()[..], value].concat();
                    self.batch.insert(data_key(key), value);
                    self.latest.insert(key.clone(), Some(revision));
                }
                None => {
                    self.batch.remove(data_key(key));
                    self.latest.insert(key.clone(), None);
                }
            }
        }
    }
}

/// Opens, waiting a little for one that is just closing: sled lets go of its lock on a thread of its
/// own, and a restart may be quicker.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if is_lock(&error) && Instant::now() < deadline => {
                std::thread::sleep(LOCK_WAIT / 40);
            }
            result => return result,
        }
    }
}

/// sled reports a lock that somebody else holds as an error of no kind of its own.
fn is_lock(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn data_key(key: &[u8]) -> Vec<u8> {
    [&[DATA], key].concat()
}

fn read_revision(value: &[u8]) -> Option<(Revision, &[u8])> {
    let (revision, value) = value.split_first_chunk::<REVISION_BYTES>()?;
    Some((Revision::from_be_bytes(*revision), value))
}

fn entry(key: &[u8], value: &[u8]) -> Option<Entry> {
    let (revision, value) = read_revision(value)?;
    Some(Entry { key: key.to_vec(), value: value.to_vec(), revision })
}

fn broken(error: &sled::Error) -> StoreError {
    StoreError::Broken { reason: error.to_string() }
}

fn free_bytes(directory: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(directory)?;
    Ok(found.f_bavail * found.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    fn write(key: &str, value: &str) -> Transaction {
        Transaction {
            preconditions: Vec::new(),
            writes: vec![Write { key: key.into(), value: Some(value.into()) }],
        }
    }

    #[tokio::test]
    async fn sled_keeps_the_store_contract() {
        let directory = tempfile::tempdir().unwrap();
        conformance::run(|name| SledStore::open(&directory.path().join(name)).unwrap()).await;
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_reopening_and_revisions_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        let waiting: Vec<_> =
            (0..500).map(|n| store.transact(write(&format!("k{n:03}"), "v"))).collect();
        let answered = futures_util::future::try_join_all(waiting).await.unwrap();
        assert_eq!(answered, (1..=500).collect::<Vec<_>>());
        drop(store);

        let store = SledStore::open(directory.path()).unwrap();
        assert_eq!(store.revision(), 500);
        assert_eq!(store.range(b"k", None, 1000).await.unwrap().len(), 500);
        assert_eq!(store.get(b"k007").await.unwrap().unwrap().revision, 8);
        assert_eq!(store.transact(write("x", "y")).await.unwrap(), 501);
        assert!(matches!(store.watch(100), Err(StoreError::Compacted { .. })));
    }

    #[tokio::test]
    async fn a_store_in_use_is_refused_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let _first = SledStore::open(directory.path()).unwrap();
        let refused = SledStore::open(directory.path()).unwrap_err().to_string();
        assert!(refused.contains(&directory.path().display().to_string()), "{refused}");
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_that_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        store.transact(write("kept", "1")).await.unwrap();
        drop(store);
        let store = SledStore::open_with(directory.path(), u64::MAX).unwrap();
        let refused = store.transact(write("kept", "2")).await.unwrap_err();
        assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
        assert_eq!(store.get(b"kept").await.unwrap().unwrap().value, b"1");
        assert_eq!(store.revision(), 1);
    }

    #[tokio::test]
    async fn after_a_disk_failure_nothing_more_is_taken_until_it_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).unwrap();
        store.transact(write("kept", "1")).await.unwrap();
        *store.broken.lock().unwrap() = Some(StoreError::Broken { reason: "test".into() });
        assert!(matches!(store.transact(write("lost", "1")).await, Err(StoreError::Broken { .. })));
        drop(store);
        let store = SledStore::open(directory.path()).unwrap();
        assert!(store.get(b"kept").await.unwrap().is_some());
        assert!(store.get(b"lost").await.unwrap().is_none());
    }
}
