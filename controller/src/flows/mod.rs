//! Flow records: kept on disk for each organisation, and passed on to where it wants them.
//!
//! They come from agents at whatever rate people open connections, so nothing here may hold up whoever
//! brings them: what finds no room is dropped and counted, for each organisation and each sink by itself.

mod log;
mod part;
mod read;
mod sinks;
mod tally;
#[cfg(test)]
mod testing;
mod writer;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use jiff::Timestamp;
use partywall_proto::admin::{FlowSettingsSpec, FlowStatus, Page, StoredFlow};
use partywall_proto::ids::OrganisationId;
use tokio::sync::{Semaphore, oneshot};

use self::read::Scan;
use self::sinks::Sink;
pub use self::sinks::SinkLimits;
use self::tally::Tally;
use self::writer::{Sweep, Work, Writer};
use crate::domain::flow_filter::FlowFilter;

/// Pages that are read at the same time; each may cost a core and 32 MiB from the disk.
const READS_AT_ONCE: usize = 2;

/// What whoever runs the controller allows.
#[derive(Debug, Clone)]
pub struct FlowLimits {
    /// Most bytes on disk for each organisation.
    pub budget_bytes: u64,
    /// Where records may go besides.
    pub sinks: SinkLimits,
}

/// Why flow records cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// The directory is of no use.
    #[error("cannot keep flow records in {path}")]
    Open {
        /// Which directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The files cannot be read.
    #[error("cannot read the flow records")]
    Read(#[source] std::io::Error),
    /// A cursor that none of our pages had.
    #[error("this is no cursor; take `next` of the page before as it is")]
    Cursor,
}

/// The controller's flow records. Cheap to clone.
#[derive(Clone)]
pub struct Flows {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    limits: FlowLimits,
    /// Bounded by what the tallies admit.
    work: mpsc::Sender<Work>,
    tallies: Mutex<BTreeMap<OrganisationId, Arc<Tally>>>,
    retention_days: Mutex<BTreeMap<OrganisationId, u32>>,
    sinks: Mutex<BTreeMap<OrganisationId, Vec<Sink>>>,
    /// Whether the last sweep is over.
    swept: Arc<AtomicBool>,
    reading: Semaphore,
}

impl Flows {
    /// Keeps records in `directory`, which is made if it is not there, and goes on from what is in it.
    ///
    /// # Errors
    /// A directory that cannot be made or listed.
    pub fn open(directory: &Path, limits: FlowLimits) -> Result<Self, FlowsError> {
        let failed = |source| FlowsError::Open { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let writer = Writer::open(directory, limits.budget_bytes).map_err(failed)?;
        let (work, waiting) = mpsc::channel();
        std::thread::Builder::new()
            .name("flows".to_owned())
            .spawn(move || writer.run(&waiting))
            .map_err(failed)?;
        let inner = Inner {
            directory: directory.to_owned(),
            limits,
            work,
            tallies: Mutex::default(),
            retention_days: Mutex::default(),
            sinks: Mutex::default(),
            swept: Arc::new(AtomicBool::new(true)),
            reading: Semaphore::new(READS_AT_ONCE),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes up what organisations want, in place of what they wanted before. A sink that stays as it is
    /// goes on. Call it in a runtime.
    pub fn configure<'a>(&self, settings: impl IntoIterator<Item = &'a FlowSettingsSpec>) {
        let mut running = lock(&self.inner.sinks);
        let (mut retention_days, mut sinks) = (BTreeMap::new(), BTreeMap::new());
        for settings in settings {
            let organisation = &settings.organisation;
            retention_days.insert(organisation.clone(), settings.retention_days);
            let mut before = running.remove(organisation).unwrap_or_default();
            let kept = settings.sinks.iter().map(|spec| {
                match before.iter().position(|sink| sink.spec == *spec) {
                    Some(at) => before.swap_remove(at),
                    None => Sink::start(organisation, spec.clone(), &self.inner.limits.sinks),
                }
            });
            sinks.insert(organisation.clone(), kept.collect());
        }
        *running = sinks;
        *lock(&self.inner.retention_days) = retention_days;
    }

    /// Takes `flows` of `organisation`, whose gateways say that they `lost` some before. Returns at once.
    pub fn take(&self, organisation: &OrganisationId, flows: Vec<StoredFlow>, lost: u64) {
        let tally = self.tally(organisation);
        tally.lost(lost);
        if flows.is_empty() {
            return;
        }
        let flows: Arc<[StoredFlow]> = flows.into();
        for sink in lock(&self.inner.sinks).get(organisation).into_iter().flatten() {
            sink.offer(&flows);
        }
        if tally.admit(flows.len() as u64) {
            self.ask(Work::Write { organisation: organisation.clone(), tally, flows });
        }
    }

    /// Devices of the organisation lost `records`, or had too many.
    pub fn lose_at_devices(&self, organisation: &OrganisationId, records: u64) {
        if records > 0 {
            self.tally(organisation).lost_at_devices(records);
        }
    }

    /// A page of the organisation's records that `filter` asks for, hour by hour and within an hour as they
    /// came. It may be short, or empty, and still have a `next`.
    ///
    /// # Errors
    /// A cursor that is none, or files that cannot be read.
    pub async fn read(
        &self,
        organisation: &OrganisationId,
        filter: FlowFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<StoredFlow>, FlowsError> {
        let after = after.map(str::parse).transpose().map_err(|_| FlowsError::Cursor)?;
        let _permit = self.inner.reading.acquire().await;
        let directory = self.inner.directory.join(organisation.as_str());
        let reading =
            tokio::task::spawn_blocking(move || read::read(&directory, filter, after, limit));
        let page = reading.await.unwrap_or_else(|broken| Err(std::io::Error::other(broken)));
        let page = page.map_err(FlowsError::Read)?;
        Ok(Page { items: page.flows, next: page.next.map(|next| next.to_string()) })
    }

    /// Gives `work` all of the organisation's records that `filter` asks for, in the order of
    /// [`Flows::read`], and answers what it made of them, and whether these were all: no more than
    /// `bytes_max` are read.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub async fn walk<T: Send + 'static>(
        &self,
        organisation: &OrganisationId,
        filter: FlowFilter,
        bytes_max: u64,
        work: impl FnOnce(&mut dyn Iterator<Item = StoredFlow>) -> T + Send + 'static,
    ) -> Result<(T, bool), FlowsError> {
        let _permit = self.inner.reading.acquire().await;
        let directory = self.inner.directory.join(organisation.as_str());
        let walking = tokio::task::spawn_blocking(move || {
            let mut scan = Scan::new(&directory, filter, None, bytes_max)?;
            let mut broken = None;
            let made =
                work(&mut scan.by_ref().map_while(|it| it.map_err(|it| broken = Some(it)).ok()));
            match broken {
                Some(failure) => Err(failure),
                None => Ok((made, scan.rest().is_none())),
            }
        });
        let made = walking.await.unwrap_or_else(|broken| Err(std::io::Error::other(broken)));
        made.map_err(FlowsError::Read)
    }

    /// What became of the organisation's records.
    pub fn status(&self, organisation: &OrganisationId) -> FlowStatus {
        let mut status = self.tally(organisation).status(self.inner.limits.budget_bytes);
        let sinks = lock(&self.inner.sinks);
        status.sinks.extend(sinks.get(organisation).into_iter().flatten().map(Sink::status));
        status
    }

    /// Removes what is too old. Call it now and then.
    pub fn sweep(&self, now: Timestamp) {
        // A disk that hangs must not be sent a sweep a second for ever.
        if self.inner.swept.swap(false, Ordering::AcqRel) {
            let retention_days = lock(&self.inner.retention_days).clone();
            let done = Arc::clone(&self.inner.swept);
            let tallies = lock(&self.inner.tallies).clone();
            self.ask(Work::Sweep(Sweep { now, retention_days, tallies, done }));
        }
    }

    /// Waits until what was taken so far is written or dropped.
    pub async fn settle(&self) {
        let (settled, waiting) = oneshot::channel();
        self.ask(Work::Settle(settled));
        // A writer that is gone has nothing left to write.
        let _gone = waiting.await;
    }

    fn ask(&self, work: Work) {
        if self.inner.work.send(work).is_err() {
            tracing::error!("the writer of flow records is gone");
        }
    }

    fn tally(&self, organisation: &OrganisationId) -> Arc<Tally> {
        let mut tallies = lock(&self.inner.tallies);
        Arc::clone(tallies.entry(organisation.clone()).or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::tally::WAITING_MAX;
    use super::testing::{flow, hours_from_start};
    use super::*;

    const LIMITS: FlowLimits = FlowLimits { budget_bytes: 1 << 30, sinks: NO_SINKS };
    const NO_SINKS: SinkLimits = SinkLimits { files: None, networks: Vec::new() };

    async fn devices(flows: &Flows, organisation: &OrganisationId) -> Vec<String> {
        let page = flows.read(organisation, FlowFilter::default(), None, 1000).await.unwrap();
        page.items.iter().map(|stored| stored.flow.device.to_string()).collect()
    }

    #[tokio::test]
    async fn each_organisation_reads_its_own_and_a_restart_brings_all_back() {
        let place = tempfile::tempdir().unwrap();
        let (council, nhs) = ("council".parse().unwrap(), "nhs".parse().unwrap());
        let flows = Flows::open(place.path(), LIMITS).unwrap();
        flows.take(&council, vec![flow("a", 0), flow("b", 0)], 3);
        flows.take(&nhs, vec![flow("n", 0)], 0);
        flows.settle().await;
        assert_eq!(devices(&flows, &council).await, ["a", "b"]);
        assert_eq!(devices(&flows, &nhs).await, ["n"]);
        let status = flows.status(&council);
        assert_eq!((status.received, status.stored, status.dropped), (2, 2, 0));
        assert_eq!(status.lost_at_gateways, 3);
        assert!(status.bytes > 0);
        drop(flows);
        let again = Flows::open(place.path(), LIMITS).unwrap();
        assert_eq!(devices(&again, &council).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_walk_sees_every_record_or_says_that_it_did_not() {
        let place = tempfile::tempdir().unwrap();
        let council: OrganisationId = "council".parse().unwrap();
        let flows = Flows::open(place.path(), LIMITS).unwrap();
        flows.take(&council, (0..100).map(|at| flow("a", at * 600)).collect(), 0);
        flows.settle().await;
        let count = |it: &mut dyn Iterator<Item = StoredFlow>| it.count();
        let all = FlowFilter::default();
        let whole = flows.walk(&council, all.clone(), u64::MAX, count).await.unwrap();
        assert_eq!(whole, (100, true));
        let (seen, complete) = flows.walk(&council, all, 5000, count).await.unwrap();
        assert!((5..20).contains(&seen) && !complete, "{seen} {complete}");
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_and_counted_and_crowds_out_nobody_else() {
        let place = tempfile::tempdir().unwrap();
        let (council, nhs) = ("council".parse().unwrap(), "nhs".parse().unwrap());
        let (work, waiting) = mpsc::channel();
        let mut flows = Flows::open(place.path(), LIMITS).unwrap();
        // A disk that hangs.
        Arc::get_mut(&mut flows.inner).unwrap().work = work;
        let batch = || (0..500).map(|_| flow("a", 0)).collect::<Vec<_>>();
        for _ in 0..100 {
            flows.take(&council, batch(), 0);
        }
        flows.take(&nhs, batch(), 0);
        let status = flows.status(&council);
        assert_eq!(status.received, 50_000);
        let waits: u64 = status.received - status.dropped;
        assert!((WAITING_MAX - 500..=WAITING_MAX).contains(&waits), "{waits} wait");
        assert_eq!(flows.status(&nhs).dropped, 0, "the other one had room");
        // The disk is back.
        let writer = Writer::open(place.path(), 1 << 30).unwrap();
        std::thread::spawn(move || writer.run(&waiting));
        flows.settle().await;
        let after = flows.status(&council);
        assert_eq!((after.stored, after.dropped), (waits, status.dropped));
        flows.take(&council, batch(), 0);
        flows.settle().await;
        assert_eq!(flows.status(&council).stored, waits + 500);
    }

    #[tokio::test]
    async fn retention_is_what_the_organisation_says() {
        let place = tempfile::tempdir().unwrap();
        let council: OrganisationId = "council".parse().unwrap();
        let flows = Flows::open(place.path(), LIMITS).unwrap();
        let days = |days| FlowSettingsSpec {
            organisation: council.clone(),
            retention_days: days,
            sinks: Vec::new(),
        };
        flows.take(&council, vec![flow("old", 0), flow("new", 30 * 3600)], 0);
        flows.configure([&days(2)]);
        flows.sweep(hours_from_start(48));
        flows.settle().await;
        assert_eq!(devices(&flows, &council).await, ["old", "new"]);
        flows.configure([&days(1)]);
        flows.sweep(hours_from_start(48));
        flows.settle().await;
        assert_eq!(devices(&flows, &council).await, ["new"]);
        // What is too old when it comes is dropped, and makes no file.
        flows.take(&council, vec![flow("late", 0)], 0);
        flows.settle().await;
        assert_eq!(devices(&flows, &council).await, ["new"]);
        assert_eq!(flows.status(&council).dropped, 1);
    }

    #[tokio::test]
    async fn the_budget_holds_while_records_come() {
        let place = tempfile::tempdir().unwrap();
        let council: OrganisationId = "council".parse().unwrap();
        let flows = Flows::open(place.path(), FlowLimits { budget_bytes: 20_000, sinks: NO_SINKS })
            .unwrap();
        for hour in 0..200 {
            flows.take(&council, vec![flow("a", hour * 3600)], 0);
        }
        flows.settle().await;
        let status = flows.status(&council);
        assert!((10_000..=20_000).contains(&status.bytes), "{} bytes", status.bytes);
        assert_eq!(status.stored, 200);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_drops_and_counts() {
        let place = tempfile::tempdir().unwrap();
        let council: OrganisationId = "council".parse().unwrap();
        let flows = Flows::open(place.path(), LIMITS).unwrap();
        std::fs::write(place.path().join("council"), "in the way").unwrap();
        flows.take(&council, vec![flow("a", 0)], 0);
        flows.settle().await;
        assert_eq!(flows.status(&council).dropped, 1);
        std::fs::remove_file(place.path().join("council")).unwrap();
        flows.take(&council, vec![flow("b", 0)], 0);
        flows.settle().await;
        assert_eq!(devices(&flows, &council).await, ["b"]);
    }
}
