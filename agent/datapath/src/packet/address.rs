//! An IP address as one number, cheap to mask, compare and hash.
//!
//! The family is part of the value: `::10.0.0.1` is not `10.0.0.1`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

impl Family {
    /// Bits in an address.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// An IPv4 or IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    family: Family,
    bits: u128,
}

impl Address {
    /// From the four bytes of a header.
    pub fn v4(bytes: [u8; 4]) -> Self {
        Self { family: Family::V4, bits: u32::from_be_bytes(bytes).into() }
    }

    /// From the sixteen bytes of a header.
    pub fn v6(bytes: [u8; 16]) -> Self {
        Self { family: Family::V6, bits: u128::from_be_bytes(bytes) }
    }

    /// From a family and a number that [`bits`](Self::bits) gave.
    pub(crate) fn from_bits(family: Family, bits: u128) -> Self {
        Self { family, bits }
    }

    /// Which family.
    pub fn family(self) -> Family {
        self.family
    }

    /// The address as a number; IPv4 in the lowest 32 bits.
    pub fn bits(self) -> u128 {
        self.bits
    }

    /// The number with all but the first `length` bits cleared. A `length` past the family's is all of them.
    pub fn masked(self, length: u8) -> u128 {
        let host_bits = self.family.bits().saturating_sub(length);
        match u128::MAX.checked_shl(host_bits.into()) {
            Some(mask) => self.bits & mask,
            None => 0,
        }
    }

    /// Whether no packet may ever travel to here: unspecified, loopback, or an IPv4 address dressed
    /// as IPv6 (RFC 1122 §3.2.1.3, RFC 4291 §2.5, RFC 6890).
    pub fn never_travels(self) -> bool {
        match self.family {
            // 0.0.0.0/8 and 127.0.0.0/8.
            Family::V4 => matches!(self.bits >> 24, 0 | 127),
            // ::/96 (with :: and ::1) and ::ffff:0:0/96.
            Family::V6 => matches!(self.bits >> 32, 0 | 0xffff),
        }
    }

    /// Whether this names a group or everybody, and so cannot have sent anything: multicast, IPv4
    /// limited broadcast and the reserved block around it.
    pub fn is_group(self) -> bool {
        match self.family {
            Family::V4 => self.bits >> 28 >= 0xe,
            Family::V6 => self.bits >> 120 == 0xff,
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address.octets()),
            IpAddr::V6(address) => Self::v6(address.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        match address.family {
            // Only `v4` makes this family, so that the number has 32 bits.
            Family::V4 => Ipv4Addr::from_bits((address.bits & u128::from(u32::MAX)) as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(address.bits).into(),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn masks_cover_lengths_from_none_to_all() {
        assert_eq!(address("10.1.2.3").masked(0), 0);
        assert_eq!(address("10.1.2.3").masked(8), address("10.0.0.0").bits());
        assert_eq!(address("10.1.2.3").masked(32), address("10.1.2.3").bits());
        assert_eq!(address("fd00::1").masked(0), 0);
        assert_eq!(address("fd00::1").masked(128), address("fd00::1").bits());
    }

    #[test]
    fn addresses_that_never_travel_are_known() {
        for text in ["127.0.0.1", "0.0.0.0", "::", "::1", "::ffff:10.0.0.1", "::10.0.0.1"] {
            assert!(address(text).never_travels(), "{text}");
        }
        for text in ["10.0.0.1", "fd00::1", "2001:db8::1", "224.0.0.1"] {
            assert!(!address(text).never_travels(), "{text}");
        }
        for text in ["224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert!(address(text).is_group(), "{text}");
        }
    }
}
