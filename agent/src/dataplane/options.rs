//! How the data path is set up, and what it asks of the kernel. Nothing here changes what is carried, but
//! for the keys.

use partywall_datapath::shard::{PrivateKey, Role};

use crate::dataplane::FlowQueue;

/// How the data path is set up. None of it changes while it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The TUN interface's name, at most 15 bytes.
    pub tun_name: String,
    /// The agent's WireGuard private key.
    pub private_key: PrivateKey,
    /// Device or gateway.
    pub role: Role,
    /// UDP port; none lets the kernel choose.
    pub listen_port: Option<u16>,
    /// Threads, 1 to [`SHARDS_MAX`].
    pub shards: u16,
    /// `SO_MARK` of the agent's own datagrams.
    pub fwmark: u32,
    /// What the kernel is asked to do for many packets at once.
    pub offloads: Offloads,
    /// Whether the kernel is asked to give each packet to the thread that owns it. Without that threads
    /// hand over what is not theirs.
    pub steering: bool,
    /// Where the shards tell of flows.
    pub flows: FlowQueue,
}

/// The most threads: as many queues as a TUN has (`MAX_TAP_QUEUES` of `drivers/net/tun.c`).
pub const SHARDS_MAX: u16 = 256;

/// Work on many packets at once that the kernel is asked for. What it refuses is done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// Super-packets at the TUN.
    pub tun: bool,
    /// Segmentation and gathering of datagrams at the UDP socket.
    pub udp: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self { tun: true, udp: true }
    }
}
