//! When a worker gives way to the threads that wait for its processor.
//!
//! Whoever a bulk transfer wakes, the application that it is for or the next hop's worker, is often put on the
//! processor of the worker that woke it. A kernel that preempts at its tick alone lets it wait there for as long
//! as packets keep coming, 4 ms at 250 Hz; packets of others wait with it. So a worker gives way after a
//! turn that brought much. Where nobody waits this is one short system call.
//!
//! The processor may come back late, from a thread that has nothing to do with packets. A worker gives away no
//! more time than it keeps: it gives way again once it has run for as long as it had to wait.

use std::time::Instant;

/// Datagrams of one turn from which on it brought much: half of what one read may bring.
const MUCH_BYTES: usize = 32 << 10;

/// What giving way has cost.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    /// Not before that.
    next: Option<Instant>,
}

impl Courtesy {
    /// A turn is over that brought datagrams of so many bytes in all: gives way, if it should.
    pub(super) fn after_turn(&mut self, bytes: usize) {
        if bytes >= MUCH_BYTES {
            self.give_way(Instant::now(), || {
                std::thread::yield_now();
                Instant::now()
            });
        }
    }

    /// Gives way, unless that would be too much of it; `wait` returns when it has the processor again.
    fn give_way(&mut self, now: Instant, wait: impl FnOnce() -> Instant) {
        if self.next.is_none_or(|next| next <= now) {
            let back = wait();
            let waited = back.saturating_duration_since(now);
            self.next = Some(back + waited);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Turns of half a millisecond each; how much of the time is given away to somebody who takes `wait`.
    fn given_away(wait: Duration) -> f64 {
        let start = Instant::now();
        let (mut now, mut waited) = (start, Duration::ZERO);
        let mut courtesy = Courtesy::default();
        for _ in 0..10_000 {
            now += Duration::from_micros(500);
            let mut back = now;
            courtesy.give_way(now, || {
                back += wait;
                back
            });
            waited += back - now;
            now = back;
        }
        waited.as_secs_f64() / (now - start).as_secs_f64()
    }

    #[test]
    fn it_gives_way_after_each_turn_but_no_more_time_than_it_keeps() {
        // Every turn: 100 µs of 600.
        let short = given_away(Duration::from_micros(100));
        assert!((short - 1.0 / 6.0).abs() < 1e-3, "{short}");
        // 4 ms after each 4 ms of turns, a tick at 250 Hz.
        let long = given_away(Duration::from_millis(4));
        assert!((long - 0.5).abs() < 1e-3, "{long}");
    }

    #[test]
    fn it_gives_way_after_turns_that_brought_much_only() {
        let mut courtesy = Courtesy::default();
        courtesy.after_turn(MUCH_BYTES - 1);
        assert_eq!(courtesy.next, None);
        courtesy.after_turn(MUCH_BYTES);
        assert!(courtesy.next.is_some());
    }
}
