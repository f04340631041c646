//! Which shard of an agent owns a peer: arithmetic that every shard, the controller's addresses and the
//! kernel's steering programs have in common.
//!
//! All of them must agree: where one differs, packets are still carried, but each goes through two
//! shards. That is why there is nothing here but a remainder.

use partywall_proto::nets::Prefix;

use crate::packet::Address;

/// The bits of an overlay address, from the lowest, that name its owner. The controller gives a device
/// the same ones in every family, where the pools have them.
pub const OWNER_BITS: u32 = 16;

/// The shard, out of `shards`, that owns whoever has this overlay address for itself.
pub fn owner_of_address(address: Address, shards: u16) -> u16 {
    // What is left of it fits the 16 bits.
    let low = (address.bits() & ((1 << OWNER_BITS) - 1)) as u16;
    low % shards.max(1)
}

/// The shard, out of `shards`, that owns whoever has these allowed IPs. The first address decides; a
/// peer with a whole prefix, which no address can name, belongs to shard 0.
pub(crate) fn owner_of_peer(allowed_ips: &[Prefix], shards: u16) -> u16 {
    let whole =
        |prefix: &Prefix| prefix.length() == Address::from(prefix.address()).family().bits();
    match allowed_ips.first() {
        Some(first) if allowed_ips.iter().all(whole) => {
            owner_of_address(first.address().into(), shards)
        }
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(allowed_ips: &[&str], shards: u16) -> u16 {
        let allowed_ips: Vec<_> = allowed_ips.iter().map(|text| text.parse().unwrap()).collect();
        owner_of_peer(&allowed_ips, shards)
    }

    #[test]
    fn the_low_bits_of_its_first_address_name_a_peers_owner() {
        for (shards, expected) in [(1, 0), (2, 1), (3, 2), (4, 1)] {
            assert_eq!(owner(&["100.64.0.5", "fd64::5"], shards), expected);
            assert_eq!(owner(&["fd64::5", "100.64.0.6"], shards), expected);
        }
        // 0x0705 and 0xffff_0705 are the same to it: higher bits do not count.
        assert_eq!(owner(&["100.64.7.5"], 7), 0x0705 % 7);
        assert_eq!(owner(&["fd64::ffff:0705"], 7), 0x0705 % 7);
    }

    #[test]
    fn a_peer_with_a_prefix_or_with_nothing_belongs_to_the_first_shard() {
        assert_eq!(owner(&["10.0.0.1", "10.1.0.0/16"], 2), 0);
        assert_eq!(owner(&["fd00::2/127"], 2), 0);
        assert_eq!(owner(&[], 2), 0);
        assert_eq!(owner(&["10.0.0.1"], 0), 0);
    }
}
