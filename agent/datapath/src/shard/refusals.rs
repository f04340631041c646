//! Tells a program on this device at once that policy refuses what it asks for, so that it fails in a
//! moment and not after its timeout.
//!
//! Only a device's own packets are answered, and only where policy refused them. At a gateway a
//! refusal is silent: what comes there has passed the device's filter, or was forged.

use std::time::{Duration, Instant};

use super::{Outbox, Role, Shard};
use crate::filter::DropReason;
use crate::packet::{self, PROHIBITED_MAX_BYTES, may_be_answered, write_prohibited};

/// Answers at once after a quiet time: a page that opens many connections has each of them fail.
const BURST: u32 = 50;
/// One more answer in this time (RFC 4443 §2.4 (f)): a tenth of the thousand a second that Linux sends
/// of its own (`icmp_msgs_per_sec`). Whoever asks faster is a scan, and can wait.
const PACE: Duration = Duration::from_millis(10);

/// A token bucket for answers.
#[derive(Debug)]
pub(super) struct Refusals {
    left: u32,
    /// Up to when answers were added.
    filled_at: Instant,
}

impl Refusals {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, filled_at: now }
    }

    /// Whether one more answer may go.
    fn admit(&mut self, now: Instant) -> bool {
        let past = now.saturating_duration_since(self.filled_at);
        if past >= PACE * BURST {
            *self = Self::new(now);
        } else {
            // Fewer than a whole bucket.
            let more = (past.as_nanos() / PACE.as_nanos()) as u32;
            self.left = (self.left + more).min(BURST);
            self.filled_at += PACE * more;
        }
        let admitted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        admitted
    }
}

impl Shard {
    /// Answers the program that sent this packet, if it was dropped by policy.
    pub(super) fn tell_sender(
        &mut self,
        bytes: &[u8],
        reason: DropReason,
        now: Instant,
        out: &mut Outbox,
    ) {
        let by_policy = matches!(reason, DropReason::Denied | DropReason::NoRule);
        if !by_policy || self.settings.role != Role::Device {
            return;
        }
        let Ok(packet) = packet::parse(bytes) else { return };
        let Some(room) = out.packet_room(PROHIBITED_MAX_BYTES) else { return };
        if may_be_answered(&packet)
            && self.refusals.admit(now)
            && let Some(written) = write_prohibited(&packet, room)
        {
            out.deliver(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn answers_come_in_bursts_and_then_at_a_pace() {
        let mut now = start();
        let mut refusals = Refusals::new(now);
        let mut admitted = |now| (0..1000).filter(|_| refusals.admit(now)).count();
        assert_eq!(admitted(now), 50);
        now += PACE * 7 + PACE / 2;
        assert_eq!(admitted(now), 7);
        now += PACE / 2;
        assert_eq!(admitted(now), 1, "what is left of a step counts for the next");
        now += Duration::from_secs(3600);
        assert_eq!(admitted(now), 50);
    }
}
