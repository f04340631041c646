//! Calls to peers, and the quick repetitions with which a new one begins.
//!
//! The controller tells device and gateway of a session at the same time, so a device's first call may
//! come before the gateway knows it. WireGuard repeats a call after 5 seconds (REKEY_TIMEOUT), which is
//! long for somebody who has just signed in; a *new* peer is called again sooner, a few times and ever
//! more slowly. Reconnections keep to WireGuard's pace: there may be thousands at once.

use std::time::{Duration, Instant};

use super::{Outbox, Shard};
use crate::tunnel::HANDSHAKE_MAX_BYTES;

/// After this the first call is repeated; a gateway of the same building has long answered.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Each pause is twice the one before. Past this WireGuard's own pace takes over.
const LAST_PAUSE: Duration = Duration::from_millis(1600);

/// A new peer that has not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repetition {
    number: u32,
    due_at: Instant,
    pause: Duration,
}

impl Shard {
    /// Calls a peer that is not being called yet.
    pub(super) fn call(&mut self, number: u32, now: Instant, out: &mut Outbox) {
        self.place_call(number, false, now, out);
    }

    /// Calls a peer that was not there before, and goes on soon if it does not answer.
    pub(super) fn call_new(&mut self, number: u32, now: Instant, out: &mut Outbox) {
        self.call(number, now, out);
        self.repetitions.retain(|held| held.number != number);
        let due_at = now + FIRST_PAUSE;
        self.repetitions.push(Repetition { number, due_at, pause: FIRST_PAUSE });
    }

    /// Repeats the calls that are due.
    pub(super) fn repeat_calls(&mut self, now: Instant, out: &mut Outbox) {
        let mut held = std::mem::take(&mut self.repetitions);
        held.retain_mut(|repetition| {
            let peer = self.peers.at(repetition.number);
            let answered = peer.is_none_or(|entry| entry.tunnel.is_connected(now));
            if answered || repetition.pause > LAST_PAUSE {
                return false;
            }
            if repetition.due_at <= now {
                self.place_call(repetition.number, true, now, out);
                repetition.pause *= 2;
                repetition.due_at = now + repetition.pause;
            }
            true
        });
        self.repetitions = held;
    }

    /// When the next repetition is due.
    pub(super) fn next_call(&self) -> Option<Instant> {
        self.repetitions.iter().map(|repetition| repetition.due_at).min()
    }

    fn place_call(&mut self, number: u32, again: bool, now: Instant, out: &mut Outbox) {
        let Some(entry) = self.peers.at_mut(number).filter(|entry| entry.endpoint.is_some()) else {
            return;
        };
        let Some(room) = out.datagram_room(HANDSHAKE_MAX_BYTES) else { return };
        if let Some(bytes) = entry.tunnel.call(&self.identity, again, now, room)
            && let Some(endpoint) = entry.endpoint_to_call()
        {
            out.send(endpoint, bytes);
        }
        self.keep_time(number);
    }
}
