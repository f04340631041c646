//! Measures a piece of work and nothing around it.
//!
//! Work is handed to [`Meter::each`] and runs in [`watched`], which is never inlined: a tool from outside
//! finds the measured part by that name.

use std::time::Duration;

use super::super::machine::thread_s;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    Allocations,
    /// Somebody else measures: only how often is counted, and no clock is asked, which a tool from
    /// outside may not have.
    Times,
}

/// The sum of what was measured.
#[derive(Debug)]
pub(super) struct Meter {
    kind: Kind,
    count: u64,
    elapsed: Duration,
    allocations: u64,
}

impl Meter {
    /// Measures time.
    pub(super) fn time() -> Self {
        Self { kind: Kind::Time, count: 0, elapsed: Duration::ZERO, allocations: 0 }
    }

    /// Counts allocations of this thread.
    pub(super) fn allocations() -> Self {
        Self { kind: Kind::Allocations, ..Self::time() }
    }

    /// Counts how often; what that takes is measured from outside.
    pub(super) fn times() -> Self {
        Self { kind: Kind::Times, ..Self::time() }
    }

    /// Measures `work`, which does `count` times what a figure is wanted of.
    pub(super) fn each(&mut self, count: usize, mut work: impl FnMut()) {
        self.count += count as u64;
        match self.kind {
            Kind::Time => {
                // This thread's own: what another program takes in between is not the work's.
                let before_s = thread_s();
                watched(&mut work);
                self.elapsed += Duration::from_secs_f64(thread_s() - before_s);
            }
            Kind::Times => watched(&mut work),
            Kind::Allocations => {
                self.allocations += allocation_counter::measure(|| watched(&mut work)).count_total;
            }
        }
    }

    /// How long all of it took.
    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// How many times.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Nanoseconds each.
    pub(super) fn ns_each(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.count as f64
    }

    /// Allocations each.
    pub(super) fn allocations_each(&self) -> f64 {
        self.allocations as f64 / self.count as f64
    }
}

/// As callgrind is told to look for it.
pub(super) const WATCHED: &str = "*meter*watched*";

#[inline(never)]
fn watched(work: &mut dyn FnMut()) {
    work();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_of_the_work_are_counted_and_those_around_it_are_not() {
        let mut meter = Meter::allocations();
        let mut kept = vec![String::from("around")];
        meter.each(4, || kept = (0..3).map(|at| at.to_string()).collect());
        assert_eq!((kept.len(), meter.count()), (3, 4));
        assert!((meter.allocations_each() - 1.0).abs() < 1e-9, "{meter:?}");
    }
}
