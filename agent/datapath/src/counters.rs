//! What a shard counts. Counters only grow; whoever shows a rate takes the difference.

use crate::filter::DropReason;

/// Packets and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Inner packets.
    pub packets: u64,
    /// Their bytes, without padding and without WireGuard's own.
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    pub(crate) fn add_all(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

/// A shard's counters since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// From the tunnel, through the filter, towards the TUN.
    pub received: Traffic,
    /// From the TUN, through the filter, into the tunnel.
    pub sent: Traffic,
    drops: [u64; DropReason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        let none = Traffic::default();
        Self { received: none, sent: none, drops: [0; DropReason::ALL.len()] }
    }
}

impl Counters {
    /// What was dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }

    /// Every reason with its count, the zeros included.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.drops)
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops[reason.index()] += 1;
    }
}
