//! The UDP header (RFC 768): ports, and a length that must fit.

use super::bytes::u16_at;

const HEADER_BYTES: usize = 8;

/// A checked UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Udp {
    /// Reads the header; none if it is cut short or its length does not fit. Of a fragmented packet
    /// (`whole` is false) the length reaches past the first part.
    pub fn new_checked(bytes: &[u8], whole: bool) -> Option<Self> {
        let length = usize::from(u16_at(bytes, 4)?);
        let fits = length >= HEADER_BYTES && (!whole || length <= bytes.len());
        if !fits || bytes.len() < HEADER_BYTES {
            return None;
        }
        Some(Self { source_port: u16_at(bytes, 0)?, destination_port: u16_at(bytes, 2)? })
    }
}
