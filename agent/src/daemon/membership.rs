//! What this agent is to carry: the held config, and the steps that make the machine enforce it.
//!
//! A pure state machine. Feed it with `handle_*`, take steps with [`Membership::poll_step`] until there is
//! none, execute them in order, and report one that failed with [`Membership::handle_failure`]. Call
//! [`Membership::handle_timeout`] when [`Membership::poll_timeout`] has passed. Time is the local clock's.
//!
//! The order of steps is a promise: what is taken away is taken away in the data path before
//! anything new is set up anywhere.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use partywall_proto::agent_api::Holding;
use partywall_proto::envelope::Payload;
use partywall_proto::ids::{AgentId, SessionId};
use partywall_proto::overlay::{Change, OverlayConfig, Peer, Role, Session};

use super::{ClockSkew, Refusal, Step};

/// After a step failed, how long until all of it is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// Why nothing is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idle {
    /// Nothing has come yet.
    NoConfig,
    /// The controller said so, with its words.
    Told(String),
    /// The person at the desk signed out.
    SignedOut,
    /// The session reached its end.
    SessionOver,
    /// The controller was away for longer than the segment's organisation allows.
    Stale,
}

#[derive(Debug)]
enum Enforced {
    /// What a crash or a failure left: not known.
    Unknown,
    Nothing,
    Config(Arc<OverlayConfig>),
}

/// The state machine.
#[derive(Debug)]
pub struct Membership {
    agent: AgentId,
    skew: ClockSkew,
    held: Option<Arc<OverlayConfig>>,
    idle: Idle,
    enforced: Enforced,
    retry_at: Option<Timestamp>,
    steps: VecDeque<Step>,
    signed_out: Option<SessionId>,
}

impl Membership {
    /// An agent that holds nothing and does not know what a former run has left on the machine.
    pub fn new(agent: AgentId, signed_out: Option<SessionId>) -> Self {
        Self {
            agent,
            skew: ClockSkew::default(),
            held: None,
            idle: Idle::NoConfig,
            enforced: Enforced::Unknown,
            retry_at: None,
            steps: VecDeque::new(),
            signed_out,
        }
    }

    /// The signed config that counts; `None` comes with [`idle`](Self::idle).
    pub fn held(&self) -> Option<&Arc<OverlayConfig>> {
        self.held.as_ref()
    }

    /// Why nothing is held.
    pub fn idle(&self) -> &Idle {
        &self.idle
    }

    /// What to say in a hello.
    pub fn holding(&self) -> Option<Holding> {
        self.held.as_ref().map(|config| Holding {
            segment: config.segment.clone(),
            generation: config.generation,
        })
    }

    /// The device's session; none at a gateway and without one.
    pub fn session(&self) -> Option<&Session> {
        self.held.as_ref().and_then(|config| session_of(config))
    }

    /// Whether the machine enforces what is held. True only once all steps were taken.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty()
            && match &self.enforced {
                Enforced::Unknown => false,
                Enforced::Nothing => self.held.is_none(),
                Enforced::Config(_) => self.held.is_some(),
            }
    }

    /// The skew as last measured.
    pub fn skew(&self) -> ClockSkew {
        self.skew
    }

    /// The controller's clock was seen.
    pub fn handle_skew(&mut self, skew: ClockSkew, now: Timestamp) {
        self.skew = skew;
        self.handle_timeout(now);
    }

    /// A config from the cache, whose signature has been checked, at the agent's start.
    ///
    /// # Errors
    /// Why it is not taken; the machine is to be cleaned up then.
    pub fn handle_restored(
        &mut self,
        config: OverlayConfig,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.handle_payload(Payload::Snapshot(Box::new(config)), now)
    }

    /// A payload whose signature has been checked.
    ///
    /// # Errors
    /// Why it is not taken. Nothing has changed then.
    pub fn handle_payload(&mut self, payload: Payload, now: Timestamp) -> Result<(), Refusal> {
        let next = match payload {
            Payload::Snapshot(config) => {
                config.check()?;
                self.check_generation(&config)?;
                *config
            }
            Payload::Delta(delta) => {
                self.held.as_ref().ok_or(Refusal::NothingHeld)?.with(&delta)?
            }
        };
        self.check_ours(&next)?;
        self.check_time(&next, now)?;
        self.held = Some(Arc::new(next));
        self.settle(now);
        Ok(())
    }

    /// The controller says that there is nothing to carry.
    pub fn handle_nothing(&mut self, reason: String, now: Timestamp) {
        let was_held = self.held.take().is_some();
        if was_held || self.idle == Idle::NoConfig {
            self.idle = Idle::Told(reason);
        }
        self.settle(now);
    }

    /// The person at the desk signs out: this session does not come back, whatever is sent.
    pub fn handle_sign_out(&mut self, now: Timestamp) -> Option<SessionId> {
        let session = self.session()?.id.clone();
        self.signed_out = Some(session.clone());
        self.end(Idle::SignedOut, now);
        Some(session)
    }

    /// A step failed. Nothing is carried until all of it has succeeded, from the beginning.
    pub fn handle_failure(&mut self, now: Timestamp) {
        self.steps.clear();
        self.steps.push_back(Step::Cut);
        self.enforced = Enforced::Unknown;
        self.retry_at = Some(now.saturating_add(RETRY).unwrap_or(Timestamp::MAX));
    }

    /// Does what is due: sessions that end, a config that becomes void, another try.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let over = match &self.held {
            Some(config) => self.over(config, now),
            None => None,
        };
        if let Some(idle) = over {
            self.end(idle, now);
            return;
        }
        let waiting = self.retry_at.is_some_and(|at| now < at);
        if !waiting {
            self.settle(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next, by the local clock.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let deadline = self.held.as_ref().map(|config| {
            let own = session_of(config).into_iter().map(|session| session.ends_at);
            // Peers that are cut already are not waited for again.
            let live: &[Peer] = match &self.enforced {
                Enforced::Config(enforced) => &enforced.peers,
                Enforced::Nothing | Enforced::Unknown => &[],
            };
            let peers = live.iter().filter_map(|peer| Some(peer.session.as_ref()?.ends_at));
            let first = own.chain(peers).fold(config.valid_until, Ord::min);
            self.skew.local(first)
        });
        [deadline, self.retry_at].into_iter().flatten().min()
    }

    /// The next step to take.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    fn end(&mut self, idle: Idle, now: Timestamp) {
        self.held = None;
        self.idle = idle;
        self.settle(now);
    }

    fn check_generation(&self, next: &OverlayConfig) -> Result<(), Refusal> {
        let Some(held) = &self.held else { return Ok(()) };
        let same_content = || {
            OverlayConfig {
                issued_at: held.issued_at,
                valid_until: held.valid_until,
                ..next.clone()
            } == **held
        };
        let newer = next.generation > held.generation
            || (next.generation == held.generation
                && next.issued_at >= held.issued_at
                && same_content());
        match newer {
            true => Ok(()),
            false => Err(Refusal::Stale { found: next.generation, held: held.generation }),
        }
    }

    fn check_ours(&self, next: &OverlayConfig) -> Result<(), Refusal> {
        if next.agent != self.agent {
            return Err(Refusal::OtherAgent {
                found: next.agent.clone(),
                agent: self.agent.clone(),
            });
        }
        match (&self.agent, &next.role) {
            (AgentId::Device(_), Role::Device { session, .. }) => {
                match self.signed_out.as_ref() == Some(&session.id) {
                    true => Err(Refusal::SignedOut),
                    false => Ok(()),
                }
            }
            (AgentId::Gateway(_), Role::Gateway { .. }) => Ok(()),
            (AgentId::Device(_), Role::Gateway { .. })
            | (AgentId::Gateway(_), Role::Device { .. }) => {
                Err(Refusal::Role { agent: self.agent.clone() })
            }
        }
    }

    fn check_time(&self, next: &OverlayConfig, now: Timestamp) -> Result<(), Refusal> {
        let now = self.skew.corrected(now, next.issued_at);
        if now >= next.valid_until {
            return Err(Refusal::Void { valid_until: next.valid_until });
        }
        match session_of(next) {
            Some(session) if now >= session.ends_at => {
                Err(Refusal::SessionOver { ends_at: session.ends_at })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn over(&self, config: &OverlayConfig, now: Timestamp) -> Option<Idle> {
        match self.check_time(config, now) {
            Ok(()) => None,
            Err(Refusal::SessionOver { .. }) => Some(Idle::SessionOver),
            Err(_) => Some(Idle::Stale),
        }
    }

    /// Plans the steps from what is enforced to what is held.
    fn settle(&mut self, now: Timestamp) {
        self.retry_at = None;
        let target = self.held.as_ref().map(|config| self.live(config, now));
        let enforced = std::mem::replace(&mut self.enforced, Enforced::Unknown);
        self.enforced = match (enforced, target) {
            (Enforced::Nothing, None) => Enforced::Nothing,
            (Enforced::Unknown | Enforced::Config(_), None) => {
                self.steps.extend([Step::Cut, Step::Undo]);
                Enforced::Nothing
            }
            (Enforced::Config(from), Some(to)) if same_membership(&from, &to) => {
                self.steps.extend(steps_within(&from, &to));
                Enforced::Config(to)
            }
            (_, Some(to)) => {
                let steps = [Step::Cut, Step::System(to.clone()), Step::Replace(to.clone())];
                self.steps.extend(steps);
                Enforced::Config(to)
            }
        };
    }

    /// `config` without the peers whose sessions are over.
    fn live(&self, config: &Arc<OverlayConfig>, now: Timestamp) -> Arc<OverlayConfig> {
        let now = self.skew.corrected(now, config.issued_at);
        let is_live =
            |peer: &Peer| peer.session.as_ref().is_none_or(|session| now < session.ends_at);
        if config.peers.iter().all(is_live) {
            return config.clone();
        }
        let mut live = OverlayConfig::clone(config);
        live.peers.retain(is_live);
        Arc::new(live)
    }
}

fn session_of(config: &OverlayConfig) -> Option<&Session> {
    match &config.role {
        Role::Device { session, .. } => Some(session),
        Role::Gateway { .. } => None,
    }
}

fn same_membership(one: &OverlayConfig, other: &OverlayConfig) -> bool {
    let id = |config| session_of(config).map(|session: &Session| &session.id);
    one.segment == other.segment && id(one) == id(other)
}

/// The steps within one segment and session.
fn steps_within(from: &OverlayConfig, to: &Arc<OverlayConfig>) -> Vec<Step> {
    let Some(changes) = from.changes_to(to) else {
        // Another port is another socket: the data path begins anew.
        if from.interface.listen_port != to.interface.listen_port {
            return vec![Step::Cut, Step::System(to.clone()), Step::Replace(to.clone())];
        }
        return vec![Step::Replace(to.clone()), Step::System(to.clone())];
    };
    // A device's routes follow what its gateways take; a gateway's do not depend on its devices.
    let is_device = session_of(to).is_some();
    let routes_change = is_device && from.peers != to.peers;
    let mut steps: Vec<Step> = changes
        .into_iter()
        .map(|change| match change {
            Change::PeerSet { peer } => Step::PeerSet(peer),
            Change::PeerGone { agent } => Step::PeerGone(agent),
            Change::RulesSet { rules, policy, observed } => {
                Step::RulesSet { rules, policy, observed }
            }
        })
        .chain(routes_change.then(|| Step::System(to.clone())))
        .collect();
    steps.sort_by_key(|step| match step {
        Step::Cut | Step::Undo | Step::PeerGone(_) => 0,
        Step::RulesSet { .. } => 1,
        Step::System(_) | Step::Replace(_) => 2,
        Step::PeerSet(_) => 3,
    });
    steps
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
