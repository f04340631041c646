//! The data path's shell: threads, sockets and the TUN around the pure shards of
//! `partywall-datapath`.
//!
//! The kernel gives each packet to the thread that owns its peer; what lands elsewhere is handed over.
//! Nothing waits: where a socket, the TUN or a mailbox is full, packets are dropped and counted. What
//! asks for a worker's attention comes through its inbox and an eventfd.

mod alarm;
mod backlog;
mod clock;
mod courtesy;
mod error;
mod flow_queue;
mod handle;
mod handover;
mod loss;
mod options;
mod ports;
mod report;
#[cfg(test)]
mod tests;
mod train;
mod tun;
mod udp;
mod watch;
mod worker;

pub use error::DataPlaneError;
pub use flow_queue::{FlowBatch, FlowQueue};
pub use handle::DataPlane;
pub use loss::Loss;
pub use options::{Offloads, Options, SHARDS_MAX};
pub use partywall_datapath::DropReason;
pub use partywall_datapath::shard::{
    Explanation, PeerStatus, PrivateKey, Query, Role, Traffic, Update,
};
pub use report::{Report, reason_sentence};
