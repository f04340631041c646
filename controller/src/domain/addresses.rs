//! Overlay addresses: the same device gets the same addresses in the same segment, always.
//!
//! The first address of each pool is the gateways' own. Where a device starts looking follows from
//! its name, so that even a store that was rebuilt from manifests gives most devices what they had.
//!
//! A device's addresses end in the same bits in all its pools, where these have room for it: a gateway
//! shares its devices out to its cores by those bits, and a device must be one core's in both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use partywall_proto::ids::DeviceId;
use partywall_proto::nets::Prefix;
use sha2::{Digest, Sha256};

/// How many addresses are tried at most: bounds the search in a pool of 2^64.
const TRIES_MAX: u128 = 1 << 20;

/// A pool has no address left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pool {pool} has no free address left; widen it")]
pub struct PoolExhausted {
    /// Which pool.
    pub pool: Prefix,
}

/// The gateways' own overlay addresses, one of each pool.
pub fn gateway_addresses(pools: &[Prefix]) -> Vec<IpAddr> {
    pools.iter().map(|pool| nth(pool, 1)).collect()
}

/// The bits in which a device's addresses are alike; what a gateway's data path looks at.
const ALIKE_BITS: u32 = 16;

/// Addresses for a device, one of each pool, none of them taken.
///
/// # Errors
/// A pool without a free address.
pub fn allocate(
    pools: &[Prefix],
    device: &DeviceId,
    taken: impl Fn(IpAddr) -> bool,
) -> Result<Vec<IpAddr>, PoolExhausted> {
    let digest = Sha256::digest(device.as_str());
    let start = digest.iter().take(8).fold(0u128, |bits, &byte| (bits << 8) | u128::from(byte));
    // The smallest pool has the least choice, and so the first one.
    let leading = pools.iter().min_by_key(|pool| devices_in(pool));
    let Some(leading) = leading else { return Ok(Vec::new()) };
    let lead = free_in(leading, start, &taken)?;
    let address = |pool: &Prefix| {
        if pool == leading {
            return Ok(lead);
        }
        alike_in(pool, lead, start, &taken).map_or_else(|| free_in(pool, start, &taken), Ok)
    };
    pools.iter().map(address).collect()
}

/// Whether addresses that were given out earlier still lie in the pools, one in each.
pub fn still_fit(pools: &[Prefix], addresses: &[IpAddr]) -> bool {
    pools.len() == addresses.len()
        && pools.iter().zip(addresses).all(|(pool, address)| pool.holds(*address))
}

fn free_in(
    pool: &Prefix,
    start: u128,
    taken: &impl Fn(IpAddr) -> bool,
) -> Result<IpAddr, PoolExhausted> {
    let usable = devices_in(pool);
    (0..usable.min(TRIES_MAX))
        .map(|step| nth(pool, FIRST_DEVICE + (start + step) % usable))
        .find(|&address| !taken(address))
        .ok_or(PoolExhausted { pool: *pool })
}

/// A free address that ends as `lead` does; none where the pool has none, or is too small to have it.
fn alike_in(
    pool: &Prefix,
    lead: IpAddr,
    start: u128,
    taken: &impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    const STEP: u128 = 1 << ALIKE_BITS;
    let places = (FIRST_DEVICE + devices_in(pool)).div_ceil(STEP);
    let ending = (bits(lead) + STEP - bits(pool.address()) % STEP) % STEP;
    (0..places.min(TRIES_MAX))
        .map(|step| (start + step) % places * STEP + ending)
        .filter(|&n| n >= FIRST_DEVICE && n < FIRST_DEVICE + devices_in(pool))
        .map(|n| nth(pool, n))
        .find(|&address| !taken(address))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// After the network's own address and the gateways'.
const FIRST_DEVICE: u128 = 2;

/// Addresses for devices: all but the network's own, the gateways' and in IPv4 the broadcast.
fn devices_in(pool: &Prefix) -> u128 {
    let (bits, reserved) = match pool.is_ipv4() {
        true => (32 - pool.length(), FIRST_DEVICE + 1),
        false => (128 - pool.length(), FIRST_DEVICE),
    };
    1u128.checked_shl(bits.into()).unwrap_or(u128::MAX).saturating_sub(reserved)
}

fn nth(pool: &Prefix, n: u128) -> IpAddr {
    match pool.address() {
        // `n` is below the pool's size, which fits 32 bits here.
        IpAddr::V4(first) => {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            Ipv4Addr::from_bits(first.to_bits().saturating_add(n)).into()
        }
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().saturating_add(n)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pools(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn device(n: usize) -> DeviceId {
        format!("desk-{n}").parse().unwrap()
    }

    #[test]
    fn a_pool_is_given_out_to_the_last_address_and_none_twice() {
        let pools = pools(&["100.64.0.0/28", "fd00::/64"]);
        let mut taken = BTreeSet::new();
        for n in 0..13 {
            let addresses = allocate(&pools, &device(n), |it| taken.contains(&it)).unwrap();
            assert!(still_fit(&pools, &addresses));
            addresses.iter().for_each(|&it| assert!(taken.insert(it), "{it} given out twice"));
        }
        let full = allocate(&pools, &device(13), |it| taken.contains(&it));
        assert_eq!(full, Err(PoolExhausted { pool: pools[0] }));
        for reserved in ["100.64.0.0", "100.64.0.1", "100.64.0.15", "fd00::", "fd00::1"] {
            assert!(!taken.contains(&reserved.parse().unwrap()), "{reserved} was given out");
        }
    }

    #[test]
    fn a_devices_addresses_end_alike_where_the_pools_have_room_for_it() {
        let ending = |address: &IpAddr| bits(*address) % (1 << ALIKE_BITS);
        for texts in [
            ["100.64.0.0/16", "fd00::/64"],
            ["fd00::/64", "100.64.7.0/24"],
            ["100.64.0.0/10", "fd00::/108"],
            ["10.1.2.0/29", "fd00::5:0/112"],
        ] {
            let pools = pools(&texts);
            let mut taken = BTreeSet::new();
            for n in 0..4 {
                let addresses = allocate(&pools, &device(n), |it| taken.contains(&it)).unwrap();
                assert!(still_fit(&pools, &addresses));
                assert_eq!(ending(&addresses[0]), ending(&addresses[1]), "{addresses:?}");
                addresses.iter().for_each(|&it| assert!(taken.insert(it), "{it} given out twice"));
            }
        }
        // A pool that cannot gives what it has, and so does one whose like address is taken.
        let pools = pools(&["100.64.7.0/24", "fd00::/120"]);
        assert!(still_fit(&pools, &allocate(&pools, &device(1), |_| false).unwrap()));
    }

    #[test]
    fn an_address_whose_like_is_taken_has_another() {
        let pools = pools(&["10.1.2.0/30", "fd00::/112"]);
        let like: IpAddr = "fd00::202".parse().unwrap();
        let addresses = allocate(&pools, &device(1), |it| it == like).unwrap();
        assert_eq!(addresses[0], "10.1.2.2".parse::<IpAddr>().unwrap());
        assert_ne!(addresses[1], like);
    }

    #[test]
    fn the_same_device_starts_at_the_same_address() {
        let pools = pools(&["100.64.0.0/16", "fd00::/48"]);
        let first = allocate(&pools, &device(1), |_| false).unwrap();
        assert_eq!(allocate(&pools, &device(1), |_| false).unwrap(), first);
        assert_ne!(allocate(&pools, &device(2), |_| false).unwrap(), first);
    }

    #[test]
    fn the_gateways_have_the_first_address_of_each_pool() {
        let addresses = gateway_addresses(&pools(&["100.64.0.0/16", "fd00::/48"]));
        assert_eq!(
            addresses,
            ["100.64.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]
        );
    }

    #[test]
    fn the_smallest_and_the_largest_pools_do_not_overflow() {
        for text in ["10.0.0.0/32", "10.0.0.0/31", "10.0.0.0/30", "fd00::/128", "fd00::/127"] {
            let _ = allocate(&pools(&[text]), &device(1), |_| false);
        }
        for text in ["0.0.0.0/0", "::/0"] {
            allocate(&pools(&[text]), &device(1), |_| false).unwrap();
        }
        assert!(allocate(&pools(&["10.0.0.0/31"]), &device(1), |_| false).is_err());
    }
}
