//! The IPv4 header (RFC 791).
//!
//! The header checksum is left to the kernel, which checks it on what it forwards.

use super::bytes::{array_at, u8_at, u16_at};
use super::{Address, Fragment, PacketError};

const HEADER_MIN_BYTES: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

// Option types (RFC 791 §3.1).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// A checked IPv4 header and what it carries.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<'a> {
    /// Header and payload, cut to the header's total length.
    pub bytes: &'a [u8],
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Which part this is; none for a whole packet.
    pub fragment: Option<Fragment>,
    /// Whether an option asks for a route of the sender's choice (RFC 7126 §4.3, §4.4).
    pub source_route: bool,
    /// What comes after the header and its options.
    pub payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Checks lengths, options and the fragment fields. `bytes` may be longer than the packet.
    ///
    /// # Errors
    /// [`PacketError::Malformed`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let header = Lengths::read(bytes).ok_or(PacketError::Malformed)?;
        let bytes = bytes.get(..header.total).ok_or(PacketError::Malformed)?;
        let payload = bytes.get(header.header..).ok_or(PacketError::Malformed)?;
        Self::read(bytes, header.header, payload)
    }

    /// The same for a packet that an ICMP error quotes, which may be cut short after its header.
    pub(super) fn quoted(bytes: &'a [u8]) -> Option<Self> {
        let header = Lengths::read(bytes)?;
        let payload = bytes.get(header.header..header.total.min(bytes.len()))?;
        // Cut to whole units, so that the end of the quote is not taken for a fragment's bad end.
        let payload = &payload[..payload.len() & !7];
        Self::read(bytes, header.header, payload).ok()
    }

    #[inline]
    fn read(bytes: &'a [u8], header: usize, payload: &'a [u8]) -> Result<Self, PacketError> {
        let field = || {
            let id = u16_at(bytes, 4)?;
            let flags = u16_at(bytes, 6)?;
            let protocol = u8_at(bytes, 9)?;
            let source = Address::v4(array_at(bytes, 12)?);
            let destination = Address::v4(array_at(bytes, 16)?);
            let options = bytes.get(HEADER_MIN_BYTES..header)?;
            Some((id, flags, protocol, source, destination, options))
        };
        let (id, flags, protocol, source, destination, options) =
            field().ok_or(PacketError::Malformed)?;
        let more = flags & MORE_FRAGMENTS != 0;
        let id = u32::from(protocol) << 16 | u32::from(id);
        let fragment = Fragment::new(id, flags & OFFSET_MASK, more, payload.len())?;
        let source_route = has_source_route(options).ok_or(PacketError::Malformed)?;
        Ok(Self { bytes, source, destination, protocol, fragment, source_route, payload })
    }
}

struct Lengths {
    header: usize,
    total: usize,
}

impl Lengths {
    fn read(bytes: &[u8]) -> Option<Self> {
        let first = u8_at(bytes, 0)?;
        let header = usize::from(first & 0xf) * 4;
        let total = usize::from(u16_at(bytes, 2)?);
        let holds = first >> 4 == 4 && header >= HEADER_MIN_BYTES && total >= header;
        holds.then_some(Self { header, total })
    }
}

/// Walks the options; none if one of them has a length that cannot be.
fn has_source_route(mut options: &[u8]) -> Option<bool> {
    let mut found = false;
    while let Some(&kind) = options.first() {
        let length = match kind {
            END_OF_OPTIONS => break,
            NO_OPERATION => 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => {
                found = true;
                option_length(options)?
            }
            _ => option_length(options)?,
        };
        options = options.get(length..)?;
    }
    Some(found)
}

fn option_length(option: &[u8]) -> Option<usize> {
    let length = usize::from(u8_at(option, 1)?);
    // Type and length themselves count.
    (length >= 2).then_some(length)
}
