//! What a rule can tell apart above IP, as a set: TCP ports, UDP ports, ICMP.

use partywall_proto::nets::{PortRange, Protocol};
use partywall_proto::rules::Match;

/// A set of (protocol, responder's port).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Space {
    tcp: Ports,
    udp: Ports,
    icmp: bool,
}

impl Space {
    /// Everything that the filter tracks.
    pub(super) fn all() -> Self {
        Self { tcp: Ports::all(), udp: Ports::all(), icmp: true }
    }

    /// What a match speaks of: no protocol is all of them, no ports are all ports.
    pub(super) fn of(protocol: Option<Protocol>, ports: &[PortRange]) -> Self {
        match protocol {
            None => Self::all(),
            Some(Protocol::Tcp) => Self { tcp: Ports::of(ports), ..Self::default() },
            Some(Protocol::Udp) => Self { udp: Ports::of(ports), ..Self::default() },
            Some(Protocol::Icmp) => Self { icmp: true, ..Self::default() },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tcp.0.is_empty() && self.udp.0.is_empty() && !self.icmp
    }

    pub(super) fn holds(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => self.tcp.holds(port),
            Protocol::Udp => self.udp.holds(port),
            Protocol::Icmp => self.icmp,
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        self.tcp.subtract(&other.tcp);
        self.udp.subtract(&other.udp);
        self.icmp &= !other.icmp;
    }

    pub(super) fn meet(&self, other: &Self) -> Self {
        Self {
            tcp: self.tcp.meet(&other.tcp),
            udp: self.udp.meet(&other.udp),
            icmp: self.icmp && other.icmp,
        }
    }

    /// What it holds, by protocol; ICMP has no ports.
    pub(super) fn ranges(&self) -> Vec<(Protocol, Vec<PortRange>)> {
        let mut found = Vec::new();
        for (protocol, ports) in [(Protocol::Tcp, &self.tcp), (Protocol::Udp, &self.udp)] {
            if !ports.0.is_empty() {
                found.push((protocol, ports.ranges()));
            }
        }
        if self.icmp {
            found.push((Protocol::Icmp, Vec::new()));
        }
        found
    }

    /// One element, of which a person would think first: a port rather than echo, the lowest but 0.
    pub(super) fn example(&self) -> Option<(Protocol, u16)> {
        let tcp = self.tcp.example().map(|port| (Protocol::Tcp, port));
        let udp = || self.udp.example().map(|port| (Protocol::Udp, port));
        tcp.or_else(udp).or(self.icmp.then_some((Protocol::Icmp, 0)))
    }
}

impl From<&Match> for Space {
    fn from(matches: &Match) -> Self {
        Self::of(matches.protocol(), matches.ports())
    }
}

/// Ports as ranges in order, which neither overlap nor touch; both ends are included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ports(Vec<(u16, u16)>);

impl Ports {
    fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    fn of(ranges: &[PortRange]) -> Self {
        if ranges.is_empty() {
            return Self::all();
        }
        let mut sorted: Vec<_> = ranges.iter().map(|range| (range.first(), range.last())).collect();
        sorted.sort_unstable();
        let mut ports = Self::default();
        for (first, last) in sorted {
            match ports.0.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                Some(_) | None => ports.0.push((first, last)),
            }
        }
        ports
    }

    fn holds(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    fn subtract(&mut self, other: &Self) {
        if self.0.is_empty() || other.0.is_empty() {
            return;
        }
        let mut rest = Vec::with_capacity(self.0.len());
        for &(first, last) in &self.0 {
            // Where the part that may still be left begins; none where nothing is.
            let mut from = Some(first);
            for &(cut_first, cut_last) in &other.0 {
                let Some(start) = from.filter(|start| *start <= last) else { break };
                if cut_last < start || cut_first > last {
                    continue;
                }
                if cut_first > start {
                    rest.push((start, cut_first - 1));
                }
                from = cut_last.checked_add(1);
            }
            if let Some(start) = from.filter(|start| *start <= last) {
                rest.push((start, last));
            }
        }
        self.0 = rest;
    }

    fn meet(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a, b)));
        let both = pairs.map(|(a, b)| (a.0.max(b.0), a.1.min(b.1)));
        Self(both.filter(|(first, last)| first <= last).collect())
    }

    fn ranges(&self) -> Vec<PortRange> {
        let text = |(first, last): &(u16, u16)| format!("{first}-{last}");
        let range = |it| text(it).parse().expect("the first port is not above the last");
        self.0.iter().map(range).collect()
    }

    fn example(&self) -> Option<u16> {
        let &(first, last) = self.0.first()?;
        Some(if first == 0 && last > 0 { 1 } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ports at both ends of the range, where off-by-one errors live.
    fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
        let range = (0_u16..12, 0_u16..5, any::<bool>()).prop_map(|(first, more, top)| {
            let base = if top { u16::MAX - 16 } else { 0 };
            format!("{}-{}", base + first, base + first + more).parse().unwrap()
        });
        proptest::collection::vec(range, 1..5)
    }

    proptest! {
        #[test]
        fn sets_of_ports_do_as_asking_each_port_does(a in ranges(), b in ranges()) {
            let space = |ranges: &[PortRange]| Space::of(Some(Protocol::Tcp), ranges);
            let (left, right) = (space(&a), space(&b));
            let mut rest = left.clone();
            rest.subtract(&right);
            let both = left.meet(&right);
            for port in (0..20).chain(u16::MAX - 20..=u16::MAX) {
                let holds = |ranges: &[PortRange]| ranges.iter().any(|range| range.holds(port));
                let (in_a, in_b) = (holds(&a), holds(&b));
                prop_assert_eq!(left.holds(Protocol::Tcp, port), in_a);
                prop_assert_eq!(rest.holds(Protocol::Tcp, port), in_a && !in_b, "port {}", port);
                prop_assert_eq!(both.holds(Protocol::Tcp, port), in_a && in_b, "port {}", port);
            }
            prop_assert_eq!(rest.is_empty(), rest.example().is_none());
            if let Some((protocol, port)) = rest.example() {
                prop_assert!(rest.holds(protocol, port));
            }
        }
    }

    #[test]
    fn protocols_are_apart_and_no_protocol_is_all_of_them() {
        let mut all = Space::of(None, &[]);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            assert!(all.holds(protocol, 0));
            all.subtract(&Space::of(Some(protocol), &[]));
            assert!(!all.holds(protocol, 0));
        }
        assert!(all.is_empty());
    }
}
