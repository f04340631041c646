//! The floor under a tunnel's cost: the cipher for as many bytes, and the same transfer with no tunnel.
//!
//! It is what a tunnel would cost that did nothing else. What is left out makes it lower, never higher: a
//! gigabyte of payload is sealed as one gigabyte of packets, although headers make it 4 % more, and the
//! transfer ends at the gateway's host, although the tunnel's goes on to a server behind it.

use std::time::Duration;

use anyhow::{Context, Result};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::iperf::{self, Congestion, Streamed, Target};
use super::machine::thread_s;
use crate::lab::{Lab, Process, Topology};

/// A full packet at the usual MTU.
const PACKET_BYTES: usize = 1420;
/// Long enough to be told from the clock's steps.
const CIPHER: Duration = Duration::from_millis(500);
const PORT: u16 = 5201;

/// The lab's hosts with no tunnel between them.
#[derive(Debug)]
pub(super) struct Bare {
    _server: Process,
    lab: Lab,
    near: Target,
    far: Target,
}

impl Bare {
    pub(super) fn up(topology: &Topology, congestion: Congestion) -> Result<Self> {
        let lab = Lab::up(topology)?;
        let gateway = lab.host("gateway");
        let server = gateway.spawn("iperf3", &["iperf3", "-s", "-p", &PORT.to_string()])?;
        gateway.wait_for_listener('t', PORT)?;
        // As behind a tunnel: the gateway forwards, tracks connections and translates.
        gateway.ok(&["sh", "-euc", TRANSLATE])?;
        let via = lab.topology().ipv4("gateway", "underlay").to_string();
        lab.host("device").ok(&["ip", "route", "add", "10.0.0.0/8", "via", &via])?;
        let near = Target { address: via, port: PORT, congestion };
        let server_address = lab.topology().ipv4("server", "inside").to_string();
        let far = Target { address: server_address, port: PORT, congestion };
        Ok(Self { _server: server, lab, near, far })
    }

    /// One TCP stream between the two hosts that a tunnel would be between.
    pub(super) fn near(&self, seconds: u32) -> Result<Streamed> {
        iperf::tcp(self.lab.host("device"), &self.near, 1, seconds, || Ok(0.0))
    }

    /// One TCP stream to the server behind the gateway.
    pub(super) fn far(&self, seconds: u32) -> Result<Streamed> {
        iperf::tcp(self.lab.host("device"), &self.far, 1, seconds, || Ok(0.0))
    }
}

const TRANSLATE: &str = "sysctl -qw net.ipv4.ip_forward=1
    nft add table ip t
    nft add chain ip t c '{ type nat hook postrouting priority 100; }'
    nft add rule ip t c oifname eth1 masquerade";

/// Seconds that ring takes to seal and open a gigabyte in full packets, on one core.
pub(super) fn cipher_s_per_gb() -> Result<f64> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).ok().context("ring takes no key")?;
    let key = LessSafeKey::new(key);
    let mut packet = vec![0xab; PACKET_BYTES];
    let began = thread_s();
    let mut count = 0_u64;
    loop {
        for _ in 0..1000 {
            count += 1;
            let mut nonce = [0; NONCE_LEN];
            nonce[4..].copy_from_slice(&count.to_le_bytes());
            let nonce = || Nonce::assume_unique_for_key(nonce);
            let tag = key
                .seal_in_place_separate_tag(nonce(), Aad::empty(), &mut packet)
                .ok()
                .context("ring does not seal")?;
            packet.extend_from_slice(tag.as_ref());
            let opened = key.open_in_place(nonce(), Aad::empty(), &mut packet);
            let bytes = opened.ok().context("ring does not open what it sealed")?.len();
            packet.truncate(bytes);
        }
        let spent_s = thread_s() - began;
        if spent_s >= CIPHER.as_secs_f64() {
            return Ok(spent_s / (count as f64 * PACKET_BYTES as f64 / 1e9));
        }
    }
}
