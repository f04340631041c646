//! Agents: enrolment, connections and what they report.
//!
//! An agent is its identity key. Every connection proves it anew; no bearer secret exists.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use partywall_proto::agent_api::{Holding, IdentityProof};
use partywall_proto::ids::AgentId;
use partywall_proto::keys::{Secret, WireguardKey};
use partywall_proto::problem::Problem;
use serde_json::json;

use super::change::Change;
use super::desired::{welcome, wireguard_key};
use super::records::{AgentRecord, agent_key, code_key};
use super::sessions::end;
use super::state::State;
use super::{AgentFeed, AgentStatus, App, AppError, Resource, Result, Welcome};
use crate::domain::audit::FACILITIES_CHAIN;

/// Longest software version that is kept, in characters.
const SOFTWARE_MAX_CHARS: usize = 64;

impl App {
    /// Uses up an enrolment code. Call [`App::connect`] next, with the same proof and nonce.
    ///
    /// # Errors
    /// A code that is unknown, used or expired; a proof that does not hold; a key that another
    /// machine has. The code stays good then.
    pub async fn enrol(
        &self,
        token: &Secret,
        proof: &IdentityProof,
        nonce: &str,
        wireguard_key: WireguardKey,
        software: &str,
    ) -> Result<AgentId> {
        check_proof(proof, nonce)?;
        let token = BASE64.decode(token.expose().as_bytes());
        let token = token.map_err(|_| AppError::EnrolmentCode)?;
        let writer = self.writer().await;
        let now = self.now();
        let (agent, change) = {
            let state = self.state();
            let fits = |code: &super::records::CodeRecord| code.token.fits(&token);
            let code = state.codes.iter().find(|(_, code)| fits(code) && code.expires_at > now);
            let agent = code.ok_or(AppError::EnrolmentCode)?.0.clone();
            check_keys_are_new(&state, &agent, proof, wireguard_key)?;
            let mut change = Change::default();
            let chain = chain_of(&state, &agent);
            let record = AgentRecord {
                identity_key: proof.identity_key,
                wireguard_key,
                software: software.chars().take(SOFTWARE_MAX_CHARS).collect(),
                enrolled_at: now,
            };
            change.put(agent_key(&agent), &record);
            change.delete(code_key(&agent));
            let detail = json!({
                "identity_key": record.identity_key,
                "wireguard_key": record.wireguard_key,
                "software": record.software,
            });
            let name = agent.to_string();
            change.done(&chain, now, &name, "enrol", name.clone(), Some(detail));
            if let AgentId::Device(device) = &agent
                && let Some(session) = state.session_on(device)
            {
                // The session was the old keys'.
                end(&mut change, session, "session-end", &name, "the device enrolled anew", now);
            }
            (agent, change)
        };
        self.commit(writer, change, None).await?;
        self.inner.distribution.cut(&agent);
        Ok(agent)
    }

    /// An enrolled agent is back. Send [`Welcome::message`] first, then what the feed yields.
    /// An older connection of the same agent ends.
    ///
    /// # Errors
    /// An agent that is not enrolled, or a proof that is not of its key.
    pub async fn connect(
        &self,
        agent: &AgentId,
        proof: &IdentityProof,
        nonce: &str,
        holding: Option<Holding>,
        software: &str,
    ) -> Result<(Welcome, AgentFeed)> {
        check_proof(proof, nonce)?;
        let (welcome, messages, superseded, newer) = {
            let state = self.state();
            let record = state.agents.get(agent).ok_or_else(|| {
                AppError::AgentRefused(format!("{agent} is not enrolled; ask for a code"))
            })?;
            if record.identity_key != proof.identity_key {
                let why = format!("{agent} was enrolled with another key; enrol this machine");
                return Err(AppError::AgentRefused(why));
            }
            let software: String = software.chars().take(SOFTWARE_MAX_CHARS).collect();
            let newer =
                (record.software != software).then(|| AgentRecord { software, ..record.clone() });
            let message = welcome(&state, agent);
            let (messages, superseded) =
                self.inner.distribution.connect(&state, agent, holding, self.now());
            (Welcome { message }, messages, superseded, newer)
        };
        if superseded || newer.is_some() {
            let writer = self.writer().await;
            let mut change = Change::default();
            let (chain, name) = (chain_of(&self.state(), agent), agent.to_string());
            if superseded {
                change.done(&chain, self.now(), &name, "connection-superseded", name.clone(), None);
            }
            if let Some(record) = newer {
                let detail = Some(json!({ "software": record.software }));
                change.put(agent_key(agent), &record);
                change.done(&chain, self.now(), &name, "agent-update", name.clone(), detail);
            }
            self.commit(writer, change, None).await?;
        }
        Ok((welcome, AgentFeed { messages }))
    }

    /// An agent enforces `holding` from now on.
    pub fn applied(&self, agent: &AgentId, holding: Holding) {
        self.inner.distribution.applied(agent, holding);
    }

    /// An agent refused what it was sent: it gets a snapshot, once, and the refusal is recorded.
    ///
    /// # Errors
    /// A store that does not take the record.
    pub async fn rejected(&self, agent: &AgentId, problem: Problem) -> Result<()> {
        self.inner.distribution.rejected(&self.state(), agent, self.now());
        let writer = self.writer().await;
        let mut change = Change::default();
        let (chain, name) = (chain_of(&self.state(), agent), agent.to_string());
        let why: String = problem.to_string().chars().take(500).collect();
        change.refused(&chain, self.now(), &name, "config-apply", name.clone(), &why);
        self.commit(writer, change, None).await.map(drop)
    }

    /// What an agent says about itself. Kept in memory only.
    pub fn agent_status(
        &self,
        agent: &AgentId,
        drops: BTreeMap<String, u64>,
        live_peers: u32,
        clock_skew_s: i64,
    ) {
        let reported_at = self.now();
        let status = AgentStatus { reported_at, drops, live_peers, clock_skew_s };
        self.inner.distribution.report(agent, status);
    }

    /// What an agent last said about itself.
    pub fn status_of(&self, agent: &AgentId) -> Option<AgentStatus> {
        self.inner.distribution.status(agent)
    }
}

fn check_proof(proof: &IdentityProof, nonce: &str) -> Result<()> {
    proof.verify(nonce).map_err(|error| AppError::AgentRefused(error.to_string()))
}

fn check_keys_are_new(
    state: &State,
    agent: &AgentId,
    proof: &IdentityProof,
    key: WireguardKey,
) -> Result<()> {
    let clash = |what: &str| {
        AppError::AgentRefused(format!(
            "another machine has this {what}; a copied state directory? remove it and enrol again"
        ))
    };
    let others = || state.agents.iter().filter(|(other, _)| *other != agent);
    if others().any(|(_, other)| other.identity_key == proof.identity_key) {
        return Err(clash("identity key"));
    }
    let stock = state
        .catalogue
        .devices
        .keys()
        .filter(|device| AgentId::Device((*device).clone()) != *agent)
        .any(|device| wireguard_key(state, device) == Some(key));
    match stock || others().any(|(_, other)| other.wireguard_key == key) {
        true => Err(clash("WireGuard key")),
        false => Ok(()),
    }
}

/// The chain that records what an agent does: that of whose it is.
fn chain_of(state: &State, agent: &AgentId) -> String {
    let all = &state.catalogue;
    let scope = match agent {
        AgentId::Device(name) => all.devices.get(name).and_then(|it| it.spec.scope(all)),
        AgentId::Gateway(name) => all.gateways.get(name).and_then(|it| it.spec.scope(all)),
    };
    scope.map_or_else(|| FACILITIES_CHAIN.to_owned(), |scope| scope.chain().to_owned())
}
