//! `scripts/lab`: a building to walk about in.
//!
//! One lab at a time is kept, in a file that names its holder; `down` ends exactly that one.
#![expect(clippy::print_stdout, reason = "a command line speaks on standard output")]

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use partywall_tests::kept::{self, Kept};
use partywall_tests::lab::{Building, Lab, Topology};

/// A building in network namespaces, with two organisations' networks behind it.
#[derive(Parser)]
#[command(name = "scripts/lab", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the lab, start Partywall in it and leave it running.
    Up {
        /// `building`, `pair`, or a topology file.
        #[arg(default_value = "building")]
        topology: String,
        /// Networks, hosts and servers only.
        #[arg(long)]
        bare: bool,
    },
    /// Run a command on a host.
    Exec {
        /// As the topology names it.
        host: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Sign a test user in at a desk: `sign-in desk-1 council alice@council`.
    SignIn {
        /// The desk.
        desk: String,
        /// The segment.
        segment: String,
        /// The user.
        user: String,
    },
    /// Show the lab's hosts.
    Status,
    /// Take the lab down.
    Down,
}

fn main() -> ExitCode {
    partywall_tests::exit(run(Args::parse().verb))
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Up { topology, bare } => up(&topology, bare),
        Verb::Exec { host, command } => exec(&host, &command),
        Verb::SignIn { desk, segment, user } => sign_in(&desk, &segment, &user),
        Verb::Status => status(),
        Verb::Down => kept::down(),
    }
}

fn up(topology: &str, bare: bool) -> Result<()> {
    kept::refuse_second()?;
    let topology = match topology.contains(['/', '.']) {
        true => Topology::read(topology.as_ref())?,
        false => Topology::named(topology)?,
    };
    let lab = Lab::up_to_keep(&topology)?;
    match bare || topology.name != "building" {
        true => Kept { lab: lab.keep(), building: None }.write()?,
        false => kept::keep(Building::up(lab)?)?,
    }
    status()
}

fn exec(host: &str, command: &[String]) -> Result<()> {
    let lab = attach()?;
    if lab.hosts().all(|known| known.name() != host) {
        bail!("no host {host:?}: `scripts/lab status` shows those that there are");
    }
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    // In the terminal's own process group, so that a shell works and Ctrl-C reaches it.
    let mut command = lab.host(host).interactive(&command);
    Err(command.exec()).context("nsenter (util-linux) does not start")
}

fn sign_in(desk: &str, segment: &str, user: &str) -> Result<()> {
    let kept = Kept::read()?;
    let Some(state) = kept.building else { bail!("this lab runs without Partywall") };
    let mut building = Building::attach(Lab::attach(&kept.lab)?, state);
    let said = building.sign_in(desk, user, segment)?;
    kept::keep(building)?;
    print!("{said}");
    Ok(())
}

fn status() -> Result<()> {
    let lab = attach()?;
    println!("The lab {:?} is up. Its logs are in {}.", lab.topology().name, lab.dir().display());
    for (name, host) in &lab.topology().hosts {
        let addresses = host.links.values().flat_map(|link| &link.addresses);
        let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
        println!("  {name:<18} {} ({})", host.title, addresses.join(", "));
    }
    println!("Look around: scripts/lab exec desk-1 -- partywall status");
    Ok(())
}

fn attach() -> Result<Lab> {
    Lab::attach(&Kept::read()?.lab)
}
