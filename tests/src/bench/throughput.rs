//! Partywall's data path against other userspace WireGuards and against the floor, with the filter on.
//!
//! Labs of the same topology stand side by side and take turns, so that whatever else the machine does
//! hits all alike. Each turn measures one tunnel while the others are idle.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::bare::{Bare, cipher_s_per_gb};
use super::iperf::{Congestion, Streamed, Target};
use super::machine::undisturbed;
use super::metric::Metric;
use super::ping::{self, Pings};
use super::rival::{BORINGTUN, GOTATUN, Rival, WIREGUARD_GO};
use super::row::median;
use super::side::Side;
use super::{Better, Row, idle, policy};
use crate::lab::Topology;

/// Loaded while the data path is measured, and one of them matches.
const RULES: u32 = 1000;
/// Both ends of the comparison that the number of rules must not show in.
const FEW_RULES: u32 = 1;
const MANY_RULES: u32 = 100_000;
/// How often a rival is started until its tunnel carries packets.
const RIVAL_STARTS: usize = 5;
/// What many rules must leave of the throughput with few.
const MANY_RULES_BAR: f64 = 0.97;

// Long enough for TCP to settle, short enough for five rounds of all sides in a coffee break.
const TCP_S: u32 = 4;
const UDP_S: u32 = 3;
const RULES_S: u32 = 3;
const BARE_S: u32 = 3;

/// Four of them are above p99.
const LOADED_PINGS: usize = 400;
/// Until the stream beside them has filled its queues.
const LOADED_PINGS_SKIPPED: usize = 40;
/// Outlasts the pings, lost ones included.
const LOAD_S: u32 = 10;

const LARGE_BYTES: u32 = 1300;
const SMALL_BYTES: u32 = 64;

/// A part of the measurements; all of them unless some are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// TCP streams, and the floor under their cost.
    Tcp,
    /// Datagrams.
    Udp,
    /// Round trips, idle and under a bulk transfer.
    RoundTrip,
    /// Round trips beside a bulk transfer, where the device's own link is slow.
    SlowLink,
    /// One stream with few and with many rules.
    Rules,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Udp, Self::RoundTrip, Self::SlowLink, Self::Rules];
}

type Figures = BTreeMap<Metric, Vec<f64>>;

/// Measures each tunnel in `rounds` rounds; `told` hears how it goes.
///
/// # Errors
/// A tunnel does not come up, or a measuring tool fails.
pub fn throughput(
    rounds: usize,
    parts: &[Part],
    congestion: Congestion,
    mut told: impl FnMut(&str),
) -> Result<Vec<Row>> {
    let topology = Topology::named("pair")?;
    let address = topology.ipv4("server", "inside").to_string();
    let target = Target { address, port: 5201, congestion };
    let partywall = |rules| Side::partywall(&topology, &policy::site(&topology, rules)?);
    let mut sides = Vec::new();
    if parts.iter().any(|part| *part != Part::Rules) {
        sides.push(("partywall", partywall(RULES)?));
        for rival in [&BORINGTUN, &GOTATUN, &WIREGUARD_GO] {
            let side =
                rival_up(&topology, rival, &target).with_context(|| rival.name.to_owned())?;
            sides.push((rival.name, side));
        }
    }
    let mut figures: BTreeMap<&str, Figures> = BTreeMap::new();
    let mut floor = match parts.contains(&Part::Tcp) {
        true => Some(Floor::new(Bare::up(&topology, congestion)?)),
        false => None,
    };
    let mut rules = match parts.contains(&Part::Rules) {
        true => Some(Rules::new(partywall(FEW_RULES)?, many_rules(partywall, &mut told)?)),
        false => None,
    };
    for round in 1..=rounds {
        let mut worst = 0.0;
        if parts.contains(&Part::RoundTrip) {
            told(&format!("round {round} of {rounds}: all tunnels, idle"));
            let (pings, stolen) =
                idle::round(&sides, &target).with_context(|| format!("round {round}, idle"))?;
            worst = stolen;
            for (name, pings) in pings {
                note_idle(&pings, figures.entry(name).or_default());
            }
        }
        for (name, side) in &mut sides {
            told(&format!("round {round} of {rounds}: {name}"));
            turn(side, &target, parts, worst, figures.entry(name).or_default())
                .with_context(|| format!("round {round}, {name}"))?;
        }
        if let Some(floor) = &mut floor {
            floor.turn()?;
        }
        if let Some(rules) = &mut rules {
            told(&format!("round {round} of {rounds}: {FEW_RULES} and {MANY_RULES} rules"));
            rules.turn(&target, round)?;
        }
    }
    for (name, side) in &mut sides {
        figures.entry(name).or_default().insert(Metric::Memory, vec![side.peak_mb()?]);
    }
    let mut rows = rows(&figures, floor.as_ref().map(Floor::s_per_gb));
    rows.extend(rules.iter().flat_map(Rules::rows));
    rows.extend(rival_rows(&figures));
    rows.extend(floor.iter().flat_map(Floor::rows));
    Ok(rows)
}

/// Another's tunnel that carries packets: gotatun 0.10.2 never comes up where its first packet comes a minute
/// after its start, and in two of three starts on one machine it did not although that came at once.
fn rival_up(topology: &Topology, rival: &Rival, target: &Target) -> Result<Side> {
    let start = || {
        let side = Side::rival(topology, rival)?;
        ping::until_answered(side.device(), &target.address)?;
        Ok(side)
    };
    (1..RIVAL_STARTS).fold(start(), |started, _| started.or_else(|_| start()))
}

/// What the controller and both agents make of so many rules is worth knowing too.
fn many_rules(
    partywall: impl FnOnce(u32) -> Result<Side>,
    told: &mut impl FnMut(&str),
) -> Result<Side> {
    let began = std::time::Instant::now();
    let side = partywall(MANY_RULES).with_context(|| format!("with {MANY_RULES} rules"))?;
    told(&format!("{MANY_RULES} rules were set up in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(side)
}

fn note_idle(pings: &Pings, figures: &mut Figures) {
    let mut add = |metric, figure| figures.entry(metric).or_default().push(figure);
    add(Metric::IdleP50, pings.us(0.5));
    add(Metric::IdleP99, pings.us(0.99));
    add(Metric::IdleLost, pings.lost_percent());
}

/// One turn of one tunnel. `worst` is the largest share that was stolen from what was measured of it before, in this
/// round.
fn turn(
    side: &mut Side,
    target: &Target,
    parts: &[Part],
    mut worst: f64,
    figures: &mut Figures,
) -> Result<()> {
    let mut add = |metric, figure| figures.entry(metric).or_default().push(figure);
    // Its last turn may be minutes ago, and so may its keys.
    ping::until_answered(side.device(), &target.address)?;
    if parts.contains(&Part::RoundTrip) {
        let (loaded, _) = noting(&mut worst, undisturbed(|| loaded_pings(side, target))?);
        add(Metric::LoadedP50, loaded.us(0.5));
        add(Metric::LoadedP99, loaded.us(0.99));
        add(Metric::LoadedLost, loaded.lost_percent());
    }
    if parts.contains(&Part::SlowLink) {
        // BBR keeps every queue short by itself; most machines have CUBIC, which keeps none.
        let target = Target { congestion: Congestion::Cubic, ..target.clone() };
        let (pings, streamed) = noting(
            &mut worst,
            side.over_slow_link(|side| undisturbed(|| loaded_pings(side, &target)))?,
        );
        add(Metric::SlowLink, streamed.gbit_per_s);
        add(Metric::SlowLinkP50, pings.us(0.5));
        add(Metric::SlowLinkP99, pings.us(0.99));
    }
    if parts.contains(&Part::Tcp) {
        let one = noting(&mut worst, undisturbed(|| side.tcp(target, 1, TCP_S))?);
        add(Metric::OneStream, one.gbit_per_s);
        add(Metric::OneStreamDaemons, one.daemons_s_per_gb);
        add(Metric::OneStreamMachine, one.machine_s_per_gb);
        let eight = noting(&mut worst, undisturbed(|| side.tcp(target, 8, TCP_S))?);
        add(Metric::EightStreams, eight.gbit_per_s);
        add(Metric::EightStreamsDaemons, eight.daemons_s_per_gb);
        add(Metric::EightStreamsMachine, eight.machine_s_per_gb);
    }
    if parts.contains(&Part::Udp) {
        let large = undisturbed(|| side.udp(target, LARGE_BYTES, UDP_S))?;
        let large_per_s = noting(&mut worst, large);
        add(Metric::Udp1300, large_per_s * f64::from(LARGE_BYTES) * 8.0 / 1e9);
        let small = undisturbed(|| side.udp(target, SMALL_BYTES, UDP_S))?;
        add(Metric::Udp64, noting(&mut worst, small));
    }
    add(Metric::Stolen, 100.0 * worst);
    Ok(())
}

/// What was measured; the share that was stolen meanwhile goes into `worst`.
fn noting<T>(worst: &mut f64, (measured, stolen): (T, f64)) -> T {
    *worst = worst.max(stolen);
    measured
}

/// Pings beside a bulk transfer through the same tunnel, and that transfer.
fn loaded_pings(side: &mut Side, target: &Target) -> Result<(Pings, Streamed)> {
    let device = side.device().clone();
    std::thread::scope(|scope| {
        let pings = scope
            .spawn(|| Pings::send(&device, &target.address, LOADED_PINGS, LOADED_PINGS_SKIPPED));
        let load = side.tcp(target, 1, LOAD_S);
        let pings = pings.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((pings?, load?))
    })
}

fn rows(figures: &BTreeMap<&str, Figures>, floor: Option<f64>) -> Vec<Row> {
    let empty = Figures::new();
    let of = |name| figures.get(name).unwrap_or(&empty);
    let (ours, yardstick) = (of("partywall"), of(BORINGTUN.name));
    let measured = Metric::ALL.into_iter().filter_map(|metric| Some((metric, ours.get(&metric)?)));
    measured
        .map(|(metric, ours)| metric.row(ours, yardstick.get(&metric).map(Vec::as_slice), floor))
        .collect()
}

fn rival_rows(figures: &BTreeMap<&str, Figures>) -> Vec<Row> {
    let rivals = [&BORINGTUN, &GOTATUN, &WIREGUARD_GO].map(|rival| rival.name);
    let measured = rivals.into_iter().filter_map(|name| Some((name, figures.get(name)?)));
    measured
        .flat_map(|(name, figures)| {
            figures.iter().map(move |(metric, figures)| metric.rival_row(name, figures))
        })
        .collect()
}

/// What cipher and bare transfer take, measured in the same run.
#[derive(Debug)]
struct Floor {
    bare: Bare,
    cipher_s_per_gb: Vec<f64>,
    near_s_per_gb: Vec<f64>,
    near_gbit_per_s: Vec<f64>,
    far_s_per_gb: Vec<f64>,
    far_gbit_per_s: Vec<f64>,
}

impl Floor {
    fn new(bare: Bare) -> Self {
        Self {
            bare,
            cipher_s_per_gb: Vec::new(),
            near_s_per_gb: Vec::new(),
            near_gbit_per_s: Vec::new(),
            far_s_per_gb: Vec::new(),
            far_gbit_per_s: Vec::new(),
        }
    }

    fn turn(&mut self) -> Result<()> {
        self.cipher_s_per_gb.push(undisturbed(cipher_s_per_gb)?.0);
        let (near, _) = undisturbed(|| self.bare.near(BARE_S))?;
        self.near_s_per_gb.push(near.machine_s_per_gb);
        self.near_gbit_per_s.push(near.gbit_per_s);
        let (far, _) = undisturbed(|| self.bare.far(BARE_S))?;
        self.far_s_per_gb.push(far.machine_s_per_gb);
        self.far_gbit_per_s.push(far.gbit_per_s);
        Ok(())
    }

    fn s_per_gb(&self) -> f64 {
        median(&self.cipher_s_per_gb) + median(&self.near_s_per_gb)
    }

    fn rows(&self) -> Vec<Row> {
        let sums = self.cipher_s_per_gb.iter().zip(&self.near_s_per_gb).map(|(a, b)| a + b);
        vec![
            Row::shown("floor, whole machine", "CPU-s/GB", &sums.collect::<Vec<_>>()),
            Row::shown("floor: ring seals and opens", "CPU-s/GB", &self.cipher_s_per_gb),
            Row::shown("floor: no tunnel", "CPU-s/GB", &self.near_s_per_gb),
            Row::shown("no tunnel: one TCP stream", "Gb/s", &self.near_gbit_per_s),
            Row::shown("no tunnel, to the server", "CPU-s/GB", &self.far_s_per_gb),
            Row::shown("no tunnel, to the server: one TCP stream", "Gb/s", &self.far_gbit_per_s),
        ]
    }
}

/// Two of ours that differ in the number of their rules only.
#[derive(Debug)]
struct Rules {
    few: Side,
    many: Side,
    few_gbit_per_s: Vec<f64>,
    many_gbit_per_s: Vec<f64>,
}

impl Rules {
    fn new(few: Side, many: Side) -> Self {
        Self { few, many, few_gbit_per_s: Vec::new(), many_gbit_per_s: Vec::new() }
    }

    /// Two turns of each, and the other first in every other round: a machine that becomes faster or
    /// slower meanwhile favours neither.
    fn turn(&mut self, target: &Target, round: usize) -> Result<()> {
        let (mut few, mut many) = (0.0, 0.0);
        for turn in 0..4_usize {
            let first = (round + turn.div_ceil(2)).is_multiple_of(2);
            let (side, sum) =
                if first { (&mut self.few, &mut few) } else { (&mut self.many, &mut many) };
            let (streamed, _) = undisturbed(|| side.tcp(target, 1, RULES_S))?;
            *sum += streamed.gbit_per_s / 2.0;
        }
        self.few_gbit_per_s.push(few);
        self.many_gbit_per_s.push(many);
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let pairs = self.many_gbit_per_s.iter().zip(&self.few_gbit_per_s);
        let ratios: Vec<f64> = pairs.map(|(many, few)| many / few).collect();
        let name = "one TCP stream, 100,000 rules to one";
        vec![
            Row::new(name, "ratio", &ratios, MANY_RULES_BAR, Better::Higher),
            Row::shown("one TCP stream, 1 rule", "Gb/s", &self.few_gbit_per_s),
            Row::shown("one TCP stream, 100,000 rules", "Gb/s", &self.many_gbit_per_s),
        ]
    }
}
