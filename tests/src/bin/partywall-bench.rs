//! `scripts/bench`: measures and prints a table; exits 0 only if every bar is met.
#![expect(clippy::print_stdout, reason = "a command line speaks on standard output")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use partywall_tests::bench::{self, Congestion, Part};

/// Measures Partywall.
#[derive(Parser)]
#[command(name = "scripts/bench", version)]
struct Args {
    /// What to measure.
    what: What,
    /// How many rounds; fewer than 5, and than 20 for control, mean little.
    #[arg(long)]
    rounds: Option<usize>,
    /// Of throughput, only these parts.
    #[arg(long, value_name = "PART,…", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Of throughput, how TCP is sent.
    #[arg(long, value_enum, default_value_t)]
    congestion: Congestion,
    /// Of flows, so many conversations.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1000..=60_000))]
    conversations: u32,
    /// Also write the rows to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Of datapath, do this case only, measure nothing, and say how many times it was done.
    #[arg(long, hide = true)]
    case: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The data path against other userspace WireGuards, in the lab.
    Throughput,
    /// The data path's pure crate, in memory.
    Datapath,
    /// A gateway's agent with ten thousand idle peers, in the lab.
    Peers,
    /// Sign-in, revocation and publication of a policy, in the lab.
    Control,
    /// Flow records one for one, and throughput beside a sink that hangs, in the lab.
    Flows,
    /// What a large policy costs the controller, in memory.
    Policy,
}

fn main() -> ExitCode {
    partywall_tests::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let told = |text: &str| eprintln!("bench: {text}");
    let rounds = |usual: usize| match args.rounds {
        Some(0) => bail!("--rounds must be at least 1"),
        Some(rounds) => Ok(rounds),
        None => Ok(usual),
    };
    if let Some(case) = &args.case {
        println!("{}", bench::one_case(case)?);
        return Ok(());
    }
    if !args.only.is_empty() && args.what != What::Throughput {
        bail!("--only is for throughput");
    }
    if args.congestion != Congestion::Machine && args.what != What::Throughput {
        bail!("--congestion is for throughput");
    }
    let rows = match args.what {
        What::Throughput => {
            let parts = if args.only.is_empty() { &Part::ALL } else { args.only.as_slice() };
            bench::throughput(rounds(5)?, parts, args.congestion, told)?
        }
        What::Datapath => {
            let this = std::env::current_exe().context("this program's own path is unknown")?;
            bench::datapath(rounds(15)?, &this, told)?
        }
        What::Peers => bench::many_peers(rounds(5)?, told)?,
        What::Control => {
            let mut rows = bench::control(rounds(20)?, told)?;
            rows.extend(bench::publish(rounds(20)?, told)?);
            rows
        }
        What::Flows => bench::flows(args.conversations, rounds(15)?, told)?,
        What::Policy => bench::policy(rounds(15)?, told)?,
    };
    println!("{}", bench::table(&rows));
    if let Some(path) = &args.json {
        bench::write(&rows, path)?;
    }
    let missed: Vec<&str> =
        rows.iter().filter(|row| !row.ok).map(|row| row.metric.as_str()).collect();
    match missed.is_empty() {
        true => Ok(()),
        false => bail!("not met: {}", missed.join(", ")),
    }
}
