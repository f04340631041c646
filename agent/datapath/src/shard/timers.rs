//! Timers on demand: a peer is looked at when something can be due.
//!
//! [`keep_time`](Shard::keep_time) must come after every call, answer, seal and open. It costs a
//! comparison, but where that made something due sooner than before. A deadline may come for nothing, since
//! what was due may have been done meanwhile: then the tunnel is asked for the next one.

use std::time::{Duration, Instant};

use super::{Outbox, Role, Shard};
use crate::filter::DropReason;
use crate::tunnel::{Due, HANDSHAKE_MAX_BYTES};

/// Every flow is looked at once in this time, to forget what is over. None is used after its end.
const SWEEP_ROUND: Duration = Duration::from_secs(16);
/// Deadlines are put off to the next multiple of this, so that thousands of peers are looked at in a few
/// wake-ups and not in one for each. WireGuard allows for more (REKEY_TIMEOUT's jitter).
const ROUND: Duration = Duration::from_millis(250);

impl Shard {
    /// Does what is due at `now`: calls, keepalives, and forgetting what is over.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if self.frame.is_none() {
            return;
        }
        self.repeat_calls(now, out);
        while let Some(number) = self.deadlines.due(now) {
            if out.is_full() {
                // It stays due, and goes on here once the outbox is flushed.
                return;
            }
            self.look_at(number, now, out);
        }
        if self.sweeps() && self.sweep_at <= now {
            let share = self.filter.sweep(now);
            self.sweep_at = now + SWEEP_ROUND.mul_f64(share);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next; none if nothing is, unless
    /// something comes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.frame.as_ref()?;
        let sweep = self.sweeps().then_some(self.sweep_at);
        [self.next_call(), self.deadlines.first(), sweep].into_iter().flatten().min()
    }

    /// Moves a peer's deadline forward if what was just done with its tunnel made something due sooner.
    pub(super) fn keep_time(&mut self, number: u32) {
        if let Some(at) = self.peers.at_mut(number).and_then(|entry| entry.tunnel.sooner()) {
            self.set_deadline(number, Some(at));
        }
    }

    /// Looks at a peer whose deadline has come, if that is what its tunnel still asks for.
    fn look_at(&mut self, number: u32, now: Instant, out: &mut Outbox) {
        let next = |shard: &mut Self| shard.peers.at_mut(number)?.tunnel.next_tick();
        let asked = next(self);
        if asked.is_none_or(|at| at > now) {
            self.set_deadline(number, asked);
            return;
        }
        let Some(due) = self.tick(number, now, out) else { return };
        let asked = next(self);
        self.set_deadline(number, asked);
        self.say(number, due, now, out);
    }

    fn set_deadline(&mut self, number: u32, at: Option<Instant>) {
        let at = at.map(|at| {
            let past = at.saturating_duration_since(self.begun_at);
            let rounds = past.as_nanos().div_ceil(ROUND.as_nanos());
            // Good for 34 years.
            self.begun_at + ROUND * rounds as u32
        });
        self.deadlines.set(number, at);
    }

    /// What a peer's timers made due, written into the room for a datagram; none if there is no room.
    fn tick(&mut self, number: u32, now: Instant, out: &mut Outbox) -> Option<Due> {
        let room = out.datagram_room(HANDSHAKE_MAX_BYTES)?;
        let entry = self.peers.at_mut(number)?;
        let due = entry.tunnel.tick(&self.identity, now, room);
        entry.note_connection(now);
        Some(due)
    }

    /// Sends what a peer's timers made due; it was written into the room for a datagram.
    fn say(&mut self, number: u32, due: Due, now: Instant, out: &mut Outbox) {
        let Some(entry) = self.peers.at_mut(number) else { return };
        match due {
            Due::Nothing => {}
            Due::Call(bytes) => {
                if let Some(endpoint) = entry.endpoint_to_call() {
                    out.send(endpoint, bytes);
                }
            }
            Due::Keepalive(bytes) => {
                if let Some(endpoint) = entry.endpoint {
                    out.send(endpoint, bytes);
                }
            }
            Due::GivenUp => {
                let waiting = self.waiting.take(number);
                waiting.iter().for_each(|_| self.counters.drop(DropReason::NoHandshake));
                // A device goes on calling: when the gateway is back, nobody has to do anything.
                if self.settings.role == Role::Device {
                    self.call(number, now, out);
                }
            }
        }
    }

    /// Whether there is anything that time makes an end of.
    fn sweeps(&self) -> bool {
        !self.filter.is_empty()
    }
}
