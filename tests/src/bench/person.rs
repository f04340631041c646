//! What one person costs a controller with a large organisation: their change, from the admin's request until
//! the message for every gateway is signed and queued, and the question why they are let through or refused.
//!
//! The store is in memory, so that the disk is not in the time. Everybody has a session.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use partywall_controller::app::{AgentFeed, App, Opening, Principal, SystemClock};
use partywall_controller::domain::session::{PskSecret, SessionRecord};
use partywall_controller::store::memory::MemoryStore;
use partywall_controller::store::{Store as _, Transaction, Write};
use partywall_proto::admin::{Manifest, SignInStrength, TokenRequest, TokenRole, UserSpec};
use partywall_proto::agent_api::IdentityProof;
use partywall_proto::ids::AgentId;
use partywall_proto::keys::{IdentityKey, WireguardKey};
use partywall_proto::rules::Opener;
use serde_json::json;

use super::rules::{GATEWAYS, GROUPS, USERS, document, groups_of};

/// What one person cost, round by round, in milliseconds.
#[derive(Default)]
pub(super) struct Costs {
    /// A change of their groups.
    pub(super) changed_ms: Vec<f64>,
    /// The answer to why something is let through or refused.
    pub(super) why_ms: Vec<f64>,
}

/// Measures `rounds` times.
///
/// # Errors
/// The controller refuses something, or answers amiss.
pub(super) fn measured(rounds: usize, told: &mut impl FnMut(&str)) -> Result<Costs> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        told("setting up a controller with everybody in it");
        let mut controller = Controller::new().await?;
        let mut costs = Costs::default();
        for round in 1..=rounds {
            let round = u32::try_from(round)?;
            costs.changed_ms.push(controller.change_somebody(round).await?);
            costs.why_ms.push(controller.ask_why(round).await?);
        }
        Ok(costs)
    })
}

struct Controller {
    app: App,
    admin: Principal,
    /// Nobody reads them; a change for each gateway must be waiting in the end.
    feeds: Vec<AgentFeed>,
}

impl Controller {
    async fn new() -> Result<Self> {
        let store = Arc::new(MemoryStore::default());
        let app = App::open(store.clone(), Arc::new(SystemClock)).await?;
        let facilities = app.bootstrap("bench", "controller.test:8443", [7; 32]).await?;
        let facilities = app.authenticate(facilities.secret.expose()).await?;
        app.apply(&facilities, facilities_manifest()?, false).await?;
        let role = TokenRole::Admin { organisation: "bench".parse()? };
        let request = TokenRequest { role, holder: "bench".to_owned(), lifetime_s: 3600 };
        let token = app.create_token(&facilities, request).await?;
        let admin = app.authenticate(token.secret.expose()).await?;
        app.apply(&admin, organisation_manifest()?, false).await?;

        // Ten thousand enrolments and sign-ins would take minutes, and are not what is measured.
        let gateway = |number: u32| Ok(format!("gateway/g{number:02}").parse()?);
        let gateways = (0..GATEWAYS).map(gateway).collect::<Result<Vec<AgentId>>>()?;
        let identity = SigningKey::from_bytes(&[3; 32]);
        let mut writes = Vec::new();
        for (number, agent) in (1u32..).zip(&gateways) {
            writes.push(agent_record(agent, number, &identity)?);
        }
        for number in 0..USERS {
            let agent = AgentId::Device(device(number).parse()?);
            writes.push(agent_record(&agent, 1000 + number, &identity)?);
            writes.push(session(number)?);
        }
        store.transact(Transaction { preconditions: Vec::new(), writes }).await?;
        let app = App::open(store, Arc::new(SystemClock)).await?;
        let admin = app.authenticate(token.secret.expose()).await?;
        let mut feeds = Vec::new();
        for agent in &gateways {
            let proof = IdentityProof::sign("n", &identity);
            feeds.push(app.connect(agent, &proof, "n", None, "bench").await?.1);
        }
        Ok(Self { app, admin, feeds })
    }

    async fn change_somebody(&mut self, round: u32) -> Result<f64> {
        let name = user(round % USERS).parse()?;
        let spec = self.app.get::<UserSpec>(&self.admin, &name).await?.spec;
        let spec = UserSpec { groups: groups_of(round + 1)?, ..spec };
        let began = Instant::now();
        self.app.put(&self.admin, spec, None).await?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        for feed in &mut self.feeds {
            let first = round == 1;
            for message in if first { ["snapshot", "delta"].iter() } else { ["delta"].iter() } {
                let waiting =
                    futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(feed));
                ensure!(waiting.flatten().is_some(), "a gateway is not sent its {message}");
            }
        }
        Ok(took)
    }

    /// About servers that rules name and that no rule names, by turns; the latter looks at every rule.
    async fn ask_why(&self, round: u32) -> Result<f64> {
        let from = device((round * 997) % USERS).parse()?;
        let far = if round.is_multiple_of(2) { "10.3.3.22:443/tcp" } else { "10.255.0.1:443/tcp" };
        let opening = Opening { opener: Opener::Device, far: far.parse()? };
        let began = Instant::now();
        let report = self.app.why(&self.admin, &from, opening).await?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        ensure!(report.at_gateway.is_some(), "no verdict: {}", report.sentence);
        Ok(took)
    }
}

fn user(number: u32) -> String {
    format!("user-{number}@bench")
}

fn device(number: u32) -> String {
    format!("d{number:05}")
}

fn facilities_manifest() -> Result<Manifest> {
    let devices: Vec<_> = (0..USERS)
        .map(|number| json!({"name": device(number), "building": "hq", "kind": {"runs": "agent"}}))
        .collect();
    Ok(serde_json::from_value(json!({
        "organisations": [{"name": "bench", "title": "Bench"}],
        "buildings": [{"name": "hq", "title": "HQ", "underlay": ["192.0.2.0/24"]}],
        "devices": devices,
    }))?)
}

fn organisation_manifest() -> Result<Manifest> {
    let users = (0..USERS).map(|number| {
        Ok(json!({"name": user(number), "title": user(number), "groups": groups_of(number)?}))
    });
    let gateways: Vec<_> = (0..GATEWAYS)
        .map(|number| {
            json!({"name": format!("g{number:02}"), "segment": "bench", "forwarding": "nat",
                   "endpoints": [format!("192.0.2.{}:51820", number + 1)]})
        })
        .collect();
    let groups: Vec<_> = (0..GROUPS)
        .map(|number| json!({"organisation": "bench", "name": format!("group-{number}"), "title": "G"}))
        .collect();
    Ok(serde_json::from_value(json!({
        "segments": [{"name": "bench", "organisation": "bench", "title": "B", "tunnel": "split",
                      "pools": ["100.64.0.0/16"], "prefixes": ["10.0.0.0/8"]}],
        "gateways": gateways,
        "groups": groups,
        "users": users.collect::<Result<Vec<_>>>()?,
        "policies": [document()],
    }))?)
}

/// The record of an enrolment, as the controller keeps it.
fn agent_record(agent: &AgentId, number: u32, identity: &SigningKey) -> Result<Write> {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let record = json!({
        "identity_key": IdentityKey::from(identity.verifying_key().to_bytes()),
        "wireguard_key": WireguardKey::from(key), "software": "bench",
        "enrolled_at": Timestamp::now(),
    });
    write(format!("agent/{agent}"), &record)
}

fn session(number: u32) -> Result<Write> {
    let now = Timestamp::now();
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + 16 + number);
    let record = SessionRecord {
        id: format!("s-{number:016x}").parse()?,
        user: user(number).parse()?,
        device: device(number).parse()?,
        segment: "bench".parse()?,
        addresses: vec![IpAddr::V4(address)],
        sign_in: SignInStrength::Code,
        began_at: now,
        ends_at: now + SignedDuration::from_hours(8),
        secret: PskSecret::from_bytes([5; 32]),
    };
    write(format!("session/{}", record.id), &record)
}

fn write(key: String, value: &impl serde::Serialize) -> Result<Write> {
    let value = serde_json::to_vec(value).context("records have a JSON form")?;
    Ok(Write { key: key.into_bytes(), value: Some(value) })
}
