//! Where an organisation's flow records go besides the controller's disk, each sink by itself.
//!
//! A sink has a queue of its own and a task that empties it. One that does not keep up loses records,
//! which are counted; it holds up neither the records' way to disk nor another sink.

mod file;
mod network;
mod otlp;
mod rfc5424;
mod syslog;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use partywall_proto::admin::{FlowSink, FlowSinkStatus, StoredFlow};
use partywall_proto::ids::OrganisationId;
use partywall_proto::nets::Prefix;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::file::FileTarget;
use self::otlp::OtlpTarget;
use self::syslog::SyslogTarget;
use super::lock;

/// Records that wait for one sink: a minute of a busy gateway's, 20 MB.
const WAITING_MAX: u64 = 32_768;
/// First wait after a failure; it doubles.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failure: what a sink that is back waits at most for its records.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Where sinks may write and connect to.
#[derive(Debug, Clone, Default)]
pub struct SinkLimits {
    /// Folder for files; none refuses sinks that are files.
    pub files: Option<PathBuf>,
    /// Networks that sinks may be in; empty is any, but for this machine's own and its link.
    pub networks: Vec<Prefix>,
}

/// A sink at work; dropping it ends the work, and what waits is gone.
pub(super) struct Sink {
    pub(super) spec: FlowSink,
    queue: mpsc::UnboundedSender<Arc<[StoredFlow]>>,
    account: Arc<Account>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Account {
    waiting: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// Why a sink did not take a batch.
#[derive(Debug)]
enum SendError {
    /// It may do so later.
    Later(String),
    /// It took some of these records, or none, and never will take the others.
    Never { records: u64, why: String },
}

enum Target {
    File(FileTarget),
    Syslog(SyslogTarget),
    Otlp(OtlpTarget),
}

impl Sink {
    /// Starts a sink of `organisation`. Call it in a runtime.
    pub(super) fn start(
        organisation: &OrganisationId,
        spec: FlowSink,
        limits: &SinkLimits,
    ) -> Self {
        let target = match &spec {
            FlowSink::File { name } => {
                Target::File(FileTarget::new(limits.files.as_deref(), organisation, name))
            }
            FlowSink::Syslog { server, ca, .. } => {
                Target::Syslog(SyslogTarget::new(server, ca, &limits.networks))
            }
            FlowSink::Otlp { url, ca, .. } => {
                Target::Otlp(OtlpTarget::new(organisation, url, ca, &limits.networks))
            }
        };
        let (queue, waiting) = mpsc::unbounded_channel();
        let account = Arc::new(Account::default());
        let name = format!("{organisation}/{}", spec.name());
        let task = tokio::spawn(work(name, target, waiting, Arc::clone(&account)));
        Self { spec, queue, account, task }
    }

    /// Queues `flows`, or drops and counts them. Returns at once.
    pub(super) fn offer(&self, flows: &Arc<[StoredFlow]>) {
        let records = flows.len() as u64;
        let waiting = self.account.waiting.fetch_add(records, Ordering::Relaxed) + records;
        if waiting > WAITING_MAX || self.queue.send(Arc::clone(flows)).is_err() {
            self.account.waiting.fetch_sub(records, Ordering::Relaxed);
            self.account.dropped.fetch_add(records, Ordering::Relaxed);
        }
    }

    pub(super) fn status(&self) -> FlowSinkStatus {
        FlowSinkStatus {
            name: self.spec.name().clone(),
            sent: self.account.sent.load(Ordering::Relaxed),
            dropped: self.account.dropped.load(Ordering::Relaxed),
            trouble: lock(&self.account.trouble).clone(),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Target {
    /// Hands over a batch. One that failed is handed over again as a whole, so that a record may come twice.
    async fn send(&mut self, flows: &Arc<[StoredFlow]>) -> Result<(), SendError> {
        match self {
            Self::File(target) => target.send(flows).await,
            Self::Syslog(target) => target.send(flows).await,
            Self::Otlp(target) => target.send(flows).await,
        }
    }
}

async fn work(
    name: String,
    mut target: Target,
    mut queue: mpsc::UnboundedReceiver<Arc<[StoredFlow]>>,
    account: Arc<Account>,
) {
    while let Some(flows) = queue.recv().await {
        let records = flows.len() as u64;
        let mut wait = RETRY_MIN;
        let (refused, trouble) = loop {
            match target.send(&flows).await {
                Ok(()) => break (0, None),
                Err(SendError::Never { records: refused, why }) => break (refused, Some(why)),
                Err(SendError::Later(why)) => {
                    account.say(&name, Some(why));
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        };
        account.say(&name, trouble);
        let refused = refused.min(records);
        account.waiting.fetch_sub(records, Ordering::Relaxed);
        account.sent.fetch_add(records - refused, Ordering::Relaxed);
        account.dropped.fetch_add(refused, Ordering::Relaxed);
    }
}

impl Account {
    /// Keeps what is wrong, and logs it where it changes.
    fn say(&self, sink: &str, trouble: Option<String>) {
        let mut known = lock(&self.trouble);
        if *known != trouble {
            match &trouble {
                Some(trouble) => tracing::warn!(sink, trouble, "a sink takes no flow records"),
                None => tracing::info!(sink, "a sink takes flow records again"),
            }
            *known = trouble;
        }
    }
}
