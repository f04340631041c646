//! Packets that wait for a handshake: bounded for each peer, and in bytes for all of them.
//!
//! They were judged when they came and are judged once more when they go. This is the only place where
//! a packet is held, and so the only one where traffic that nobody answers could use up memory.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::Limits;

/// What holding a packet takes beyond its bytes: its place in a queue that grows by doubling, and what
/// the allocator keeps for itself.
const OVERHEAD_BYTES: usize = 64;

/// Packets that wait, by the number of the peer whose tunnel they wait for.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    by_peer: HashMap<u32, VecDeque<Vec<u8>>, RandomState>,
    bytes: usize,
}

impl WaitingRoom {
    /// The most that it takes: its packets, and a queue for each of the peers that have some.
    pub(super) const fn worst_case_bytes(limits: &Limits, peers: usize) -> usize {
        let most = limits.waiting_bytes / OVERHEAD_BYTES;
        let queues = if peers < most { peers } else { most };
        // A hash table may be half empty, and twice that after it grew.
        limits.waiting_bytes + 4 * queues * size_of::<(u32, VecDeque<Vec<u8>>)>()
    }

    /// Holds a packet; false if there is no room for it.
    pub(super) fn push(&mut self, number: u32, packet: &[u8], limits: &Limits) -> bool {
        let held = self.by_peer.get(&number).map_or(0, VecDeque::len);
        let bytes = self.bytes + cost(packet);
        if held >= limits.waiting_packets || bytes > limits.waiting_bytes {
            return false;
        }
        self.bytes = bytes;
        self.by_peer.entry(number).or_default().push_back(packet.to_vec());
        true
    }

    /// Hands out what waits for a peer, in order.
    pub(super) fn take(&mut self, number: u32) -> VecDeque<Vec<u8>> {
        let packets = self.by_peer.remove(&number).unwrap_or_default();
        self.bytes -= packets.iter().map(|packet| cost(packet)).sum::<usize>();
        packets
    }

    /// Forgets all packets.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn cost(packet: &[u8]) -> usize {
    packet.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Role;

    #[test]
    fn room_is_bounded_for_each_peer_and_in_all_and_comes_back_when_packets_go() {
        let limits =
            Limits { waiting_packets: 3, waiting_bytes: 2000, ..Limits::for_role(Role::Gateway) };
        let mut room = WaitingRoom::default();
        let fits = |room: &mut WaitingRoom, number, bytes| {
            (0..9).take_while(|_| room.push(number, &vec![0; bytes], &limits)).count()
        };
        assert_eq!(fits(&mut room, 1, 100), 3);
        assert_eq!(fits(&mut room, 2, 600), 2, "there is room for so many bytes");
        assert_eq!(fits(&mut room, 3, 1000), 0);
        assert_eq!(room.take(1).len() + room.take(2).len() + room.take(2).len(), 5);
        assert_eq!(room.bytes, 0);
    }
}
