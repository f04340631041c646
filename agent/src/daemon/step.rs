//! One step in making the machine enforce a config.

use std::sync::Arc;

use partywall_proto::ids::AgentId;
use partywall_proto::overlay::{Observed, OverlayConfig, Peer, PolicyStamp};
use partywall_proto::rules::Rule;

/// To be executed in the order in which steps come, each completely before the next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The data path drops every peer, flow and rule: nothing passes any more.
    Cut,
    /// The operating system is as the config wants it: leak guard, addresses, routes, names.
    System(Arc<OverlayConfig>),
    /// The data path enforces this config.
    Replace(Arc<OverlayConfig>),
    /// A peer is new or changed.
    PeerSet(Box<Peer>),
    /// A peer is gone.
    PeerGone(AgentId),
    /// The rules are these, with the policy version that they come from and the one on trial.
    RulesSet {
        /// All of them.
        rules: Vec<Rule>,
        /// Where they come from.
        policy: Option<PolicyStamp>,
        /// What is asked beside them.
        observed: Option<Observed>,
    },
    /// The operating system is as it was before the agent, whatever a crash has left.
    Undo,
}
