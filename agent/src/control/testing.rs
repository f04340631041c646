//! A controller for tests: real TLS, a real WebSocket, and answers that the test makes up.
//!
//! It speaks the agent API but decides nothing; what a test does not say, it does not do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use partywall_proto::agent_api::{ClientMessage, SegmentOffer, ServerMessage};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::envelope::Envelope;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::daemon::testing::{council, nhs, segment_key};

const DEADLINE: Duration = Duration::from_secs(20);

/// A CA and one server certificate under it.
pub(crate) struct Pki {
    ca: CertificateDer<'static>,
    leaf: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Pki {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        Self { ca: issuer.der().clone(), leaf: leaf.der().clone(), key: key.serialize_der() }
    }

    pub(crate) fn ca(&self) -> CertificateDer<'static> {
        self.ca.clone()
    }

    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.ca).into()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.leaf.clone(), self.ca.clone()]
    }

    /// This leaf, shown together with the CA of another.
    pub(crate) fn with_ca_of(&self, other: &Self) -> Self {
        Self { ca: other.ca.clone(), leaf: self.leaf.clone(), key: self.key.clone() }
    }
}

/// Listens on the loopback address.
pub(crate) struct FakeController {
    pub(crate) pki: Pki,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl FakeController {
    pub(crate) async fn start() -> Self {
        let pki = Pki::new("127.0.0.1");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pki.key.clone()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(pki.chain(), key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { pki, listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    pub(crate) fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub(crate) fn code(&self) -> EnrolmentCode {
        EnrolmentCode::new([7; 16], self.pki.fingerprint(), &self.address()).unwrap()
    }

    /// The next agent, challenged.
    pub(crate) async fn accept(&mut self) -> FakePeer {
        self.try_accept().await.unwrap()
    }

    pub(crate) async fn try_accept(&mut self) -> std::io::Result<FakePeer> {
        let (tcp, _) = timeout(DEADLINE, self.listener.accept()).await.expect("no agent came")?;
        let tls = self.acceptor.accept(tcp).await?;
        let socket = tokio_tungstenite::accept_async(tls).await.map_err(std::io::Error::other)?;
        let mut peer = FakePeer { socket, nonce: "bm9uY2U=".to_owned() };
        let nonce = peer.nonce.clone();
        peer.send(&ServerMessage::Challenge { nonce, time: Timestamp::now() }).await;
        Ok(peer)
    }
}

/// One agent, as the controller sees it.
pub(crate) struct FakePeer {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    nonce: String,
}

impl FakePeer {
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    pub(crate) fn welcome(&self, agent: &str) -> ServerMessage {
        let offer = |segment: &str| SegmentOffer {
            segment: segment.parse().unwrap(),
            organisation: segment.parse().unwrap(),
            title: format!("{segment} network"),
        };
        ServerMessage::Welcome {
            agent: agent.parse().unwrap(),
            segment_keys: [council(), nhs()]
                .map(|segment| {
                    let key = segment_key(&segment).verifying_key().to_bytes().into();
                    (segment, key)
                })
                .into(),
            segments: vec![offer("council"), offer("nhs")],
        }
    }

    pub(crate) async fn send(&mut self, message: &ServerMessage) {
        self.send_text(serde_json::to_string(message).unwrap()).await;
    }

    pub(crate) async fn send_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn config(&mut self, envelope: Envelope) {
        self.send(&ServerMessage::Config { envelope }).await;
    }

    /// The next message; none where the agent is gone.
    pub(crate) async fn receive(&mut self) -> Option<ClientMessage> {
        loop {
            match timeout(DEADLINE, self.socket.next()).await.expect("the agent says nothing")? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next message that is no status report.
    pub(crate) async fn answer(&mut self) -> ClientMessage {
        loop {
            let message = self.receive().await.expect("the agent is gone");
            if !matches!(message, ClientMessage::Status { .. }) {
                return message;
            }
        }
    }
}
