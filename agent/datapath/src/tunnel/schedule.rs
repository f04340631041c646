//! When a tunnel's timers can next have something to do.
//!
//! The WireGuard library has timers and does not say when one is due, so its stamps are kept here a
//! second time. The answer may be too early, which costs a look at the tunnel, and must never be too
//! late. As in the library, an event is stamped with the time of the last look, not with its own.
//!
//! In two places the library is hastier than WireGuard: it counts the 10 seconds after which a packet
//! that was received is acknowledged from the last one *sent*, and the 15 after which one that was sent is
//! given up from the last one *received*, so that the first packet after a silence is followed by a
//! keepalive and a new handshake at the next look. This asks for a look when WireGuard would act.

use std::time::{Duration, Instant};

/// How soon a tunnel is looked at again that something happens to, or that was looked at too early:
/// WireGuard's timers count in seconds, and this keeps them within a quarter of one.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(250);

// WireGuard paper §6.1.
const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Keys of earlier handshakes are let go within this of their end; the last one's at its end.
const EARLIER_KEYS: Duration = Duration::from_secs(30);
/// A call that is not repeated within this after its time has been answered.
const ANSWERED: Duration = Duration::from_secs(1);

/// What is known of a tunnel's past as far as its timers depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// The last look.
    clock: Instant,
    sent: Instant,
    received: Instant,
    data_sent: Instant,
    data_received: Instant,
    /// Since when data that was sent has had no answer of any kind.
    unanswered_since: Instant,
    /// Since when data that was received has had no answer of any kind.
    unacknowledged_since: Instant,
    keys: Option<Keys>,
    calls: Option<Calls>,
    keepalive: Option<Keepalive>,
}

/// The last handshake that came to an end.
#[derive(Debug, Clone, Copy)]
struct Keys {
    agreed_at: Instant,
    /// Whether this end called; it is the caller who renews.
    called: bool,
}

/// Calls that may not have been answered.
#[derive(Debug, Clone, Copy)]
struct Calls {
    first_at: Instant,
    last_at: Instant,
}

/// Keepalives that go whether or not there was traffic.
#[derive(Debug, Clone, Copy)]
struct Keepalive {
    every: Duration,
    last_at: Instant,
}

impl Schedule {
    /// Of a tunnel that was made just now.
    pub(crate) fn new(keepalive_s: Option<u16>, now: Instant) -> Self {
        let keepalive = keepalive_s
            .filter(|&seconds| seconds > 0)
            .map(|seconds| Keepalive { every: Duration::from_secs(seconds.into()), last_at: now });
        Self {
            clock: now,
            sent: now,
            received: now,
            data_sent: now,
            data_received: now,
            unanswered_since: now,
            unacknowledged_since: now,
            keys: None,
            calls: None,
            keepalive,
        }
    }

    /// When the tunnel was last looked at.
    pub(crate) fn clock(&self) -> Instant {
        self.clock
    }

    /// Whether a look at `now` is one more. Two at one time would be two in the library, which reads
    /// the clock itself, and one here.
    pub(crate) fn moves_on(&self, now: Instant) -> bool {
        now > self.clock
    }

    /// The timers are looked at; what comes of it is told next.
    pub(crate) fn looked(&mut self, now: Instant) {
        self.clock = now;
    }

    /// A data packet was sealed.
    pub(crate) fn sent_data(&mut self) {
        if self.data_sent <= self.received {
            self.unanswered_since = self.clock;
        }
        self.sent = self.clock;
        self.data_sent = self.clock;
    }

    /// A keepalive was sealed.
    pub(crate) fn sent_keepalive(&mut self) {
        self.sent = self.clock;
        if let Some(keepalive) = &mut self.keepalive
            && self.clock >= keepalive.last_at + keepalive.every
        {
            keepalive.last_at = self.clock;
        }
    }

    /// A data packet was opened.
    pub(crate) fn received_data(&mut self) {
        if self.data_received <= self.sent {
            self.unacknowledged_since = self.clock;
        }
        self.received = self.clock;
        self.data_received = self.clock;
    }

    /// Something else of the peer was opened.
    pub(crate) fn received_other(&mut self) {
        self.received = self.clock;
    }

    /// The peer was called.
    pub(crate) fn called(&mut self) {
        let first_at = self.calls.map_or(self.clock, |calls| calls.first_at);
        self.calls = Some(Calls { first_at, last_at: self.clock });
        self.sent = self.clock;
    }

    /// A look made the peer be called. Without keys, that is what becomes of a keepalive.
    pub(crate) fn called_by_timer(&mut self, connected: bool) {
        if !connected && self.calls.is_none() {
            self.sent_keepalive();
        }
        self.called();
    }

    /// The peer answered a call. It need not have been the last one, which then goes on.
    pub(crate) fn was_answered(&mut self) {
        self.received = self.clock;
        self.keys = Some(Keys { agreed_at: self.clock, called: true });
    }

    /// The peer called and was answered.
    pub(crate) fn answered(&mut self) {
        self.received = self.clock;
        self.sent = self.clock;
        self.calls = None;
        self.keys = Some(Keys { agreed_at: self.clock, called: false });
    }

    /// The tunnel has ceased: nothing is due until somebody calls.
    pub(crate) fn gave_up(&mut self) {
        let clock = self.clock;
        (self.sent, self.received, self.data_sent, self.data_received) =
            (clock, clock, clock, clock);
        self.keys = None;
        self.calls = None;
        self.keepalive = self.keepalive.map(|held| Keepalive { last_at: clock, ..held });
    }

    /// When the tunnel is to be looked at; none if nothing can be due unless something happens.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        self.calls =
            self.calls.filter(|calls| self.clock < calls.last_at + REKEY_TIMEOUT + ANSWERED);
        let calls = self
            .calls
            .map(|calls| (calls.last_at + REKEY_TIMEOUT).min(calls.first_at + REKEY_ATTEMPT_TIME));
        let keepalive = self.keepalive.map(|keepalive| keepalive.last_at + keepalive.every);
        let unanswered = (self.data_sent > self.received)
            .then(|| self.unanswered_since + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        let silent =
            (self.data_received > self.sent).then(|| self.unacknowledged_since + KEEPALIVE_TIMEOUT);
        let due = [calls, keepalive, unanswered, silent, self.renewal(), self.end_of_keys()];
        // What was due at the last look already is so since, or it was looked at too early by a hair.
        let earliest = due.into_iter().flatten().min()?;
        Some(if earliest > self.clock { earliest } else { self.clock + LOOK_AGAIN })
    }

    fn renewal(&self) -> Option<Instant> {
        let keys = self.keys.filter(|keys| keys.called)?;
        let after_sending =
            (self.data_sent > keys.agreed_at).then(|| keys.agreed_at + REKEY_AFTER_TIME);
        let after_receiving = (self.data_received > keys.agreed_at)
            .then(|| keys.agreed_at + REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT);
        after_sending.into_iter().chain(after_receiving).min()
    }

    fn end_of_keys(&self) -> Option<Instant> {
        let agreed_at = self.keys?.agreed_at;
        let end = agreed_at + REJECT_AFTER_TIME + LOOK_AGAIN;
        Some(if self.clock < end {
            end.min(self.clock + EARLIER_KEYS)
        } else {
            // What is left of the handshake itself is wiped (WireGuard paper §6.3).
            agreed_at + REJECT_AFTER_TIME * 3
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const SECOND: Duration = Duration::from_secs(1);

    /// What happens at a time, after the look that comes before.
    fn at(schedule: &mut Schedule, now: Instant, what: fn(&mut Schedule)) {
        schedule.looked(now);
        what(schedule);
    }

    #[test]
    fn a_tunnel_to_which_nothing_happened_is_not_looked_at() {
        assert_eq!(Schedule::new(None, start()).next(), None);
    }

    #[test]
    fn a_call_is_looked_after_until_it_is_answered_or_given_up() {
        let now = start();
        let mut schedule = Schedule::new(None, now);
        for call in 0..18 {
            at(&mut schedule, now + REKEY_TIMEOUT * call, Schedule::called);
            assert_eq!(schedule.next(), Some(now + REKEY_TIMEOUT * (call + 1)));
        }
        at(&mut schedule, now + REKEY_ATTEMPT_TIME - SECOND, Schedule::called);
        assert_eq!(schedule.next(), Some(now + REKEY_ATTEMPT_TIME));
        at(&mut schedule, now + REKEY_ATTEMPT_TIME, Schedule::gave_up);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_look_that_was_too_early_is_soon_repeated() {
        let now = start();
        let mut schedule = Schedule::new(None, now);
        schedule.called();
        schedule.looked(now + REKEY_TIMEOUT);
        assert_eq!(schedule.next(), Some(now + REKEY_TIMEOUT + LOOK_AGAIN));
    }

    #[test]
    fn what_was_received_is_acknowledged_after_ten_seconds_unless_something_is_sent() {
        let now = start();
        let mut schedule = Schedule::new(None, now);
        at(&mut schedule, now + 60 * SECOND, Schedule::received_data);
        at(&mut schedule, now + 63 * SECOND, Schedule::received_data);
        assert_eq!(schedule.next(), Some(now + 70 * SECOND));
        at(&mut schedule, now + 64 * SECOND, Schedule::sent_keepalive);
        assert_eq!(schedule.next(), None);
        at(&mut schedule, now + 65 * SECOND, Schedule::received_other);
        assert_eq!(schedule.next(), None, "a keepalive is not acknowledged");
    }

    #[test]
    fn what_was_sent_and_not_answered_is_looked_after_in_fifteen_seconds() {
        let now = start();
        let mut schedule = Schedule::new(None, now);
        at(&mut schedule, now + 60 * SECOND, Schedule::sent_data);
        at(&mut schedule, now + 63 * SECOND, Schedule::sent_data);
        assert_eq!(schedule.next(), Some(now + 75 * SECOND));
        at(&mut schedule, now + 64 * SECOND, Schedule::received_other);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn the_end_that_called_renews_the_keys_while_they_are_used() {
        let now = start();
        let later = now + 110 * SECOND;
        for (begin, event, answer, due) in [
            (
                Schedule::was_answered as fn(&mut _),
                Schedule::sent_data as fn(&mut _),
                Schedule::received_other as fn(&mut _),
                120,
            ),
            (Schedule::was_answered, Schedule::received_data, Schedule::sent_keepalive, 140),
            (Schedule::answered, Schedule::sent_data, Schedule::received_other, 140),
        ] {
            let mut schedule = Schedule::new(None, now);
            begin(&mut schedule);
            at(&mut schedule, later, event);
            answer(&mut schedule);
            // 140 is the next of the looks that let go of earlier keys.
            assert_eq!(schedule.next(), Some(now + due * SECOND));
        }
        let mut receiver = Schedule::new(None, now);
        receiver.was_answered();
        at(&mut receiver, now + 150 * SECOND, Schedule::received_data);
        receiver.sent_keepalive();
        assert_eq!(receiver.next(), Some(now + 165 * SECOND));
    }

    #[test]
    fn keys_are_let_go_at_their_end_and_then_the_tunnel_rests() {
        let now = start();
        let mut schedule = Schedule::new(None, now);
        schedule.answered();
        let mut looks = Vec::new();
        while let Some(next) = schedule.next().filter(|_| looks.len() < 20) {
            looks.push((next - now).as_secs());
            schedule.looked(next);
            if next >= now + REJECT_AFTER_TIME * 3 {
                schedule.gave_up();
            }
        }
        assert_eq!(looks, [30, 60, 90, 120, 150, 180, 180, 540]);
    }

    #[test]
    fn keepalives_go_at_their_pace_whatever_else_is_sent() {
        let now = start();
        let mut schedule = Schedule::new(Some(25), now);
        at(&mut schedule, now + 20 * SECOND, Schedule::sent_data);
        schedule.received_other();
        assert_eq!(schedule.next(), Some(now + 25 * SECOND));
        at(&mut schedule, now + 25 * SECOND, Schedule::sent_keepalive);
        assert_eq!(schedule.next(), Some(now + 50 * SECOND));
        // Without keys the keepalive is a call.
        at(&mut schedule, now + 50 * SECOND, |schedule| schedule.called_by_timer(false));
        assert_eq!(schedule.next(), Some(now + 55 * SECOND));
        at(&mut schedule, now + 55 * SECOND, Schedule::was_answered);
        schedule.looked(now + 62 * SECOND);
        assert_eq!(schedule.next(), Some(now + 75 * SECOND));
    }
}
