//! The yardstick: boringtun-cli between the same two hosts, with the same address translation behind it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, Process, within};

const LISTEN_PORT: &str = "51820";
/// The same as Partywall's default, and as wg-quick's on an Ethernet.
const MTU: &str = "1420";

/// A tunnel between `device` and `gateway`.
#[derive(Debug)]
pub(super) struct Boringtun {
    pub(super) device: Process,
    pub(super) gateway: Process,
    pub(super) lab: Lab,
}

impl Boringtun {
    pub(super) fn up(lab: Lab) -> Result<Self> {
        let program = std::env::var("BORINGTUN_CLI")
            .context("BORINGTUN_CLI names no boringtun-cli; scripts/bench sets it")?;
        let (device_key, device_public) = keys(&lab, "device")?;
        let (gateway_key, gateway_public) = keys(&lab, "gateway")?;
        let endpoint = format!("{}:{LISTEN_PORT}", lab.topology().ipv4("gateway", "underlay"));
        let device = start(&lab, "device", &program, "100.64.10.2/24", &device_key)?;
        let gateway = start(&lab, "gateway", &program, "100.64.10.1/24", &gateway_key)?;
        lab.host("gateway").ok(&[
            "wg",
            "set",
            "wg0",
            "listen-port",
            LISTEN_PORT,
            "peer",
            &device_public,
        ]
        .into_iter()
        .chain(["allowed-ips", "100.64.10.2/32"])
        .collect::<Vec<_>>())?;
        lab.host("device").ok(&[
            "wg",
            "set",
            "wg0",
            "peer",
            &gateway_public,
            "endpoint",
            &endpoint,
        ]
        .into_iter()
        .chain(["allowed-ips", "10.0.0.0/8"])
        .collect::<Vec<_>>())?;
        lab.host("device").ok(&["ip", "route", "add", "10.0.0.0/8", "dev", "wg0"])?;
        // What a gateway of ours has too: forwarding, connection tracking and translation.
        let translate = "sysctl -qw net.ipv4.ip_forward=1
            nft add table ip t
            nft add chain ip t c '{ type nat hook postrouting priority 100; }'
            nft add rule ip t c ip saddr 100.64.10.0/24 oifname != wg0 masquerade";
        lab.host("gateway").ok(&["sh", "-euc", translate])?;
        Ok(Self { device, gateway, lab })
    }
}

fn keys(lab: &Lab, host: &str) -> Result<(String, String)> {
    let both =
        lab.host(host).ok(&["sh", "-euc", "key=$(wg genkey); echo $key; echo $key | wg pubkey"])?;
    let (private, public) = both.trim().split_once('\n').context("wg genkey gave no key")?;
    Ok((private.into(), public.into()))
}

fn start(lab: &Lab, name: &str, program: &str, address: &str, key: &str) -> Result<Process> {
    let host = lab.host(name);
    let args = [program, "--foreground", "--disable-drop-privileges", "wg0"];
    let mut process = host.spawn_with("boringtun", &args, &[("WG_LOG_LEVEL", "error")])?;
    within("boringtun answers", Duration::from_secs(10), || {
        process.must_run()?;
        host.ok(&["wg", "show", "wg0"]).map(Some)
    })?;
    let set = ["wg", "set", "wg0", "private-key", "/dev/stdin"];
    host.run_with_input(&set, &format!("{key}\n"))?.ok()?;
    host.ok(&["ip", "address", "add", address, "dev", "wg0"])?;
    host.ok(&["ip", "link", "set", "wg0", "mtu", MTU, "up"])?;
    Ok(process)
}
