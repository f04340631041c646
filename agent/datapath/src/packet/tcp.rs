//! The TCP header (RFC 9293 §3.1): ports and flags.

use super::bytes::{u8_at, u16_at};

const HEADER_MIN_BYTES: usize = 20;

/// The control bits that matter to the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpFlags(u8);

impl TcpFlags {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// From the header's byte 13.
    pub fn new(bits: u8) -> Self {
        Self(bits)
    }

    /// No more data from the sender.
    pub fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// Synchronise sequence numbers.
    pub fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// Reset.
    pub fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// The acknowledgement field counts.
    pub fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Whether this asks for a new connection: SYN without ACK.
    pub fn opens(self) -> bool {
        self.syn() && !self.ack()
    }

    /// Whether a TCP of good will could send this: exactly what no stack sends, and scanners do, is not.
    /// Every segment but the first and a reset carries ACK (RFC 9293 §3.10.7).
    pub fn make_sense(self) -> bool {
        let one_purpose = [self.syn(), self.fin(), self.rst()].into_iter().filter(|&on| on).count();
        one_purpose <= 1 && (self.ack() || self.syn() || self.rst())
    }
}

/// A checked TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Control bits.
    pub flags: TcpFlags,
}

impl Tcp {
    /// Reads the header; none if `bytes` do not hold all of it, its options included.
    pub fn new_checked(bytes: &[u8]) -> Option<Self> {
        let header = usize::from(u8_at(bytes, 12)? >> 4) * 4;
        if header < HEADER_MIN_BYTES || bytes.len() < header {
            return None;
        }
        Some(Self {
            source_port: u16_at(bytes, 0)?,
            destination_port: u16_at(bytes, 2)?,
            flags: TcpFlags::new(u8_at(bytes, 13)?),
        })
    }
}
