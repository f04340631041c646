//! A gateway's shard with ten thousand peers of whom nobody speaks.
//!
//! `scripts/bench peers` measures the same of a whole agent.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use partywall_datapath::shard::{Outbox, Role};

use super::super::config::{self, GATEWAY};
use super::super::machine::thread_s;
use super::super::{Better, Row};
use super::wire::{replace, shard};

const PEERS: u32 = 10_000;
/// What an agent with so many may take altogether.
const MEMORY_BAR_MB: f64 = 150.0;
const IDLE_BAR_PERCENT: f64 = 2.0;
/// Some hundred of WireGuard's quarter seconds would be better; this is for many rounds.
const IDLE: Duration = Duration::from_secs(1);

pub(super) fn rows(rounds: usize) -> Result<Vec<Row>> {
    let update = replace(config::gateway(PEERS, config::rules(1000)?)?);
    let mut out = Outbox::new();
    let mut made = None;
    let memory = allocation_counter::measure(|| {
        let now = Instant::now();
        let mut gateway = shard(Role::Gateway, GATEWAY, now);
        gateway.apply(&update, now, &mut out);
        made = Some(gateway);
    });
    let mut gateway = made.context("the shard was not made")?;
    let mut idle_percent = Vec::new();
    for _ in 0..rounds {
        let (began, before_s) = (Instant::now(), thread_s());
        while began.elapsed() < IDLE {
            let rest = IDLE.saturating_sub(began.elapsed());
            let due = gateway.poll_timeout();
            let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
            // This is the wait that an agent's thread spends in epoll_wait(2).
            std::thread::sleep(wait.map_or(rest, |wait| wait.min(rest)));
            gateway.handle_timeout(Instant::now(), &mut out);
            out.clear();
        }
        let elapsed_s = began.elapsed().as_secs_f64();
        idle_percent.push(100.0 * (thread_s() - before_s) / elapsed_s);
    }
    let memory_mb = memory.bytes_current as f64 / 1e6;
    Ok(vec![
        Row::new("10,000 peers, shard", "MB", &[memory_mb], MEMORY_BAR_MB, Better::Lower),
        Row::new(
            "10,000 idle peers, shard",
            "% core",
            &idle_percent,
            IDLE_BAR_PERCENT,
            Better::Lower,
        ),
    ])
}
