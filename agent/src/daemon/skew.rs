//! This machine's clock against the controller's.
//!
//! Deadlines are the controller's; they are judged by the local clock less the skew. While the skew
//! is not known (no controller since the start), the local clock is believed, but never to be earlier
//! than the moment the held config was signed: setting a clock back buys no time.

use jiff::{SignedDuration, Timestamp};

/// More than this is worth a warning: one-time codes and certificates begin to fail.
pub const WARN_S: i64 = 60;

/// The local clock less the controller's, once it has been measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockSkew(Option<SignedDuration>);

impl ClockSkew {
    /// Measured from a challenge that carries the controller's clock and came in at `now`. Too large
    /// by the message's way here, which is far below a second.
    pub fn measured(controller: Timestamp, now: Timestamp) -> Self {
        Self(Some(now.duration_since(controller)))
    }

    /// In seconds, where it is known; positive where this machine's clock is ahead.
    pub fn seconds(self) -> Option<i64> {
        self.0.map(|skew| skew.as_secs())
    }

    /// Whether it is worth a warning.
    pub fn is_large(self) -> bool {
        self.0.is_some_and(|skew| skew.abs() > SignedDuration::from_secs(WARN_S))
    }

    /// The controller's time at the local time `now`, not earlier than `floor`.
    pub fn corrected(self, now: Timestamp, floor: Timestamp) -> Timestamp {
        match self.0 {
            Some(skew) => now.saturating_sub(skew).unwrap_or(now),
            None => now.max(floor),
        }
    }

    /// The local time at which the controller's clock shows `deadline`.
    pub fn local(self, deadline: Timestamp) -> Timestamp {
        match self.0 {
            Some(skew) => deadline.saturating_add(skew).unwrap_or(deadline),
            None => deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing::{seconds, start};

    #[test]
    fn a_measured_skew_corrects_the_local_clock_both_ways() {
        let ahead = ClockSkew::measured(start(), start() + seconds(7200));
        assert_eq!(ahead.seconds(), Some(7200));
        assert_eq!(ahead.corrected(start() + seconds(7200), start()), start());
        assert_eq!(ahead.local(start()), start() + seconds(7200));
        assert!(ahead.is_large());
        assert!(!ClockSkew::measured(start(), start() - seconds(60)).is_large());
        assert!(ClockSkew::measured(start(), start() - seconds(61)).is_large());
    }

    #[test]
    fn a_clock_set_back_buys_no_time() {
        let unknown = ClockSkew::default();
        assert_eq!(unknown.corrected(start() - seconds(86_400), start()), start());
        assert_eq!(unknown.corrected(start() + seconds(1), start()), start() + seconds(1));
    }
}
