//! The only writer of the controller's state, and what the outside calls.
//!
//! Every change is validated, then made durable in one store transaction together with its audit
//! record, then shown to readers, then sent to the agents concerned. Nothing skips a step.

mod access;
mod agents;
mod audit;
mod background;
mod bootstrap;
mod change;
mod clock;
mod concerned;
mod desired;
mod distribution;
mod draft;
mod error;
mod feed;
mod flow_reports;
mod flows;
mod observation;
mod policies;
mod policy_effect;
mod proof;
mod random;
mod records;
mod resources;
mod sessions;
mod sign_in;
mod state;
mod stock;
#[cfg(test)]
mod testing;
mod what_if;
mod why;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;
use partywall_proto::ids::{AgentId, UserId};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard, Semaphore};
use tracing::{error, warn};

use self::change::Change;
use self::concerned::Concerned;
use self::distribution::{Distribution, all_applied};
use self::flow_reports::FlowReports;
use self::state::State;
use crate::flows::Flows;
use crate::store::{Store, StoreError, Write};

pub use self::clock::{Clock, ManualClock, SystemClock};
pub use self::distribution::AgentStatus;
pub use self::error::AppError;
pub use self::feed::{AgentFeed, Welcome};
pub use crate::domain::flow_filter::FlowFilter;
pub use crate::domain::group_key::GroupKey;
pub use crate::domain::policy::Opening;
pub use crate::domain::principal::Principal;
pub use crate::domain::resource::Resource;

type Result<T, E = AppError> = std::result::Result<T, E>;

/// Longest wait for gateways to take a new peer before its device is told. Gateways answer within
/// milliseconds; one that is slower costs the device a handshake, which it repeats after five seconds
/// (WireGuard's `REKEY_TIMEOUT`), so a busy gateway is given some time.
const GATEWAY_WAIT: Duration = Duration::from_secs(1);

/// Password hashes computed at the same time; each takes 19 MiB.
const HASHES_AT_ONCE: usize = 8;

/// Entries read from the store at a time.
pub(crate) const READ_AT_ONCE: usize = 1000;

/// The controller without its edges. Cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// What is durable. Written by [`App::commit`] alone.
    state: RwLock<State>,
    /// Held from reading what a change builds on until the change is durable and distributed.
    writer: Arc<AsyncMutex<()>>,
    distribution: Distribution,
    hashing: Semaphore,
    /// Users whose sign-in is being checked: one guess at a time, or the growing delay means nothing.
    signing_in: Mutex<HashSet<UserId>>,
    /// Where flow records go; nowhere until [`App::keep_flows`].
    flows: OnceLock<Flows>,
    reports: Mutex<FlowReports>,
    /// Something may be due sooner than the background task thinks.
    due: Notify,
}

/// The right to change things, one at a time.
struct Writer(#[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

impl App {
    /// Rebuilds the state from `store`.
    ///
    /// # Errors
    /// A store that cannot be read, or that a newer version wrote.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut state = State::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let entries = store.range(b"", after.as_deref(), READ_AT_ONCE).await?;
            let Some(last) = entries.last() else { break };
            after = Some(last.key.clone());
            for entry in &entries {
                let key = String::from_utf8_lossy(&entry.key);
                state.set(&key, Some(&entry.value), entry.revision)?;
            }
        }
        state.revision = store.revision();
        let inner = Inner {
            store,
            clock,
            state: RwLock::new(state),
            writer: Arc::default(),
            distribution: Distribution::default(),
            hashing: Semaphore::new(HASHES_AT_ONCE),
            signing_in: Mutex::default(),
            flows: OnceLock::new(),
            reports: Mutex::default(),
            due: Notify::new(),
        };
        let app = Self { inner: Arc::new(inner) };
        app.number_policies().await?;
        Ok(app)
    }

    fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.inner.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn writer(&self) -> Writer {
        Writer(Arc::clone(&self.inner.writer).lock_owned().await)
    }

    /// Makes `change` durable, shows it to readers and tells the agents concerned; `last` is told
    /// only when the others have applied it or [`GATEWAY_WAIT`] is over. Answers the new revision.
    ///
    /// Runs to its end even where the caller goes away: memory must not miss what is durable.
    async fn commit(&self, writer: Writer, change: Change, last: Option<AgentId>) -> Result<u64> {
        if change.is_empty() {
            return Ok(self.state().revision);
        }
        let app = self.clone();
        let task = tokio::spawn(async move { app.commit_to_the_end(writer, change, last).await });
        task.await.unwrap_or_else(|failure| {
            error!(%failure, "a commit was cut short");
            Err(StoreError::Closed.into())
        })
    }

    async fn commit_to_the_end(
        &self,
        writer: Writer,
        change: Change,
        last: Option<AgentId>,
    ) -> Result<u64> {
        let mut concerned = Concerned::default();
        let (transaction, segments_change) = {
            let state = self.state();
            concerned.add(&state, change.keys());
            let segments_change = change.keys().any(|key| key.starts_with("resource/segments/"));
            (change.into_transaction(&state), segments_change)
        };
        let writes = transaction.writes.clone();
        let revision = self.inner.store.transact(transaction).await.inspect_err(|failure| {
            warn!(%failure, "the store did not take a change");
        })?;
        self.remember_ended_sessions(&writes);
        {
            let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
            for write in &writes {
                let key = String::from_utf8_lossy(&write.key);
                state.set(&key, write.value.as_deref(), revision)?;
            }
        }
        let awaited = {
            let state = self.state();
            let keys: Vec<_> =
                writes.iter().map(|write| String::from_utf8_lossy(&write.key)).collect();
            concerned.add(&state, keys.iter().map(AsRef::as_ref));
            last.iter().for_each(|last| concerned.leave_out(last));
            if segments_change {
                self.inner.distribution.welcome_all(&state);
            }
            if let Some(flows) = self.inner.flows.get()
                && keys.iter().any(|key| key.starts_with("resource/flow-settings/"))
            {
                flows.configure(state.catalogue.flow_settings.values().map(|it| &it.spec));
            }
            let awaited = self.inner.distribution.refresh(&state, &concerned, self.now());
            let gone = writes.iter().filter(|write| write.value.is_none());
            for agent in gone.filter_map(|write| agent_of(&write.key)) {
                self.inner.distribution.cut(&agent);
            }
            awaited
        };
        drop(writer);
        self.inner.due.notify_one();
        if let Some(last) = last {
            all_applied(awaited, GATEWAY_WAIT).await;
            let last = Concerned::only(last);
            self.inner.distribution.refresh(&self.state(), &last, self.now());
        }
        Ok(revision)
    }

    /// The records of a session's last flows come after its end.
    fn remember_ended_sessions(&self, writes: &[Write]) {
        let state = self.state();
        let mut reports = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes.iter().filter(|write| write.value.is_none()) {
            let key = String::from_utf8_lossy(&write.key);
            let id = key.strip_prefix("session/").and_then(|id| id.parse().ok());
            if let Some(session) = id.and_then(|id| state.sessions.get(&id)) {
                reports.ended(session);
            }
        }
    }

    /// Records that `principal` was refused, where `result` says so.
    async fn audited<T>(
        &self,
        principal: &Principal,
        action: &str,
        subject: &str,
        result: Result<T>,
    ) -> Result<T> {
        if let Err(AppError::Forbidden(why)) = &result {
            let writer = self.writer().await;
            let mut change = Change::default();
            let (scope, actor) = (principal.scope(), principal.actor());
            change.refused(scope.chain(), self.now(), &actor, action, subject.to_owned(), why);
            self.commit(writer, change, None).await?;
        }
        result
    }
}

/// The agent whose enrolment is kept under `key`.
fn agent_of(key: &[u8]) -> Option<AgentId> {
    std::str::from_utf8(key).ok()?.strip_prefix("agent/")?.parse().ok()
}
