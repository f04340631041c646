//! When a tunnel has something to say without being asked (WireGuard paper §6).
//!
//! What happens leaves a stamp, and what is due follows from the stamps when somebody looks. Whoever keeps
//! the deadline was told it once; something that makes another thing due *sooner* than that says so
//! ([`hasten`](Timers::hasten)), and nothing else does, so that a packet costs no timer operation.

use std::time::{Duration, Instant};

use super::session::REJECT_AFTER_TIME;

// WireGuard paper §6.1.
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
pub(super) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After the last handshake everything is wiped (WireGuard paper §6.3).
const WIPE_AFTER_TIME: Duration = REJECT_AFTER_TIME.saturating_mul(3);

/// The stamps of one tunnel.
#[derive(Debug, Clone)]
pub(super) struct Timers {
    /// How often something is to be sent, if nothing is sent or received anyway.
    keepalive_every: Option<Duration>,
    /// Last that anything was sent or received; none while keepalives rest.
    traffic_at: Option<Instant>,
    /// Since when data that was sent has had no answer of any kind.
    unanswered_since: Option<Instant>,
    /// Since when data that was received has had no answer of any kind.
    unacknowledged_since: Option<Instant>,
    /// Since when new keys are wanted.
    renewal_since: Option<Instant>,
    calls: Option<Calls>,
    /// Last that the peer was called.
    called_at: Option<Instant>,
    agreed_at: Option<Instant>,
    /// What whoever keeps the deadline was told, and whether it has become too late.
    told: Option<Instant>,
    is_late: bool,
}

/// Calls of which the last was not answered.
#[derive(Debug, Clone, Copy)]
struct Calls {
    first_at: Instant,
    last_at: Instant,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tick {
    Nothing,
    Call,
    Keepalive,
    /// Nobody answers.
    GiveUp,
    /// Nothing was agreed for long.
    Wipe,
}

impl Timers {
    /// Of a tunnel to which nothing happened.
    pub(super) fn new(keepalive_s: Option<u16>) -> Self {
        let keepalive_every =
            keepalive_s.filter(|&s| s > 0).map(|seconds| Duration::from_secs(seconds.into()));
        Self {
            keepalive_every,
            traffic_at: None,
            unanswered_since: None,
            unacknowledged_since: None,
            renewal_since: None,
            calls: None,
            called_at: None,
            agreed_at: None,
            told: None,
            is_late: false,
        }
    }

    /// Whether the peer may be called: not twice within [`REKEY_TIMEOUT`].
    pub(super) fn may_call(&self, now: Instant) -> bool {
        self.called_at.is_none_or(|at| now >= at + REKEY_TIMEOUT)
    }

    /// Data was sealed.
    pub(super) fn sent_data(&mut self, now: Instant) {
        self.sent(now);
        if self.unanswered_since.is_none() {
            self.unanswered_since = Some(now);
            self.hasten(now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        }
    }

    /// Something was sealed or said.
    pub(super) fn sent(&mut self, now: Instant) {
        self.unacknowledged_since = None;
        self.carried(now);
    }

    /// Data was opened.
    pub(super) fn received_data(&mut self, now: Instant) {
        self.received(now);
        if self.unacknowledged_since.is_none() {
            self.unacknowledged_since = Some(now);
            self.hasten(now + KEEPALIVE_TIMEOUT);
        }
    }

    /// Something of the peer was opened.
    pub(super) fn received(&mut self, now: Instant) {
        self.unanswered_since = None;
        self.carried(now);
    }

    /// New keys are wanted.
    pub(super) fn want_renewal(&mut self, now: Instant) {
        if self.renewal_since.is_none() && self.calls.is_none() {
            self.renewal_since = Some(now);
            self.hasten(now);
        }
    }

    /// The peer was called.
    pub(super) fn called(&mut self, now: Instant) {
        let first_at = self.calls.map_or(now, |calls| calls.first_at);
        self.calls = Some(Calls { first_at, last_at: now });
        self.called_at = Some(now);
        self.renewal_since = None;
        self.sent(now);
        self.is_late = true;
    }

    /// The peer answered; unless that was the last call, it goes on.
    pub(super) fn was_answered(&mut self, last: bool, now: Instant) {
        if last {
            self.calls = None;
        }
        self.agreed(now);
        self.received(now);
    }

    /// The peer called and was answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.agreed(now);
        self.received(now);
        self.sent(now);
    }

    /// The peer talks: it needs no call.
    pub(super) fn confirmed(&mut self) {
        self.calls = None;
        self.renewal_since = None;
    }

    /// What is due at `now`. A call or keepalive is told of again until it was sent, if it can be.
    pub(super) fn tick(&mut self, connected: bool, now: Instant) -> Tick {
        let past = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if past(self.wipe_at()) {
            self.rest();
            self.agreed_at = None;
            return Tick::Wipe;
        }
        if past(self.give_up_at()) {
            self.rest();
            return Tick::GiveUp;
        }
        if past(self.call_at()) {
            // Data that is sent from now on counts anew.
            self.unanswered_since = None;
            return Tick::Call;
        }
        if past(self.acknowledge_at()) {
            self.unacknowledged_since = None;
            if connected {
                return Tick::Keepalive;
            }
        }
        if past(self.keepalive_at()) {
            self.traffic_at = Some(now);
            // Without keys, a keepalive is a call.
            match (connected, self.calls) {
                (true, _) => return Tick::Keepalive,
                (false, None) => return Tick::Call,
                (false, Some(_)) => {}
            }
        }
        Tick::Nothing
    }

    /// When [`tick`](Self::tick) is due; none if it never is unless something happens. Whoever asks keeps it.
    pub(super) fn next(&mut self, end_of_keys: Option<Instant>) -> Option<Instant> {
        let due = [
            self.wipe_at(),
            self.give_up_at(),
            self.call_at(),
            self.acknowledge_at(),
            self.keepalive_at(),
            end_of_keys,
        ];
        self.told = due.into_iter().flatten().min();
        self.is_late = false;
        self.told
    }

    /// Whether something happened since [`next`](Self::next) was asked that makes its answer too late.
    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }

    fn wipe_at(&self) -> Option<Instant> {
        self.agreed_at.map(|at| at + WIPE_AFTER_TIME)
    }

    fn give_up_at(&self) -> Option<Instant> {
        self.calls.map(|calls| calls.first_at + REKEY_ATTEMPT_TIME)
    }

    fn call_at(&self) -> Option<Instant> {
        if let Some(calls) = self.calls {
            return Some(calls.last_at + REKEY_TIMEOUT);
        }
        let unanswered = self.unanswered_since.map(|at| at + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        let wanted = self.renewal_since.into_iter().chain(unanswered).min()?;
        Some(self.called_at.map_or(wanted, |at| wanted.max(at + REKEY_TIMEOUT)))
    }

    fn acknowledge_at(&self) -> Option<Instant> {
        self.unacknowledged_since.map(|at| at + KEEPALIVE_TIMEOUT)
    }

    fn keepalive_at(&self) -> Option<Instant> {
        Some(self.traffic_at? + self.keepalive_every?)
    }

    fn agreed(&mut self, now: Instant) {
        self.agreed_at = Some(now);
        self.is_late = true;
    }

    fn carried(&mut self, now: Instant) {
        if self.keepalive_every.is_some() {
            let rested = self.traffic_at.is_none();
            self.traffic_at = Some(now);
            self.is_late |= rested;
        }
    }

    /// Nothing is due, keepalives neither, until somebody calls or talks.
    fn rest(&mut self) {
        self.calls = None;
        self.renewal_since = None;
        self.unanswered_since = None;
        self.unacknowledged_since = None;
        self.traffic_at = None;
    }

    fn hasten(&mut self, due: Instant) {
        self.is_late |= self.told.is_none_or(|told| due < told);
    }
}
