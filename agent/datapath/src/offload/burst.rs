//! What one read of the TUN brought: a packet, or a super-packet that is taken apart here.
//!
//! Each packet is written where it is wanted, complete with its headers, so that many of them can be sealed at
//! once; what was read stays as it was.

use partywall_proto::flows::Traffic;

use super::layout::{HEADERS_MAX_BYTES, Layout, Upper};
use super::vnet::{Kind, VNET_HEADER_BYTES, VnetHeader};
use crate::packet::checksum::Sum;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// The kernel gave something that cannot be: it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header of the TUN contradicts the packet that follows it")]
pub struct BurstError;

/// Packets of one flow that came as one.
#[derive(Debug)]
pub struct Burst<'a> {
    bytes: &'a mut [u8],
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    None,
    Single,
    Segments(Segments),
}

/// How the rest of a super-packet is to be taken apart.
#[derive(Debug)]
struct Segments {
    layout: Layout,
    common: Common,
    segment_bytes: usize,
    /// Where the next segment's payload begins.
    next: usize,
    /// How many were taken.
    taken: u16,
}

impl<'a> Burst<'a> {
    /// A packet by itself, as a TUN without offloads gives it.
    pub fn single(packet: &'a mut [u8]) -> Self {
        Self { bytes: packet, rest: Rest::Single }
    }

    /// Reads what a TUN with `IFF_VNET_HDR` gave, and completes a checksum that was left to us.
    ///
    /// # Errors
    /// [`BurstError`]; any bytes may be passed.
    pub fn read(bytes: &'a mut [u8]) -> Result<Self, BurstError> {
        let (header, packet) =
            bytes.split_first_chunk_mut::<VNET_HEADER_BYTES>().ok_or(BurstError)?;
        let header = VnetHeader::read(header).ok_or(BurstError)?;
        let upper = match header.kind {
            Kind::Single => {
                if let Some((start, offset)) = header.checksum {
                    complete_checksum(packet, start.into(), offset.into()).ok_or(BurstError)?;
                }
                return Ok(Self::single(packet));
            }
            Kind::Tcp => Upper::Tcp,
            Kind::Udp => Upper::Udp,
        };
        let layout = Layout::of(packet).filter(|layout| layout.upper == upper).ok_or(BurstError)?;
        let segment_bytes = usize::from(header.segment_bytes);
        if segment_bytes == 0 {
            return Err(BurstError);
        }
        let common = Common::of(packet, &layout);
        let segments = Segments { layout, common, segment_bytes, next: layout.payload, taken: 0 };
        Ok(Self { bytes: packet, rest: Rest::Segments(segments) })
    }

    /// All of it as one packet, which is what is judged.
    pub fn whole(&self) -> &[u8] {
        self.bytes
    }

    /// How many packets are still to come.
    pub fn remaining(&self) -> usize {
        match &self.rest {
            Rest::None => 0,
            Rest::Single => 1,
            Rest::Segments(segments) => segments.remaining(self.bytes.len()),
        }
    }

    /// What its packets are in all, where they come as more than one.
    pub(crate) fn load(&self) -> Option<Traffic> {
        let Rest::Segments(segments) = &self.rest else { return None };
        let packets = segments.remaining(self.bytes.len());
        // Each has the headers that the whole has once.
        let bytes = self.bytes.len() + (packets - 1) * segments.layout.payload;
        Some(Traffic { packets: packets as u64, bytes: bytes as u64 })
    }

    /// Leaves out what comes behind the packet's end, which is after so many bytes; a super-packet has nothing
    /// there.
    pub(crate) fn cut(&mut self, bytes: usize) {
        if let Rest::Single = self.rest {
            let whole = std::mem::take(&mut self.bytes);
            let end = whole.len().min(bytes);
            self.bytes = &mut whole[..end];
        }
    }

    /// The size of the next packet; none after the last.
    pub fn next_bytes(&self) -> Option<usize> {
        match &self.rest {
            Rest::None => None,
            Rest::Single => Some(self.bytes.len()),
            Rest::Segments(segments) => segments.next_bytes(self.bytes.len()),
        }
    }

    /// Writes the next packet, complete with checksums, to `room`, which is of [its
    /// size](Self::next_bytes). Nothing after the last.
    ///
    /// # Panics
    /// If it is of another size.
    pub fn write_next(&mut self, room: &mut [u8]) {
        match &mut self.rest {
            Rest::None => {}
            Rest::Single => {
                room.copy_from_slice(self.bytes);
                self.rest = Rest::None;
            }
            Rest::Segments(segments) => segments.write_next(self.bytes, room),
        }
    }
}

impl Segments {
    fn remaining(&self, total: usize) -> usize {
        let bytes = total - self.next;
        // A super-packet without payload is still one packet.
        if self.taken == 0 {
            bytes.div_ceil(self.segment_bytes).max(1)
        } else {
            bytes.div_ceil(self.segment_bytes)
        }
    }

    fn next_bytes(&self, total: usize) -> Option<usize> {
        let payload = (total - self.next).min(self.segment_bytes);
        (self.remaining(total) > 0).then_some(self.layout.payload + payload)
    }

    fn write_next(&mut self, bytes: &[u8], segment: &mut [u8]) {
        let Layout { upper, transport, payload: header_bytes } = self.layout;
        let end = bytes.len().min(self.next + self.segment_bytes);
        let is_last = end == bytes.len();
        // Of a packet whose own header says how long it is, in as many bits.
        let (total, above_bytes) = (segment.len() as u16, (segment.len() - transport) as u16);
        let (headers, payload) = segment.split_at_mut(header_bytes);
        let sum = self.common.above.and_copied(&bytes[self.next..end], payload);
        headers.copy_from_slice(&bytes[..header_bytes]);
        let (ip, above) = headers.split_at_mut(transport);
        if ip[0] >> 4 == 4 {
            // Each segment is a packet of its own (RFC 791 §3.2; so does the kernel's inet_gso_segment).
            let id = word(ip, 4).wrapping_add(self.taken);
            set_word(ip, 2, total);
            set_word(ip, 4, id);
            set_word(ip, 10, self.common.ip.and_word(total).and_word(id).checksum());
        } else {
            set_word(ip, 4, above_bytes);
        }
        let sum = sum.and_word(above_bytes);
        let sum = match upper {
            Upper::Tcp => {
                let sent = (self.next - header_bytes) as u32;
                let sequence = u32::from_be_bytes([above[4], above[5], above[6], above[7]]);
                above[4..8].copy_from_slice(&sequence.wrapping_add(sent).to_be_bytes());
                if !is_last {
                    above[13] &= !(FIN | PSH);
                }
                if self.taken > 0 {
                    above[13] &= !CWR;
                }
                sum.and_word(word(above, 4)).and_word(word(above, 6)).and_word(word(above, 12))
            }
            Upper::Udp => {
                set_word(above, 4, above_bytes);
                sum.and_word(above_bytes)
            }
        };
        set_word(above, upper.checksum_at(), present(sum.checksum(), upper));
        self.next = end;
        self.taken = self.taken.wrapping_add(1);
    }
}

/// Sums of what the headers of all segments have in common, so that each adds only what is its own.
#[derive(Debug, Clone, Copy)]
struct Common {
    /// Of IPv4's header without its lengths, identification and checksum.
    ip: Sum,
    /// Of the pseudo-header without the length, and of what is above IP without lengths, sequence number, flags
    /// and checksum.
    above: Sum,
}

impl Common {
    fn of(packet: &[u8], layout: &Layout) -> Self {
        let mut headers = [0; HEADERS_MAX_BYTES];
        let headers = &mut headers[..layout.payload];
        headers.copy_from_slice(&packet[..layout.payload]);
        let pseudo = layout.pseudo_header(headers, 0);
        let (ip, above) = headers.split_at_mut(layout.transport);
        for own in [2, 4, 10] {
            set_word(ip, own, 0);
        }
        let own: &[usize] = match layout.upper {
            Upper::Tcp => &[4, 6, 12, 16],
            Upper::Udp => &[4, 6],
        };
        own.iter().for_each(|&own| set_word(above, own, 0));
        Self { ip: Sum::of(ip), above: pseudo.and(above) }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn set_word(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// A UDP checksum that comes out as zero is sent as all ones (RFC 768); zero would say that there is none.
fn present(checksum: u16, upper: Upper) -> u16 {
    if checksum == 0 && upper == Upper::Udp { 0xffff } else { checksum }
}

/// Completes a checksum whose field holds the sum of the pseudo-header; none if it is not in the packet.
fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = packet.get_mut(start..)?;
    let checksum = Sum::of(covered).checksum();
    let field = covered.get_mut(offset..)?.first_chunk_mut::<2>()?;
    // All ones and zero are the same number here, and for UDP only the former may be sent (RFC 768). For
    // TCP it makes no difference to whoever checks.
    *field = if checksum == 0 { [0xff; 2] } else { checksum.to_be_bytes() };
    Some(())
}
