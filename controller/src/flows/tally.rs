//! What became of one organisation's flow records, counted where it happens.
//!
//! Whoever takes a record counts it in, and whoever is done with it counts it out: what waits is the
//! difference, and it is bounded for each organisation by itself, so that none can crowd out another.

use std::sync::atomic::{AtomicU64, Ordering};

use partywall_proto::admin::FlowStatus;

/// Records of one organisation that wait for the disk: two seconds of a busy gateway, 20 MB.
pub(super) const WAITING_MAX: u64 = 32_768;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    received: AtomicU64,
    waiting: AtomicU64,
    stored: AtomicU64,
    dropped: AtomicU64,
    lost_at_gateways: AtomicU64,
    lost_at_devices: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// Counts `records` in; false where there is no room for them, and they are dropped.
    pub(super) fn admit(&self, records: u64) -> bool {
        self.received.fetch_add(records, Ordering::Relaxed);
        let room =
            |waiting: u64| waiting.checked_add(records).filter(|waiting| *waiting <= WAITING_MAX);
        let admitted =
            self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if !admitted {
            self.dropped.fetch_add(records, Ordering::Relaxed);
        }
        admitted
    }

    /// Counts `records` out, `stored` of which are on disk.
    pub(super) fn done(&self, records: u64, stored: u64, bytes: u64) {
        self.waiting.fetch_sub(records, Ordering::Relaxed);
        self.stored.fetch_add(stored, Ordering::Relaxed);
        self.dropped.fetch_add(records - stored, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Gateways dropped `records` by themselves.
    pub(super) fn lost(&self, records: u64) {
        self.lost_at_gateways.fetch_add(records, Ordering::Relaxed);
    }

    /// Devices dropped `records`, by what they say.
    pub(super) fn lost_at_devices(&self, records: u64) {
        let sum = |lost: u64| Some(lost.saturating_add(records));
        // Always some, so that it never fails.
        let _ = self.lost_at_devices.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
    }

    /// So much is on disk.
    pub(super) fn on_disk(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn status(&self, budget_bytes: u64) -> FlowStatus {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FlowStatus {
            received: read(&self.received),
            stored: read(&self.stored),
            dropped: read(&self.dropped),
            lost_at_gateways: read(&self.lost_at_gateways),
            lost_at_devices: read(&self.lost_at_devices),
            bytes: read(&self.bytes),
            budget_bytes,
            sinks: Vec::new(),
        }
    }
}
