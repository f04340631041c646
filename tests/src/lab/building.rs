//! Partywall in a lab: controller, gateways and desks, set up the way an admin would, with the programs
//! that an admin has.
//!
//! Everything goes through the programs' own surfaces. What only a test could do would prove nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use partywall_proto::admin::{
    CredentialCreated, FlowStatus, SessionView, StoredFlow, TokenCreated,
};
use serde::{Deserialize, Serialize};

use super::credentials::Credentials;
use super::output::Output;
use super::process::Process;
use super::site::Site;
use super::totp::Authenticator;
use super::wait::{PATIENCE, within};
use super::wire::Allowed;
use super::{Host, Lab, LabState, binaries};

/// Where the controller listens.
pub const CONTROLLER_PORT: u16 = 8443;

/// On the controller's host: its data.
pub const DATA: &str = "/var/lib/partywall";
/// On the controller's host: where organisations may have their flow records written.
pub const FLOW_FILES: &str = "/var/lib/partywall-flow-files";
/// On the controller's host; the tokens of facilities and of each organisation's admin are in it.
const TOKENS: &str = "/run/lab";

/// A lab in which Partywall runs. Dropping it takes everything down.
#[derive(Debug)]
pub struct Building {
    // Processes before the lab, so that each ends before its namespaces do.
    agents: BTreeMap<String, Process>,
    controller: Option<Process>,
    credentials: BTreeMap<String, Credentials>,
    address: SocketAddr,
    allowed: Allowed,
    lab: Lab,
}

/// What another process needs in order to go on with a building that was kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BuildingState {
    credentials: BTreeMap<String, Credentials>,
    address: SocketAddr,
    gateways: Vec<SocketAddr>,
}

impl Building {
    /// Sets Partywall up in a lab from the manifests that belong to its topology. Returns when every
    /// agent is enrolled and connected.
    ///
    /// # Errors
    /// The programs are not built, or one of them fails; the message has what it said.
    pub fn up(lab: Lab) -> Result<Self> {
        let site = Site::of(lab.topology())?;
        Self::up_with(lab, &site)
    }

    /// As [`Building::up`], with other manifests.
    ///
    /// # Errors
    /// As [`Building::up`].
    pub fn up_with(lab: Lab, site: &Site) -> Result<Self> {
        binaries::dir()?;
        let address =
            SocketAddr::new(lab.topology().ipv4("controller", "underlay"), CONTROLLER_PORT);
        let gateways: Vec<SocketAddr> = site.gateway_endpoints().collect();
        let mut building = Self {
            agents: BTreeMap::new(),
            controller: None,
            credentials: BTreeMap::new(),
            address,
            allowed: Allowed {
                gateways: gateways.into_iter().collect(),
                controllers: [address].into(),
            },
            lab,
        };
        let init = ["partywall-controller", "init", "--data", DATA, "--name", "Partywall lab"];
        let facilities = token_file("facilities");
        let address = address.to_string();
        building.host("controller").ok(&[
            &init[..],
            &["--address", &address, "--token-file", &facilities],
        ]
        .concat())?;
        building.start_controller()?;
        building.apply("facilities", &site.facilities.yaml)?;
        for (organisation, part) in &site.organisations {
            building.make_admin(organisation)?;
            building.apply(organisation, &part.yaml)?;
            for user in &part.manifest.users {
                building
                    .set_credentials(user.name.organisation().as_str(), &user.name.to_string())?;
            }
        }
        for (host, agent, admin) in site.agents() {
            building.enrol(&host, &agent, &admin)?;
            building.start_agent(&host)?;
        }
        let hosts: Vec<String> = building.agents.keys().cloned().collect();
        for host in hosts {
            building.wait_until_connected(&host)?;
        }
        Ok(building)
    }

    /// Goes on with a building that was kept. Its daemons are not this process's children: they run on
    /// when the value is dropped.
    pub fn attach(lab: Lab, state: BuildingState) -> Self {
        let BuildingState { credentials, address, gateways } = state;
        Self {
            agents: BTreeMap::new(),
            controller: None,
            credentials,
            address,
            allowed: Allowed {
                gateways: gateways.into_iter().collect(),
                controllers: [address].into(),
            },
            lab,
        }
    }

    /// Leaves everything running.
    pub fn keep(mut self) -> (LabState, BuildingState) {
        std::mem::take(&mut self.agents)
            .into_values()
            .chain(self.controller.take())
            .for_each(Process::release);
        let state = BuildingState {
            credentials: self.credentials,
            address: self.address,
            gateways: self.allowed.gateways.into_iter().collect(),
        };
        (self.lab.keep(), state)
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A machine of the lab.
    ///
    /// # Panics
    /// There is none of this name.
    pub fn host(&self, name: &str) -> &Host {
        self.lab.host(name)
    }

    /// What may be on the LAN.
    pub fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// Runs `partywallctl` as `facilities` or as the admin of an organisation.
    ///
    /// # Errors
    /// It could not be started.
    pub fn ctl(&self, who: &str, args: &[&str]) -> Result<Output> {
        self.ctl_with_input(who, args, "")
    }

    /// As [`Building::ctl`], with something on its standard input.
    ///
    /// # Errors
    /// As [`Building::ctl`].
    pub fn ctl_with_input(&self, who: &str, args: &[&str], input: &str) -> Result<Output> {
        let controller = format!("https://{}", self.address);
        let (ca, token) = (format!("{DATA}/ca.pem"), token_file(who));
        let connection = ["--controller", &controller, "--ca", &ca, "--token-file", &token];
        self.host("controller")
            .run_with_input(&[&["partywallctl"], args, &connection[..]].concat(), input)
    }

    /// Applies a manifest, written as YAML.
    ///
    /// # Errors
    /// The controller refuses it.
    pub fn apply(&self, who: &str, yaml: &str) -> Result<String> {
        let file = self.write(&format!("{who}.yaml"), yaml)?;
        self.ctl(who, &["apply", "-f", &file.display().to_string()])?.ok()
    }

    /// Makes the token of an organisation's first admin, as facilities may.
    fn make_admin(&self, organisation: &str) -> Result<()> {
        let made = self.ctl(
            "facilities",
            &["token", "create", "--role", "admin", "--organisation", organisation]
                .into_iter()
                .chain(["--holder", "first admin", "--json"])
                .collect::<Vec<_>>(),
        )?;
        let created: TokenCreated =
            serde_json::from_str(&made.ok()?).context("token create --json")?;
        let write = format!("umask 077; cat >{}", token_file(organisation));
        let host = self.host("controller");
        host.run_with_input(&["sh", "-c", &write], created.secret.expose())?.ok()?;
        Ok(())
    }

    fn set_credentials(&mut self, admin: &str, user: &str) -> Result<()> {
        let password = format!("a long password of {user}");
        let input = format!("{password}\n");
        let set = self.ctl_with_input(admin, &["credentials", user, "--json"], &input)?;
        let created: CredentialCreated =
            serde_json::from_str(&set.ok()?).context("credentials --json")?;
        let authenticator = Authenticator::from_uri(created.otpauth_uri.expose())?;
        self.credentials.insert(user.into(), Credentials { password, authenticator });
        Ok(())
    }

    /// What a test user knows and holds.
    ///
    /// # Panics
    /// There is no such user.
    pub fn credentials(&mut self, user: &str) -> &mut Credentials {
        self.credentials.get_mut(user).unwrap_or_else(|| panic!("no test user {user:?}"))
    }

    /// Enrols the machine `host` under the name `agent` with a new code from `admin`.
    ///
    /// # Errors
    /// The code or the enrolment is refused.
    pub fn enrol(&self, host: &str, agent: &str, admin: &str) -> Result<String> {
        let code = self.ctl(admin, &["enrol-code", agent])?.ok()?;
        self.host(host).ok(&["partywall-agent", "enrol", code.trim()])
    }

    /// Starts the controller and waits until it listens.
    ///
    /// # Errors
    /// It ends or does not listen; the message has the end of its log.
    pub fn start_controller(&mut self) -> Result<()> {
        let address = self.address.to_string();
        let serve = ["partywall-controller", "serve", "--data", DATA, "--listen", &address];
        let serve = [&serve[..], &["--flow-files", FLOW_FILES]].concat();
        let mut process = self.host("controller").spawn("controller", &serve)?;
        let host = self.host("controller").clone();
        within("the controller listens", PATIENCE, || {
            process.must_run()?;
            let shown = host.ok(&["ss", "-Hlnt", &format!("sport = :{CONTROLLER_PORT}")])?;
            Ok((!shown.trim().is_empty()).then_some(()))
        })?;
        self.controller = Some(process);
        Ok(())
    }

    /// The controller's process.
    ///
    /// # Panics
    /// It was killed or stopped.
    pub fn controller(&mut self) -> &mut Process {
        self.controller.as_mut().expect("the controller runs")
    }

    /// Kills the controller as a power cut would.
    pub fn kill_controller(&mut self) {
        if let Some(process) = self.controller.take() {
            process.kill();
        }
    }

    /// Starts a host's agent without waiting for its connection.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start_agent(&mut self, host: &str) -> Result<()> {
        let process = self.host(host).spawn("agent", &["partywall-agent", "run"])?;
        self.agents.insert(host.into(), process);
        Ok(())
    }

    /// A host's agent.
    ///
    /// # Panics
    /// There is none, or it was killed or stopped.
    pub fn agent(&mut self, host: &str) -> &mut Process {
        self.agents.get_mut(host).unwrap_or_else(|| panic!("no agent runs on {host}"))
    }

    /// Kills a host's agent as a crash would; what it set up on the host stays.
    pub fn kill_agent(&mut self, host: &str) {
        if let Some(process) = self.agents.remove(host) {
            process.kill();
        }
    }

    /// Asks a host's agent to end, and waits for it.
    ///
    /// # Errors
    /// It does not end in time, or there is none.
    pub fn stop_agent(&mut self, host: &str) -> Result<()> {
        let process =
            self.agents.remove(host).with_context(|| format!("no agent runs on {host}"))?;
        let status = process.stop()?;
        anyhow::ensure!(status.success(), "the agent of {host} ended with {status}");
        Ok(())
    }

    /// Waits until a host's agent has been welcomed by the controller. Gateways also have a config
    /// then, and listen.
    ///
    /// # Errors
    /// It has not within [`PATIENCE`].
    pub fn wait_until_connected(&mut self, host: &str) -> Result<()> {
        let machine = self.host(host).clone();
        let mut process = self.agents.get_mut(host);
        within(&format!("the agent of {host} is connected"), PATIENCE, || {
            if let Some(process) = &mut process {
                process.must_run()?;
            }
            let status: serde_json::Value =
                serde_json::from_str(&machine.ok(&["partywall", "status", "--json"])?)?;
            let gateway =
                status["agent"].as_str().is_some_and(|agent| agent.starts_with("gateway/"));
            let ready = status["controller"]["connected"] == true
                && (!gateway || status["enforced"] == true);
            anyhow::ensure!(ready, "its status is {status}");
            Ok(Some(()))
        })
    }

    /// Signs a user in at a desk; returns when the tunnel carries packets.
    ///
    /// # Errors
    /// The sign-in is refused.
    pub fn sign_in(&mut self, desk: &str, user: &str, segment: &str) -> Result<String> {
        self.try_sign_in(desk, user, segment)?.ok()
    }

    /// As [`Building::sign_in`], for sign-ins that are to be refused.
    ///
    /// # Errors
    /// The command could not be started.
    pub fn try_sign_in(&mut self, desk: &str, user: &str, segment: &str) -> Result<Output> {
        let lines = self.credentials(user).lines();
        let login = ["partywall", "login", segment, "--user", user, "--stdin"];
        self.host(desk).run_with_input(&login, &lines)
    }

    /// Signs out at a desk.
    ///
    /// # Errors
    /// There is nobody to sign out.
    pub fn sign_out(&self, desk: &str) -> Result<String> {
        self.host(desk).ok(&["partywall", "logout"])
    }

    /// The sessions of an organisation.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn sessions(&self, organisation: &str) -> Result<Vec<SessionView>> {
        let text = self.ctl(organisation, &["sessions", "--json"])?.ok()?;
        // A page, or the bare list.
        let value: serde_json::Value = serde_json::from_str(&text)?;
        let items = value.get("items").cloned().unwrap_or(value);
        serde_json::from_value(items).context("sessions --json")
    }

    /// What became of an organisation's flow records.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn flow_status(&self, organisation: &str) -> Result<FlowStatus> {
        let text = self.ctl(organisation, &["flows", "status", "--json"])?.ok()?;
        serde_json::from_str(&text).context("flows status --json")
    }

    /// An organisation's flow records, those that `which` asks for, as in `--device desk-1`.
    ///
    /// # Errors
    /// The controller does not answer.
    pub fn flows(&self, organisation: &str, which: &[&str]) -> Result<Vec<StoredFlow>> {
        let all = ["flows", "--json", "--limit", "1000000"];
        let text = self.ctl(organisation, &[&all[..], which].concat())?.ok()?;
        let lines = text.lines().map(serde_json::from_str::<StoredFlow>);
        lines.collect::<Result<_, _>>().context("flows --json")
    }

    /// Writes a file that every host can read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.lab.dir().join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

fn token_file(who: &str) -> String {
    format!("{TOKENS}/{who}.token")
}
