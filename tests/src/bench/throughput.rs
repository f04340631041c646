//! Partywall's data path against boringtun-cli, with the filter on.
//!
//! Two labs of the same topology stand side by side and take turns, so that whatever else the machine
//! does hits both alike. Each turn measures one tunnel while the other is idle.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::boringtun::Boringtun;
use super::{Better, Row, median};
use crate::lab::{Building, Host, Lab, Topology, within};

const SERVER: &str = "10.1.0.10";
const PORT: &str = "5201";
/// Long enough for TCP to settle, short enough for many turns.
const STREAM_S: &str = "4";
/// Small enough for a ping that is never late by its own batch.
const PINGS: &str = "200";

/// The figures of one side, by round.
#[derive(Debug, Default)]
struct Figures {
    one_stream: Vec<f64>,
    eight_streams: Vec<f64>,
    cpu_s_per_gb: Vec<f64>,
    round_trip_us: Vec<f64>,
}

/// Measures `rounds` turns of each; `told` hears how it goes.
///
/// # Errors
/// A tunnel does not come up, or a measuring tool fails.
pub fn throughput(rounds: usize, mut told: impl FnMut(&str)) -> Result<Vec<Row>> {
    let topology = Topology::named("pair")?;
    let mut partywall = Building::up(Lab::up(&topology)?)?;
    partywall.sign_in("device", "user-1@bench", "bench")?;
    let boringtun = Boringtun::up(Lab::up(&topology)?)?;
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for round in 1..=rounds {
        for (name, figures) in [("partywall", &mut ours), ("boringtun", &mut theirs)] {
            let ours = name == "partywall";
            let device = if ours {
                partywall.host("device").clone()
            } else {
                boringtun.lab.host("device").clone()
            };
            let mut cpu_s = || -> Result<f64> {
                Ok(match ours {
                    true => {
                        partywall.agent("device").cpu_s()? + partywall.agent("gateway").cpu_s()?
                    }
                    false => boringtun.device.cpu_s()? + boringtun.gateway.cpu_s()?,
                })
            };
            figures.round_trip_us.push(round_trip_us(&device)?);
            let before_s = cpu_s()?;
            let one = stream(&device, "1")?;
            let eight = stream(&device, "8")?;
            let spent_s = cpu_s()? - before_s;
            figures.one_stream.push(one.gbit_per_s);
            figures.eight_streams.push(eight.gbit_per_s);
            figures.cpu_s_per_gb.push(spent_s / ((one.bytes + eight.bytes) / 1e9));
            told(&format!(
                "round {round} of {rounds}, {name}: {:.2} and {:.2} Gb/s",
                one.gbit_per_s, eight.gbit_per_s
            ));
        }
    }
    let row = |metric, unit, pick: fn(&Figures) -> &Vec<f64>, better| {
        Row::new(metric, unit, pick(&ours), median(pick(&theirs)), better)
    };
    Ok(vec![
        row("one TCP stream", "Gb/s", |f| &f.one_stream, Better::Higher),
        row("eight TCP streams", "Gb/s", |f| &f.eight_streams, Better::Higher),
        row("daemon CPU, both ends", "s/GB", |f| &f.cpu_s_per_gb, Better::Lower),
        row("idle round trip, p50", "us", |f| &f.round_trip_us, Better::Lower),
    ])
}

struct Streamed {
    gbit_per_s: f64,
    bytes: f64,
}

fn stream(device: &Host, streams: &str) -> Result<Streamed> {
    let iperf3 = ["iperf3", "-c", SERVER, "-p", PORT, "-t", STREAM_S, "-P", streams, "-J"];
    // An iperf3 server takes one client at a time and needs a moment after the last one.
    let text = within("iperf3 measures", Duration::from_secs(20), || device.ok(&iperf3).map(Some))?;
    let report: Value = serde_json::from_str(&text).context("iperf3 -J")?;
    let received = &report["end"]["sum_received"];
    let field =
        |name: &str| received[name].as_f64().with_context(|| format!("iperf3 gives no {name}"));
    Ok(Streamed { gbit_per_s: field("bits_per_second")? / 1e9, bytes: field("bytes")? })
}

/// The median of many pings, one at a time, in microseconds.
fn round_trip_us(device: &Host) -> Result<f64> {
    let text = device.ok(&["ping", "-n", "-i", "0.01", "-c", PINGS, SERVER])?;
    let times =
        text.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok());
    let times: Vec<f64> = times.collect();
    anyhow::ensure!(!times.is_empty(), "no ping came back: {text}");
    Ok(median(&times) * 1000.0)
}
