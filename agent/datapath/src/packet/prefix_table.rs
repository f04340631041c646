//! Values by prefix, found by longest match.
//!
//! One hash lookup for each prefix length in use, longest first: overlay peers have host prefixes
//! and segments a handful of lengths, so that cost does not grow with the number of entries.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use partywall_proto::nets::Prefix;

use super::{Address, Family};

type Key = (Family, u8, u128);

/// Values by prefix.
#[derive(Debug)]
pub struct PrefixTable<V> {
    /// Lengths in use with the number of entries, longest first.
    lengths_v4: Vec<(u8, usize)>,
    lengths_v6: Vec<(u8, usize)>,
    entries: HashMap<Key, V, RandomState>,
}

impl<V> Default for PrefixTable<V> {
    fn default() -> Self {
        Self { lengths_v4: Vec::new(), lengths_v6: Vec::new(), entries: HashMap::default() }
    }
}

impl<V> PrefixTable<V> {
    /// Adds a value, or replaces the one that was at exactly this prefix.
    pub fn insert(&mut self, prefix: Prefix, value: V) {
        let key = key(prefix);
        if self.entries.insert(key, value).is_some() {
            return;
        }
        let lengths = self.lengths_mut(key.0);
        match lengths.binary_search_by(|(held, _)| key.1.cmp(held)) {
            Ok(at) => lengths[at].1 += 1,
            Err(at) => lengths.insert(at, (key.1, 1)),
        }
    }

    /// Takes out the value at exactly this prefix.
    pub fn remove(&mut self, prefix: Prefix) -> Option<V> {
        let key = key(prefix);
        let removed = self.entries.remove(&key)?;
        let lengths = self.lengths_mut(key.0);
        if let Ok(at) = lengths.binary_search_by(|(held, _)| key.1.cmp(held)) {
            lengths[at].1 -= 1;
            if lengths[at].1 == 0 {
                lengths.remove(at);
            }
        }
        Some(removed)
    }

    /// The value at exactly this prefix.
    pub fn at(&self, prefix: Prefix) -> Option<&V> {
        self.entries.get(&key(prefix))
    }

    /// The value of the longest prefix that holds `address`.
    pub fn find(&self, address: Address) -> Option<&V> {
        let family = address.family();
        let lengths = match family {
            Family::V4 => &self.lengths_v4,
            Family::V6 => &self.lengths_v6,
        };
        let mut keys = lengths.iter().map(|&(length, _)| (family, length, address.masked(length)));
        keys.find_map(|key| self.entries.get(&key))
    }

    fn lengths_mut(&mut self, family: Family) -> &mut Vec<(u8, usize)> {
        match family {
            Family::V4 => &mut self.lengths_v4,
            Family::V6 => &mut self.lengths_v6,
        }
    }
}

fn key(prefix: Prefix) -> Key {
    let address = Address::from(prefix.address());
    (address.family(), prefix.length(), address.bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn the_longest_prefix_wins_and_the_next_one_takes_over_when_it_goes() {
        let mut table = PrefixTable::default();
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "fd00::/8", "10.1.2.3"] {
            table.insert(text.parse().unwrap(), text);
        }
        assert_eq!(table.find(address("10.1.2.3")), Some(&"10.1.2.3"));
        table.remove("10.1.2.3".parse().unwrap());
        assert_eq!(table.find(address("10.1.2.3")), Some(&"10.1.0.0/16"));
        table.remove("10.1.0.0/16".parse().unwrap());
        assert_eq!(table.find(address("10.1.2.3")), Some(&"10.0.0.0/8"));
        assert_eq!(table.find(address("192.0.2.1")), Some(&"0.0.0.0/0"));
        assert_eq!(table.find(address("fd12::1")), Some(&"fd00::/8"));
        assert_eq!(table.find(address("2001:db8::1")), None);
    }
}
