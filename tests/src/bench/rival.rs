//! The yardsticks: other userspace WireGuards between the same two hosts, with the same address
//! translation behind them.
//!
//! A rival is data: all of them take the same configuration through `wg`. What one is given all are
//! given, so that nothing but the program differs.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, Process, within};

/// A userspace WireGuard that is configured with `wg`.
#[derive(Debug)]
pub(super) struct Rival {
    /// As its rows are called.
    pub(super) name: &'static str,
    /// The environment variable that says where the program is.
    variable: &'static str,
    /// What is run where the variable is not set; none where `scripts/bench` installs it.
    usual: Option<&'static str>,
    /// Arguments before the interface's name: stay in the foreground, as root.
    args: &'static [&'static str],
}

/// The one that the bars speak of.
pub(super) const BORINGTUN: Rival = Rival {
    name: "boringtun-cli",
    variable: "BORINGTUN_CLI",
    usual: None,
    args: &["--foreground", "--disable-drop-privileges"],
};

/// Mullvad's descendant of it.
pub(super) const GOTATUN: Rival = Rival {
    name: "gotatun-cli",
    variable: "GOTATUN_CLI",
    usual: None,
    args: &["--foreground", "--disable-drop-privileges"],
};

/// The only one with offloads on both sides.
pub(super) const WIREGUARD_GO: Rival = Rival {
    name: "wireguard-go",
    variable: "WIREGUARD_GO",
    usual: Some("wireguard-go"),
    args: &["--foreground"],
};

const INTERFACE: &str = "wg0";
const LISTEN_PORT: &str = "51820";
/// The same as Partywall's default, and as wg-quick's on an Ethernet.
const MTU: &str = "1420";
/// Logging would be measured too. wireguard-go asks to be told that it is wanted where the kernel has a
/// WireGuard of its own.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("WG_LOG_LEVEL", "error"),
    ("LOG_LEVEL", "error"),
    ("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1"),
];
/// What a gateway of ours has too: forwarding, connection tracking and translation.
const TRANSLATE: &str = "sysctl -qw net.ipv4.ip_forward=1
    nft add table ip t
    nft add chain ip t c '{ type nat hook postrouting priority 100; }'
    nft add rule ip t c ip saddr 100.64.10.0/24 oifname != wg0 masquerade";

/// A rival's tunnel between `device` and `gateway` of a lab of its own.
#[derive(Debug)]
pub(super) struct RivalTunnel {
    pub(super) device: Process,
    pub(super) gateway: Process,
    pub(super) lab: Lab,
}

impl Rival {
    fn program(&self) -> Result<String> {
        let named = std::env::var(self.variable).ok().or(self.usual.map(str::to_owned));
        named.with_context(|| format!("{} names no program; scripts/bench sets it", self.variable))
    }

    /// Brings its tunnel up.
    pub(super) fn up(&self, lab: Lab) -> Result<RivalTunnel> {
        let (device_key, device_public) = keys(&lab, "device")?;
        let (gateway_key, gateway_public) = keys(&lab, "gateway")?;
        let endpoint = format!("{}:{LISTEN_PORT}", lab.topology().ipv4("gateway", "underlay"));
        let device = self.start(&lab, "device", "100.64.10.2/24", &device_key)?;
        let gateway = self.start(&lab, "gateway", "100.64.10.1/24", &gateway_key)?;
        let listen = ["listen-port", LISTEN_PORT, "peer", &device_public];
        let allowed = ["allowed-ips", "100.64.10.2/32"];
        lab.host("gateway").ok(&[&["wg", "set", INTERFACE], &listen[..], &allowed].concat())?;
        let call = ["peer", &gateway_public, "endpoint", &endpoint, "allowed-ips", "10.0.0.0/8"];
        lab.host("device").ok(&[&["wg", "set", INTERFACE], &call[..]].concat())?;
        lab.host("device").ok(&["ip", "route", "add", "10.0.0.0/8", "dev", INTERFACE])?;
        lab.host("gateway").ok(&["sh", "-euc", TRANSLATE])?;
        Ok(RivalTunnel { device, gateway, lab })
    }

    fn start(&self, lab: &Lab, name: &str, address: &str, key: &str) -> Result<Process> {
        let host = lab.host(name);
        let program = self.program()?;
        let args = [&[program.as_str()], self.args, &[INTERFACE]].concat();
        let mut process = host.spawn_with(self.name, &args, ENVIRONMENT)?;
        within(&format!("{} answers", self.name), Duration::from_secs(10), || {
            process.must_run()?;
            host.ok(&["wg", "show", INTERFACE]).map(Some)
        })?;
        let set = ["wg", "set", INTERFACE, "private-key", "/dev/stdin"];
        host.run_with_input(&set, &format!("{key}\n"))?.ok()?;
        host.ok(&["ip", "address", "add", address, "dev", INTERFACE])?;
        host.ok(&["ip", "link", "set", INTERFACE, "mtu", MTU, "up"])?;
        Ok(process)
    }
}

fn keys(lab: &Lab, host: &str) -> Result<(String, String)> {
    let both =
        lab.host(host).ok(&["sh", "-euc", "key=$(wg genkey); echo $key; echo $key | wg pubkey"])?;
    let (private, public) = both.trim().split_once('\n').context("wg genkey gave no key")?;
    Ok((private.into(), public.into()))
}
