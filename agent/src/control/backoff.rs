//! How long to wait before the next attempt to reach the controller.
//!
//! The delay doubles from 0.2 s to 10 s and never gives up; jitter keeps a building's agents from
//! coming back in step after the controller restarts.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// The delays between attempts. A success is a new `Backoff`.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next delay: between half of the current step and the whole of it.
    pub fn next_delay(&mut self, random: &mut impl Rng) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        step.mul_f64(random.gen_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn delays_grow_to_ten_seconds_and_no_further() {
        let mut random = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let delays: Vec<Duration> = (0..20).map(|_| backoff.next_delay(&mut random)).collect();
        assert!(delays[0] >= FIRST / 2 && delays[0] <= FIRST, "{delays:?}");
        assert!(delays[10..].iter().all(|delay| (LONGEST / 2..=LONGEST).contains(delay)));
        assert!(delays[10..].windows(2).any(|pair| pair[0] != pair[1]), "there is no jitter");
    }
}
