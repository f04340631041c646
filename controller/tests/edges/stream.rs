//! The agents' stream over real TLS, from the enrolment code to the cut session.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::controller::{Controller, PASSWORD, code};
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt as _, StreamExt as _};
use partywall_controller::pki;
use partywall_proto::agent_api::{
    ClientMessage, Holding, IdentityProof, STREAM_PATH, ServerMessage,
};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::envelope::Payload;
use partywall_proto::ids::{AgentId, SegmentId};
use partywall_proto::keys::{Secret, SegmentKey, WireguardKey};
use partywall_proto::overlay::{Change, OverlayConfig, Role};
use partywall_proto::problem::Problem;
use reqwest::{Method, StatusCode};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn from_the_code_to_the_cut_session() {
    let controller = Controller::in_memory().await;
    let (council, _nhs) = controller.two_organisations().await;
    let secret = controller.credentials(&council, "alice@council").await;

    let mut gateway = Agent::enrol(&controller, &council, "gateway/gw-council", 1).await;
    let config = gateway.config().await;
    assert!(matches!(config.role, Role::Gateway { .. }) && config.peers.is_empty());

    let mut desk =
        Agent::enrol(&controller, &controller.facilities.clone(), "device/desk-1", 2).await;
    assert!(matches!(desk.next().await, ServerMessage::Nothing { .. }));
    desk.sign_in(&controller, 7, "council", "alice@council", &secret, 8).await;

    // The gateway learns of the device before the device learns of its session.
    let admitted = gateway.config().await;
    assert_eq!(admitted.peers.len(), 1);
    gateway.applied(&admitted).await;
    let config = desk.config().await;
    let Role::Device { session, .. } = &config.role else { panic!("{config:?}") };
    assert_eq!(admitted.peers[0].session.as_ref(), Some(session));
    assert_eq!(admitted.peers[0].preshared_key, config.peers[0].preshared_key);
    let ServerMessage::SignedIn { request: 7, segment, .. } = desk.next().await else {
        panic!("the answer comes after the config")
    };
    assert_eq!(segment.as_str(), "council");

    let listed = controller.ok(Method::GET, "/v1/sessions", &council, None).await;
    let id = listed["items"][0]["id"].as_str().unwrap();
    assert_eq!(id, session.id.as_str());
    controller.ok(Method::DELETE, &format!("/v1/sessions/{id}"), &council, None).await;
    assert!(gateway.config().await.peers.is_empty(), "the gateway still admits the device");
    assert!(matches!(desk.next().await, ServerMessage::Nothing { .. }));
}

#[tokio::test]
async fn a_hello_with_another_key_is_refused() {
    let controller = Controller::in_memory().await;
    let (council, _nhs) = controller.two_organisations().await;
    let facilities = controller.facilities.clone();
    let desk = Agent::enrol(&controller, &facilities, "device/desk-1", 2).await;
    let other = Agent::enrol(&controller, &council, "gateway/gw-council", 3).await;
    for (key, nonce) in [(&other.key, None), (&desk.key, Some("a nonce of yesterday"))] {
        let mut stranger = Wire::open(&controller).await;
        let challenge = stranger.challenge().await;
        let hello = ClientMessage::Hello {
            agent: "device/desk-1".parse().unwrap(),
            proof: IdentityProof::sign(nonce.unwrap_or(&challenge), key),
            holding: None,
            software: "test".to_owned(),
        };
        stranger.say(&hello).await;
        stranger.refused().await;
    }
    let mut back = Agent::hello(&controller, "device/desk-1", desk.key.clone()).await;
    assert!(matches!(back.next().await, ServerMessage::Nothing { .. }));
}

#[tokio::test]
async fn an_enrolment_code_is_good_for_one_machine() {
    let controller = Controller::in_memory().await;
    controller.two_organisations().await;
    let facilities = controller.facilities.clone();
    let code = enrolment_code(&controller, &facilities, "device/desk-1").await;
    Agent::enrol_with(&controller, &code, 2).await;
    let mut second = Wire::open(&controller).await;
    let challenge = second.challenge().await;
    second.say(&enrolment(&code, &challenge, &SigningKey::from_bytes(&[9; 32]), 9)).await;
    assert_eq!(second.refused().await.name(), "enrolment-code");
}

#[tokio::test]
async fn nothing_counts_before_the_proof() {
    let controller = Controller::in_memory().await;
    for first in [
        "{".to_owned(),
        "{\"type\":\"unheard-of\"}".to_owned(),
        serde_json::to_string(&ClientMessage::SignOut { request: 1 }).unwrap(),
    ] {
        let mut stranger = Wire::open(&controller).await;
        stranger.challenge().await;
        stranger.socket.send(Message::text(first)).await.unwrap();
        stranger.refused().await;
    }
    let mut stranger = Wire::open(&controller).await;
    stranger.challenge().await;
    stranger.socket.send(Message::binary(vec![0; 1000])).await.unwrap();
    stranger.refused().await;
    let mut flood = Wire::open(&controller).await;
    flood.challenge().await;
    // The controller may hang up while this is still on its way.
    let _cut = flood.socket.send(Message::text("x".repeat(300 << 10))).await;
    flood.closed().await;
}

#[tokio::test]
async fn a_wrong_code_is_refused_and_the_stream_goes_on() {
    let controller = Controller::in_memory().await;
    let (council, _nhs) = controller.two_organisations().await;
    let secret = controller.credentials(&council, "alice@council").await;
    let facilities = controller.facilities.clone();
    let mut gateway = Agent::enrol(&controller, &council, "gateway/gw-council", 1).await;
    gateway.config().await;
    let mut desk = Agent::enrol(&controller, &facilities, "device/desk-1", 2).await;
    desk.next().await;
    desk.sign_in(&controller, 1, "council", "alice@council", b"another secret", 8).await;
    let ServerMessage::Refused { request: Some(1), problem } = desk.next().await else { panic!() };
    assert!(matches!(problem.name(), "sign-in-refused" | "too-soon"), "{problem}");
    controller.clock.advance_s(120);
    desk.sign_in(&controller, 2, "council", "alice@council", &secret, 8).await;
    let admitted = gateway.config().await;
    gateway.applied(&admitted).await;
    desk.config().await;
    assert!(matches!(desk.next().await, ServerMessage::SignedIn { request: 2, .. }));
}

#[tokio::test]
async fn a_second_stream_of_the_same_agent_ends_the_first() {
    let controller = Controller::in_memory().await;
    controller.two_organisations().await;
    let facilities = controller.facilities.clone();
    let mut first = Agent::enrol(&controller, &facilities, "device/desk-1", 2).await;
    first.next().await;
    let mut second = Agent::hello(&controller, "device/desk-1", first.key.clone()).await;
    second.next().await;
    first.wire.closed().await;
}

#[tokio::test]
async fn an_agent_that_answers_no_ping_is_cut_off() {
    let interval = Duration::from_millis(500);
    let controller = Controller::in_memory_pinging_every(interval).await;
    controller.two_organisations().await;
    let facilities = controller.facilities.clone();
    let mut silent = Agent::enrol(&controller, &facilities, "device/desk-1", 2).await;
    let mut awake = Agent::enrol(&controller, &facilities, "device/desk-2", 3).await;
    silent.next().await;
    awake.next().await;
    tokio::select! {
        () = tokio::time::sleep(10 * interval) => (),
        // Reading answers the pings.
        message = awake.next() => panic!("{message:?}"),
    }
    let mut pings = 0;
    while let Some(Ok(frame)) = silent.wire.socket.next().await {
        assert!(matches!(frame, Message::Ping(_)), "{frame:?}");
        pings += 1;
    }
    // Fewer where one was answered while the stream was still being read.
    assert!((1..=3).contains(&pings), "{pings} pings");
}

#[tokio::test]
async fn a_stranger_who_says_nothing_is_cut_off() {
    let controller = Controller::in_memory().await;
    let mut stranger = Wire::open(&controller).await;
    stranger.challenge().await;
    stranger.closed().await;
}

#[tokio::test]
async fn a_session_for_a_stock_client_needs_both_proofs() {
    let controller = Controller::in_memory().await;
    let (council, _nhs) = controller.two_organisations().await;
    let secret = controller.credentials(&council, "alice@council").await;
    let key = WireguardKey::from([77; 32]);
    let phone = json!({ "devices": [{ "name": "phone", "owner": "alice@council", "kind": { "runs": "stock", "wireguard_key": key } }] });
    controller.ok(Method::POST, "/v1/apply", &council, Some(phone)).await;
    let mut gateway = Agent::enrol(&controller, &council, "gateway/gw-council", 1).await;
    gateway.config().await;
    let path = "/v1/devices/phone/stock-config?segment=council";
    let file = controller.request(Method::GET, path, &council).send().await.unwrap();
    let file = file.text().await.unwrap();
    assert!(file.contains("[Interface]") && file.contains("198.51.100.10:51820"), "{file}");
    let sign_in = |code: String| json!({ "device": "phone", "segment": "council", "user": "alice@council", "password": PASSWORD, "code": code });
    let wrong = Some(sign_in("000000".to_owned()));
    controller.refused(Method::POST, "/v1/sign-in", "", wrong, StatusCode::UNAUTHORIZED).await;
    controller.clock.advance_s(120);
    let right = sign_in(code(&secret, 8, controller.now()));
    let signing_in = controller.ok(Method::POST, "/v1/sign-in", "", Some(right));
    let (session, admitted) = tokio::join!(signing_in, gateway.config());
    assert_eq!(session["user"], "alice@council");
    assert_eq!(admitted.peers[0].public_key, key);
}

/// Two organisations, and Alice of the council at desk-1 with the council's gateway connected.
pub(crate) struct SignedIn {
    pub(crate) council: String,
    pub(crate) nhs: String,
    pub(crate) gateway: Agent,
    /// Dropping it disconnects the desk.
    pub(crate) desk: Agent,
    /// Alice's, by its id.
    pub(crate) session: String,
}

impl SignedIn {
    pub(crate) async fn alice(controller: &Controller) -> Self {
        let (council, nhs) = controller.two_organisations().await;
        let secret = controller.credentials(&council, "alice@council").await;
        let mut gateway = Agent::enrol(controller, &council, "gateway/gw-council", 1).await;
        gateway.config().await;
        let mut desk = Agent::enrol(controller, &controller.facilities, "device/desk-1", 2).await;
        desk.wire.next().await;
        desk.sign_in(controller, 1, "council", "alice@council", &secret, 8).await;
        let admitted = gateway.config().await;
        let session = admitted.peers[0].session.as_ref().unwrap().id.to_string();
        Self { council, nhs, gateway, desk, session }
    }
}

/// An agent as the stream sees it: its keys and what it holds.
pub(crate) struct Agent {
    pub(crate) wire: Wire,
    pub(crate) key: SigningKey,
    segment_keys: BTreeMap<SegmentId, SegmentKey>,
    held: Option<OverlayConfig>,
}

impl Agent {
    pub(crate) async fn enrol(
        controller: &Controller,
        token: &str,
        agent: &str,
        number: u8,
    ) -> Self {
        let code = enrolment_code(controller, token, agent).await;
        let enrolled = Self::enrol_with(controller, &code, number).await;
        assert_eq!(enrolled.1.to_string(), agent);
        enrolled.0
    }

    async fn enrol_with(
        controller: &Controller,
        code: &EnrolmentCode,
        number: u8,
    ) -> (Self, AgentId) {
        let key = SigningKey::from_bytes(&[number; 32]);
        let mut wire = Wire::open(controller).await;
        let challenge = wire.challenge().await;
        wire.say(&enrolment(code, &challenge, &key, number)).await;
        Self::welcomed(wire, key).await
    }

    pub(crate) async fn hello(controller: &Controller, agent: &str, key: SigningKey) -> Self {
        let mut wire = Wire::open(controller).await;
        let challenge = wire.challenge().await;
        let hello = ClientMessage::Hello {
            agent: agent.parse().unwrap(),
            proof: IdentityProof::sign(&challenge, &key),
            holding: None,
            software: "test".to_owned(),
        };
        wire.say(&hello).await;
        Self::welcomed(wire, key).await.0
    }

    async fn welcomed(mut wire: Wire, key: SigningKey) -> (Self, AgentId) {
        let message = wire.next().await;
        let ServerMessage::Welcome { agent, segment_keys, .. } = message else {
            panic!("no welcome: {message:?}")
        };
        (Self { wire, key, segment_keys, held: None }, agent)
    }

    async fn next(&mut self) -> ServerMessage {
        self.wire.next().await
    }

    /// The config after the next snapshot or delta, its signature checked.
    pub(crate) async fn config(&mut self) -> OverlayConfig {
        let ServerMessage::Config { envelope } = self.next().await else { panic!("no config") };
        let opened = self.segment_keys.values().find_map(|key| envelope.open(key).ok());
        let config = match opened.expect("a signature by a pinned key") {
            Payload::Snapshot(config) => *config,
            Payload::Delta(delta) => {
                assert!(
                    !delta.changes.iter().any(|change| matches!(change, Change::RulesSet { .. }))
                );
                self.held.as_ref().unwrap().with(&delta).unwrap()
            }
        };
        self.held = Some(config.clone());
        config
    }

    async fn applied(&mut self, config: &OverlayConfig) {
        let holding = Holding { segment: config.segment.clone(), generation: config.generation };
        self.wire.say(&ClientMessage::Applied { holding }).await;
    }

    /// The refusal that follows whatever is on its way already.
    pub(crate) async fn refused_at_last(&mut self) -> Problem {
        loop {
            if let ServerMessage::Refused { request: None, problem } = self.next().await {
                return problem;
            }
        }
    }

    pub(crate) async fn sign_in(
        &mut self,
        controller: &Controller,
        request: u32,
        segment: &str,
        user: &str,
        secret: &[u8],
        step_s: i64,
    ) {
        let message = ClientMessage::SignIn {
            request,
            segment: segment.parse().unwrap(),
            user: user.parse().unwrap(),
            password: Secret::from(PASSWORD.to_owned()),
            code: Secret::from(code(secret, step_s, controller.now())),
        };
        self.wire.say(&message).await;
    }
}

pub(crate) struct Wire {
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Wire {
    async fn open(controller: &Controller) -> Self {
        Self::open_at(controller.address, &controller.directory.path().join(pki::CA_FILE)).await
    }

    pub(crate) async fn open_at(address: SocketAddr, ca: &Path) -> Self {
        let config = pki::client_config(pki::read_certificates(ca).unwrap()).unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let url = format!("wss://{address}{STREAM_PATH}");
        let (socket, _) = tokio_tungstenite::client_async(url, tls).await.unwrap();
        Self { socket }
    }

    pub(crate) async fn say(&mut self, message: &ClientMessage) {
        let text = serde_json::to_string(message).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> ServerMessage {
        loop {
            let frame = tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("silence");
            match frame.expect("the stream ended").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => (),
                odd @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => {
                    panic!("{odd:?}")
                }
            }
        }
    }

    pub(crate) async fn challenge(&mut self) -> String {
        let message = self.next().await;
        let ServerMessage::Challenge { nonce, .. } = message else {
            panic!("the challenge comes first: {message:?}")
        };
        nonce
    }

    /// A refusal of the connection itself, and its end.
    pub(crate) async fn refused(&mut self) -> Problem {
        let ServerMessage::Refused { request: None, problem } = self.next().await else { panic!() };
        assert!(!problem.detail.is_empty());
        self.closed().await;
        problem
    }

    async fn closed(&mut self) {
        loop {
            match tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("still open") {
                None | Some(Ok(Message::Close(_)) | Err(_)) => return,
                Some(Ok(_)) => (),
            }
        }
    }
}

async fn enrolment_code(controller: &Controller, token: &str, agent: &str) -> EnrolmentCode {
    let request = json!({ "agent": agent, "lifetime_s": 600 });
    let made = controller.ok(Method::POST, "/v1/enrolment-codes", token, Some(request)).await;
    made["code"].as_str().unwrap().parse().unwrap()
}

pub(crate) fn enrolment(
    code: &EnrolmentCode,
    nonce: &str,
    key: &SigningKey,
    number: u8,
) -> ClientMessage {
    ClientMessage::Enrol {
        token: Secret::from(data_encoding::BASE64.encode(code.token())),
        proof: IdentityProof::sign(nonce, key),
        wireguard_key: WireguardKey::from([number; 32]),
        software: "test".to_owned(),
    }
}
