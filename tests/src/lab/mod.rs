//! The lab: a building made of network namespaces, with real servers in it.
//!
//! Everything hangs on one holder process in its own network, mount and process namespaces. When it
//! goes, every process, interface and file of the lab goes with it, however the caller ended.

pub mod binaries;
mod building;
mod capture;
mod credentials;
mod holder;
mod host;
mod output;
mod process;
mod script;
mod servers;
mod site;
mod topology;
pub mod totp;
mod transfer;
mod wait;
pub mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use building::{Building, BuildingState, CONTROLLER_PORT, DATA, FLOW_FILES};
pub use capture::{Capture, Frame};
pub use credentials::Credentials;
pub use host::Host;
pub use output::Output;
pub use process::Process;
pub use site::{Part, Site};
pub use topology::Topology;
pub use transfer::Transfer;
pub use wait::{PATIENCE, wait_for, within};

use holder::Holder;

/// A running lab. Dropping it takes everything down.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    // Before the holder, so that each ends before the namespaces do.
    servers: Vec<Process>,
    hosts: BTreeMap<String, Host>,
    holder: Holder,
    dir: PathBuf,
    keep: bool,
}

/// What another process needs in order to enter a lab that was kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabState {
    /// The lab's holder.
    pub pid: u32,
    /// When that process started, in clock ticks since boot, so that a reused id is noticed.
    pub started: u64,
    /// Logs, captures and credentials.
    pub dir: PathBuf,
    /// What the lab was built from.
    pub topology: Topology,
}

impl Lab {
    /// Builds the lab and starts its servers; returns when each of them listens.
    ///
    /// # Errors
    /// Not root, a tool is missing, or the namespace is not a private one without uplink.
    pub fn up(topology: &Topology) -> Result<Self> {
        Self::start(topology, false)
    }

    /// As [`Lab::up`], but the lab outlives this process once [`Lab::keep`] is called.
    ///
    /// # Errors
    /// As [`Lab::up`].
    pub fn up_to_keep(topology: &Topology) -> Result<Self> {
        Self::start(topology, true)
    }

    fn start(topology: &Topology, detached: bool) -> Result<Self> {
        topology.check()?;
        if !rustix::process::geteuid().is_root() {
            bail!("the lab makes network namespaces: run it as root");
        }
        let dir = tempfile::Builder::new()
            .prefix("partywall-lab-")
            .tempdir()
            .context("the lab's directory cannot be made")?
            .keep();
        let holder = Holder::start(detached, &dir)?;
        let mut lab = Self {
            topology: topology.clone(),
            servers: Vec::new(),
            hosts: BTreeMap::new(),
            holder,
            dir,
            keep: false,
        };
        lab.holder.refuse_uplink()?;
        lab.holder.run_script(&script::build(topology))?;
        lab.hosts = hosts(topology, lab.holder.pid(), &lab.dir)?;
        lab.servers = servers::start(topology, &lab.hosts, &lab.dir)?;
        Ok(lab)
    }

    /// Enters a lab that was kept by another process. Dropping the value leaves the lab running.
    ///
    /// # Errors
    /// The lab is gone.
    pub fn attach(state: &LabState) -> Result<Self> {
        let holder = Holder::attach(state.pid, state.started)?;
        Ok(Self {
            topology: state.topology.clone(),
            servers: Vec::new(),
            hosts: hosts(&state.topology, state.pid, &state.dir)?,
            holder,
            dir: state.dir.clone(),
            keep: true,
        })
    }

    /// Leaves the lab running when this value is dropped, and says how to come back to it.
    pub fn keep(mut self) -> LabState {
        self.keep = true;
        LabState {
            pid: self.holder.pid(),
            started: self.holder.started(),
            dir: self.dir.clone(),
            topology: self.topology.clone(),
        }
    }

    /// Takes a kept lab down.
    pub fn down(mut self) {
        self.keep = false;
    }

    /// One of the lab's machines.
    ///
    /// # Panics
    /// The topology has no such host: the caller is wrong.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).unwrap_or_else(|| {
            panic!("no host {name:?} in the lab; there are {:?}", self.hosts.keys())
        })
    }

    /// Every machine, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// Records every frame on a network from now on.
    ///
    /// # Errors
    /// No such network, or tcpdump does not start.
    pub fn capture(&self, network: &str) -> Result<Capture> {
        if !self.topology.networks.contains_key(network) {
            bail!("no network {network:?} in the lab; there are {:?}", self.topology.networks);
        }
        Capture::start(&self.holder, &script::bridge(network), &self.dir)
    }

    /// Process id of the holder, in the caller's process namespace.
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Logs, captures and credentials of this lab; goes with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the lab was built from.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            self.servers.drain(..).for_each(Process::release);
            self.holder.release();
            return;
        }
        self.servers.clear();
        self.holder.end();
        // A failed test's logs are worth more than a tidy /tmp.
        if std::thread::panicking() {
            eprintln!("the lab's logs are in {}", self.dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn hosts(topology: &Topology, holder: u32, dir: &Path) -> Result<BTreeMap<String, Host>> {
    let host = |name: &String| Ok((name.clone(), Host::new(name, holder, dir)?));
    topology.hosts.keys().map(host).collect()
}
