//! What `partywall` and the daemon say to each other. The same JSON is what `--json` prints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use partywall_proto::agent_api::SegmentOffer;
use partywall_proto::ids::{AgentId, OrganisationId, SegmentId, UserId};
use partywall_proto::keys::Secret;
use partywall_proto::nets::Protocol;
use partywall_proto::overlay::Generation;
use partywall_proto::problem::Problem;
use serde::{Deserialize, Serialize};

/// From `partywall`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Sign in. Answered once the tunnel carries packets, or with what is wrong.
    Login {
        /// Where to.
        segment: SegmentId,
        /// Who.
        user: UserId,
        /// What they know.
        password: Secret,
        /// What they hold.
        code: Secret,
    },
    /// Sign out. Answered once nothing is carried any more.
    Logout,
    /// How things are.
    Status,
    /// What would become of a flow that this machine opens.
    Why {
        /// Its destination.
        address: IpAddr,
        /// TCP, UDP or ICMP.
        protocol: Protocol,
        /// Its destination port; 0 for ICMP.
        port: u16,
    },
}

/// From the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The session is up and the tunnel carries packets.
    SignedIn {
        /// The session.
        session: SessionView,
    },
    /// The session is over and its flows are cut.
    SignedOut {
        /// The session that was.
        session: SessionView,
    },
    /// Answer to [`Request::Status`].
    Status(Box<StatusView>),
    /// Answer to [`Request::Why`].
    Why(WhyView),
    /// It was not done.
    Refused {
        /// Why, and what to do.
        problem: Problem,
    },
}

/// A session, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its segment.
    pub segment: SegmentId,
    /// The segment in words.
    pub title: String,
    /// Who signed in.
    pub user: UserId,
    /// When it ends.
    pub ends_at: Timestamp,
}

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Its name.
    pub agent: AgentId,
    /// Its way to the controller.
    pub controller: ControllerView,
    /// The segment that is carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentId>,
    /// Generation of the config that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The staleness limit: until then the config holds without the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// Whether the machine enforces what is held.
    pub enforced: bool,
    /// The session of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionView>,
    /// Why nothing is carried; none where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
    /// Where one may sign in to from here.
    pub segments: Vec<SegmentOffer>,
    /// Peers with a handshake in the last three minutes.
    pub live_peers: u32,
    /// The other ends; at a gateway for root only.
    pub peers: Vec<PeerView>,
    /// What was dropped since the agent started, by reason, without the zeros.
    pub drops: BTreeMap<String, DropView>,
    /// Flow records that were lost since the agent started, at a gateway.
    #[serde(default)]
    pub flow_records_lost: u64,
    /// What somebody should look after.
    pub warnings: Vec<String>,
}

/// The way to the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerView {
    /// `host:port`.
    pub address: String,
    /// Whether there is a connection that the controller has welcomed.
    pub connected: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// This machine's clock less the controller's in seconds; none while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_s: Option<i64>,
}

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Which agent.
    pub agent: AgentId,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age_s: Option<u64>,
    /// Bytes that came from it.
    pub received_bytes: u64,
    /// Bytes that went to it.
    pub sent_bytes: u64,
}

/// A drop reason's count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// Packets.
    pub packets: u64,
    /// What the reason means.
    pub meaning: String,
}

/// What would become of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// Whether it would pass this end.
    pub allowed: bool,
    /// The rule that decides, by its name in the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The policy version that decides; none where policy does not, or the config does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<u64>,
    /// Whose policy it is; none at a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_of: Option<OrganisationId>,
    /// The drop reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<String>,
    /// The drop reason in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// The gateway that would carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<AgentId>,
    /// Whether that gateway answers.
    pub connected: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_does_not_print_its_secrets() {
        let request = Request::Login {
            segment: "council".parse().unwrap(),
            user: "alice@council".parse().unwrap(),
            password: Secret::from("correct horse".to_owned()),
            code: Secret::from("123456".to_owned()),
        };
        let printed = format!("{request:?}");
        assert!(!printed.contains("horse") && !printed.contains("123456"), "{printed}");
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }
}
