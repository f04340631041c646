//! A controller in memory with two organisations in one building, for the app's tests.
//!
//! Agents here do what real ones do: prove their key, check signatures, apply, acknowledge.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use partywall_proto::admin::{
    CredentialRequest, EnrolmentCodeRequest, Manifest, SessionView, TokenRequest, TokenRole,
};
use partywall_proto::agent_api::{Holding, IdentityProof, ServerMessage};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::envelope::Payload;
use partywall_proto::ids::{AgentId, OrganisationId};
use partywall_proto::keys::{Secret, WireguardKey};
use partywall_proto::overlay::OverlayConfig;
use serde_json::json;
use totp_rs::{Algorithm, Builder};

use super::{AgentFeed, App, AppError, ManualClock, Principal, random};
use crate::store::Store;
use crate::store::memory::MemoryStore;

pub(super) const PASSWORD: &str = "correct horse battery";

/// A building with two organisations, gateways enrolled, and a user of each.
pub(super) struct Building {
    pub(super) app: App,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) facilities: Principal,
    pub(super) council: Principal,
    pub(super) nhs: Principal,
    alice: Vec<u8>,
    nina: Vec<u8>,
}

/// One agent's end of a connection.
pub(super) struct Seat {
    app: App,
    pub(super) agent: AgentId,
    pub(super) identity: SigningKey,
    pub(super) feed: AgentFeed,
    pub(super) held: Option<OverlayConfig>,
    welcome: ServerMessage,
}

pub(super) fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

pub(super) fn manifest_of_facilities() -> Manifest {
    serde_json::from_value(json!({
        "organisations": [{"name": "council", "title": "Council", "code_step_s": 8},
                          {"name": "nhs", "title": "NHS"}],
        "buildings": [{"name": "hq", "title": "HQ", "underlay": ["192.0.2.0/24"]}],
        "devices": [{"name": "desk-1", "building": "hq", "kind": {"runs": "agent"}},
                    {"name": "desk-2", "building": "hq", "kind": {"runs": "agent"}}],
    }))
    .unwrap()
}

pub(super) fn manifest_of(organisation: &str, user: &str, pool: &str) -> Manifest {
    serde_json::from_value(json!({
        "segments": [{"name": organisation, "organisation": organisation, "title": "T",
                      "tunnel": "split", "pools": [pool], "prefixes": ["10.0.0.0/8"],
                      "session_length_s": 3600, "staleness_limit_s": 300}],
        "gateways": [{"name": format!("gw-{organisation}"), "segment": organisation,
                      "endpoints": ["192.0.2.1:51820"], "forwarding": "nat"}],
        "groups": [{"organisation": organisation, "name": "staff", "title": "Staff"}],
        "users": [{"name": format!("{user}@{organisation}"), "title": user, "groups": ["staff"]}],
        "policies": [{"version": 1, "organisation": organisation, "segments": {organisation: {"rules": [
            {"name": "web", "who": {"groups": ["staff"]},
             "what": [{"net": {"prefixes": ["10.1.0.0/16"], "protocol": "tcp", "ports": [443]}}]},
        ]}}}],
    }))
    .unwrap()
}

impl Building {
    pub(super) async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::default())).await
    }

    pub(super) async fn over(store: Arc<dyn Store>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_second(1_800_000_000).unwrap()));
        let app = App::open(Arc::clone(&store), clock.clone()).await.unwrap();
        let first = app.bootstrap("hq", "controller.test:8443", [7; 32]).await.unwrap();
        let facilities = app.authenticate(first.secret.expose()).await.unwrap();
        app.apply(&facilities, manifest_of_facilities(), false).await.unwrap();
        let council = admin(&app, &facilities, "council").await.unwrap();
        let nhs = admin(&app, &facilities, "nhs").await.unwrap();
        let manifest = manifest_of("council", "alice", "100.64.0.0/24");
        app.apply(&council, manifest, false).await.unwrap();
        app.apply(&nhs, manifest_of("nhs", "nina", "100.64.1.0/24"), false).await.unwrap();
        let alice = credentials(&app, &council, "alice@council").await;
        let nina = credentials(&app, &nhs, "nina@nhs").await;
        Self { app, store, clock, facilities, council, nhs, alice, nina }
    }

    /// Both gateways and desk-1, connected.
    pub(super) async fn seats(&self) -> (Seat, Seat, Seat) {
        let council = self.enrol(&self.council, "gateway/gw-council").await;
        let nhs = self.enrol(&self.nhs, "gateway/gw-nhs").await;
        (council, nhs, self.enrol(&self.facilities, "device/desk-1").await)
    }

    pub(super) async fn code(&self, principal: &Principal, agent: &str) -> Secret {
        let request = EnrolmentCodeRequest { agent: agent.parse().unwrap(), lifetime_s: 600 };
        let made = self.app.create_enrolment_code(principal, request).await.unwrap();
        let code: EnrolmentCode = made.code.expose().parse().unwrap();
        Secret::from(data_encoding::BASE64.encode(code.token()))
    }

    pub(super) async fn enrol(&self, principal: &Principal, agent: &str) -> Seat {
        let token = self.code(principal, agent).await;
        let identity = SigningKey::from_bytes(&random::bytes());
        let proof = IdentityProof::sign("n", &identity);
        let key = WireguardKey::from(random::bytes());
        let agent = self.app.enrol(&token, &proof, "n", key, "test").await.unwrap();
        Seat::take(&self.app, agent, identity, None).await.unwrap()
    }

    /// A user's code of now.
    pub(super) fn code_of(&self, user: &str) -> Secret {
        use super::Clock as _;
        let (bytes, step) = match user {
            "alice@council" => (&self.alice, 8),
            _ => (&self.nina, 30),
        };
        let totp = Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(6)
            .with_step_duration(step)
            .with_secret(bytes.clone())
            .build_noncompliant();
        let now = u64::try_from(self.clock.now().as_second()).unwrap();
        Secret::from(totp.generate(now).to_string())
    }

    /// Signs `user` in at `seat` while the gateways answer, and lets time pass for the next code.
    pub(super) async fn sign_in(
        &self,
        seat: &mut Seat,
        user: &str,
        gateways: &mut [&mut Seat],
    ) -> Result<(), AppError> {
        let user_id: partywall_proto::ids::UserId = user.parse().unwrap();
        let segment = user_id.organisation().as_str().parse().unwrap();
        let (agent, code) = (seat.agent.clone(), self.code_of(user));
        let password = secret(PASSWORD);
        let signing = self.app.sign_in(&agent, &segment, &user_id, &password, &code);
        let answering = async {
            loop {
                for gateway in gateways.iter_mut() {
                    gateway.drain();
                }
                tokio::task::yield_now().await;
            }
        };
        let result = tokio::select! {
            result = signing => result,
            () = answering => unreachable!("answers for ever"),
        };
        self.clock.advance_s(31);
        seat.drain();
        result.map(drop)
    }

    pub(super) async fn sessions(&self, principal: &Principal) -> Vec<SessionView> {
        self.app.sessions(principal, None, 100).await.unwrap().items
    }

    /// The app as a restart would bring it back.
    pub(super) async fn reopened(&self) -> App {
        App::open(Arc::clone(&self.store), self.clock.clone()).await.unwrap()
    }
}

impl Seat {
    pub(super) async fn take(
        app: &App,
        agent: AgentId,
        identity: SigningKey,
        holding: Option<Holding>,
    ) -> Result<Self, AppError> {
        let proof = IdentityProof::sign("m", &identity);
        let (welcome, feed) = app.connect(&agent, &proof, "m", holding, "test").await?;
        let (app, welcome) = (app.clone(), welcome.message);
        let mut seat = Self { app, agent, identity, feed, held: None, welcome };
        seat.drain();
        Ok(seat)
    }

    /// Applies and acknowledges what is waiting; answers what came, in words.
    pub(super) fn drain(&mut self) -> Vec<&'static str> {
        let mut came = Vec::new();
        while let Some(Some(message)) = self.feed.next().now_or_never() {
            came.push(self.handle(message));
        }
        came
    }

    fn handle(&mut self, message: ServerMessage) -> &'static str {
        let envelope = match message {
            ServerMessage::Config { envelope } => envelope,
            ServerMessage::Nothing { .. } => {
                self.held = None;
                return "nothing";
            }
            welcome @ ServerMessage::Welcome { .. } => {
                self.welcome = welcome;
                return "welcome";
            }
            ServerMessage::Challenge { .. }
            | ServerMessage::SignedIn { .. }
            | ServerMessage::SignedOut { .. }
            | ServerMessage::Refused { .. } => panic!("not for a feed: {message:?}"),
        };
        let ServerMessage::Welcome { segment_keys, .. } = &self.welcome else { unreachable!() };
        let opened = segment_keys.values().find_map(|key| envelope.open(key).ok());
        let what = match opened.expect("signed by a segment that the welcome named") {
            Payload::Snapshot(config) => {
                config.check().unwrap();
                self.held = Some(*config);
                "snapshot"
            }
            Payload::Delta(delta) => {
                let renewal = delta.changes.is_empty();
                let held = self.held.as_ref().expect("a delta needs a base");
                self.held = Some(held.with(&delta).unwrap());
                if renewal { "renewal" } else { "delta" }
            }
        };
        self.app.applied(&self.agent, self.holding().unwrap());
        what
    }

    pub(super) fn holding(&self) -> Option<Holding> {
        let held = self.held.as_ref()?;
        Some(Holding { segment: held.segment.clone(), generation: held.generation })
    }

    pub(super) fn peers(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.peers.len())
    }
}

pub(super) async fn admin(
    app: &App,
    principal: &Principal,
    organisation: &str,
) -> Result<Principal, AppError> {
    let organisation: OrganisationId = organisation.parse().unwrap();
    let role = TokenRole::Admin { organisation };
    let request = TokenRequest { role, holder: "Ann".to_owned(), lifetime_s: 86_400 };
    let made = app.create_token(principal, request).await?;
    app.authenticate(made.secret.expose()).await
}

async fn credentials(app: &App, principal: &Principal, user: &str) -> Vec<u8> {
    let request = CredentialRequest { password: secret(PASSWORD) };
    let made = app.set_credentials(principal, &user.parse().unwrap(), request).await.unwrap();
    assert!(!made.qr.expose().is_empty());
    let uri = made.otpauth_uri.expose();
    let base32 = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
    data_encoding::BASE32_NOPAD.decode(base32.as_bytes()).unwrap()
}
