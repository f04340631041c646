//! Explicit congestion notification between the inner and the outer header (RFC 6040, RFC 3168).
//!
//! What a router on the underlay marked must reach the inner flow, or be seen as loss by one that
//! cannot hear marks; it is never swallowed.

use super::checksum::adjusted;

/// The codepoints of the two low bits of the TOS byte or traffic class (RFC 3168 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ecn {
    /// The flow does not understand marks.
    #[default]
    NotCapable,
    /// It does, codepoint 1 (`ECT(1)`, L4S by RFC 9331).
    Capable1,
    /// It does, codepoint 0 (`ECT(0)`).
    Capable0,
    /// A router on the way was congested (`CE`).
    Congested,
}

impl Ecn {
    /// From the low two bits of a TOS byte; the others are ignored.
    pub fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::Congested,
        }
    }

    /// As the low two bits of a TOS byte.
    pub fn bits(self) -> u8 {
        match self {
            Self::NotCapable => 0,
            Self::Capable1 => 1,
            Self::Capable0 => 2,
            Self::Congested => 3,
        }
    }

    /// What an IP packet's header says. Entering a tunnel, this is the outer header's too (RFC 6040
    /// §4.1, normal mode).
    pub fn of(packet: &[u8]) -> Self {
        match packet {
            [first, tos, ..] if first >> 4 == 4 => Self::from_bits(*tos),
            // The traffic class lies across the two bytes (RFC 8200 §3).
            [first, second, ..] if first >> 4 == 6 => Self::from_bits(second >> 4),
            _ => Self::NotCapable,
        }
    }

    /// What the inner header says after the tunnel (RFC 6040 §4.2, figure 4); none if the packet
    /// must be dropped, because it met congestion and its flow would not hear of it.
    pub fn after_tunnel(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NotCapable, Self::Congested) => None,
            (Self::NotCapable, Self::NotCapable | Self::Capable0 | Self::Capable1) => Some(inner),
            (Self::Capable0 | Self::Capable1, Self::Congested) => Some(Self::Congested),
            (Self::Capable0, Self::Capable1) => Some(Self::Capable1),
            (Self::Capable0 | Self::Capable1, _) | (Self::Congested, _) => Some(inner),
        }
    }

    /// Writes the codepoint into a packet's header, and its checksum where it has one.
    pub(crate) fn write(self, packet: &mut [u8]) {
        match packet {
            [first, tos, ..] if *first >> 4 == 4 => {
                let before = u16::from_be_bytes([*first, *tos]);
                *tos = (*tos & !3) | self.bits();
                let after = u16::from_be_bytes([*first, *tos]);
                if let Some(field) = packet.get_mut(10..12) {
                    let checksum =
                        adjusted(u16::from_be_bytes([field[0], field[1]]), before, after);
                    field.copy_from_slice(&checksum.to_be_bytes());
                }
            }
            [first, second, ..] if *first >> 4 == 6 => {
                *second = (*second & !0x30) | self.bits() << 4;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::Sum;
    use crate::testing::{packet, udp};

    #[test]
    fn decapsulation_is_the_table_of_rfc_6040() {
        use Ecn::{Capable0, Capable1, Congested, NotCapable};
        // Figure 4: rows are the inner header; columns the outer: Not-ECT, ECT(0), ECT(1), CE.
        let outers = [NotCapable, Capable0, Capable1, Congested];
        let table = [
            (NotCapable, [Some(NotCapable), Some(NotCapable), Some(NotCapable), None]),
            (Capable0, [Some(Capable0), Some(Capable0), Some(Capable1), Some(Congested)]),
            (Capable1, [Some(Capable1), Some(Capable1), Some(Capable1), Some(Congested)]),
            (Congested, [Some(Congested); 4]),
        ];
        for (inner, row) in table {
            assert_eq!(outers.map(|outer| Ecn::after_tunnel(inner, outer)), row, "{inner:?}");
        }
    }

    #[test]
    fn a_mark_is_written_and_the_checksum_still_holds() {
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let mut bytes = packet(from, to, &udp(1, 2, 3));
            if bytes[0] >> 4 == 4 {
                let checksum = Sum::of(&bytes[..20]).checksum();
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            for ecn in [Ecn::Congested, Ecn::Capable1, Ecn::Capable0, Ecn::NotCapable] {
                ecn.write(&mut bytes);
                assert_eq!(Ecn::of(&bytes), ecn);
                assert!(bytes[0] >> 4 == 6 || Sum::of(&bytes[..20]).holds());
            }
        }
    }
}
