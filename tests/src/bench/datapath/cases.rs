//! What is measured of the data path, one case each.
//!
//! A case sets itself up and returns its work; the work does one batch, and hands the meter only the part
//! that counts. Each batch checks that what it was to do was done: dropping packets is fast.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use partywall_datapath::RuleTable;
use partywall_datapath::filter::{Direction, Filter, Party, PeerView, Verdict};
use partywall_datapath::packet::{self, Packet};
use partywall_datapath::shard::{Limits, Outbox, Role, Run};
use partywall_proto::nets::Protocol;
use partywall_proto::rules::Action;

use super::super::config::{self, CLASSES, GATEWAY};
use super::super::{Better, Row};
use super::meter::Meter;
use super::offload;
use super::packets::{self, ACK, Ends, SYN};
use super::wire::{Wire, device_at, replace, shard};

/// Does one batch.
pub(super) type Work = Box<dyn FnMut(&mut Meter)>;

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    name: &'static str,
    /// How many rules are loaded, where that is what differs.
    rules: Option<u32>,
    pub(super) measure: Measure,
    work: fn(u32) -> Result<Work>,
}

/// What a case's figure is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// A packet of a flow that is known.
    Hit,
    /// A flow's first packet; whether it is held to the bar.
    Miss { held: bool },
    /// A packet on its way, for comparison.
    Packet,
    /// A call, answered.
    Handshake,
}

const HIT_BAR_NS: f64 = 60.0;
const MISS_BAR_NS: f64 = 400.0;
const HANDSHAKES_BAR_PER_S: f64 = 1500.0;

/// Flows of a batch: a gateway has thousands open, and no cache holds the state of all.
const FLOWS: usize = 4096;
/// Packets of a batch that goes through a shard; as many as an agent reads in one turn.
const PACKETS: usize = 64;
/// Devices of a batch that call.
const CALLERS: u32 = 128;

const FULL_BYTES: usize = 1420;
const SMALL_BYTES: usize = 64;

const fn packet(name: &'static str, work: fn(u32) -> Result<Work>) -> Case {
    Case { name, rules: None, measure: Measure::Packet, work }
}

const fn hit(rules: u32) -> Case {
    Case { name: "filter hit", rules: Some(rules), measure: Measure::Hit, work: filter_hit }
}

const fn miss(rules: u32, held: bool) -> Case {
    let measure = Measure::Miss { held };
    Case { name: "filter miss", rules: Some(rules), measure, work: filter_miss }
}

const fn refusal(rules: u32) -> Case {
    let measure = Measure::Miss { held: false };
    Case { name: "filter miss, refused", rules: Some(rules), measure, work: filter_refusal }
}

/// All of them.
pub(super) const CASES: &[Case] = &[
    hit(10),
    hit(1000),
    hit(100_000),
    miss(10, false),
    miss(1000, false),
    miss(100_000, true),
    refusal(100_000),
    packet("read a packet's headers", |_| read_headers()),
    packet("send 1,420 bytes: judge and seal", |_| seal(FULL_BYTES)),
    packet("send 64 bytes: judge and seal", |_| seal(SMALL_BYTES)),
    packet("receive 1,420 bytes: open and judge", |_| open(FULL_BYTES)),
    packet("receive 64 bytes: open and judge", |_| open(SMALL_BYTES)),
    packet("split a super-packet, each packet", |_| offload::split()),
    packet("send a super-packet, each packet", |_| offload::seal_burst()),
    packet("put a super-packet together, each packet", |_| offload::coalesce()),
    Case {
        name: "handshakes answered, one core",
        rules: None,
        measure: Measure::Handshake,
        work: |_| answer(),
    },
];

impl Case {
    /// As its rows are called.
    pub(super) fn name(&self) -> String {
        match self.rules {
            Some(rules) => format!("{}, {rules} rules", self.name),
            None => self.name.to_owned(),
        }
    }

    /// As it is called on a command line.
    pub(super) fn slug(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        self.name().chars().map(plain).collect()
    }

    /// Makes what it works on.
    pub(super) fn set_up(&self) -> Result<Work> {
        (self.work)(self.rules.unwrap_or_default())
    }

    /// What is shown of a time in nanoseconds.
    pub(super) fn figure(&self, ns: f64) -> f64 {
        match self.measure {
            Measure::Hit | Measure::Miss { .. } | Measure::Packet => ns,
            Measure::Handshake => 1e9 / ns,
        }
    }

    /// The row of its figures.
    pub(super) fn row(&self, figures: &[f64]) -> Row {
        let name = self.name();
        match self.measure {
            Measure::Hit => Row::new(&name, "ns", figures, HIT_BAR_NS, Better::Lower),
            Measure::Miss { held: true } => {
                Row::new(&name, "ns", figures, MISS_BAR_NS, Better::Lower)
            }
            Measure::Miss { held: false } | Measure::Packet => Row::shown(&name, "ns", figures),
            Measure::Handshake => {
                Row::new(&name, "1/s", figures, HANDSHAKES_BAR_PER_S, Better::Higher)
            }
        }
    }
}

/// A gateway's filter, and the device whose packets it judges.
struct Judge {
    filter: Filter,
    party: Arc<Party>,
    now: Instant,
}

impl Judge {
    fn with_rules(count: u32) -> Result<Self> {
        let limits = Limits { flows_per_peer: 2 * FLOWS, ..Limits::for_role(Role::Gateway) };
        let mut filter = Filter::new(Role::Gateway, &limits);
        filter.set_rules(Arc::new(RuleTable::compile(&config::rules(count)?)));
        let party = Arc::new(Party { agent: "device/desk-1".parse()?, session: None });
        Ok(Self { filter, party, now: Instant::now() })
    }

    /// Judges packets of the device; how many pass.
    fn passing(&mut self, direction: Direction, packets: &[Packet<'_>]) -> usize {
        let (number, connected_at) = (0, Some(self.now));
        let peer = PeerView { number, classes: &CLASSES, connected_at, party: &self.party };
        let mut pass =
            |packet| self.filter.verdict(direction, packet, &peer, self.now) == Verdict::Pass;
        packets.iter().filter(|packet| pass(packet)).count()
    }
}

/// As many conversations that the rules allow, over all destinations in turn.
fn allowed(rules: u32) -> Result<Vec<(Protocol, Ends)>> {
    let rules = config::rules(rules)?;
    let concerns = rules.iter().filter(|rule| {
        let it = &rule.matches;
        rule.action == Action::Allow && it.class().is_none_or(|class| CLASSES.contains(&class))
    });
    let mut targets = Vec::new();
    for rule in concerns {
        let std::net::IpAddr::V4(address) = rule.matches.prefix().address() else { continue };
        let Some((protocol, port)) = rule.matches.protocol().zip(rule.matches.ports().first())
        else {
            continue;
        };
        targets.push((protocol, (address, port.first())));
    }
    ensure!(!targets.is_empty(), "no rule allows the device anything");
    let from = |at: usize| (config::address(1), 1024 + at as u16);
    let all = targets.iter().cycle().take(FLOWS).enumerate();
    Ok(all.map(|(at, (protocol, to))| (*protocol, Ends { from: from(at), to: *to })).collect())
}

/// Bytes that packets borrow for as long as the program runs, which does nothing else.
fn parsed(packets: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Packet<'static>>> {
    packets.map(|bytes| Ok(packet::parse(bytes.leak())?)).collect()
}

fn first_packet((protocol, ends): &(Protocol, Ends)) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => packets::tcp(*ends, SYN, 0, SMALL_BYTES),
        Protocol::Udp | Protocol::Icmp => packets::udp(*ends, SMALL_BYTES),
    }
}

fn filter_hit(rules: u32) -> Result<Work> {
    let mut judge = Judge::with_rules(rules)?;
    let flows = allowed(rules)?;
    let tcp = |ends: Ends, flags| packets::tcp(ends, flags, 1, SMALL_BYTES);
    let later = |(protocol, ends): &(Protocol, Ends), back: bool| {
        let ends = if back { ends.reversed() } else { *ends };
        match protocol {
            Protocol::Tcp => tcp(ends, if back { SYN | ACK } else { ACK }),
            Protocol::Udp | Protocol::Icmp => packets::udp(ends, SMALL_BYTES),
        }
    };
    let opened = judge.passing(Direction::OutOfTunnel, &parsed(flows.iter().map(first_packet))?);
    let answers = parsed(flows.iter().map(|flow| later(flow, true)))?;
    let answered = judge.passing(Direction::IntoTunnel, &answers);
    ensure!(opened == FLOWS && answered == FLOWS, "{opened} opened, {answered} answered");
    let packets = parsed(flows.iter().map(|flow| later(flow, false)))?;
    Ok(Box::new(move |meter| {
        let mut passed = 0;
        meter.each(FLOWS, || passed = judge.passing(Direction::OutOfTunnel, &packets));
        assert_eq!(passed, FLOWS);
    }))
}

fn filter_miss(rules: u32) -> Result<Work> {
    let mut judge = Judge::with_rules(rules)?;
    let packets = parsed(allowed(rules)?.iter().map(first_packet))?;
    Ok(Box::new(move |meter| {
        judge.filter.cut_peer(0);
        let mut passed = 0;
        meter.each(FLOWS, || passed = judge.passing(Direction::OutOfTunnel, &packets));
        assert_eq!((passed, judge.filter.flows()), (FLOWS, FLOWS));
    }))
}

fn filter_refusal(rules: u32) -> Result<Work> {
    let mut judge = Judge::with_rules(rules)?;
    // Nothing is allowed on port 9, so every rule of every such destination is looked up in vain.
    let refused = allowed(rules)?
        .into_iter()
        .map(|(_, ends)| packets::udp(Ends { to: (ends.to.0, 9), ..ends }, SMALL_BYTES));
    let packets = parsed(refused)?;
    Ok(Box::new(move |meter| {
        let mut passed = 0;
        meter.each(FLOWS, || passed = judge.passing(Direction::OutOfTunnel, &packets));
        assert_eq!(passed, 0);
    }))
}

fn read_headers() -> Result<Work> {
    let ends = |at: usize| Ends {
        from: (config::address(1), 1024 + at as u16),
        to: (Ipv4Addr::new(10, 1, 0, 10), 443),
    };
    let packets: Vec<_> =
        (0..FLOWS).map(|at| packets::tcp(ends(at), ACK, 1, SMALL_BYTES)).collect();
    Ok(Box::new(move |meter| {
        let mut read = 0;
        meter.each(FLOWS, || {
            read = packets.iter().filter(|bytes| packet::parse(bytes).is_ok()).count();
        });
        assert_eq!(read, FLOWS);
    }))
}

fn seal(bytes: usize) -> Result<Work> {
    let Wire { mut device, ends, .. } = Wire::connected()?;
    let packet = packets::udp(ends, bytes);
    let mut out = Outbox::new();
    Ok(Box::new(move |meter| {
        out.clear();
        let now = Instant::now();
        meter.each(PACKETS, || {
            (0..PACKETS).for_each(|_| device.handle_packet(&packet, now, &mut out));
        });
        assert_eq!(out.datagrams().len(), PACKETS);
    }))
}

fn open(bytes: usize) -> Result<Work> {
    let Wire { mut device, mut gateway, ends } = Wire::connected()?;
    let packet = packets::udp(ends, bytes);
    let (mut near, mut far) = (Outbox::new(), Outbox::new());
    Ok(Box::new(move |meter| {
        near.clear();
        far.clear();
        let now = Instant::now();
        (0..PACKETS).for_each(|_| device.handle_packet(&packet, now, &mut near));
        // As one read brings them.
        let run = |run: Run<'_>| (run.bytes.to_vec(), run.segment_bytes);
        let mut trains: Vec<_> = near.runs().map(run).collect();
        meter.each(PACKETS, || {
            for (bytes, segment_bytes) in &mut trains {
                let from = device_at(1);
                gateway.handle_datagrams(from, bytes, *segment_bytes, now, &mut far, |_| {});
            }
        });
        assert_eq!(far.packets().len(), PACKETS);
    }))
}

fn answer() -> Result<Work> {
    let start = Instant::now();
    let mut gateway = shard(Role::Gateway, GATEWAY, start);
    let mut out = Outbox::new();
    gateway.apply(&replace(config::gateway(CALLERS, config::allow_all()?)?), start, &mut out);
    let updates = (1..=CALLERS)
        .map(|number| Ok((number, replace(config::device(number, config::allow_all()?)?))))
        .collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |meter| {
        let mut calls: Vec<(u32, Vec<u8>)> = Vec::new();
        for (number, update) in &updates {
            let now = Instant::now();
            let mut device = shard(Role::Device, *number, now);
            out.clear();
            device.apply(update, now, &mut out);
            calls.extend(out.datagrams().map(|call| (*number, call.bytes.to_vec())));
        }
        out.clear();
        let now = Instant::now();
        meter.each(calls.len(), || {
            for (number, call) in &mut calls {
                let (from, bytes) = (device_at(*number), call.len());
                gateway.handle_datagrams(from, call, bytes, now, &mut out, |_| {});
            }
        });
        let answers = out.datagrams().len();
        assert_eq!((calls.len(), answers), (CALLERS as usize, CALLERS as usize));
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_does_what_it_measures() {
        for case in CASES.iter().filter(|case| case.rules.is_none_or(|rules| rules <= 1000)) {
            let mut work =
                case.set_up().unwrap_or_else(|error| panic!("{}: {error:#}", case.name()));
            let mut meter = Meter::time();
            work(&mut meter);
            work(&mut meter);
            assert!(meter.count() > 0, "{}", case.name());
        }
    }

    #[test]
    fn cases_are_told_apart_by_their_names_on_the_command_line() {
        let slugs: BTreeSet<_> = CASES.iter().map(Case::slug).collect();
        assert_eq!(slugs.len(), CASES.len());
    }
}
