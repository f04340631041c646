//! How often something may happen: a token bucket, filled by the time that is passed in.

use std::time::{Duration, Instant};

/// So many at once after a quiet time, and one more in each step.
#[derive(Debug)]
pub(crate) struct Pace {
    burst: u32,
    step: Duration,
    left: u32,
    /// Up to when the bucket was filled; none while nobody has asked.
    filled_at: Option<Instant>,
}

impl Pace {
    /// A full bucket.
    pub(crate) fn new(burst: u32, step: Duration) -> Self {
        Self { burst, step, left: burst, filled_at: None }
    }

    /// Whether it may happen once more now.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        let filled_at = *self.filled_at.get_or_insert(now);
        let past = now.saturating_duration_since(filled_at);
        if past >= self.step * self.burst {
            self.left = self.burst;
            self.filled_at = Some(now);
        } else {
            // Fewer than a whole bucket.
            let more = (past.as_nanos() / self.step.as_nanos()) as u32;
            self.left = (self.left + more).min(self.burst);
            self.filled_at = Some(filled_at + self.step * more);
        }
        let admitted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn there_is_a_burst_and_then_a_pace() {
        let step = Duration::from_millis(10);
        let mut now = start();
        let mut pace = Pace::new(50, step);
        let mut admitted = |now| (0..1000).filter(|_| pace.admit(now)).count();
        assert_eq!(admitted(now), 50);
        now += step * 7 + step / 2;
        assert_eq!(admitted(now), 7);
        now += step / 2;
        assert_eq!(admitted(now), 1, "what is left of a step counts for the next");
        now += Duration::from_secs(3600);
        assert_eq!(admitted(now), 50);
    }
}
