//! A controller in this process, reached over real TLS, for the tests of its edges.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use jiff::Timestamp;
use partywall_controller::app::{App, Clock as _, ManualClock};
use partywall_controller::http::{Server, StopHandle};
use partywall_controller::pki::{self, Authority, ServerIdentity};
use partywall_controller::store::Store;
use partywall_proto::admin::{CredentialCreated, TokenCreated};
use partywall_proto::agent_api::PING_INTERVAL_S;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

/// A running controller with its first administrator.
pub(crate) struct Controller {
    pub(crate) app: App,
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) directory: tempfile::TempDir,
    /// Facilities.
    pub(crate) facilities: String,
    stop: StopHandle,
    http: reqwest::Client,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl Controller {
    pub(crate) async fn start(store: Arc<dyn Store>) -> Self {
        Self::start_pinging_every(store, Duration::from_secs(PING_INTERVAL_S)).await
    }

    async fn start_pinging_every(store: Arc<dyn Store>, interval: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let authority = Authority::create(directory.path(), "Old Town Hall", now).unwrap();
        authority.issue_server(directory.path(), &names, now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clock = Arc::new(ManualClock::at(now));
        let app = App::open(store, clock.clone()).await.unwrap();
        let fingerprint = Authority::fingerprint(authority.certificate());
        let token =
            app.bootstrap("Old Town Hall", &address.to_string(), fingerprint).await.unwrap();
        let identity = ServerIdentity::from_directory(directory.path(), now).unwrap();
        let server = Server::new(app.clone(), identity).unwrap().pinging_every(interval);
        let stop = server.stop_handle();
        tokio::spawn(server.run(vec![listener]));
        let authorities = pki::read_certificates(&directory.path().join(pki::CA_FILE)).unwrap();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(pki::client_config(authorities).unwrap())
            .no_proxy()
            .build()
            .unwrap();
        let facilities = token.secret.expose().to_owned();
        Self { app, address, clock, directory, facilities, stop, http }
    }

    /// A controller whose state is in memory.
    pub(crate) async fn in_memory() -> Self {
        Self::start(Arc::new(partywall_controller::store::memory::MemoryStore::default())).await
    }

    /// As [`Self::in_memory`], with impatient streams.
    pub(crate) async fn in_memory_pinging_every(interval: Duration) -> Self {
        let store = Arc::new(partywall_controller::store::memory::MemoryStore::default());
        Self::start_pinging_every(store, interval).await
    }

    /// The controller's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("https://{}{path}", self.address));
        match token {
            "" => request,
            token => request.bearer_auth(token),
        }
    }

    /// Sends and expects success; answers the body.
    pub(crate) async fn ok(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Value {
        let response = self.send(method.clone(), path, token, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Sends and expects a problem of this status; answers it.
    pub(crate) async fn refused(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
        status: StatusCode,
    ) -> Value {
        let response = self.send(method.clone(), path, token, body).await;
        problem(response, status).await
    }

    async fn send(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Response {
        let request = self.request(method, path, token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await.unwrap()
    }

    /// Sets up a building with two organisations; answers the tokens of their admins.
    pub(crate) async fn two_organisations(&self) -> (String, String) {
        self.ok(Method::POST, "/v1/apply", &self.facilities, Some(building())).await;
        let council = self.admin_of("council").await;
        let nhs = self.admin_of("nhs").await;
        self.ok(Method::POST, "/v1/apply", &council, Some(organisation("council", 0))).await;
        self.ok(Method::POST, "/v1/apply", &nhs, Some(organisation("nhs", 1))).await;
        (council, nhs)
    }

    pub(crate) async fn admin_of(&self, organisation: &str) -> String {
        let request = json!({
            "role": "admin", "organisation": organisation,
            "holder": format!("{organisation} network team"), "lifetime_s": 86400,
        });
        let made = self.ok(Method::POST, "/v1/tokens", &self.facilities, Some(request)).await;
        let made: TokenCreated = serde_json::from_value(made).unwrap();
        made.secret.expose().to_owned()
    }

    /// Sets the user's password to [`PASSWORD`]; answers the secret of their one-time codes.
    pub(crate) async fn credentials(&self, admin: &str, user: &str) -> Vec<u8> {
        let made = self
            .ok(
                Method::PUT,
                &format!("/v1/users/{user}/credentials"),
                admin,
                Some(json!({ "password": PASSWORD })),
            )
            .await;
        let made: CredentialCreated = serde_json::from_value(made).unwrap();
        let uri = reqwest::Url::parse(made.otpauth_uri.expose()).unwrap();
        let (_, secret) = uri.query_pairs().find(|(name, _)| name == "secret").unwrap();
        data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap()
    }
}

pub(crate) const PASSWORD: &str = "correct horse battery";

/// The code of RFC 6238 at `now`, written out here so that it does not share a fault with the controller's.
pub(crate) fn code(secret: &[u8], step_s: i64, now: Timestamp) -> String {
    let counter = now.as_second().div_euclid(step_s).to_be_bytes();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret).unwrap();
    mac.update(&counter);
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest[19] & 15);
    let cut: [u8; 4] = digest[offset..offset + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(cut) & 0x7fff_ffff) % 1_000_000)
}

/// Checks that `response` is a problem of `status` and answers it.
pub(crate) async fn problem(response: Response, status: StatusCode) -> Value {
    let found = response.status();
    let kind = response.headers().get("content-type").cloned();
    let text = response.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    assert_eq!(kind.unwrap(), "application/problem+json", "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["type"].as_str().unwrap().starts_with("urn:partywall:problem:"));
    problem
}

/// What facilities sets up.
pub(crate) fn building() -> Value {
    json!({
        "organisations": [
            { "name": "council", "title": "The Council", "code_step_s": 8 },
            { "name": "nhs", "title": "The NHS Trust" },
        ],
        "buildings": [{
            "name": "old-town-hall", "title": "Old Town Hall", "underlay": ["192.168.77.0/24"],
        }],
        "devices": [
            { "name": "desk-1", "building": "old-town-hall", "kind": { "runs": "agent" } },
            { "name": "desk-2", "building": "old-town-hall", "kind": { "runs": "agent" } },
        ],
    })
}

/// What an organisation's admin sets up; both organisations use 10.0.0.0/8 inside.
pub(crate) fn organisation(name: &str, number: u8) -> Value {
    json!({
        "segments": [{
            "name": name, "organisation": name, "title": name,
            "pools": [format!("100.{}.0.0/16", 64 + number)],
            "prefixes": ["10.0.0.0/8"], "tunnel": "split",
        }],
        "gateways": [{
            "name": format!("gw-{name}"), "segment": name,
            "endpoints": [format!("198.51.100.{}:51820", 10 + number)], "forwarding": "nat",
        }],
        "groups": [{ "organisation": name, "name": "staff", "title": "Staff" }],
        "users": [{ "name": format!("alice@{name}"), "title": "Alice", "groups": ["staff"] }],
        "policies": [{
            "version": 1, "organisation": name,
            "services": { "intranet": { "prefixes": ["10.1.0.10/32"], "protocol": "tcp", "ports": ["443"] } },
            "segments": { name: { "rules": [
                { "name": "intranet", "who": { "groups": ["staff"] }, "what": [{ "service": "intranet" }] },
            ] } },
        }],
    })
}
