//! A controller alone on its loopback: no building, no agents, nothing but the store under it.

use crate::lab::{Host, Lab, Output, PATIENCE, Process, Topology, within};
use anyhow::{Context, Result};
use partywall_proto::admin::{AuditVerdict, Manifest};

/// Where it listens.
pub const ADDRESS: &str = "127.0.0.1:8443";

const TOPOLOGY: &str = "
name: alone
networks: { nothing: { title: a wire that leads nowhere } }
hosts:
  controller: { title: the controller, links: { nothing: { name: eth0, addresses: [192.0.2.1/24] } } }
";

const FACILITIES: &str = "
organisations:
  - { name: council, title: The council }
";

/// A controller whose process comes and goes, with one organisation and its admin.
pub struct Alone {
    pub lab: Lab,
    data: String,
    process: Option<Process>,
}

impl Alone {
    /// Initialised, running, and set up. `data` is where on the host its data goes; `prepare` runs
    /// there first.
    pub fn up(data: &str, prepare: &[&str]) -> Result<Self> {
        let lab = Lab::up(&Topology::parse(TOPOLOGY)?)?;
        let mut alone = Self { lab, data: data.into(), process: None };
        let host = alone.host().clone();
        if !prepare.is_empty() {
            host.ok(prepare)?;
        }
        let init =
            ["init", "--data", data, "--name", "Alone", "--address", ADDRESS, "--token-file"];
        host.ok(&[&["partywall-controller"], &init[..], &["/var/lib/facilities.token"]].concat())?;
        alone.start()?;
        alone.ctl_with("facilities", &["apply", "-f", "-"], FACILITIES)?.ok()?;
        let create =
            ["token", "create", "--role", "admin", "--organisation", "council", "--holder", "test"];
        let token = alone.ctl_with("facilities", &create, "")?.ok()?;
        host.run_with_input(&["sh", "-c", "umask 077; cat >/var/lib/council.token"], &token)?
            .ok()?;
        Ok(alone)
    }

    /// The one host.
    pub fn host(&self) -> &Host {
        self.lab.host("controller")
    }

    /// Starts the controller's process and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        let serve = ["partywall-controller", "serve", "--data", &self.data, "--listen", ADDRESS];
        let mut process = self.host().spawn("controller", &serve)?;
        within("the controller listens", PATIENCE, || {
            process.must_run()?;
            let listening = self.host().ok(&["ss", "-Hlnt", "sport = :8443"])?;
            Ok((!listening.trim().is_empty()).then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// `partywallctl` with the organisation's admin token.
    pub fn ctl(&self, args: &[&str], input: &str) -> Result<Output> {
        self.ctl_with("council", args, input)
    }

    fn ctl_with(&self, token: &str, args: &[&str], input: &str) -> Result<Output> {
        let controller = format!("https://{ADDRESS}");
        let (ca, token) = (format!("{}/ca.pem", self.data), format!("/var/lib/{token}.token"));
        let connection = ["--controller", &controller, "--ca", &ca, "--token-file", &token];
        self.host().run_with_input(&[&["partywallctl"], &connection[..], args].concat(), input)
    }

    /// Everything that the admin set up, as stored now.
    pub fn export(&self) -> Result<Manifest> {
        let text = self.ctl(&["--json", "export"], "")?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("no manifest: {text}"))
    }

    /// Verifies the audit chains, and says how many records they have.
    pub fn verify_audit(&self) -> Result<u64> {
        let text = self.ctl(&["--json", "audit", "verify"], "")?.ok()?;
        let verdicts: Vec<AuditVerdict> = serde_json::from_str(&text)?;
        for verdict in &verdicts {
            anyhow::ensure!(verdict.broken.is_none(), "{verdict:?}");
        }
        Ok(verdicts.iter().map(|verdict| verdict.records).sum())
    }

    /// Text of a file on the host.
    pub fn read(&self, path: &str) -> Result<String> {
        self.host().read(path)
    }

    /// The CA certificate's path on the host.
    pub fn ca(&self) -> String {
        format!("{}/ca.pem", self.data)
    }
}
