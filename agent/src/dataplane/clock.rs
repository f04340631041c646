//! What the data path is told of the wall clock, by which peers tell a new call from an old one that
//! somebody repeats.

use std::time::{Instant, SystemTime};

use partywall_datapath::shard::WallClock;

/// The wall clock as it is now. Before 1970 there is no time.
pub(super) fn wall_clock() -> WallClock {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    WallClock { read_at: Instant::now(), since_epoch: since_epoch.unwrap_or_default() }
}
