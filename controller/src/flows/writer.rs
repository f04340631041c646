//! The one thread that writes flow records to disk.
//!
//! Nobody waits for it: not a gateway's stream, and not the store, whose disk it leaves room on. Each
//! batch is handed to the kernel at once, so that a killed controller loses what waited here and no more.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use jiff::{SignedDuration, Timestamp};
use partywall_proto::admin::StoredFlow;
use partywall_proto::ids::OrganisationId;
use tokio::sync::oneshot;

use super::log::Log;
use super::tally::Tally;

/// Disk space that is left to others; the store stops at a part of it.
const RESERVE_BYTES: u64 = 256 << 20;
/// Retention of an organisation that has not said anything, or is no more.
const RETENTION_DAYS: u32 = 30;

/// Something to do.
pub(super) enum Work {
    /// Write these, which were counted into the tally.
    Write { organisation: OrganisationId, tally: Arc<Tally>, flows: Arc<[StoredFlow]> },
    /// Remove what is too old or too much.
    Sweep(Sweep),
    /// Say so once all that came before is done.
    Settle(oneshot::Sender<()>),
}

/// What to remove by, and where to say what is left.
pub(super) struct Sweep {
    pub(super) now: Timestamp,
    pub(super) retention_days: BTreeMap<OrganisationId, u32>,
    pub(super) tallies: BTreeMap<OrganisationId, Arc<Tally>>,
    pub(super) done: Arc<AtomicBool>,
}

/// See the module.
pub(super) struct Writer {
    directory: PathBuf,
    budget_bytes: u64,
    logs: BTreeMap<OrganisationId, Shelf>,
    failing: bool,
}

/// One organisation's log, and how far back it goes.
struct Shelf {
    log: Log,
    oldest_kept: Timestamp,
}

impl Writer {
    /// A writer over everything that is in `directory` already.
    pub(super) fn open(directory: &Path, budget_bytes: u64) -> io::Result<Self> {
        let mut writer = Self {
            directory: directory.to_owned(),
            budget_bytes,
            logs: BTreeMap::new(),
            failing: false,
        };
        for entry in fs::read_dir(directory)? {
            if let Some(organisation) = entry?.file_name().to_str().and_then(|it| it.parse().ok()) {
                writer.shelf(&organisation)?;
            }
        }
        Ok(writer)
    }

    /// Works until nobody can send any more.
    pub(super) fn run(mut self, work: &mpsc::Receiver<Work>) {
        for work in work {
            match work {
                Work::Write { organisation, tally, flows } => {
                    let records = flows.len() as u64;
                    let (stored, result) = self.write(&organisation, &flows);
                    let bytes = self.logs.get(&organisation).map_or(0, |shelf| shelf.log.bytes());
                    tally.done(records, stored, bytes);
                    self.report(result);
                }
                Work::Sweep(sweep) => {
                    let result = self.sweep(&sweep);
                    sweep.done.store(true, Ordering::Release);
                    self.report(result);
                }
                Work::Settle(settled) => {
                    // Whoever asked may have gone.
                    let _gone = settled.send(());
                }
            }
        }
    }

    fn write(
        &mut self,
        organisation: &OrganisationId,
        flows: &[StoredFlow],
    ) -> (u64, io::Result<()>) {
        let budget_bytes = self.budget_bytes;
        if let Err(failure) = check_room(&self.directory) {
            return (0, Err(failure));
        }
        let shelf = match self.shelf(organisation) {
            Ok(shelf) => shelf,
            Err(failure) => return (0, Err(failure)),
        };
        let oldest_kept = shelf.oldest_kept;
        let (stored, result) =
            shelf.log.append(flows.iter().filter(|stored| stored.flow.at >= oldest_kept));
        (stored, result.and_then(|()| shelf.log.prune(oldest_kept, budget_bytes)))
    }

    fn sweep(&mut self, sweep: &Sweep) -> io::Result<()> {
        let mut result = Ok(());
        for (organisation, shelf) in &mut self.logs {
            let days = sweep.retention_days.get(organisation).copied().unwrap_or(RETENTION_DAYS);
            let age = SignedDuration::from_hours(24 * i64::from(days));
            shelf.oldest_kept = sweep.now.checked_sub(age).unwrap_or(Timestamp::MIN);
            result = result.and(shelf.log.prune(shelf.oldest_kept, self.budget_bytes));
            if let Some(tally) = sweep.tallies.get(organisation) {
                tally.on_disk(shelf.log.bytes());
            }
        }
        result
    }

    fn shelf(&mut self, organisation: &OrganisationId) -> io::Result<&mut Shelf> {
        use std::collections::btree_map::Entry;
        match self.logs.entry(organisation.clone()) {
            Entry::Occupied(shelf) => Ok(shelf.into_mut()),
            Entry::Vacant(free) => {
                let log = Log::open(&self.directory.join(organisation.as_str()))?;
                Ok(free.insert(Shelf { log, oldest_kept: Timestamp::MIN }))
            }
        }
    }

    /// Says once that writing fails, and once that it works again.
    fn report(&mut self, result: io::Result<()>) {
        match result {
            Err(failure) if !self.failing => {
                tracing::error!(%failure, "flow records are dropped: they cannot be written");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                tracing::info!("flow records are written again");
                self.failing = false;
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Whether there is room on the disk of `directory` for more than what others need.
pub(super) fn check_room(directory: &Path) -> io::Result<()> {
    let found = rustix::fs::statvfs(directory)?;
    match found.f_bavail * found.f_frsize < RESERVE_BYTES {
        true => Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is nearly full")),
        false => Ok(()),
    }
}
