//! Why the data path does not run, with what to do about it.

use std::io;

use crate::dataplane::options::SHARDS_MAX;

/// Why the data path does not run.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// A number of shards that does not work.
    #[error("{asked} shards are asked for; there can be 1 to {SHARDS_MAX}")]
    Shards {
        /// What was asked for.
        asked: u16,
    },
    /// The TUN interface cannot be had.
    #[error("the TUN interface {name} cannot be opened: {advice}")]
    Tun {
        /// The interface.
        name: String,
        /// What to do.
        advice: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The UDP socket cannot be had.
    #[error("the UDP socket on {} cannot be opened: {advice}", port_text(*port))]
    Udp {
        /// The port that was asked for.
        port: Option<u16>,
        /// What to do.
        advice: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread or its eventfd cannot be had.
    #[error("the worker thread of shard {shard} cannot be started")]
    Start {
        /// The shard.
        shard: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker died. Nothing is carried any more; restart the agent.
    #[error("the worker of shard {shard} died: {reason}")]
    WorkerDied {
        /// The shard.
        shard: u16,
        /// What it died of.
        reason: String,
    },
}

impl DataPlaneError {
    pub(super) fn tun(name: &str, source: io::Error) -> Self {
        Self::Tun { advice: tun_advice(&source), name: name.to_owned(), source }
    }

    pub(super) fn udp(port: Option<u16>, source: io::Error) -> Self {
        Self::Udp { port, advice: udp_advice(&source), source }
    }
}

fn port_text(port: Option<u16>) -> String {
    port.map_or_else(|| "a free port".to_owned(), |port| format!("port {port}"))
}

fn tun_advice(refused: &io::Error) -> &'static str {
    match refused.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run the agent as root or give it CAP_NET_ADMIN",
        Some(libc::EBUSY) => {
            "another program holds it; stop that, or choose another name with --tun"
        }
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "the kernel has no TUN driver loaded; run modprobe tun"
        }
        Some(libc::EINVAL) => {
            "the name is taken by an interface of another kind; choose another with --tun"
        }
        Some(_) | None => "the system refused it",
    }
}

fn udp_advice(refused: &io::Error) -> &'static str {
    match refused.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run the agent as root or give it CAP_NET_ADMIN",
        Some(libc::EADDRINUSE) => {
            "another program uses this port; stop that, or change the gateway's port"
        }
        Some(_) | None => "the system refused it",
    }
}
