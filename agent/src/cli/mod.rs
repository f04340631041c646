//! The two command lines: `partywall` for staff and `partywall-agent` for the service manager.

mod agent;
mod staff;
mod target;
mod words;

pub use agent::AgentArgs;
pub use staff::StaffArgs;

/// Where the daemon listens unless told otherwise.
const SOCKET: &str = "/run/partywall/agent.sock";
