//! What the agent asks of the operating system, in one place: links, addresses, routes, policy
//! rules, nftables, names and forwarding.
//!
//! [`System::reconcile`] fetches what is, plans purely, applies. The leak guard goes up before the
//! first address and comes down after the last; nothing in between may change that order.

mod desired;
mod device_rules;
mod dns;
mod durable;
mod error;
mod gateway_rules;
mod names;
mod netlink;
mod nft;
mod plan;
mod record;
mod resolv_conf;
mod resolved;
mod routing;
mod ruleset;
mod sockets;
mod sysctl;
mod system;

pub use desired::Desired;
pub use error::OsError;
pub use system::{System, SystemOptions};

/// Mark of the agent's own packets (WireGuard and the controller's stream): they use the main
/// routing table and pass the leak guard. Spells "PW".
pub const FWMARK: u32 = 0x5057;
/// Routing table of the tunnel's routes on a device. The same number as the mark.
pub const TABLE: u32 = FWMARK;
