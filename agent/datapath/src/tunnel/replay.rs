//! Which counters of a session were seen: a sliding window (RFC 6479), as wide as Linux's.
//!
//! Ask before a packet is opened and mark only after it was found authentic: a forged one must not move
//! the window.

/// Counters that have a bit (Linux: `COUNTER_BITS_TOTAL`, drivers/net/wireguard/messages.h).
const BITS: u64 = 8192;
/// One word is always being cleared, so that this much reordering is borne.
#[cfg(test)]
const WINDOW: u64 = BITS - WORD_BITS;
const WORD_BITS: u64 = 64;
const WORDS: usize = (BITS / WORD_BITS) as usize;

/// The window of one session.
pub(super) struct Window {
    /// The least counter that is greater than any seen.
    next: u64,
    words: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { next: 0, words: [0; WORDS] }
    }
}

impl Window {
    /// Whether a counter is new, as far as can be told.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        self.next - counter <= BITS - WORD_BITS && self.words[word(counter)] & bit(counter) == 0
    }

    /// Marks a counter as seen; false if it was already, or is too old to tell.
    pub(super) fn mark(&mut self, counter: u64) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        if counter >= self.next {
            // Words between the newest one and this one's hold counters of a round before.
            let newest = self.next.checked_sub(1).map_or(0, |last| last / WORD_BITS);
            let ahead = (counter / WORD_BITS - newest).min(WORDS as u64);
            for step in 1..=ahead {
                self.words[((newest + step) % WORDS as u64) as usize] = 0;
            }
            self.next = counter.saturating_add(1);
        }
        self.words[word(counter)] |= bit(counter);
        true
    }
}

fn word(counter: u64) -> usize {
    (counter / WORD_BITS % WORDS as u64) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_counter_within_the_window_is_let_in_once_and_none_before_it() {
        let mut window = Window::default();
        let far = 10 * BITS + 17;
        assert!(window.mark(far));
        assert!(window.mark(far - WINDOW + 1));
        assert!(!window.mark(far - WINDOW));
        assert!((far - WINDOW + 2..far).rev().all(|counter| window.mark(counter)));
        assert!((far - 2 * BITS..=far).all(|counter| !window.mark(counter)));
        const { assert!(WINDOW >= 8128) };
    }

    #[test]
    fn a_leap_over_the_whole_window_leaves_nothing_marked() {
        let mut window = Window::default();
        assert!((0..BITS).all(|counter| window.mark(counter)));
        assert!(window.mark(5 * BITS));
        assert!((5 * BITS - WINDOW + 1..5 * BITS).all(|counter| window.is_new(counter)));
    }

    proptest! {
        #[test]
        fn it_lets_in_what_a_list_of_all_counters_would(
            steps in prop::collection::vec(prop_oneof![
                4 => -300_i64..300, 1 => -9000_i64..9000
            ], 1..300)
        ) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            let mut greatest = 20_000;
            window.mark(greatest);
            seen.insert(greatest);
            for step in steps {
                let counter = greatest.saturating_add_signed(step);
                let fits = counter + WINDOW > greatest && !seen.contains(&counter);
                prop_assert_eq!(window.mark(counter), fits);
                if fits {
                    seen.insert(counter);
                    greatest = greatest.max(counter);
                }
            }
        }
    }
}
