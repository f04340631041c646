//! A building for one test: what the test wants done is done or the test fails, with the logs.
//!
//! Every test has a building of its own. Nothing of one test can be seen by another, and they run side by
//! side.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::lab::{Building, Host, Lab, Output, Site, Topology, wire};
use partywall_proto::admin::{FlowStatus, Manifest, SessionView, StoredFlow};
use rustix::process::Signal;
use serde_json::Value;

use super::ShowLogs;

/// The page that names its organisation: the same addresses in both networks.
pub const INTRANET: [&str; 2] = ["http://10.1.0.10/", "http://[fd10:1::10]/"];

/// A building in which Partywall runs.
pub struct Stage {
    // First, so that the logs are read before the lab takes them along.
    _logs: ShowLogs,
    building: Building,
}

impl Stage {
    /// The old town hall, with every agent enrolled and connected and nobody signed in.
    pub fn up() -> Self {
        let lab = Lab::up(&Topology::named("building").unwrap()).unwrap();
        let logs = ShowLogs::of(lab.dir());
        let building = Building::up(lab).unwrap_or_else(|error| panic!("{error:#}"));
        Self { _logs: logs, building }
    }

    /// As [`Stage::up`], with manifests that `change` has changed: organisation and text.
    pub fn up_with(change: impl Fn(&str, &str) -> String) -> Self {
        let topology = Topology::named("building").unwrap();
        let site = Site::of(&topology).unwrap();
        let changed =
            site.organisations.iter().map(|(name, part)| (name, change(name, &part.yaml)));
        let changed: Vec<_> = changed.collect();
        let parts: Vec<_> =
            changed.iter().map(|(name, yaml)| (name.as_str(), yaml.as_str())).collect();
        let site = Site::new(&site.facilities.yaml, &parts).unwrap();
        let lab = Lab::up(&topology).unwrap();
        let logs = ShowLogs::of(lab.dir());
        let building = Building::up_with(lab, &site).unwrap_or_else(|error| panic!("{error:#}"));
        Self { _logs: logs, building }
    }

    pub fn lab(&self) -> &Lab {
        self.building.lab()
    }

    pub fn host(&self, name: &str) -> &Host {
        self.building.host(name)
    }

    /// What may be on the LAN.
    pub fn allowed(&self) -> wire::Allowed {
        self.building.allowed().clone()
    }

    pub fn sign_in(&mut self, desk: &str, user: &str, segment: &str) {
        self.try_sign_in(desk, user, segment).ok().unwrap_or_else(|error| panic!("{error:#}"));
    }

    pub fn try_sign_in(&mut self, desk: &str, user: &str, segment: &str) -> Output {
        self.building.try_sign_in(desk, user, segment).unwrap()
    }

    pub fn sign_out(&self, desk: &str) {
        self.building.sign_out(desk).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// `partywall login` with whatever the test types.
    pub fn login(&self, desk: &str, user: &str, segment: &str, lines: &str) -> Output {
        let login = ["partywall", "login", segment, "--user", user, "--stdin"];
        self.host(desk).run_with_input(&login, lines).unwrap()
    }

    /// A user's password and a code that was not given before.
    pub fn credentials(&mut self, user: &str) -> (String, String) {
        let lines = self.building.credentials(user).lines();
        let (password, code) = lines.trim_end().split_once('\n').unwrap();
        (password.to_owned(), code.to_owned())
    }

    /// Signs a stock client's user in, as `partywallctl sign-in` does for a person without a token.
    pub fn stock_sign_in(&mut self, device: &str, user: &str, segment: &str) {
        self.try_stock_sign_in(device, user, segment)
            .ok()
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    pub fn try_stock_sign_in(&mut self, device: &str, user: &str, segment: &str) -> Output {
        let lines = self.building.credentials(user).lines();
        let sign_in = ["sign-in", "--device", device, "--segment", segment, "--user", user];
        self.ctl(segment, &sign_in, &lines).unwrap()
    }

    /// `partywallctl` as facilities or as an organisation's admin.
    pub fn ctl(&self, who: &str, args: &[&str], input: &str) -> anyhow::Result<Output> {
        self.building.ctl_with_input(who, args, input)
    }

    pub fn sessions(&self, organisation: &str) -> Vec<SessionView> {
        self.building.sessions(organisation).unwrap()
    }

    pub fn flow_status(&self, organisation: &str) -> FlowStatus {
        self.building.flow_status(organisation).unwrap()
    }

    /// Flow records as `partywallctl flows` shows them.
    pub fn flows(&self, organisation: &str, which: &[&str]) -> Vec<StoredFlow> {
        self.building.flows(organisation, which).unwrap()
    }

    pub fn export(&self, who: &str) -> Manifest {
        let text = self.ctl(who, &["export", "--json"], "").unwrap().ok().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn apply(&self, who: &str, manifest: &Manifest) {
        let text = serde_json::to_string(manifest).unwrap();
        self.ctl(who, &["apply", "-f", "-"], &text)
            .unwrap()
            .ok()
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// What a web server says to a host; none if it cannot be reached.
    pub fn page(&self, host: &str, url: &str) -> Option<String> {
        // Long enough for two attempts at a connection (RFC 6298: the second after a second).
        let limits = ["--connect-timeout", "3", "--max-time", "20"];
        let output =
            self.host(host).run(&[&["curl", "-sfg"], &limits[..], &[url]].concat()).unwrap();
        output.success().then(|| output.stdout.trim().to_owned())
    }

    pub fn pings(&self, host: &str, address: &str) -> bool {
        self.host(host).run(&["ping", "-c1", "-W1", address]).unwrap().success()
    }

    /// The overlay addresses of a desk with a session.
    pub fn overlay(&self, desk: &str) -> Vec<String> {
        let text =
            self.host(desk).ok(&["ip", "-j", "address", "show", "dev", "partywall0"]).unwrap();
        let links: Value = serde_json::from_str(&text).unwrap();
        let found = links[0]["addr_info"].as_array().unwrap().iter();
        let addresses: Vec<String> = found
            .filter(|info| info["scope"] == "global")
            .map(|info| info["local"].as_str().unwrap().to_owned())
            .collect();
        assert!(!addresses.is_empty(), "{desk} has no overlay address: {text}");
        addresses
    }

    /// As [`Stage::overlay`], the address of one family.
    pub fn overlay_address(&self, desk: &str, four: bool) -> IpAddr {
        let all = self.overlay(desk).into_iter().map(|text| text.parse::<IpAddr>().unwrap());
        all.into_iter().find(|address| address.is_ipv4() == four).unwrap()
    }

    /// How a host's names are resolved.
    pub fn resolver(&self, host: &str) -> String {
        let show = "readlink /etc/resolv.conf; cat /etc/resolv.conf";
        self.host(host).ok(&["sh", "-c", show]).unwrap()
    }

    pub fn status(&self, host: &str) -> Value {
        let text = self.host(host).ok(&["partywall", "status", "--json"]).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What a host's agent dropped since it started, by reason.
    pub fn drops(&self, host: &str) -> BTreeMap<String, u64> {
        let status = self.status(host);
        let drops = status["drops"].as_object().unwrap().iter();
        drops.map(|(reason, drop)| (reason.clone(), drop["packets"].as_u64().unwrap())).collect()
    }

    /// Ends an agent: SIGTERM and a clean end, or SIGKILL as a crash.
    pub fn end_agent(&mut self, host: &str, signal: Signal) {
        match signal {
            Signal::KILL => self.building.kill_agent(host),
            _ => self.building.stop_agent(host).unwrap_or_else(|error| panic!("{error:#}")),
        }
    }

    pub fn start_agent(&mut self, host: &str) {
        self.building.start_agent(host).unwrap();
    }

    pub fn kill_controller(&mut self) {
        self.building.kill_controller();
    }

    pub fn start_controller(&mut self) {
        self.building.start_controller().unwrap();
    }
}

/// The address of a web server, as curl wants it.
pub fn url(address: &str) -> String {
    match address.contains(':') {
        true => format!("http://[{address}]/"),
        false => format!("http://{address}/"),
    }
}
