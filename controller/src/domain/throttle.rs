//! The growing delay between failed sign-ins of one user.
//!
//! Kept in the store: a restart must not hand out fresh guesses.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Failures that cost nothing: people mistype, and a code can end while it is typed.
const FREE_FAILURES: u32 = 3;
/// The delay doubles from one second up to this many: some 100 guesses a day, of a million codes.
const DELAY_MAX_S: i64 = 15 * 60;

/// How often sign-in failed in a row, and when it may be tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    failures: u32,
    not_before: Option<Timestamp>,
}

impl Throttle {
    /// Seconds to wait before the next try, rounded up; none if it may be made now.
    pub fn wait_s(&self, now: Timestamp) -> Option<u64> {
        let left = self.not_before?.duration_since(now);
        let whole = left.as_secs() + i64::from(left.subsec_nanos() > 0);
        u64::try_from(whole).ok().filter(|&wait| wait > 0)
    }

    /// The state after one more failure at `now`.
    pub fn failed(&self, now: Timestamp) -> Self {
        let failures = self.failures.saturating_add(1);
        let doublings = failures.saturating_sub(FREE_FAILURES);
        let delay_s = match doublings {
            0 => 0,
            doublings => 2i64.saturating_pow(doublings - 1).min(DELAY_MAX_S),
        };
        let not_before =
            (delay_s > 0).then(|| now.saturating_add(SignedDuration::from_secs(delay_s)));
        Self { failures, not_before: not_before.and_then(Result::ok) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_after_three_failures_up_to_a_quarter_of_an_hour() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut throttle = Throttle::default();
        let mut waits = Vec::new();
        for _ in 0..80 {
            throttle = throttle.failed(now);
            waits.push(throttle.wait_s(now).unwrap_or(0));
        }
        assert_eq!(waits[..8], [0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(waits[13..], [900; 67]);
    }

    #[test]
    fn a_wait_ends_by_the_clock() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let throttle = (0..5).fold(Throttle::default(), |throttle, _| throttle.failed(now));
        let later = |millis| now + SignedDuration::from_millis(millis);
        assert_eq!(throttle.wait_s(later(100)), Some(2));
        assert_eq!(throttle.wait_s(later(2000)), None);
        assert_eq!(throttle.wait_s(later(9000)), None);
    }
}
