//! Who is due when: one deadline at most for each number, the earliest on top.
//!
//! A binary heap that knows where in it each number is, so that moving a deadline leaves nothing
//! behind: memory is bounded by the numbers, and what has no deadline costs nothing.

use std::time::Instant;

/// Deadlines by number.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: Vec<(Instant, u32)>,
    /// By number, its place in the heap and one more; 0 if it has none.
    places: Vec<u32>,
}

impl Deadlines {
    /// Sets or takes away the deadline of `number`.
    pub(super) fn set(&mut self, number: u32, at: Option<Instant>) {
        let held = self.places.get(number as usize).copied().unwrap_or(0).checked_sub(1);
        match (held, at) {
            (None, None) => {}
            (None, Some(at)) => {
                if self.places.len() <= number as usize {
                    self.places.resize(number as usize + 1, 0);
                }
                self.heap.push((at, number));
                self.rise(self.heap.len() - 1);
            }
            (Some(place), Some(at)) => {
                self.heap[place as usize].0 = at;
                self.settle(place as usize);
            }
            (Some(place), None) => {
                self.places[number as usize] = 0;
                self.heap.swap_remove(place as usize);
                if (place as usize) < self.heap.len() {
                    self.settle(place as usize);
                }
            }
        }
    }

    /// The earliest deadline.
    pub(super) fn first(&self) -> Option<Instant> {
        self.heap.first().map(|&(at, _)| at)
    }

    /// The number with the earliest deadline, if that is not after `now`.
    pub(super) fn due(&self, now: Instant) -> Option<u32> {
        self.heap.first().filter(|&&(at, _)| at <= now).map(|&(_, number)| number)
    }

    /// Takes all deadlines away.
    pub(super) fn clear(&mut self) {
        self.heap.clear();
        self.places.clear();
    }

    fn settle(&mut self, place: usize) {
        let place = self.rise(place);
        self.sink(place);
    }

    /// Moves up what is earlier than what is above it; where it ends.
    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 && self.heap[place] < self.heap[(place - 1) / 2] {
            self.heap.swap(place, (place - 1) / 2);
            self.note(place);
            place = (place - 1) / 2;
        }
        self.note(place);
        place
    }

    /// Moves down what is later than what is below it.
    fn sink(&mut self, mut place: usize) {
        loop {
            let below =
                [2 * place + 1, 2 * place + 2].into_iter().filter(|&at| at < self.heap.len());
            let Some(least) = below.min_by_key(|&at| self.heap[at]) else { break };
            if self.heap[place] <= self.heap[least] {
                break;
            }
            self.heap.swap(place, least);
            self.note(place);
            place = least;
        }
        self.note(place);
    }

    fn note(&mut self, place: usize) {
        let (_, number) = self.heap[place];
        // A place for each number, and those are below 2^24.
        self.places[number as usize] = place as u32 + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::start;

    proptest! {
        #[test]
        fn the_earliest_is_on_top_whatever_is_set_moved_and_taken_away(
            steps in prop::collection::vec((0_u32..20, prop::option::of(0_u64..100)), 1..200)
        ) {
            let now = start();
            let mut deadlines = Deadlines::default();
            let mut model = BTreeMap::new();
            for (number, at) in steps {
                let at = at.map(|ms| now + Duration::from_millis(ms));
                deadlines.set(number, at);
                match at {
                    Some(at) => model.insert(number, at),
                    None => model.remove(&number),
                };
                prop_assert_eq!(deadlines.heap.len(), model.len());
                prop_assert_eq!(deadlines.first(), model.values().min().copied());
            }
            let mut order: Vec<_> = model.into_iter().map(|(number, at)| (at, number)).collect();
            order.sort();
            for (at, number) in order {
                prop_assert_eq!(deadlines.due(at), Some(number));
                prop_assert_eq!(deadlines.due(at - Duration::from_millis(1)), None);
                deadlines.set(number, None);
            }
            prop_assert_eq!(deadlines.first(), None);
        }
    }
}
