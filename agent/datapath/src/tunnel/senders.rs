//! How many handshakes each address may ask for once it has proved, by a cookie, that it is its own.
//!
//! Without this, whoever answers one cookie keeps a core busy. Memory is fixed: addresses share places
//! by a keyed hash, so that nobody chooses whose place is used up.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Places for addresses. A flood from a whole block of them still leaves most places free.
const PLACES: usize = 1 << 12;
/// What may come at once, as time in which it would come evenly: a site behind one address.
const BURST: Duration = Duration::from_secs(1);

/// Places for addresses, each with the time by which what came so far would be due if it came evenly
/// (the generic cell rate algorithm of ITU-T I.371).
pub(crate) struct Senders {
    due_at: Box<[Instant]>,
    apart: Duration,
    hash: RandomState,
}

impl Senders {
    /// The memory that it takes.
    pub(crate) const BYTES: usize = PLACES * size_of::<Instant>();

    /// Each address may ask `per_s` times a second.
    pub(crate) fn new(per_s: u32, now: Instant) -> Self {
        let apart = Duration::from_secs(1) / per_s.max(1);
        Self { due_at: vec![now; PLACES].into_boxed_slice(), apart, hash: RandomState::new() }
    }

    /// Whether one more is let in from this address.
    pub(crate) fn admit(&mut self, from: IpAddr, now: Instant) -> bool {
        let place = self.hash.hash_one(network(from)) % PLACES as u64;
        let due_at = &mut self.due_at[place as usize];
        if due_at.saturating_duration_since(now) >= BURST {
            return false;
        }
        *due_at = (*due_at).max(now) + self.apart;
        true
    }
}

/// What one sender has for itself: an IPv4 address, or an IPv6 /64 (RFC 6177 §2).
fn network(from: IpAddr) -> u64 {
    match from {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn admitted(senders: &mut Senders, from: &str, tries: u32, now: Instant) -> usize {
        let from = from.parse().unwrap();
        (0..tries).filter(|_| senders.admit(from, now)).count()
    }

    #[test]
    fn an_address_that_asks_too_often_is_refused_and_the_others_are_not() {
        let now = start();
        let mut senders = Senders::new(10, now);
        assert_eq!(admitted(&mut senders, "192.0.2.1", 1000, now), 10);
        assert_eq!(admitted(&mut senders, "192.0.2.1", 1000, now + BURST / 2), 5);
        // Some share its place: by chance one in thousands.
        let others = (0..=255)
            .filter(|host| admitted(&mut senders, &format!("198.51.100.{host}"), 1, now) == 1);
        assert!(others.count() >= 250);
    }

    #[test]
    fn an_ipv6_sender_gains_nothing_from_the_rest_of_its_network() {
        let now = start();
        let mut senders = Senders::new(10, now);
        let hosts = (0..100).map(|host| format!("2001:db8::{host:x}"));
        let admitted: usize = hosts.map(|host| admitted(&mut senders, &host, 1, now)).sum();
        assert_eq!(admitted, 10);
    }
}
