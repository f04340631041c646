//! What the data path tells about itself, summed over its shards.

use std::collections::BTreeMap;

use partywall_datapath::DropReason;
use partywall_datapath::shard::{Counters, PeerStatus, Traffic};

use crate::dataplane::loss::{Loss, Losses};

/// Counters since the start, and the peers as they are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// From the tunnel, through the filter, towards the TUN.
    pub received: Traffic,
    /// From the TUN, through the filter, into the tunnel.
    pub sent: Traffic,
    /// Packets and datagrams that one shard read and another took; calls are not among them.
    pub handed_over: u64,
    /// Packets and datagrams dropped, by reason; every reason is there, most are zero.
    /// [`reason_sentence`] explains one.
    pub drops: BTreeMap<String, u64>,
    /// The peers, sorted by agent.
    pub peers: Vec<PeerStatus>,
}

/// One worker's part of a [`Report`].
#[derive(Debug)]
pub(super) struct Part {
    pub(super) counters: Counters,
    pub(super) losses: Losses,
    pub(super) handed_over: u64,
    pub(super) peers: Vec<PeerStatus>,
}

impl Report {
    pub(super) fn add(&mut self, part: Part) {
        let Part { counters, losses, handed_over, peers } = part;
        self.handed_over += handed_over;
        for (sum, more) in
            [(&mut self.received, counters.received), (&mut self.sent, counters.sent)]
        {
            sum.packets += more.packets;
            sum.bytes += more.bytes;
        }
        let reasons = counters.drops().map(|(reason, count)| (reason.text(), count));
        let losses = losses.iter().map(|(loss, count)| (loss.text(), count));
        for (text, count) in reasons.chain(losses) {
            *self.drops.entry(text.to_owned()).or_default() += count;
        }
        self.peers.extend(peers);
        self.peers.sort_by(|a, b| a.agent.cmp(&b.agent));
    }
}

/// What a key of [`Report::drops`] means, in one sentence; none for a text that is no key.
pub fn reason_sentence(text: &str) -> Option<&'static str> {
    let reasons = DropReason::ALL.into_iter().map(|reason| (reason.text(), reason.sentence()));
    let losses = Loss::ALL.into_iter().map(|loss| (loss.text(), loss.sentence()));
    reasons.chain(losses).find(|(key, _)| *key == text).map(|(_, sentence)| sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_sums_its_parts_and_explains_every_reason() {
        let mut losses = Losses::default();
        losses.add(Loss::TunFull, 2);
        let mut report = Report::default();
        for _ in 0..2 {
            let (counters, peers) = (Counters::default(), Vec::new());
            report.add(Part { counters, losses, handed_over: 3, peers });
        }
        assert_eq!(report.handed_over, 6);
        assert_eq!(report.drops["tun-full"], 4);
        assert_eq!(report.drops.len(), DropReason::ALL.len() + Loss::ALL.len());
        assert!(report.drops.keys().all(|text| reason_sentence(text).is_some()));
        assert_eq!(reason_sentence("no-such-reason"), None);
    }
}
