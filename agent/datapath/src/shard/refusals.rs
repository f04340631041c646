//! Tells a program on this device at once that policy refuses what it asks for, so that it fails in a
//! moment and not after its timeout.
//!
//! Only a device's own packets are answered, and only where policy refused them. At a gateway a
//! refusal is silent: what comes there has passed the device's filter, or was forged.
//!
//! Whoever opens a TCP connection is sent a reset behind the error, which says why: where the kernel
//! heeds the error it is too late to matter, and where not it ends the program's wait all the same.

use std::time::{Duration, Instant};

use super::{Outbox, Role, Shard};
use crate::filter::DropReason;
use crate::pace::Pace;
use crate::packet::{self, PROHIBITED_MAX_BYTES, may_be_answered, write_prohibited, write_reset};

/// Answers at once after a quiet time: a page that opens many connections has each of them fail.
const BURST: u32 = 50;
/// One more answer in this time (RFC 4443 §2.4 (f)): a tenth of the thousand a second that Linux sends
/// of its own (`icmp_msgs_per_sec`). Whoever asks faster is a scan, and can wait.
const STEP: Duration = Duration::from_millis(10);

/// A full bucket of answers.
pub(super) fn pace() -> Pace {
    Pace::new(BURST, STEP)
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
        if !may_be_answered(&packet) || !self.refusals.admit(now) {
            return;
        }
        for write in [write_prohibited, write_reset] {
            let Some(room) = out.packet_room(PROHIBITED_MAX_BYTES) else { return };
            if let Some(written) = write(&packet, room) {
                out.deliver(written);
            }
        }
    }
}
