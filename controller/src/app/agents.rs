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
pub(super) fn chain_of(state: &State, agent: &AgentId) -> String {
    let all = &state.catalogue;
    let scope = match agent {
        AgentId::Device(name) => all.devices.get(name).and_then(|it| it.spec.scope(all)),
        AgentId::Gateway(name) => all.gateways.get(name).and_then(|it| it.spec.scope(all)),
    };
    scope.map_or_else(|| FACILITIES_CHAIN.to_owned(), |scope| scope.chain().to_owned())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use futures_util::{FutureExt as _, StreamExt as _};
    use partywall_proto::admin::SegmentSpec;

    use super::super::testing::{Building, Seat, secret};
    use super::*;

    fn proof(seed: u8) -> IdentityProof {
        IdentityProof::sign("n", &SigningKey::from_bytes(&[seed; 32]))
    }

    #[tokio::test]
    async fn an_enrolment_code_admits_once_and_in_time_only() {
        let building = Building::new().await;
        let enrol = |token: Secret, seed: u8| {
            let app = building.app.clone();
            async move { app.enrol(&token, &proof(seed), "n", [seed; 32].into(), "test").await }
        };
        let wrong = secret(&BASE64.encode(&[9; 16]));
        assert!(matches!(enrol(wrong, 1).await, Err(AppError::EnrolmentCode)));
        assert!(matches!(enrol(secret("?"), 1).await, Err(AppError::EnrolmentCode)));

        let code = building.code(&building.facilities, "device/desk-1").await;
        building.clock.advance_s(601);
        assert!(matches!(enrol(code, 1).await, Err(AppError::EnrolmentCode)));

        let void = building.code(&building.facilities, "device/desk-1").await;
        let code = building.code(&building.facilities, "device/desk-1").await;
        assert!(matches!(enrol(void, 1).await, Err(AppError::EnrolmentCode)));
        assert_eq!(enrol(code.clone(), 1).await.unwrap().to_string(), "device/desk-1");
        assert!(matches!(enrol(code, 2).await, Err(AppError::EnrolmentCode)));

        // Two machines with one key: the second is refused and its code stays good.
        let code = building.code(&building.facilities, "device/desk-2").await;
        assert!(matches!(enrol(code.clone(), 1).await, Err(AppError::AgentRefused(_))));
        let copied = building.app.enrol(&code, &proof(3), "n", [1; 32].into(), "test").await;
        assert!(matches!(copied, Err(AppError::AgentRefused(_))), "{copied:?}");
        enrol(code, 3).await.unwrap();
    }

    #[tokio::test]
    async fn only_the_enrolled_key_connects_and_the_newer_connection_wins() {
        let building = Building::new().await;
        let mut first = building.enrol(&building.council, "gateway/gw-council").await;
        let other = SigningKey::from_bytes(&[8; 32]);
        let refused = Seat::take(&building.app, first.agent.clone(), other, None).await;
        assert!(matches!(refused.err(), Some(AppError::AgentRefused(_))));
        let stale = building
            .app
            .connect(&first.agent, &IdentityProof::sign("x", &first.identity), "y", None, "test")
            .await;
        assert!(stale.is_err(), "a proof over another challenge was taken");

        let again = first.identity.clone();
        let _second = Seat::take(&building.app, first.agent.clone(), again, None).await.unwrap();
        assert!(first.feed.next().await.is_none(), "the old connection should end");
        let trail = building.app.audit(&building.council, None, None, 1000).await.unwrap().items;
        assert!(trail.iter().any(|record| record.action == "connection-superseded"));
    }

    #[tokio::test]
    async fn an_agent_that_holds_the_latest_gets_no_snapshot_and_a_restart_loses_nothing() {
        let building = Building::new().await;
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let held = desk.held.clone();
        let (agent, identity) = (desk.agent.clone(), desk.identity.clone());
        let mut back =
            Seat::take(&building.app, agent.clone(), identity.clone(), None).await.unwrap();
        assert_eq!(back.held.as_ref().map(|held| held.peers.len()), Some(1));
        let holding = back.holding();
        drop(back);
        let proof = IdentityProof::sign("m", &identity);
        let (_, feed) =
            building.app.connect(&agent, &proof, "m", holding.clone(), "test").await.unwrap();
        back = desk;
        back.feed = feed;
        assert!(!back.drain().contains(&"snapshot"));

        let reopened = building.reopened().await;
        let back = Seat::take(&reopened, agent, identity, holding).await.unwrap();
        assert_eq!(back.held.as_ref().unwrap().peers, held.unwrap().peers);
    }

    #[tokio::test]
    async fn validity_is_renewed_at_a_third_of_the_staleness_limit() {
        let building = Building::new().await;
        let mut gateway = building.enrol(&building.council, "gateway/gw-council").await;
        let until = gateway.held.as_ref().unwrap().valid_until;
        building.clock.advance_s(99);
        building.app.sweep().await.unwrap();
        assert!(gateway.drain().is_empty());
        building.clock.advance_s(1);
        building.app.sweep().await.unwrap();
        assert_eq!(gateway.drain(), ["renewal"]);
        assert_eq!(gateway.held.unwrap().valid_until.duration_since(until).as_secs(), 100);
    }

    #[tokio::test]
    async fn an_agent_that_does_not_read_is_cut_off_and_gets_a_snapshot_when_it_is_back() {
        let building = Building::new().await;
        let (mut slow, _nhs, mut desk) = building.seats().await;
        let before = slow.holding();
        let segment = "council".parse().unwrap();
        let found = building.app.get::<SegmentSpec>(&building.council, &segment).await.unwrap();
        for mtu in 0..200 {
            let changed = SegmentSpec { mtu: 1300 + mtu % 100, ..found.spec.clone() };
            building.app.put(&building.council, changed, None).await.unwrap();
            desk.drain();
        }
        let mut kept = 0;
        let rest = loop {
            match slow.feed.next().now_or_never() {
                Some(Some(_)) => kept += 1,
                rest => break rest,
            }
        };
        assert_eq!(rest, Some(None), "it is not cut off with {kept} messages waiting");
        assert!((1..=64).contains(&kept), "{kept} messages were kept for it");
        assert!(desk.feed.next().now_or_never().is_none(), "the other one was cut off as well");

        let back = Seat::take(&building.app, slow.agent, slow.identity, before).await.unwrap();
        assert_eq!(back.held.unwrap().interface.mtu, 1399);
    }

    #[tokio::test]
    async fn a_refused_config_is_sent_once_more_and_then_no_more() {
        let building = Building::new().await;
        let mut gateway = building.enrol(&building.council, "gateway/gw-council").await;
        let problem = || Problem::new(422, "config", "Config refused", "test");
        building.app.rejected(&gateway.agent, problem()).await.unwrap();
        assert_eq!(gateway.feed.messages.len(), 1);
        building.app.rejected(&gateway.agent, problem()).await.unwrap();
        assert_eq!(gateway.feed.messages.len(), 1);
        assert_eq!(gateway.drain(), ["snapshot"]);
    }
}
