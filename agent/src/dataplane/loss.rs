//! What the kernel would not take or give: losses outside the shards, counted beside their drop
//! reasons.

/// Why a packet or datagram was lost between the kernel and a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// So much waited for the network that it was not sent, for its sender to send less.
    Backlog,
    /// The UDP socket's send buffer was full.
    UdpFull,
    /// The kernel refused to send a datagram: no route, a firewall, or too large for the LAN.
    UdpRefused,
    /// The TUN's queue was full.
    TunFull,
    /// The kernel refused a packet at the TUN, most often because the interface is down.
    TunRefused,
    /// What the kernel gave at the TUN contradicts itself.
    TunMalformed,
    /// What reached the wrong shard could not be handed to its owner, who has too much to do.
    HandOverFull,
}

impl Loss {
    /// Every loss, in the order of the counters.
    pub const ALL: [Self; 7] = [
        Self::Backlog,
        Self::UdpFull,
        Self::UdpRefused,
        Self::TunFull,
        Self::TunRefused,
        Self::TunMalformed,
        Self::HandOverFull,
    ];

    /// The stable name, in kebab case; distinct from every drop reason's.
    pub fn text(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::UdpFull => "udp-full",
            Self::UdpRefused => "udp-refused",
            Self::TunFull => "tun-full",
            Self::TunRefused => "tun-refused",
            Self::TunMalformed => "tun-malformed",
            Self::HandOverFull => "hand-over-full",
        }
    }

    /// The loss in one sentence, for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Backlog => {
                "The network could not take packets as fast as they came, and others would have waited for them."
            }
            Self::UdpFull => "The network could not take datagrams as fast as they came.",
            Self::UdpRefused => {
                "The machine refused to send a datagram: no route, a firewall, or too large for the network."
            }
            Self::TunFull => {
                "The machine could not take packets from the tunnel as fast as they came."
            }
            Self::TunRefused => {
                "The machine refused a packet from the tunnel; the interface may be down."
            }
            Self::TunMalformed => {
                "The machine gave the tunnel interface a packet that cannot be taken apart."
            }
            Self::HandOverFull => {
                "One thread of the agent could not take from another as fast as it came."
            }
        }
    }
}

/// Counts of each [`Loss`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Losses([u64; Loss::ALL.len()]);

impl Losses {
    pub(super) fn add(&mut self, loss: Loss, count: u64) {
        self.0[loss as usize] += count;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Loss, u64)> + '_ {
        Loss::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use partywall_datapath::DropReason;

    #[test]
    fn a_loss_is_counted_under_its_own_name_and_no_drop_reason_shares_it() {
        for (at, loss) in Loss::ALL.into_iter().enumerate() {
            assert_eq!(loss as usize, at);
            assert!(DropReason::ALL.iter().all(|reason| reason.text() != loss.text()));
            let mut losses = Losses::default();
            losses.add(loss, 3);
            assert_eq!(losses.iter().find(|(_, count)| *count > 0), Some((loss, 3)));
        }
    }
}
