//! `scripts/demo`: the story of one building, as a table that a facilities manager understands.
#![expect(clippy::print_stdout, reason = "a command line speaks on standard output")]

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use comfy_table::{ContentArrangement, Table, presets};
use partywall_tests::lab::{Building, Lab, Topology};
use partywall_tests::{kept, story};

/// Where there is no terminal to ask.
const LOG_COLUMNS: u16 = 120;

/// One building, one LAN, two networks.
#[derive(Parser)]
#[command(name = "scripts/demo", version)]
struct Args {
    /// Leave the lab running afterwards, and say how to look around in it.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    partywall_tests::exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    if args.keep {
        kept::refuse_second()?;
    }
    let topology = Topology::named("building")?;
    eprintln!("demo: building the old town hall, two data centres and what joins them");
    let lab = if args.keep { Lab::up_to_keep(&topology)? } else { Lab::up(&topology)? };
    let building = Building::up(lab)?;
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["", "what happens", "what is seen"]);
    if !table.is_tty() {
        table.set_width(LOG_COLUMNS);
    }
    let mut failed = 0;
    let building = story::play(building, |step| {
        let mark = if step.holds { "ok" } else { "FAILED" };
        eprintln!("demo: {mark:<6} {}", step.what);
        failed += usize::from(!step.holds);
        table.add_row([mark, step.what, step.seen.as_str()]);
    })?;
    println!("{table}");
    if args.keep {
        kept::keep(building)?;
        println!("The lab is still up. Look around in it:");
        println!("  scripts/lab status");
        println!("  scripts/lab exec desk-1 -- partywall status");
        println!("  scripts/lab exec gw-nhs -- nft list ruleset");
        println!("  scripts/lab sign-in desk-3 council carol@council");
        println!("  scripts/lab down");
    }
    match failed {
        0 => Ok(()),
        failed => bail!("{failed} steps do not hold"),
    }
}
