//! A prefix as numbers, cheap to compare, halve and put in order.
//!
//! Both families are left-aligned in 128 bits, so that one arithmetic serves them; blocks of
//! different families never meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use partywall_proto::nets::Prefix;

/// A prefix. The order puts what covers a block before it, and what lies in it right behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    pub(super) ipv6: bool,
    pub(super) first: u128,
    pub(super) length: u8,
}

impl Block {
    /// The block of one address.
    pub(super) fn host(address: IpAddr) -> Self {
        Prefix::host(address).into()
    }

    /// The last address, as a number.
    pub(super) fn last(self) -> u128 {
        self.first | u128::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }

    /// The block of this length that holds the first address.
    pub(super) fn cut_to(self, length: u8) -> Self {
        let mask = !u128::MAX.checked_shr(length.into()).unwrap_or(0);
        Self { first: self.first & mask, length, ..self }
    }

    /// Whether all of `other` lies in this block.
    pub(super) fn covers(self, other: Self) -> bool {
        self.ipv6 == other.ipv6
            && self.length <= other.length
            && other.cut_to(self.length).first == self.first
    }

    /// What lies in both: one of the two, because blocks nest or are apart.
    pub(super) fn meet(self, other: Self) -> Option<Self> {
        if self.covers(other) {
            return Some(other);
        }
        other.covers(self).then_some(self)
    }

    /// The two halves, the lower one first; none of a single address.
    pub(super) fn halves(self) -> Option<[Self; 2]> {
        let bits = if self.ipv6 { 128 } else { 32 };
        if self.length >= bits {
            return None;
        }
        let low = Self { length: self.length + 1, ..self };
        let high = Self { first: self.first | 1 << (127 - self.length), ..low };
        Some([low, high])
    }

    /// The first address.
    pub(super) fn address(self) -> IpAddr {
        if self.ipv6 {
            return Ipv6Addr::from_bits(self.first).into();
        }
        // Left-aligned: the upper 32 bits are the address.
        Ipv4Addr::from_bits((self.first >> 96) as u32).into()
    }

    /// As it is written.
    pub(super) fn prefix(self) -> Prefix {
        let text = format!("{}/{}", self.address(), self.length);
        text.parse().expect("a block has no host bits and a length of its family")
    }
}

impl From<Prefix> for Block {
    fn from(prefix: Prefix) -> Self {
        let first = match prefix.address() {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        Self { ipv6: !prefix.is_ipv4(), first, length: prefix.length() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        text.parse::<Prefix>().unwrap().into()
    }

    #[test]
    fn halves_are_what_a_block_is_made_of_down_to_single_addresses() {
        for (whole, low, high) in [
            ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"),
            ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),
            ("::/0", "::/1", "8000::/1"),
            ("fd00::/127", "fd00::", "fd00::1"),
        ] {
            assert_eq!(block(whole).halves(), Some([block(low), block(high)]), "{whole}");
        }
        assert_eq!(block("10.0.0.1").halves(), None);
        assert_eq!(block("fd00::1").halves(), None);
    }

    #[test]
    fn blocks_nest_or_are_apart_and_families_never_meet() {
        let (wide, narrow) = (block("10.0.0.0/8"), block("10.1.0.0/16"));
        assert_eq!(wide.meet(narrow), Some(narrow));
        assert_eq!(narrow.meet(wide), Some(narrow));
        assert_eq!(narrow.meet(block("10.2.0.0/16")), None);
        assert_eq!(block("0.0.0.0/0").meet(block("::/0")), None);
        assert_eq!(wide.prefix().to_string(), "10.0.0.0/8");
        assert_eq!(wide.last(), block("10.255.255.255").last());
        assert_eq!(block("10.1.2.3").address().to_string(), "10.1.2.3");
        assert_eq!(block("fd00::1").address().to_string(), "fd00::1");
    }
}
