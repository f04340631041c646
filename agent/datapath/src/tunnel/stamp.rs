//! When a call was made, as calls say it: a TAI64N label (WireGuard paper §5.1).
//!
//! A peer takes only calls that are later than all before, so stamps of one tunnel must rise even if its
//! clock does not.

use std::time::Duration;

/// 1970-01-01 in TAI64, and the 37 seconds by which TAI was ahead of UTC when this was written. Others add
/// 10; only what one machine says itself is ever compared.
const EPOCH_S: u64 = (1 << 62) + 37;
/// Stamps tell others no more of this machine's clock than 17 ms, which suffices for 50 calls a second
/// (Linux rounds likewise, drivers/net/wireguard/noise.c `tai64n_now`).
const GRAIN_NS: u32 = 1 << 24;

/// A TAI64N label: compared as numbers, it is as the clock has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp([u8; Stamp::BYTES]);

impl Stamp {
    /// What it takes in a message.
    pub(super) const BYTES: usize = 12;

    /// The stamp for a time since 1970, later than `last`.
    pub(super) fn after(last: Option<Self>, since_epoch: Duration) -> Self {
        let nanoseconds = since_epoch.subsec_nanos() / GRAIN_NS * GRAIN_NS;
        let stamp = Self::of(since_epoch.as_secs().wrapping_add(EPOCH_S), nanoseconds);
        match last {
            Some(last) if stamp <= last => last.next(),
            Some(_) | None => stamp,
        }
    }

    /// As it came.
    pub(super) fn read(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// As it goes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn of(seconds: u64, nanoseconds: u32) -> Self {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanoseconds.to_be_bytes());
        Self(bytes)
    }

    fn next(self) -> Self {
        let mut bytes = [0; 16];
        bytes[4..].copy_from_slice(&self.0);
        let next = u128::from_be_bytes(bytes).wrapping_add(1).to_be_bytes();
        let mut stamp = [0; Self::BYTES];
        stamp.copy_from_slice(&next[4..]);
        Self(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_with_the_clock_and_also_when_that_stands_still_or_goes_back() {
        let mut last = None;
        for ms in [1_700_000_000_000, 1_700_000_000_020, 1_700_000_000_020, 1_700_000_000_021, 0] {
            let stamp = Stamp::after(last, Duration::from_millis(ms));
            assert!(last.is_none_or(|last| last < stamp), "at {ms} ms");
            last = Some(stamp);
        }
        let full = Stamp::of(7, u32::MAX);
        assert!(Stamp::after(Some(full), Duration::ZERO) > full);
    }

    #[test]
    fn a_stamp_is_tai64n_and_tells_the_time_to_17_ms() {
        let stamp = Stamp::after(None, Duration::new(1, 999_999_999));
        let expected = [0x40, 0, 0, 0, 0, 0, 0, 38, 0x3b, 0, 0, 0];
        assert_eq!(stamp.bytes(), expected);
    }
}
