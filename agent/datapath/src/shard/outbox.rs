//! What a shard has to say: datagrams for the UDP socket and packets for the TUN, each in one
//! contiguous buffer that is allocated once.
//!
//! Equal-sized datagrams to one destination lie next to each other without a gap, so that a
//! [`Run`] can go to the kernel in one call with `UDP_SEGMENT`. Keep it so: nothing is ever put
//! between two items of the arena.

use std::net::SocketAddr;
use std::ops::Range;

use partywall_aead::BATCH;

use super::Call;
use crate::offload::Batch;
use crate::packet::Ecn;
use crate::packet::checksum::Sum;
use crate::tunnel::OVERHEAD_BYTES;

/// The largest item: a full IPv4 packet, its padding, and WireGuard's header and tag.
const ITEM_MAX_BYTES: usize = 65_535 + 16 + 32;
/// Items of one kind. A batch of reads is smaller; what one call can add on top is bounded by
/// [`ITEM_MARGIN`].
const ITEMS: usize = Outbox::ITEMS;
/// Room that `is_full` keeps: one call may say this much (a peer's waiting packets).
const ITEM_MARGIN: usize = 64;
/// Calls for other shards: about as many as a second's worth that a shard lets in without a cookie
/// comes in one batch.
const CALLS: usize = 64;
/// Bytes of one kind: eight full super-packets at MTU 1420, so that what a turn has to say seldom goes in parts.
/// `docs/performance.md` has what half as much costs, and that twice as much saves nothing.
const ARENA_BYTES: usize = 512 << 10;
/// Segments that Linux takes in one `UDP_SEGMENT` call (`UDP_MAX_SEGMENTS` before 6.9).
const RUN_MAX_SEGMENTS: usize = 64;
/// Payload that one `UDP_SEGMENT` call may carry: what fits an IPv4 datagram.
const RUN_MAX_BYTES: usize = 65_507;

/// A datagram for the UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// What the outer header says of congestion.
    pub ecn: Ecn,
    /// What.
    pub bytes: &'a [u8],
}

/// Adjacent datagrams to one destination and with one codepoint, each of `segment_bytes` but the last,
/// which may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// What their outer headers say of congestion.
    pub ecn: Ecn,
    /// Size of each datagram but the last.
    pub segment_bytes: usize,
    /// All of them, one after the other.
    pub bytes: &'a [u8],
}

/// Datagrams and packets on their way out of a shard. Reused: [`clear`](Self::clear) after each flush.
#[derive(Debug)]
pub struct Outbox {
    datagrams: Arena,
    /// Of each datagram, where it goes and what it says of congestion.
    headings: Vec<(SocketAddr, Ecn)>,
    packets: Arena,
    /// Of each packet, its sum where it is known.
    sums: Vec<Option<Sum>>,
    calls: Vec<Call>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    /// How many items of one kind there can be at most.
    pub const ITEMS: usize = 1024;

    /// How many packets of `mtu` bytes one [`Run`] carries. A TUN whose super-packets are no longer gives runs that
    /// are full; one more packet, and every other system call would be for the rest of one.
    pub const fn run_packets(mtu: u16) -> usize {
        let fitting = RUN_MAX_BYTES / (mtu as usize + OVERHEAD_BYTES);
        match fitting {
            0 => 1,
            1..RUN_MAX_SEGMENTS => fitting,
            _ => RUN_MAX_SEGMENTS,
        }
    }

    /// An empty outbox, with all the memory that it will ever have.
    pub fn new() -> Self {
        let headings = Vec::with_capacity(ITEMS);
        let sums = Vec::with_capacity(ITEMS);
        let calls = Vec::with_capacity(CALLS);
        Self { datagrams: Arena::new(), headings, packets: Arena::new(), sums, calls }
    }

    /// Whether the next call to the shard might not find room: flush and clear first.
    pub fn is_full(&self) -> bool {
        self.datagrams.is_full() || self.packets.is_full() || self.calls.len() == CALLS
    }

    /// Whether there is no room for another batch of datagrams, of so many bytes in all. Closer to what there is
    /// than [`is_full`](Self::is_full), so that runs end as seldom as they must.
    pub(super) fn is_full_for_datagrams(&self, bytes: usize) -> bool {
        !self.datagrams.has_room_for_batch(bytes) || self.packets.is_full()
    }

    /// The same for a batch of packets.
    pub(super) fn is_full_for_packets(&self, bytes: usize) -> bool {
        !self.packets.has_room_for_batch(bytes)
            || self.datagrams.is_full()
            || self.calls.len() == CALLS
    }

    /// Whether there is nothing to flush.
    pub fn is_empty(&self) -> bool {
        self.datagrams.items.is_empty() && self.packets.items.is_empty() && self.calls.is_empty()
    }

    /// Forgets what was flushed.
    pub fn clear(&mut self) {
        self.datagrams.clear();
        self.headings.clear();
        self.packets.clear();
        self.sums.clear();
        self.calls.clear();
    }

    /// The datagrams for the UDP socket, in order.
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        self.headings.iter().zip(&self.datagrams.items).map(|(&(destination, ecn), range)| {
            Datagram { destination, ecn, bytes: &self.datagrams.bytes[range.clone()] }
        })
    }

    /// The same datagrams as [`datagrams`](Self::datagrams), gathered into runs.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (headings, items) = (&self.headings[at..], &self.datagrams.items[at..]);
            let count = run_length(headings, items);
            let &(destination, ecn) = headings.first()?;
            let (first, last) = (items.first()?, items.get(count - 1)?);
            at += count;
            let bytes = &self.datagrams.bytes[first.start..last.end];
            Some(Run { destination, ecn, segment_bytes: first.len(), bytes })
        })
    }

    /// The packets for the TUN, in order.
    pub fn packets(&self) -> Batch<'_> {
        Batch::new(&self.packets.bytes, &self.packets.items).with_sums(&self.sums)
    }

    /// Calls that this shard let in and other shards are to answer.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Keeps a call for its owner; none if there is no room.
    pub(crate) fn hand_over(&mut self, call: Call) -> Option<()> {
        (self.calls.len() < CALLS).then(|| self.calls.push(call))
    }

    /// Room for a datagram of up to `bytes`; see [`send`](Self::send).
    pub(crate) fn datagram_room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        self.datagrams.room(bytes)
    }

    /// Room for several datagrams next to each other, each to be kept by [`send`](Self::send) in turn.
    pub(super) fn datagram_rooms(&mut self) -> Rooms<'_> {
        self.datagrams.rooms()
    }

    /// Keeps the first `bytes` of what was just written into the room for a datagram.
    pub(crate) fn send(&mut self, destination: SocketAddr, bytes: usize) {
        self.send_marked(destination, Ecn::NotCapable, bytes);
    }

    /// The same, with what the outer header is to say of congestion.
    pub(crate) fn send_marked(&mut self, destination: SocketAddr, ecn: Ecn, bytes: usize) {
        self.datagrams.keep(bytes);
        self.headings.push((destination, ecn));
    }

    /// Room for a packet of up to `bytes`; see [`deliver`](Self::deliver).
    pub(crate) fn packet_room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        self.packets.room(bytes)
    }

    /// Keeps the first `bytes` of what was just written into the room for a packet.
    pub(crate) fn deliver(&mut self, bytes: usize) {
        self.deliver_summed(bytes, None);
    }

    /// The same, with the sum of all of the packet where it is known.
    pub(super) fn deliver_summed(&mut self, bytes: usize, sum: Option<Sum>) {
        self.packets.keep(bytes);
        self.sums.push(sum);
    }
}

/// What room is left for items of one kind, one after the other.
#[derive(Debug)]
pub(super) struct Rooms<'a> {
    bytes: &'a mut [u8],
    items: usize,
}

impl<'a> Rooms<'a> {
    /// Room for the next item; none if there is not as much.
    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a mut [u8]> {
        self.items = self.items.checked_sub(1)?;
        self.bytes.split_off_mut(..bytes)
    }
}

/// How many of the first items form one run; 0 if there are none.
fn run_length(headings: &[(SocketAddr, Ecn)], items: &[Range<usize>]) -> usize {
    let (Some((lead, headings)), Some((first, items))) =
        (headings.split_first(), items.split_first())
    else {
        return 0;
    };
    let mut total = first.len();
    let mut count = 1;
    for (heading, range) in headings.iter().zip(items) {
        total += range.len();
        let fits = heading == lead
            && range.len() <= first.len()
            && count < RUN_MAX_SEGMENTS
            && total <= RUN_MAX_BYTES;
        if !fits {
            break;
        }
        count += 1;
        // Only the last one may be shorter.
        if range.len() < first.len() {
            break;
        }
    }
    count
}

#[derive(Debug)]
struct Arena {
    bytes: Box<[u8]>,
    used: usize,
    items: Vec<Range<usize>>,
}

impl Arena {
    fn new() -> Self {
        let bytes = vec![0; ARENA_BYTES].into_boxed_slice();
        Self { bytes, used: 0, items: Vec::with_capacity(ITEMS) }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() - self.used < ITEM_MAX_BYTES || self.items.len() + ITEM_MARGIN > ITEMS
    }

    fn has_room_for_batch(&self, bytes: usize) -> bool {
        self.used + bytes <= self.bytes.len() && self.items.len() + BATCH <= ITEMS
    }

    fn clear(&mut self) {
        self.used = 0;
        self.items.clear();
    }

    fn room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        if self.items.len() == ITEMS {
            return None;
        }
        self.bytes.get_mut(self.used..self.used + bytes)
    }

    fn rooms(&mut self) -> Rooms<'_> {
        let items = ITEMS - self.items.len();
        Rooms { bytes: &mut self.bytes[self.used..], items }
    }

    fn keep(&mut self, bytes: usize) {
        let end = self.used + bytes;
        debug_assert!(end <= self.bytes.len() && self.items.len() < ITEMS);
        self.items.push(self.used..end);
        self.used = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(outbox: &mut Outbox, port: u16, bytes: usize) -> bool {
        if outbox.datagram_room(bytes).is_none() {
            return false;
        }
        outbox.send(([192, 0, 2, 1], port).into(), bytes);
        true
    }

    #[test]
    fn equal_datagrams_to_one_destination_form_a_run_that_ends_with_a_shorter_one() {
        let mut outbox = Outbox::new();
        for (port, bytes) in [(1, 100), (1, 100), (1, 40), (1, 100), (2, 100), (2, 120)] {
            assert!(put(&mut outbox, port, bytes));
        }
        let runs: Vec<_> =
            outbox.runs().map(|r| (r.destination.port(), r.segment_bytes, r.bytes.len())).collect();
        assert_eq!(runs, [(1, 100, 240), (1, 100, 100), (2, 100, 100), (2, 120, 120)]);
        assert_eq!(outbox.datagrams().len(), 6);
    }

    #[test]
    fn a_mark_of_congestion_parts_a_run() {
        let mut outbox = Outbox::new();
        for ecn in [Ecn::Capable0, Ecn::Capable0, Ecn::Congested] {
            outbox.datagram_room(100).unwrap();
            outbox.send_marked(([192, 0, 2, 1], 1).into(), ecn, 100);
        }
        let runs: Vec<_> = outbox.runs().map(|run| (run.ecn, run.bytes.len())).collect();
        assert_eq!(runs, [(Ecn::Capable0, 200), (Ecn::Congested, 100)]);
    }

    #[test]
    fn a_run_stays_within_what_one_call_may_carry() {
        let mut outbox = Outbox::new();
        (0..150).for_each(|_| assert!(put(&mut outbox, 1, 1400)));
        assert!(outbox.runs().all(|run| run.bytes.len() <= RUN_MAX_BYTES));
        assert_eq!(outbox.runs().map(|run| run.bytes.len()).sum::<usize>(), 150 * 1400);
    }

    #[test]
    fn an_outbox_is_full_before_it_overflows_and_empty_after_clear() {
        let mut outbox = Outbox::new();
        while !outbox.is_full() {
            assert!(put(&mut outbox, 1, 1452));
        }
        assert!(outbox.datagram_room(ITEM_MAX_BYTES).is_none());
        (0..32).for_each(|_| assert!(put(&mut outbox, 1, 1452)));
        outbox.clear();
        assert!(outbox.is_empty() && !outbox.is_full());
    }
}
