//! `scripts/lab`: a building to walk about in.
//!
//! One lab at a time is kept, in a file that names its holder; `down` ends exactly that one.
#![expect(clippy::print_stdout, reason = "a command line speaks on standard output")]

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use partywall_tests::lab::{Building, Lab, LabState, Topology};
use serde::{Deserialize, Serialize};

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

/// What is kept between two calls.
#[derive(Serialize, Deserialize)]
struct Kept {
    lab: LabState,
    building: Option<partywall_tests::lab::BuildingState>,
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
        Verb::Down => down(),
    }
}

fn up(topology: &str, bare: bool) -> Result<()> {
    if let Ok(kept) = read() {
        if Lab::attach(&kept.lab).is_ok() {
            bail!("a lab is up already: `scripts/lab status` shows it, `scripts/lab down` ends it");
        }
    }
    let topology = match topology.contains(['/', '.']) {
        true => Topology::read(topology.as_ref())?,
        false => Topology::named(topology)?,
    };
    let lab = Lab::up_to_keep(&topology)?;
    let kept = match bare || topology.name != "building" {
        true => Kept { lab: lab.keep(), building: None },
        false => {
            let (lab, building) = Building::up(lab)?.keep();
            Kept { lab, building: Some(building) }
        }
    };
    write(&kept)?;
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
    let kept = read()?;
    let Some(state) = kept.building else { bail!("this lab runs without Partywall") };
    let mut building = Building::attach(Lab::attach(&kept.lab)?, state);
    let said = building.sign_in(desk, user, segment)?;
    let (lab, state) = building.keep();
    write(&Kept { lab, building: Some(state) })?;
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

fn down() -> Result<()> {
    let kept = read()?;
    if let Ok(lab) = Lab::attach(&kept.lab) {
        lab.down()?;
    }
    std::fs::remove_file(path()).context("the lab's state file stays")
}

fn attach() -> Result<Lab> {
    Lab::attach(&read()?.lab)
}

/// Beside other run-time state, so that a restart of the machine forgets the lab with it.
fn path() -> PathBuf {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| "/run".into(), PathBuf::from);
    dir.join("partywall-lab.json")
}

fn read() -> Result<Kept> {
    let text =
        std::fs::read_to_string(path()).context("no lab is up: `scripts/lab up` makes one")?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path().display()))
}

/// Only its owner may read it: the test users' secrets are in it.
fn write(kept: &Kept) -> Result<()> {
    let mut options = std::fs::File::options();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path())?;
    Ok(file.write_all(&serde_json::to_vec_pretty(kept)?)?)
}
