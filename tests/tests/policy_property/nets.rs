//! Prefixes as numbers, for drawing them and the addresses at their edges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use partywall_proto::nets::Prefix;

use crate::dice::Dice;

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn bits_of(prefix: &Prefix) -> u8 {
    if prefix.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(like: &Prefix, number: u128) -> IpAddr {
    if like.is_ipv4() {
        return Ipv4Addr::from_bits((number & u128::from(u32::MAX)) as u32).into();
    }
    Ipv6Addr::from_bits(number).into()
}

/// Ones at the host's end.
fn host_bits(prefix: &Prefix) -> u128 {
    let free = bits_of(prefix) - prefix.length();
    1_u128.checked_shl(free.into()).unwrap_or(0).wrapping_sub(1)
}

/// The same prefix, `length` long.
pub(crate) fn of_length(prefix: &Prefix, length: u8) -> Prefix {
    at(prefix, number(prefix.address()), length)
}

fn at(like: &Prefix, bits: u128, length: u8) -> Prefix {
    let free = bits_of(like) - length;
    let kept = u128::MAX.checked_shl(free.into()).unwrap_or(0) & bits;
    format!("{}/{length}", address(like, kept)).parse().unwrap()
}

/// A prefix within `outer`, of those that often nest: they lie about a few anchors.
pub(crate) fn within(outer: &Prefix, dice: &mut Dice) -> Prefix {
    let free = bits_of(outer) - outer.length();
    let length = match dice.below(5) {
        0 => outer.length(),
        1 | 2 => outer.length() + dice.below(usize::from(free.min(4)) + 1) as u8,
        3 => bits_of(outer) - dice.below(usize::from(free.min(4)) + 1) as u8,
        _ => outer.length() + dice.below(usize::from(free) + 1) as u8,
    };
    let anchor = [0, u128::MAX, 0x5555_5555 << 2, 7][dice.below(4)];
    let mut bits = number(outer.address()) | (anchor & host_bits(outer));
    if free > 0 && dice.percent(40) {
        bits ^= 1 << dice.below(free.into());
    }
    at(outer, bits, length)
}

/// An address at an edge of `prefix`, just past it, or somewhere in it.
pub(crate) fn about(prefix: &Prefix, dice: &mut Dice) -> IpAddr {
    let (first, ones) = (number(prefix.address()), host_bits(prefix));
    let number = match dice.below(6) {
        0 => first,
        1 => first | ones,
        2 => first.wrapping_sub(1),
        3 => (first | ones).wrapping_add(1),
        _ => first | (dice.bits() & ones),
    };
    address(prefix, number)
}
