//! Brings each connected agent from the config that it was last sent to the one it should have.
//!
//! A queue that is full cuts its agent off. The agent comes back, says what it holds, and gets a
//! snapshot where that is not what was last sent.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use partywall_proto::agent_api::{Holding, ServerMessage};
use partywall_proto::envelope::{Envelope, Payload};
use partywall_proto::ids::AgentId;
use partywall_proto::overlay::{Change, Delta, Generation, OverlayConfig, Peer, VERSION};
use tokio::sync::{mpsc, watch};

use super::concerned::Concerned;
use super::desired::{Desired, DesiredPeers, desired, desired_peers, welcome};
use super::state::State;
use crate::domain::overlay::valid_until;

/// Messages that wait for one agent before it is cut off.
const QUEUE_MESSAGES: usize = 64;

/// What an agent says about itself now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    /// When it said so.
    pub reported_at: Timestamp,
    /// Packets dropped since the agent started, by drop reason.
    pub drops: BTreeMap<String, u64>,
    /// Peers with a handshake in the last three minutes.
    pub live_peers: u32,
    /// The agent's clock less the controller's, in seconds.
    pub clock_skew_s: i64,
}

/// All agents that are or were connected.
#[derive(Default)]
pub(super) struct Distribution(Mutex<BTreeMap<AgentId, Line>>);

/// One agent's line.
#[derive(Default)]
struct Line {
    queue: Option<mpsc::Sender<ServerMessage>>,
    /// The config that it was last sent, kept while it is away.
    sent: Option<OverlayConfig>,
    applied: watch::Sender<Option<Holding>>,
    /// It refused what it was last sent; it is told once more and then no more.
    rejected: bool,
    status: Option<AgentStatus>,
}

/// What is waited for: this agent applying this generation.
pub(super) struct Awaited {
    applied: watch::Receiver<Option<Holding>>,
    generation: Generation,
}

impl Distribution {
    /// Connects `agent`; answers its queue and whether another connection was superseded.
    pub(super) fn connect(
        &self,
        state: &State,
        agent: &AgentId,
        holding: Option<Holding>,
        now: Timestamp,
    ) -> (mpsc::Receiver<ServerMessage>, bool) {
        let (queue, messages) = mpsc::channel(QUEUE_MESSAGES);
        let mut lines = self.lock();
        let line = lines.entry(agent.clone()).or_default();
        let superseded = line.queue.replace(queue).is_some_and(|old| !old.is_closed());
        let known = line
            .sent
            .as_ref()
            .map(|sent| Holding { segment: sent.segment.clone(), generation: sent.generation });
        if known != holding {
            line.sent = None;
        }
        line.rejected = false;
        line.applied.send_replace(holding);
        match desired(state, agent, now) {
            Desired::Nothing(reason) => line.send_nothing(reason),
            Desired::Config(next, key) => {
                let limit = next.valid_until.duration_since(next.issued_at);
                line.bring_to(*next, key);
                // What it holds may be near its staleness limit.
                line.renew(now, key, limit, 1);
            }
        }
        (messages, superseded)
    }

    /// Brings those who are concerned and connected to what they should have, and answers what to wait for.
    pub(super) fn refresh(
        &self,
        state: &State,
        concerned: &Concerned,
        now: Timestamp,
    ) -> Vec<Awaited> {
        let mut lines = self.lock();
        let mut awaited = Vec::new();
        for agent in concerned.wholly() {
            if let Some(line) = connected(&mut lines, agent) {
                awaited.extend(line.refresh(state, agent, now));
            }
        }
        for (agent, devices) in concerned.by_peers() {
            let Some(line) = connected(&mut lines, &agent) else { continue };
            let AgentId::Gateway(gateway) = &agent else { continue };
            let next = desired_peers(state, gateway, devices, now);
            let generation = Generation(state.revision);
            match next.and_then(|next| line.bring_peers(next, generation, now)) {
                Some(one) => {
                    debug_assert!(line.is_at(&desired(state, &agent, now)), "{agent}");
                    awaited.push(one);
                }
                None => awaited.extend(line.refresh(state, &agent, now)),
            }
        }
        awaited
    }

    /// Tells all connected agents anew which segments there are.
    pub(super) fn welcome_all(&self, state: &State) {
        for (agent, line) in &mut *self.lock() {
            if line.queue.is_some() {
                line.send(welcome(state, agent));
            }
        }
    }

    /// Renews the validity of what was sent a third of the staleness limit ago.
    pub(super) fn renew(&self, state: &State, now: Timestamp) {
        for line in self.lock().values_mut() {
            let Some(sent) = &line.sent else { continue };
            let segment = state.catalogue.segments.get(&sent.segment);
            let key = state.segment_keys.get(&sent.segment);
            if let (Some(segment), Some(key)) = (segment, key) {
                let limit_s = i64::try_from(segment.spec.staleness_limit_s).unwrap_or(i64::MAX);
                line.renew(now, key, SignedDuration::from_secs(limit_s), limit_s / 3);
            }
        }
    }

    /// Cuts `agent` off and forgets it.
    pub(super) fn cut(&self, agent: &AgentId) {
        self.lock().remove(agent);
    }

    pub(super) fn applied(&self, agent: &AgentId, holding: Holding) {
        if let Some(line) = self.lock().get_mut(agent) {
            line.rejected = false;
            line.applied.send_replace(Some(holding));
        }
    }

    /// Sends a snapshot to an agent that refused what it was sent, once.
    pub(super) fn rejected(&self, state: &State, agent: &AgentId, now: Timestamp) {
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(agent) else { return };
        line.sent = None;
        if std::mem::replace(&mut line.rejected, true) {
            return;
        }
        match desired(state, agent, now) {
            Desired::Nothing(reason) => line.send_nothing(reason),
            Desired::Config(next, key) => drop(line.bring_to(*next, key)),
        }
    }

    pub(super) fn report(&self, agent: &AgentId, status: AgentStatus) {
        if let Some(line) = self.lock().get_mut(agent) {
            line.status = Some(status);
        }
    }

    pub(super) fn status(&self, agent: &AgentId) -> Option<AgentStatus> {
        self.lock().get(agent)?.status.clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connected<'a>(lines: &'a mut BTreeMap<AgentId, Line>, agent: &AgentId) -> Option<&'a mut Line> {
    lines.get_mut(agent).filter(|line| line.queue.is_some())
}

impl Line {
    fn refresh(&mut self, state: &State, agent: &AgentId, now: Timestamp) -> Option<Awaited> {
        match desired(state, agent, now) {
            Desired::Nothing(_) if self.sent.is_none() => None,
            Desired::Nothing(reason) => {
                self.send_nothing(reason);
                None
            }
            Desired::Config(next, key) => {
                let generation = self.bring_to(*next, key);
                Some(self.awaited(generation))
            }
        }
    }

    /// Whether what was last sent says what `desired` does.
    fn is_at(&self, desired: &Desired<'_>) -> bool {
        match (&self.sent, desired) {
            (None, Desired::Nothing(_)) => true,
            (Some(sent), Desired::Config(next, _)) => {
                sent.changes_to(next).is_some_and(|changes| changes.is_empty())
            }
            (None, Desired::Config(..)) | (Some(_), Desired::Nothing(_)) => false,
        }
    }

    fn awaited(&self, generation: Generation) -> Awaited {
        Awaited { applied: self.applied.subscribe(), generation }
    }

    fn send(&mut self, message: ServerMessage) {
        let taken = self.queue.as_ref().is_some_and(|queue| queue.try_send(message).is_ok());
        if !taken {
            self.queue = None;
        }
    }

    fn send_nothing(&mut self, reason: &str) {
        self.sent = None;
        self.send(ServerMessage::Nothing { reason: reason.to_owned() });
    }

    /// Sends what leads from the config last sent to `next`, and answers the resulting generation.
    fn bring_to(&mut self, next: OverlayConfig, key: &SigningKey) -> Generation {
        let changes = self.sent.as_ref().and_then(|sent| Some((sent, sent.changes_to(&next)?)));
        let payload = match changes {
            Some((sent, changes)) if changes.is_empty() => return sent.generation,
            Some((sent, changes)) => Payload::Delta(delta(&next, sent.generation, changes)),
            None => Payload::Snapshot(Box::new(next.clone())),
        };
        let generation = next.generation;
        self.sent = Some(next);
        self.send(ServerMessage::Config { envelope: Envelope::seal(&payload, key) });
        generation
    }

    /// As [`Self::bring_to`], where nothing but these peers can differ from what was last sent; none where
    /// nothing was sent of their segment.
    fn bring_peers(
        &mut self,
        next: DesiredPeers<'_>,
        generation: Generation,
        now: Timestamp,
    ) -> Option<Awaited> {
        let DesiredPeers { segment, key, peers } = next;
        let sent = self.sent.as_mut().filter(|sent| sent.segment == segment.name)?;
        let change = |(agent, peer): (AgentId, Option<Peer>)| match (sent.peer(&agent), peer) {
            (held, Some(peer)) if held == Some(&peer) => None,
            (_, Some(peer)) => Some(Change::PeerSet { peer: Box::new(peer) }),
            (Some(_), None) => Some(Change::PeerGone { agent }),
            (None, None) => None,
        };
        let changes: Vec<Change> = peers.into_iter().filter_map(change).collect();
        if changes.is_empty() {
            let generation = sent.generation;
            return Some(self.awaited(generation));
        }
        let base = sent.generation;
        if changes.iter().try_for_each(|change| sent.step(change)).is_err() {
            // Only what is held is taken out, so this cannot be; if it is, a snapshot mends it.
            self.sent = None;
            return None;
        }
        sent.generation = generation;
        sent.issued_at = now;
        sent.valid_until = valid_until(segment, now);
        let payload = Payload::Delta(delta(sent, base, changes));
        self.send(ServerMessage::Config { envelope: Envelope::seal(&payload, key) });
        Some(self.awaited(generation))
    }

    /// Renews the validity to `limit` from now, if what was sent is at least `age_s` seconds old.
    fn renew(&mut self, now: Timestamp, key: &SigningKey, limit: SignedDuration, age_s: i64) {
        let Some(sent) = &mut self.sent else { return };
        let age = now.duration_since(sent.issued_at).as_secs();
        if age < age_s || self.queue.is_none() {
            return;
        }
        sent.issued_at = now;
        sent.valid_until = now.saturating_add(limit).unwrap_or(Timestamp::MAX);
        let payload = Payload::Delta(delta(sent, sent.generation, Vec::new()));
        self.send(ServerMessage::Config { envelope: Envelope::seal(&payload, key) });
    }
}

/// What leads to `next` from generation `base`.
fn delta(next: &OverlayConfig, base: Generation, changes: Vec<Change>) -> Delta {
    Delta {
        version: VERSION,
        agent: next.agent.clone(),
        segment: next.segment.clone(),
        base,
        generation: next.generation,
        issued_at: next.issued_at,
        valid_until: next.valid_until,
        changes,
    }
}

/// Waits until all have applied what they were sent, but not longer than `limit`.
pub(super) async fn all_applied(awaited: Vec<Awaited>, limit: Duration) {
    let all = async {
        for mut one in awaited {
            let generation = one.generation;
            let there = |held: &Option<Holding>| {
                held.as_ref().is_some_and(|held| held.generation >= generation)
            };
            // An agent that is cut off meanwhile is not waited for.
            if one.applied.wait_for(there).await.is_err() {}
        }
    };
    let _ = tokio::time::timeout(limit, all).await;
}
