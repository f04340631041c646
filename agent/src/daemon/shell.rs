//! The daemon's loop: whatever happens goes to the membership state machine, and its steps are taken
//! before anything else is looked at.
//!
//! Only here are steps taken, and always to the end: a config is acknowledged after its last step
//! and after it is on disk, so that what was acknowledged is enforced and outlives a crash.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use partywall_proto::agent_api::{ClientMessage, Holding, SegmentOffer};
use partywall_proto::ids::AgentId;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::enforcer::{EnforceError, Enforcer};
use super::login::Login;
use super::requests::Requests;
use super::{Idle, Membership, describe};
use crate::control::{Addresses, Link, LinkEvent, Trust};
use crate::dataplane::FlowBatch;
use crate::ipc::{self, Call, IpcError};
use crate::os::FWMARK;
use crate::state::{Cache, CacheError, Enrolment, Keys, Pins, SignedOut, StateDir, StateError};

/// How often the controller is told how things are.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);
/// How often a gateway sends records of flows, if there are any.
const FLOWS_INTERVAL: Duration = Duration::from_millis(200);
/// The same at a device, which has few, and may run on a battery.
const DEVICE_FLOWS_INTERVAL: Duration = Duration::from_secs(1);
/// Messages of flow records that may wait for the link: the rest of its queue is for what somebody waits
/// for. With the interval this is 40,000 records a second.
const FLOW_MESSAGES: usize = 16;
/// How often a sign-in under way is looked at: a tenth of what a person notices.
const LOGIN_TICK: Duration = Duration::from_millis(10);
/// Timers are looked at this often at least, because the wall clock may jump.
const CLOCK_TICK: Duration = Duration::from_secs(10);
const QUEUE: usize = 64;
const CONTROLLER_ADDRESSES: &str = "controller_addresses.json";
const OFFERS: &str = "segments.json";

/// The daemon cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// This machine is not enrolled.
    #[error(
        "this machine is not enrolled; run `partywall-agent enrol CODE` with a code from your IT"
    )]
    NotEnrolled,
    /// The state directory is not usable.
    #[error(transparent)]
    State(#[from] StateError),
    /// The unix socket is not usable.
    #[error(transparent)]
    Ipc(#[from] IpcError),
    /// The data path is gone.
    #[error("the agent cannot go on")]
    Enforce(#[from] EnforceError),
}

/// How the controller is at the moment.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) address: String,
    /// The controller has welcomed this connection.
    pub(super) welcomed: bool,
    pub(super) trouble: Option<String>,
    pub(super) outgoing: mpsc::Sender<ClientMessage>,
    pub(super) holding: watch::Sender<Option<Holding>>,
    pub(super) offers: Vec<SegmentOffer>,
    pub(super) requests: Requests,
    /// Has the link connect anew.
    pub(super) again: Arc<Notify>,
    /// The request number of a sign-out that is not confirmed.
    pub(super) sign_out: Option<u32>,
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon<E> {
    pub(super) agent: AgentId,
    pub(super) state: StateDir,
    pub(super) pins: Pins,
    pub(super) cache: Cache,
    pub(super) is_cached: bool,
    pub(super) signed_out: SignedOut,
    pub(super) membership: Membership,
    pub(super) enforcer: E,
    pub(super) controller: Controller,
    pub(super) login: Option<Login>,
    /// Who signed in; none after a restart.
    pub(super) owner: Option<u32>,
    /// What failed when steps were last taken.
    pub(super) trouble: Option<String>,
    /// What somebody should look after, apart from what follows from the rest of the state.
    pub(super) warnings: BTreeSet<String>,
    events: mpsc::Receiver<LinkEvent>,
    calls: mpsc::Receiver<Call>,
}

enum Wake {
    Event(Option<LinkEvent>),
    Call(Option<Call>),
    Died(EnforceError),
    LoginTick,
    StatusTick,
    FlowsTick,
    Timer,
    Stop,
}

impl<E: Enforcer> Daemon<E> {
    /// Reads the state, brings up what was cached and is still valid, or cleans up what a crash
    /// left, and opens the socket and the link. Packets flow from here on if they may.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn start(
        state: StateDir,
        socket: PathBuf,
        mut enforcer: E,
    ) -> Result<Self, DaemonError> {
        let enrolment = Enrolment::read(&state)?.ok_or(DaemonError::NotEnrolled)?;
        let keys = Arc::new(Keys::open(&state)?);
        let pins = Pins::read(&state)?;
        let signed_out = SignedOut::read(&state)?;
        let membership = Membership::new(enrolment.agent.clone(), signed_out.session().cloned());
        let (outgoing, to_link) = mpsc::channel(QUEUE);
        let (from_link, events) = mpsc::channel(QUEUE);
        let (to_daemon, calls) = mpsc::channel(QUEUE);
        let (holding, held) = watch::channel(None);
        let again = Arc::new(Notify::new());
        let known: Vec<SocketAddr> =
            state.read_json(CONTROLLER_ADDRESSES).ok().flatten().unwrap_or_default();
        if let Some(address) = known.first() {
            enforcer.controller_is_at(*address);
        }
        let addresses = Addresses::new(&enrolment.controller, known);
        let controller = Controller {
            address: enrolment.controller,
            welcomed: false,
            trouble: None,
            outgoing,
            holding,
            offers: state.read_json(OFFERS).ok().flatten().unwrap_or_default(),
            requests: Requests::default(),
            again: again.clone(),
            sign_out: None,
        };
        let agent = enrolment.agent;
        let mut daemon = Self {
            agent: agent.clone(),
            state,
            pins,
            cache: Cache::default(),
            is_cached: false,
            signed_out,
            membership,
            enforcer,
            controller,
            login: None,
            owner: None,
            trouble: None,
            warnings: BTreeSet::new(),
            events,
            calls,
        };
        daemon.restore();
        daemon.settle().await?;
        ipc::serve(&socket, to_daemon)?;
        let link = Link {
            agent,
            addresses,
            trust: Trust::Ca(enrolment.ca),
            mark: E::MARKED.then_some(FWMARK),
            holding: held,
            again,
            events: from_link,
            outgoing: to_link,
            flows: daemon.enforcer.flows(),
        };
        tokio::spawn(async move { link.run(&keys).await });
        Ok(daemon)
    }

    /// Runs until `stop` resolves, then undoes everything. The cache stays for the next start.
    ///
    /// # Errors
    /// [`DaemonError::Enforce`] where the data path died. Then nothing is undone: the leak guard stays.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let mut stop = std::pin::pin!(stop);
        let mut status = tokio::time::interval(STATUS_INTERVAL);
        let mut flows = tokio::time::interval(match self.agent {
            AgentId::Device(_) => DEVICE_FLOWS_INTERVAL,
            AgentId::Gateway(_) => FLOWS_INTERVAL,
        });
        flows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let timer = self.timer();
            let wake = tokio::select! {
                () = &mut stop => Wake::Stop,
                error = self.enforcer.died() => Wake::Died(error),
                event = self.events.recv() => Wake::Event(event),
                call = self.calls.recv() => Wake::Call(call),
                _ = status.tick() => Wake::StatusTick,
                _ = flows.tick() => Wake::FlowsTick,
                () = tokio::time::sleep(LOGIN_TICK), if self.login.is_some() => Wake::LoginTick,
                () = tokio::time::sleep(timer) => Wake::Timer,
            };
            match wake {
                Wake::Stop => break,
                Wake::Died(error) => return Err(error.into()),
                Wake::Event(Some(event)) => self.handle_link(event).await?,
                Wake::Call(Some(call)) => self.handle_call(call).await?,
                // Both senders live as long as their tasks, which end only with the daemon.
                Wake::Event(None) | Wake::Call(None) => break,
                Wake::LoginTick => self.handle_login_tick().await?,
                Wake::StatusTick => self.tell_status().await?,
                Wake::FlowsTick => self.tell_flows(),
                Wake::Timer => self.handle_timer().await?,
            }
        }
        info!("stopping: everything is undone");
        self.enforcer.take(super::Step::Cut).await?;
        self.tell_flows();
        self.enforcer.take(super::Step::Undo).await?;
        Ok(())
    }

    /// Takes all steps that are due, then keeps disk and hello in line with what is held.
    pub(super) async fn settle(&mut self) -> Result<(), DaemonError> {
        while let Some(step) = self.membership.poll_step() {
            match self.enforcer.take(step).await {
                Ok(()) => {}
                Err(error @ EnforceError::Fatal(_)) => return Err(error.into()),
                Err(error @ EnforceError::Retry(_)) => {
                    let text = describe(&error);
                    error!(error = text, "nothing is carried; trying again in a few seconds");
                    self.trouble = Some(text);
                    self.membership.handle_failure(Timestamp::now());
                }
            }
        }
        if self.membership.is_settled() {
            self.trouble = None;
        }
        if self.is_cached && self.membership.held().is_none() {
            self.is_cached = false;
            let cleared = self.cache.clear(&self.state);
            self.note_cache(cleared);
        }
        self.controller.holding.send_replace(self.membership.holding());
        Ok(())
    }

    /// Sends to the controller if it is there.
    pub(super) async fn tell(&self, message: ClientMessage) {
        if self.controller.welcomed {
            // The link lives as long as the daemon.
            let _ = self.controller.outgoing.send(message).await;
        }
    }

    /// Sends records of flows, as far as the link takes them without anybody waiting. The rest stays where
    /// it is.
    fn tell_flows(&self) {
        if !self.controller.welcomed {
            return;
        }
        let flows = self.enforcer.flows();
        while self.controller.outgoing.capacity() > QUEUE - FLOW_MESSAGES
            && let Ok(room) = self.controller.outgoing.try_reserve()
            && let Some(FlowBatch { records, lost }) = flows.take()
        {
            room.send(ClientMessage::Flows { records, lost });
        }
    }

    pub(super) fn remember_addresses(&mut self, addresses: &[SocketAddr]) {
        if let Some(address) = addresses.first() {
            self.enforcer.controller_is_at(*address);
        }
        let known: Option<Vec<SocketAddr>> =
            self.state.read_json(CONTROLLER_ADDRESSES).ok().flatten();
        if known.as_deref() == Some(addresses) {
            return;
        }
        if let Err(error) = self.state.write_json(CONTROLLER_ADDRESSES, &addresses) {
            warn!(error = describe(&error), "the controller's address is not remembered");
        }
    }

    /// The segments' titles are for people who look while the controller is away.
    pub(super) fn remember_offers(&mut self, offers: Vec<SegmentOffer>) {
        if self.controller.offers == offers {
            return;
        }
        if let Err(error) = self.state.write_json(OFFERS, &offers) {
            warn!(error = describe(&error), "the segments' titles are not remembered");
        }
        self.controller.offers = offers;
    }

    pub(super) fn note_cache(&mut self, outcome: Result<(), CacheError>) {
        if let Err(error) = outcome {
            let text = describe(&error);
            warn!(error = text, "the config is enforced but not kept for a restart");
            self.warnings.insert(format!("the config is not kept for a restart: {text}"));
        }
    }

    fn restore(&mut self) {
        let now = Timestamp::now();
        match self.cache.read(&self.state, &self.pins, &self.agent) {
            Ok(Some(config)) => {
                self.is_cached = true;
                let (segment, generation) = (config.segment.clone(), config.generation);
                match self.membership.handle_restored(config, now) {
                    Ok(()) => info!(%segment, %generation, "going on with the cached config"),
                    Err(refusal) => info!(why = describe(&refusal), "the cached config is over"),
                }
            }
            Ok(None) => {}
            Err(error) => {
                let text = describe(&error);
                error!(error = text, "the cached config is not used; waiting for the controller");
                self.warnings.insert(text);
            }
        }
        self.membership.handle_timeout(now);
    }

    async fn handle_timer(&mut self) -> Result<(), DaemonError> {
        let was_settled = self.membership.is_settled();
        let was_held = self.membership.held().is_some();
        self.membership.handle_timeout(Timestamp::now());
        self.settle().await?;
        if was_held && self.membership.held().is_none() {
            let why = self.membership.idle();
            match why {
                Idle::SessionOver => info!("the session has ended"),
                Idle::Stale => warn!("the config is void: the controller was away for too long"),
                Idle::NoConfig | Idle::Told(_) | Idle::SignedOut => {}
            }
        }
        if !was_settled && self.membership.is_settled() {
            self.acknowledge().await;
        }
        Ok(())
    }

    /// How long until the state machine is to be asked again.
    fn timer(&self) -> Duration {
        let Some(at) = self.membership.poll_timeout() else { return CLOCK_TICK };
        let wait = at.duration_since(Timestamp::now());
        Duration::try_from(wait).unwrap_or_default().min(CLOCK_TICK)
    }

    pub(super) async fn acknowledge(&self) {
        if let Some(holding) = self.membership.holding() {
            self.tell(ClientMessage::Applied { holding }).await;
        }
    }

    /// Has the controller do something, after what it is doing.
    pub(super) async fn ask(&mut self, number: u32, message: ClientMessage) {
        if self.controller.welcomed
            && let Some(message) = self.controller.requests.ask(number, message)
        {
            self.tell(message).await;
        }
    }

    /// The controller has answered request `number`.
    pub(super) async fn answered(&mut self, number: u32) {
        if let Some(message) = self.controller.requests.answered(number) {
            self.tell(message).await;
        }
    }

    async fn handle_login_tick(&mut self) -> Result<(), DaemonError> {
        self.progress_login(Instant::now()).await
    }
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
