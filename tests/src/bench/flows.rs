//! Flow records: whether each of many conversations, and each that is refused, is told one for one, and what a
//! sink that hangs costs.
//!
//! Two tunnels of ours stand side by side, one without a sink and one whose sink never reads, and take
//! turns. While either is measured short conversations run beside the bulk transfer, or there would be
//! no records that could be in the way.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use partywall_proto::admin::{FlowStatus, StoredFlow};
use partywall_proto::ids::AgentId;
use partywall_proto::nets::Protocol;

use super::iperf::{Congestion, Target};
use super::machine::undisturbed;
use super::policy;
use super::side::Side;
use super::{Better, Row};
use crate::lab::{Building, DATA, Topology, within};
use crate::traffic::{Conversation, Echo, PORTS, Plan, account, drive, refused};

/// In one session: within what a gateway holds for one device.
const AT_ONCE: u32 = 5000;
/// Conversations a second beside a bulk transfer: a busy building's.
const BESIDE_PER_S: u32 = 200;
const SECONDS: u32 = 4;
/// So many conversations have more records than wait for one sink.
const TO_FILL: u32 = 20_000;
/// Records that wait for one sink at most.
const WAITING_MAX: u64 = 32_768;
/// What a stalled sink must leave of the throughput.
const STALLED_BAR: f64 = 0.97;
/// Conversations that the device refuses by itself, over TCP and as many over UDP: fewer than one device may
/// bring at once.
const REFUSED: u16 = 400;
/// In the segment's prefixes, and no rule allows it.
const FORBIDDEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)), 9999);
const USERS: usize = 8;
/// Records come within a second; reading so many back takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the sink is that hangs, on the gateway's host.
const STALLED: &str = "198.51.100.21:6514";

/// Has `count` conversations, compares their records, and measures `rounds` turns of each tunnel; `told`
/// hears how it goes.
///
/// # Errors
/// A tunnel does not come up, or a conversation is not answered.
pub fn flows(count: u32, rounds: usize, mut told: impl FnMut(&str)) -> Result<Vec<Row>> {
    let topology = Topology::named("pair")?;
    let mut plain = Tunnel::up(&topology, None)?;
    let had = plain.converse(count, &mut told)?;
    let mut rows = plain.rows(&had, &mut told)?;
    told("having conversations refused");
    rows.extend(plain.refusals()?);

    let mut stalled = Tunnel::up(&topology, Some(STALLED))?;
    told("filling the queue of the sink that hangs");
    stalled.converse(TO_FILL, &mut told)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let (mut a, mut b) = (0.0, 0.0);
        // A B B A, and B A A B in every other round.
        for turn in 0..4_usize {
            let first = (round + turn.div_ceil(2)).is_multiple_of(2);
            let (tunnel, sum) = if first { (&mut plain, &mut a) } else { (&mut stalled, &mut b) };
            let (gbit_per_s, _) = undisturbed(|| tunnel.throughput())?;
            *sum += gbit_per_s / 2.0;
        }
        // Datagrams' flows are held for minutes, and one device may have so many.
        plain.next_session()?;
        stalled.next_session()?;
        told(&format!(
            "round {round} of {rounds}: {a:.2} Gb/s without, {b:.2} with a sink that hangs"
        ));
        without.push(a);
        with.push(b);
    }
    let ratios: Vec<f64> =
        with.iter().zip(&without).map(|(with, without)| with / without).collect();
    rows.push(Row::shown("one TCP stream, no sink", "Gb/s", &without));
    rows.push(Row::shown("one TCP stream, a sink that hangs", "Gb/s", &with));
    let name = "one TCP stream, a sink that hangs to none";
    rows.push(Row::new(name, "ratio", &ratios, STALLED_BAR, Better::Higher));
    rows.extend(stalled.loss()?);
    Ok(rows)
}

/// A tunnel with conversations to be had.
struct Tunnel {
    side: Side,
    _echo: Echo,
    /// The kernel takes connections to it, and nobody ever reads from them.
    _stalled: Option<TcpListener>,
    to: IpAddr,
    /// The next conversation's number.
    next: u32,
    user: usize,
}

impl Tunnel {
    fn up(topology: &Topology, sink: Option<&str>) -> Result<Self> {
        let site = policy::site(topology, 1)?;
        let side = Side::partywall(topology, &site)?;
        let to = topology.ipv4("server", "inside");
        let echo = Echo::start(side.server(), &[to])?;
        let mut tunnel = Self { side, _echo: echo, _stalled: None, to, next: 0, user: 1 };
        if let Some(sink) = sink {
            let building = tunnel.building()?;
            let listener = building.host("gateway").enter(|| TcpListener::bind(sink))??;
            // Whose certificate it is would only be looked at if it ever answered.
            let ca = building.host("controller").read(&format!("{}/ca.pem", DATA))?;
            let sink =
                serde_json::json!({ "to": "syslog", "name": "siem", "server": sink, "ca": ca });
            let settings = serde_json::json!({ "organisation": "bench", "sinks": [sink] });
            let manifest = serde_json::json!({ "flow_settings": [settings] });
            building.apply("bench", &manifest.to_string())?;
            tunnel._stalled = Some(listener);
        }
        Ok(tunnel)
    }

    fn building(&mut self) -> Result<&mut Building> {
        match &mut self.side {
            Side::Partywall(building) => Ok(building),
            Side::Rival(_) => anyhow::bail!("only ours has flow records"),
        }
    }

    /// Has `count` conversations, [`AT_ONCE`] in each session. What is open at the end of one ends with it.
    fn converse(&mut self, count: u32, told: &mut impl FnMut(&str)) -> Result<Vec<Conversation>> {
        let (mut had, began) = (Vec::new(), Instant::now());
        while (had.len() as u32) < count {
            let part = AT_ONCE.min(count - had.len() as u32);
            let plan = self.plan(part, None)?;
            had.extend(drive(self.side.device(), plan)?);
            self.next_session()?;
            let s = began.elapsed().as_secs_f64();
            told(&format!("{} of {count} conversations in {s:.1} s", had.len()));
        }
        Ok(had)
    }

    /// Ends the session, and with it every open flow, and begins one of another user.
    fn next_session(&mut self) -> Result<()> {
        self.user = self.user % USERS + 1;
        let user = format!("user-{}@bench", self.user);
        let building = self.building()?;
        building.sign_out("device")?;
        building.sign_in("device", &user, "bench")?;
        Ok(())
    }

    fn plan(&mut self, count: u32, per_s: Option<u32>) -> Result<Plan> {
        let first = self.next;
        self.next += count.next_multiple_of(PORTS.len() as u32);
        let shown = self.side.device().ok(&["ip", "-4", "-j", "address", "show", "partywall0"])?;
        let links: serde_json::Value = serde_json::from_str(&shown)?;
        let from = links[0]["addr_info"][0]["local"].as_str().context("no overlay address")?;
        let count = self.next - first;
        Ok(Plan { from: from.parse()?, to: self.to, first, count, per_s })
    }

    /// How the records of conversations match, once they are all there or lost.
    fn rows(&mut self, had: &[Conversation], told: &mut impl FnMut(&str)) -> Result<Vec<Row>> {
        let all = 2 * had.len() as u64;
        let building = self.building()?;
        let status = within("the records are stored or lost", PATIENCE, || {
            let status = building.flow_status("bench")?;
            let waiting = status.received - status.stored - status.dropped;
            let settled = waiting == 0 && status.received + status.lost_at_gateways >= all;
            Ok(settled.then_some(status))
        })?;
        let mut records = building.flows("bench", &["--device", "device"])?;
        records.retain(|stored: &StoredFlow| PORTS.contains(&stored.flow.network_port));
        let found = account(had, &records);
        for wrong in found.wrong.iter().take(5) {
            told(wrong);
        }
        let count = |name: &str, figure: u64| Row::shown(name, "count", &[figure as f64]);
        let held = |name: &str, figure: usize, bar: usize, better| {
            Row::new(name, "count", &[figure as f64], bar as f64, better)
        };
        let strangers = found.strangers.len();
        Ok(vec![
            count("conversations had", had.len() as u64),
            held("conversations told one for one", found.matched, had.len(), Better::Higher),
            held("records of no conversation", strangers, 0, Better::Lower),
            count("records lost at the gateway", status.lost_at_gateways),
            count("records lost at the controller", status.dropped),
        ])
    }

    /// How the records of conversations that the device refused match what was tried.
    fn refusals(&mut self) -> Result<Vec<Row>> {
        let ports = refused(self.side.device(), FORBIDDEN, REFUSED)?;
        let tried: BTreeSet<_> =
            ports.flat_map(|port| [Protocol::Tcp, Protocol::Udp].map(|it| (it, port))).collect();
        let building = self.building()?;
        let told = within("the refusals are stored or lost", PATIENCE, || {
            let mut told = building.flows("bench", &["--event", "refused"])?;
            told.retain(|stored| stored.flow.network_address == FORBIDDEN.ip());
            let lost = building.flow_status("bench")?.lost_at_devices;
            Ok((told.len() as u64 + lost >= tried.len() as u64).then_some(told))
        })?;
        let device: AgentId = "device/device".parse()?;
        let by_device = told.iter().filter(|stored| stored.reporter == device);
        let names: BTreeSet<_> =
            by_device.map(|stored| (stored.flow.protocol, stored.flow.device_port)).collect();
        let matched = names.intersection(&tried).count();
        let count = |name: &str, figure: usize, bar: usize, better| {
            Row::new(name, "count", &[figure as f64], bar as f64, better)
        };
        Ok(vec![
            count("refused at the device, told one for one", matched, tried.len(), Better::Higher),
            count("records of these besides", told.len() - matched, 0, Better::Lower),
        ])
    }

    /// A bulk transfer with conversations beside it, in Gb/s.
    fn throughput(&mut self) -> Result<f64> {
        let congestion = Congestion::Machine;
        let target = Target { address: self.to.to_string(), port: 5201, congestion };
        let plan = self.plan(BESIDE_PER_S * SECONDS, Some(BESIDE_PER_S))?;
        let device = self.side.device().clone();
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| drive(&device, plan));
            let streamed = self.side.tcp(&target, 1, SECONDS);
            let beside = beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            beside.context("the conversations beside it")?;
            Ok(streamed?.gbit_per_s)
        })
    }

    /// What the sink that hangs lost, against what cannot wait for it.
    fn loss(&mut self) -> Result<Vec<Row>> {
        let FlowStatus { received, stored, sinks, .. } = self.building()?.flow_status("bench")?;
        let sink = sinks.first().context("there is no sink")?;
        ensure!(sink.sent == 0, "the sink that hangs took {} records", sink.sent);
        let (dropped, received) = (sink.dropped as f64, received as f64);
        let least = received - WAITING_MAX as f64;
        let name = "records that the sink that hangs lost, as counted";
        Ok(vec![
            Row::new(name, "count", &[dropped], least, Better::Higher),
            Row::new(
                "the same, stored all the same",
                "count",
                &[stored as f64],
                least,
                Better::Higher,
            ),
        ])
    }
}
