//! `scripts/bench`: measures in the lab and prints a table; exits 0 only if every bar is met.
#![expect(clippy::print_stdout, reason = "a command line speaks on standard output")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use partywall_tests::bench;

/// Measures Partywall in the lab.
#[derive(Parser)]
#[command(name = "scripts/bench", version)]
struct Args {
    /// What to measure.
    what: What,
    /// How many rounds; at least 5 for throughput and 20 for control mean something.
    #[arg(long)]
    rounds: Option<usize>,
    /// Also write the rows to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// The data path against boringtun-cli.
    Throughput,
    /// Sign-in and revocation.
    Control,
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
    let rows = match args.what {
        What::Throughput => bench::throughput(rounds(5)?, told)?,
        What::Control => bench::control(rounds(20)?, told)?,
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
