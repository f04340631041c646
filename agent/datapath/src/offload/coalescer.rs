//! Puts packets of one flow together, so that the kernel takes many in one write.
//!
//! No byte of payload is copied: a gathered packet is a new header and the payloads where they lie. A
//! packet joins only a group to which it is the very next of its flow, and which nothing of that flow
//! came after; so order within a flow is that of arrival.

use std::ops::Range;

use super::layout::{HEADERS_MAX_BYTES, Layout, Upper, write_length};
use super::vnet::{Kind, VNET_HEADER_BYTES, VnetHeader};
use crate::packet::checksum::Sum;

/// Flows that are being put together at a time. More than this many rarely alternate within one batch.
const OPEN_MAX: usize = 16;
/// Packets in one group: what the kernel takes of UDP (`UDP_MAX_SEGMENTS` since 6.9), and below the
/// slices that one `writev` takes (`IOV_MAX`).
const GROUP_MAX: u16 = 128;
/// The largest IP packet.
const PACKET_MAX_BYTES: usize = 65_535;
/// No item comes after this one.
const END: u32 = u32::MAX;

// TCP control bits (RFC 9293 §3.1, RFC 3168 §6.1).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// Packets that lie in one buffer, in order of arrival.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    bytes: &'a [u8],
    items: &'a [Range<usize>],
    sums: &'a [Option<Sum>],
}

impl<'a> Batch<'a> {
    /// The packets at `items` of `bytes`.
    ///
    /// # Panics
    /// Later, if an item is not within `bytes`.
    pub fn new(bytes: &'a [u8], items: &'a [Range<usize>]) -> Self {
        Self { bytes, items, sums: &[] }
    }

    /// The same, with the sum of each packet where it is known.
    pub(crate) fn with_sums(self, sums: &'a [Option<Sum>]) -> Self {
        Self { sums, ..self }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The packets, in order.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.items.iter().map(move |range| &bytes[range.clone()])
    }

    fn at(&self, item: u32) -> &'a [u8] {
        &self.bytes[self.items[item as usize].clone()]
    }

    /// Whether the checksums of an item with this layout are there and right.
    fn checksums_hold(&self, item: u32, layout: &Layout) -> bool {
        let packet = self.at(item);
        let (headers, above) = packet.split_at(layout.transport);
        let ip = Sum::of(headers);
        let above = match self.sums.get(item as usize) {
            Some(Some(whole)) => whole.without(ip),
            Some(None) | None => Sum::of(above),
        };
        (packet[0] >> 4 == 6 || ip.holds()) && layout.checksum_holds(packet, above)
    }
}

/// What may be merged; the kernel says what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merging {
    /// TCP segments.
    pub tcp: bool,
    /// UDP datagrams.
    pub udp: bool,
}

impl Merging {
    /// This, but not `kind`.
    pub fn without(self, kind: Self) -> Self {
        Self { tcp: self.tcp && !kind.tcp, udp: self.udp && !kind.udp }
    }
}

/// Groups the packets of a batch. Allocates for the largest batch that it has seen, once.
#[derive(Debug)]
pub struct Coalescer {
    merging: Merging,
    groups: Vec<Group>,
    /// For each item of the batch, the next of its group.
    links: Vec<u32>,
    /// Groups that may still grow, the latest last.
    open: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first: u32,
    last: u32,
    count: u16,
    /// None for a packet that travels by itself.
    layout: Option<Layout>,
    ports: [u8; 4],
    segment_bytes: u16,
    payload_bytes: u32,
    next_sequence: u32,
    next_id: u16,
    /// Whether the checksums of the first packet were found to be right.
    is_checked: bool,
    /// FIN and PSH of the last packet.
    end_flags: u8,
}

impl Coalescer {
    /// A coalescer for batches of up to `packets`.
    pub fn new(merging: Merging, packets: usize) -> Self {
        Self {
            merging,
            groups: Vec::with_capacity(packets),
            links: Vec::with_capacity(packets),
            open: Vec::with_capacity(OPEN_MAX),
        }
    }

    /// What is merged.
    pub fn merging(&self) -> Merging {
        self.merging
    }

    /// Merges this from now on; for a kernel that turns out to take less.
    pub fn set_merging(&mut self, merging: Merging) {
        self.merging = merging;
    }

    /// Groups the packets of `batch`: each packet is in exactly one of what is returned.
    pub fn gather<'a>(&'a mut self, batch: Batch<'a>) -> impl Iterator<Item = Gathered<'a>> {
        self.groups.clear();
        self.links.clear();
        self.links.resize(batch.len(), END);
        self.open.clear();
        for item in 0..batch.len() as u32 {
            self.take(item, batch);
        }
        let links = self.links.as_slice();
        self.groups.iter().map(move |group| Gathered::new(group, links, batch))
    }

    fn take(&mut self, item: u32, batch: Batch<'_>) {
        let packet = batch.at(item);
        let Some(layout) = Layout::of(packet).filter(|layout| self.merges(layout.upper)) else {
            // It may belong to any flow (a fragment does not say), so nothing may overtake it.
            self.open.clear();
            self.groups.push(Group::single(item));
            return;
        };
        // By ports alone: another flow that has the same ones only loses its group, and no packet of
        // this flow is missed, whatever its options.
        let ports = ports(&layout, packet);
        let held = self.open.iter().position(|&at| self.groups[at as usize].ports == ports);
        if let Some(at) = held {
            let number = self.open[at];
            match self.groups[number as usize].append(item, &layout, batch) {
                Append::Joined { more } => {
                    let last = self.groups[number as usize].last;
                    self.link(last, item);
                    self.groups[number as usize].last = item;
                    if !more {
                        self.open.remove(at);
                    }
                    return;
                }
                Append::Apart => {
                    self.open.remove(at);
                }
            }
        }
        let group = Group::starting(item, &layout, packet);
        self.groups.push(group);
        if group.may_grow(packet) {
            if self.open.len() == OPEN_MAX {
                self.open.remove(0);
            }
            self.open.push(self.groups.len() as u32 - 1);
        }
    }

    fn link(&mut self, from: u32, to: u32) {
        self.links[from as usize] = to;
    }

    fn merges(&self, upper: Upper) -> bool {
        match upper {
            Upper::Tcp => self.merging.tcp,
            Upper::Udp => self.merging.udp,
        }
    }
}

enum Append {
    /// It is part of the group, to which more may come or not.
    Joined { more: bool },
    /// It is not, and nothing that comes after it is.
    Apart,
}

impl Group {
    fn single(item: u32) -> Self {
        Self {
            first: item,
            last: item,
            count: 1,
            layout: None,
            ports: [0; 4],
            segment_bytes: 0,
            payload_bytes: 0,
            next_sequence: 0,
            next_id: 0,
            is_checked: false,
            end_flags: 0,
        }
    }

    fn starting(item: u32, layout: &Layout, packet: &[u8]) -> Self {
        let bytes = packet.len() - layout.payload;
        Self {
            layout: Some(*layout),
            ports: ports(layout, packet),
            // A packet's length is 16 bits in its header, which the layout has found to be true.
            segment_bytes: bytes as u16,
            payload_bytes: bytes as u32,
            next_sequence: sequence(layout, packet).wrapping_add(bytes as u32),
            next_id: identification(packet).wrapping_add(1),
            ..Self::single(item)
        }
    }

    /// Whether anything may be appended to this first packet.
    fn may_grow(&self, packet: &[u8]) -> bool {
        self.segment_bytes > 0
            && self.layout.is_some_and(|layout| {
                layout.upper == Upper::Udp || flags(&layout, packet) & !(CWR | ECE) == ACK
            })
    }

    fn append(&mut self, item: u32, layout: &Layout, batch: Batch<'_>) -> Append {
        let (first, packet) = (batch.at(self.first), batch.at(item));
        let bytes = packet.len() - layout.payload;
        let payload_bytes = self.payload_bytes as usize + bytes;
        let fits = self.layout == Some(*layout)
            && bytes > 0
            && bytes <= usize::from(self.segment_bytes)
            && layout.payload + payload_bytes <= PACKET_MAX_BYTES
            && layout.same_flow(first, packet)
            && self.follows_by_id(packet)
            && (layout.upper == Upper::Udp || self.follows_by_tcp(layout, first, packet));
        if !fits {
            return Append::Apart;
        }
        // Merged, it gets a checksum that is right. So it must be right before.
        self.is_checked = self.is_checked || batch.checksums_hold(self.first, layout);
        if !self.is_checked || !batch.checksums_hold(item, layout) {
            return Append::Apart;
        }
        self.count += 1;
        self.payload_bytes = payload_bytes as u32;
        self.next_sequence = self.next_sequence.wrapping_add(bytes as u32);
        self.next_id = self.next_id.wrapping_add(1);
        if layout.upper == Upper::Tcp {
            self.end_flags = flags(layout, packet) & (FIN | PSH);
        }
        let more = self.end_flags == 0
            && bytes == usize::from(self.segment_bytes)
            && self.count < GROUP_MAX;
        Append::Joined { more }
    }

    /// Whether a receiver that takes the group apart again gives this packet the identification that it
    /// has, or one that means nothing (RFC 6864 §4.1: do not fragment).
    fn follows_by_id(&self, packet: &[u8]) -> bool {
        const DO_NOT_FRAGMENT: u8 = 0x40;
        packet[0] >> 4 == 6
            || packet[6] & DO_NOT_FRAGMENT != 0
            || identification(packet) == self.next_id
    }

    /// The next bytes of the stream, and the rest of the header as the first packet has it: the same
    /// acknowledgement, window and options, as the kernel's own `tcp_gro_receive` asks.
    fn follows_by_tcp(&self, layout: &Layout, first: &[u8], packet: &[u8]) -> bool {
        const MAY_END: u8 = FIN | PSH;
        let (one, other) = (&first[layout.transport..], &packet[layout.transport..]);
        let header = layout.payload - layout.transport;
        sequence(layout, packet) == self.next_sequence
            && one[8..13] == other[8..13]
            && (one[13] & !CWR) == (other[13] & !MAY_END)
            && one[14..16] == other[14..16]
            && one[18..header] == other[18..header]
    }
}

fn ports(layout: &Layout, packet: &[u8]) -> [u8; 4] {
    packet[layout.transport..].first_chunk::<4>().copied().unwrap_or_default()
}

fn sequence(layout: &Layout, packet: &[u8]) -> u32 {
    match layout.upper {
        Upper::Tcp => packet[layout.transport + 4..]
            .first_chunk::<4>()
            .map_or(0, |bytes| u32::from_be_bytes(*bytes)),
        Upper::Udp => 0,
    }
}

fn flags(layout: &Layout, packet: &[u8]) -> u8 {
    packet[layout.transport + 13]
}

/// IPv4's identification; IPv6 has none outside fragments.
fn identification(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { u16::from_be_bytes([packet[4], packet[5]]) } else { 0 }
}

/// What goes to the TUN in one write: one packet, or several of one flow.
#[derive(Debug)]
pub struct Gathered<'a> {
    /// The TUN's header, and the merged packet's own where there are several.
    headers: [u8; VNET_HEADER_BYTES + HEADERS_MAX_BYTES],
    header_bytes: usize,
    /// How much of each packet its own headers are, which do not go.
    skipped: usize,
    group: Group,
    links: &'a [u32],
    batch: Batch<'a>,
}

impl<'a> Gathered<'a> {
    fn new(group: &Group, links: &'a [u32], batch: Batch<'a>) -> Self {
        let mut headers = [0; VNET_HEADER_BYTES + HEADERS_MAX_BYTES];
        let layout = group.layout.filter(|_| group.count > 1);
        let skipped = layout.map_or(0, |layout| layout.payload);
        let (vnet, merged) = headers.split_at_mut(VNET_HEADER_BYTES);
        if let Some(layout) = layout {
            let merged = &mut merged[..layout.payload];
            merged.copy_from_slice(&batch.at(group.first)[..layout.payload]);
            vnet.copy_from_slice(&merge_headers(group, &layout, merged));
        }
        let header_bytes = VNET_HEADER_BYTES + skipped;
        Self { headers, header_bytes, skipped, group: *group, links, batch }
    }

    /// The most packets that one of these is.
    pub const COUNT_MAX: usize = GROUP_MAX as usize;

    /// What of [`Merging`] made this one out of several.
    pub fn kind(&self) -> Merging {
        let upper = self.group.layout.map(|layout| layout.upper);
        Merging { tcp: upper == Some(Upper::Tcp), udp: upper == Some(Upper::Udp) }
    }

    /// How many packets these are.
    pub fn count(&self) -> usize {
        self.group.count.into()
    }

    /// The header that a TUN with `IFF_VNET_HDR` wants, and the merged packet's.
    pub fn headers(&self) -> &[u8] {
        &self.headers[..self.header_bytes]
    }

    /// What comes after the headers: the packet, or the payloads of all of them.
    pub fn payloads(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let skipped = self.skipped;
        self.packets().map(move |packet| &packet[skipped..])
    }

    /// The packets as they came, for a kernel that will not take them as one.
    pub fn packets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (batch, links) = (self.batch, self.links);
        let first = (self.group.first != END).then_some(self.group.first);
        std::iter::successors(first, move |&item| {
            Some(links[item as usize]).filter(|&next| next != END)
        })
        .map(move |item| batch.at(item))
    }

    /// The TUN's header for each of [`packets`](Self::packets).
    pub fn plain_header() -> [u8; VNET_HEADER_BYTES] {
        VnetHeader::PLAIN
    }
}

/// Turns the first packet's headers into those of the whole group, and returns the TUN's.
fn merge_headers(group: &Group, layout: &Layout, headers: &mut [u8]) -> [u8; VNET_HEADER_BYTES] {
    let total = layout.payload + group.payload_bytes as usize;
    write_length(headers, layout.transport, total);
    let above_bytes = total - layout.transport;
    // What the kernel calls a partial checksum: it completes it, or knows that nobody needs it.
    let partial = layout.pseudo_header(headers, above_bytes).fold();
    let above = &mut headers[layout.transport..];
    let checksum_at = layout.upper.checksum_at();
    above[checksum_at..checksum_at + 2].copy_from_slice(&partial.to_be_bytes());
    let (kind, congestion_reduced) = match layout.upper {
        Upper::Tcp => {
            above[13] |= group.end_flags;
            (Kind::Tcp, above[13] & CWR != 0)
        }
        Upper::Udp => {
            above[4..6].copy_from_slice(&(above_bytes as u16).to_be_bytes());
            (Kind::Udp, false)
        }
    };
    VnetHeader {
        kind,
        segment_bytes: group.segment_bytes,
        // Headers are at most 120 bytes.
        checksum: Some((layout.transport as u16, checksum_at as u16)),
        header_bytes: layout.payload as u16,
        congestion_reduced,
    }
    .write(headers[0] >> 4)
}
