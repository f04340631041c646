//! The data path's shell: threads, sockets and the TUN around the pure shards of
//! `partywall-datapath`.
//!
//! Packets never leave the thread that read them, and never wait: where a socket or the TUN is full
//! they are dropped and counted. What asks for a worker's attention comes through its inbox and an
//! eventfd.

mod handle;
mod loss;
mod report;
#[cfg(test)]
mod tests;
mod tun;
mod udp;
mod worker;

pub use handle::{DataPlane, DataPlaneError, Offloads, Options};
pub use loss::Loss;
pub use partywall_datapath::shard::{
    Explanation, PeerStatus, PrivateKey, Query, Role, Traffic, Update,
};
pub use report::{Report, reason_sentence};
