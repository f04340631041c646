//! How long a network admin waits: from `partywallctl policy publish` until every agent of the segment
//! enforces the version, and until the last byte of a flow that it refuses.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use partywall_proto::admin::{Manifest, PolicySpec};
use serde_json::Value;

use super::{Better, Row};
use crate::lab::{Building, Host, Lab, Topology, Transfer, wait_for};

/// A promise of the policy's issue: at every agent of the lab.
const ENFORCED_BAR_MS: f64 = 500.0;

const DOWNLOAD: &str = "http://10.1.0.10/slow";
/// Longer than any pause between two pieces of a transfer that still runs.
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(5);
/// All that carry the council's segment.
const AGENTS: [&str; 3] = ["gw-council", "desk-1", "desk-2"];

/// Publishes `rounds` versions that take away what a running transfer stands on; `told` hears how it goes.
///
/// # Errors
/// A version is refused, or an agent does not take it.
pub fn publish(rounds: usize, mut told: impl FnMut(&str)) -> Result<Vec<Row>> {
    let mut building = Building::up(Lab::up(&Topology::named("building")?)?)?;
    building.sign_in("desk-1", "alice@council", "council")?;
    building.sign_in("desk-2", "carol@council", "council")?;
    let exported = building.ctl("council", &["export", "--json"])?.ok()?;
    let exported: Manifest = serde_json::from_str(&exported).context("export --json")?;
    let open = exported.policies.into_iter().next().context("the council has no policy")?;
    // Without its tests, which would refuse this.
    let mut shut = PolicySpec { tests: Vec::new(), ..open.clone() };
    shut.segments.values_mut().for_each(|segment| segment.rules.clear());
    let [open, shut] = [("open", open), ("shut", shut)].map(|(name, policy)| {
        // JSON is YAML.
        let text = serde_json::to_string(&policy)?;
        Ok::<_, anyhow::Error>(
            building.write(&format!("{name}.yaml"), &text)?.display().to_string(),
        )
    });
    let (open, shut) = (open?, shut?);
    let hosts: Vec<Host> = AGENTS.iter().map(|name| building.host(name).clone()).collect();
    let (mut enforced_ms, mut last_byte_ms) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let transfer = Transfer::start(building.host("desk-1"), DOWNLOAD)?;
        wait_for("the transfer is under way", PATIENCE, || transfer.bytes() > 1 << 20)?;
        let before = generations(&hosts)?;
        let began = Instant::now();
        building.ctl("council", &["policy", "publish", "-f", &shut])?.ok()?;
        while generations(&hosts)?.iter().zip(&before).any(|(now, before)| now <= before) {
            ensure!(began.elapsed() < PATIENCE, "not every agent took the version");
        }
        enforced_ms.push(began.elapsed().as_secs_f64() * 1000.0);
        let last = transfer.last_byte(QUIET, PATIENCE)?;
        last_byte_ms.push(last.saturating_duration_since(began).as_secs_f64() * 1000.0);
        building.ctl("council", &["policy", "publish", "-f", &open])?.ok()?;
        told(&format!(
            "round {round} of {rounds}: enforced after {:.0} ms",
            enforced_ms[round - 1]
        ));
    }
    Ok(vec![
        Row::new(
            "publish to enforced at every agent",
            "ms",
            &enforced_ms,
            ENFORCED_BAR_MS,
            Better::Lower,
        ),
        Row::shown("publish to last byte of a refused flow", "ms", &last_byte_ms),
    ])
}

/// Of the configs that the agents enforce.
fn generations(hosts: &[Host]) -> Result<Vec<u64>> {
    let generation = |host: &Host| {
        let status: Value = serde_json::from_str(&host.ok(&["partywall", "status", "--json"])?)?;
        status["generation"].as_u64().with_context(|| format!("no generation in {status}"))
    };
    hosts.iter().map(generation).collect()
}
