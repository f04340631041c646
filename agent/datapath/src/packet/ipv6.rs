//! The IPv6 header and its extension headers (RFC 8200), walked with a bound.

use super::bytes::{array_at, u8_at, u16_at, u32_at};
use super::{Address, Fragment, PacketError};

const HEADER_BYTES: usize = 40;
/// RFC 8200 §4.1 recommends an order in which seven occur; nobody needs more.
const EXTENSIONS_MAX: usize = 7;

// Next header values (IANA, ipv6-parameters).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// A checked IPv6 header, its extension headers walked, and what it carries.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6<'a> {
    /// Header and payload, cut to the header's payload length.
    pub bytes: &'a [u8],
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Protocol number of the payload; in a later fragment, that of the fragmented part.
    pub protocol: u8,
    /// Which part this is; none for a whole packet.
    pub fragment: Option<Fragment>,
    /// What comes after the last extension header.
    pub payload: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// Checks lengths and walks the extension headers. `bytes` may be longer than the packet.
    /// Jumbograms (RFC 2675) are refused: no link here carries them.
    ///
    /// # Errors
    /// Malformed, a routing header of any type, too many extension headers or an unknown one, or a
    /// first fragment that ends before the transport header begins (RFC 7112).
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let total = total_bytes(bytes).ok_or(PacketError::Malformed)?;
        Self::read(bytes.get(..total).ok_or(PacketError::Malformed)?)
    }

    /// The same for a packet that an ICMP error quotes, which may be cut short after its headers.
    pub(super) fn quoted(bytes: &'a [u8]) -> Option<Self> {
        let total = total_bytes(bytes)?.min(bytes.len());
        // Cut to whole units, so that the end of the quote is not taken for a fragment's bad end.
        Self::read(&bytes[..total & !7]).ok()
    }

    fn read(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let fixed = || {
            let source = Address::v6(array_at(bytes, 8)?);
            let destination = Address::v6(array_at(bytes, 24)?);
            Some((u8_at(bytes, 6)?, source, destination, bytes.get(HEADER_BYTES..)?))
        };
        let (next, source, destination, rest) = fixed().ok_or(PacketError::Malformed)?;
        let (protocol, fragment, payload) = walk(next, rest)?;
        Ok(Self { bytes, source, destination, protocol, fragment, payload })
    }
}

fn total_bytes(bytes: &[u8]) -> Option<usize> {
    let is_v6 = u8_at(bytes, 0)? >> 4 == 6;
    let payload = usize::from(u16_at(bytes, 4)?);
    is_v6.then_some(HEADER_BYTES + payload)
}

type Walked<'a> = (u8, Option<Fragment>, &'a [u8]);

fn walk(mut next: u8, mut rest: &[u8]) -> Result<Walked<'_>, PacketError> {
    let mut fragment = None;
    for at in 0..=EXTENSIONS_MAX {
        let cut_short = match fragment {
            Some(_) => PacketError::FragmentTooShort,
            None => PacketError::Malformed,
        };
        let length = match next {
            // Only right after the fixed header (RFC 8200 §4.1).
            HOP_BY_HOP if at > 0 => return Err(PacketError::ExtensionHeaders),
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                // In units of 8 bytes, the first not counted (RFC 8200 §4.3).
                8 + 8 * usize::from(u8_at(rest, 1).ok_or(cut_short)?)
            }
            ROUTING => return Err(PacketError::SourceRoute),
            MOBILITY | HOST_IDENTITY | SHIM6 => return Err(PacketError::ExtensionHeaders),
            FRAGMENT if fragment.is_some() => return Err(PacketError::ExtensionHeaders),
            FRAGMENT => {
                fragment = read_fragment(rest)?;
                8
            }
            _ => return Ok((next, fragment, rest)),
        };
        let after = rest.get(length..).ok_or(cut_short)?;
        next = u8_at(rest, 0).ok_or(cut_short)?;
        rest = after;
        if fragment.is_some_and(|part| !part.is_first()) {
            return Ok((next, fragment, rest));
        }
    }
    Err(PacketError::ExtensionHeaders)
}

/// Reads the fragment header (RFC 8200 §4.5) at the start of `bytes`.
fn read_fragment(bytes: &[u8]) -> Result<Option<Fragment>, PacketError> {
    let fields = || Some((u16_at(bytes, 2)?, u32_at(bytes, 4)?));
    let (offset, id) = fields().ok_or(PacketError::Malformed)?;
    Fragment::new(id, offset >> 3, offset & 1 != 0, bytes.len() - 8)
}
