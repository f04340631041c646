//! A gateway's agent with ten thousand peers of whom nobody speaks: its memory, and its time.
//!
//! It is a real agent that was enrolled by a real controller. Ten thousand sign-ins would take longer than
//! anybody waits, so its config is written here, signed with a key that takes the segment's place, and the
//! agent goes on from it as it does whenever the controller is away. Its calls to the controller, which is
//! away, are measured too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use partywall_proto::envelope::{Envelope, Payload};
use partywall_proto::keys::SegmentKey;
use serde_json::Value;

use super::machine::Memory;
use super::{Better, Row, config};
use crate::lab::{Building, Host, Lab, Topology, within};

const PEERS: u32 = 10_000;
const RULES: u32 = 1000;
const MEMORY_BAR_MB: f64 = 150.0;
const IDLE_BAR_PERCENT: f64 = 2.0;
/// A kernel counts a process's time in hundredths of a second: a fifth of the bar can be told.
const IDLE: Duration = Duration::from_secs(10);
/// A slow machine that builds something else at the same time still makes this.
const PATIENCE: Duration = Duration::from_secs(60);
/// The agent's files, as `agent/src/state` names them.
const PINS: &str = "/var/lib/partywall/segment_keys.json";
const CACHE: &str = "/var/lib/partywall/config.jsonl";

/// Measures idleness `rounds` times; `told` hears how it goes.
///
/// # Errors
/// The agent does not take the config.
pub fn many_peers(rounds: usize, mut told: impl FnMut(&str)) -> Result<Vec<Row>> {
    let mut building = Building::up(Lab::up(&Topology::named("pair")?)?)?;
    for host in ["device", "gateway"] {
        building.stop_agent(host)?;
    }
    building.kill_controller();
    let gateway = building.host("gateway").clone();
    give_config(&gateway)?;
    let began = Instant::now();
    building.start_agent("gateway")?;
    within("the agent carries every peer", PATIENCE, || {
        building.agent("gateway").must_run()?;
        let text = gateway.ok(&["partywall", "status", "--json"])?;
        let status: Value = serde_json::from_str(&text)?;
        let peers = status["peers"].as_array().map_or(0, Vec::len);
        ensure!(peers == PEERS as usize, "it has {peers}");
        Ok(Some(()))
    })?;
    told(&format!("{PEERS} peers after {:.1} s", began.elapsed().as_secs_f64()));
    let agent = building.agent("gateway");
    let (mut idle_percent, mut resident_mb) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let (began, before_s) = (Instant::now(), agent.cpu_s()?);
        std::thread::sleep(IDLE);
        let spent_s = agent.cpu_s()? - before_s;
        idle_percent.push(100.0 * spent_s / began.elapsed().as_secs_f64());
        resident_mb.push(Memory::of(agent.pid())?.resident_mb);
        told(&format!("round {round} of {rounds}: {:.2} % of a core", idle_percent[round - 1]));
    }
    let peak_mb = Memory::of(agent.pid())?.peak_mb;
    Ok(vec![
        Row::new("10,000 peers, agent", "MB", &resident_mb, MEMORY_BAR_MB, Better::Lower),
        Row::shown("10,000 peers, agent, at its peak", "MB", &[peak_mb]),
        Row::new(
            "10,000 idle peers, agent",
            "% core",
            &idle_percent,
            IDLE_BAR_PERCENT,
            Better::Lower,
        ),
    ])
}

/// Puts the config where the agent keeps its last one, and the key where it keeps its segment's.
fn give_config(gateway: &Host) -> Result<()> {
    let config = config::gateway(PEERS, config::rules(RULES)?)?;
    let key = SigningKey::from_bytes(&[0x5e; 32]);
    let pinned = SegmentKey::from(key.verifying_key().to_bytes());
    let pins = BTreeMap::from([(config.segment.clone(), pinned)]);
    let envelope = Envelope::seal(&Payload::Snapshot(Box::new(config)), &key);
    let line = serde_json::to_string(&envelope)? + "\n";
    for (path, text) in [(PINS, serde_json::to_string(&pins)?), (CACHE, line)] {
        let write = format!("umask 077; cat >{path}");
        let written = gateway.run_with_input(&["sh", "-c", &write], &text)?;
        written.ok().with_context(|| path.to_owned())?;
    }
    Ok(())
}
