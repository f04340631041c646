//! The daemon against a controller over real TLS and WebSocket, with a pretend machine.
//!
//! Each test looks at what the machine was made to do, what the controller was told, and what the
//! person at the desk was told.

use std::path::Path;
use std::sync::{Arc, Mutex};

use partywall_proto::agent_api::ServerMessage;
use partywall_proto::keys::Secret;
use partywall_proto::overlay::{Change, OverlayConfig};
use partywall_proto::problem::Problem;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::control::testing::{FakeController, FakePeer};
use crate::daemon::Step;
use crate::daemon::testing::{
    delta, device_config, gateway_config, pins, seal, seal_delta, seconds,
};
use crate::dataplane::{Explanation, FlowQueue, PeerStatus, Query, Report, Traffic};
use crate::ipc::{Reply, Request, StatusView, call};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_config_is_acknowledged_once_it_is_enforced_and_kept() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    let config = fresh(device_config("council", "s1", 3));
    peer.config(seal(&config)).await;
    let ClientMessage::Applied { holding } = peer.answer().await else { panic!("not applied") };
    assert_eq!(holding.generation, config.generation);
    assert_eq!(desk.words(), ["cut", "undo", "cut", "system", "replace"]);
    assert_eq!(desk.cached(), Some(config.clone()));

    let step = delta(
        &config,
        4,
        vec![Change::RulesSet { rules: Vec::new(), policy: None, observed: None }],
    );
    peer.config(seal_delta(&step)).await;
    assert!(matches!(peer.answer().await, ClientMessage::Applied { .. }));
    assert_eq!(desk.words().last().unwrap(), "rules");
    assert_eq!(desk.cached(), Some(config.with(&step).unwrap()));
    desk.stop().await;
    assert_eq!(desk.words()[6..], ["cut", "undo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_config_changes_nothing_and_the_controller_hears_why() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    let config = fresh(device_config("council", "s1", 3));
    peer.config(seal(&config)).await;
    peer.answer().await;
    let before = desk.words();
    let stranger = fresh(device_config("stranger", "s1", 9));
    let skipping = delta(
        &OverlayConfig { generation: partywall_proto::overlay::Generation(7), ..config.clone() },
        8,
        Vec::new(),
    );
    for (envelope, name) in [
        (seal(&stranger), "config-signature"),
        (seal_delta(&skipping), "config-generation"),
        (seal(&fresh(gateway_config(9))), "config-not-ours"),
    ] {
        peer.config(envelope).await;
        let ClientMessage::Rejected { problem } = peer.answer().await else { panic!("{name}") };
        assert_eq!(problem.name(), name);
    }
    peer.send_text(r#"{"type":"from-the-future"}"#.to_owned()).await;
    let ClientMessage::Rejected { problem } = peer.answer().await else { panic!("unreadable") };
    assert_eq!(problem.name(), "message-unreadable");
    assert_eq!(desk.words(), before);
    assert_eq!(desk.cached(), Some(config));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_when_the_gateway_has_answered() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    let login = desk.login();
    let ClientMessage::SignIn { request, password, code, .. } = peer.answer().await else {
        panic!("no sign-in")
    };
    assert_eq!((password.expose(), code.expose()), ("horse", "123456"));
    let config = fresh(device_config("council", "s1", 3));
    let session = session_of(&config);
    let segment = config.segment.clone();
    peer.config(seal(&config)).await;
    peer.answer().await;
    peer.send(&ServerMessage::SignedIn { request, session, segment }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!login.is_finished(), "the login ended before any handshake");
    desk.machine.lock().unwrap().connected = true;
    let Reply::SignedIn { session } = login.await.unwrap() else { panic!("not signed in") };
    assert_eq!((session.title.as_str(), session.user.local()), ("council network", "alice"));
    let status = desk.status().await;
    assert_eq!((status.live_peers, status.enforced), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_told_of_a_gateway_that_does_not_answer() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    let login = desk.login();
    let ClientMessage::SignIn { request, .. } = peer.answer().await else { panic!("no sign-in") };
    let config = fresh(device_config("council", "s1", 3));
    let (session, segment) = (session_of(&config), config.segment.clone());
    peer.send(&ServerMessage::SignedIn { request, session, segment }).await;
    peer.config(seal(&config)).await;
    let Reply::Refused { problem } = login.await.unwrap() else { panic!("signed in") };
    assert_eq!(problem.name(), "no-gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_says_what_the_controller_says() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    let login = desk.login();
    let ClientMessage::SignIn { request, .. } = peer.answer().await else { panic!("no sign-in") };
    let problem = Problem::new(401, "wrong-credentials", "The password or the code is wrong", "");
    peer.send(&ServerMessage::Refused { request: Some(request), problem: problem.clone() }).await;
    assert_eq!(login.await.unwrap(), Reply::Refused { problem });

    let login = desk.login();
    assert!(matches!(peer.answer().await, ClientMessage::SignIn { .. }));
    drop(peer);
    let Reply::Refused { problem } = login.await.unwrap() else { panic!("signed in") };
    assert_eq!(problem.name(), "no-controller");
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_go_on_without_the_controller_and_over_a_restart() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    let config = fresh(device_config("council", "s1", 3));
    peer.config(seal(&config)).await;
    peer.answer().await;
    let before = desk.words();
    drop(peer);
    let view = desk.until(|view| !view.controller.connected).await;
    assert_eq!(view.session.unwrap().title, "council network");
    assert_eq!(desk.words(), before, "losing the controller changed something");
    let Reply::Refused { problem } = desk.login().await.unwrap() else { panic!("signed in") };
    assert_eq!(problem.name(), "no-controller");

    desk.restart().await;
    assert_eq!(desk.words(), ["cut", "system", "replace"]);
    assert_eq!(desk.status().await.session.unwrap().title, "council network");
    let mut peer = desk.welcomed(Some(3)).await;
    let view = desk.until(|view| view.controller.connected).await;
    assert_eq!((view.segment, view.enforced), (Some(config.segment.clone()), true));
    peer.send(&ServerMessage::Nothing { reason: "revoked".to_owned() }).await;
    let view = desk.until(|view| view.segment.is_none()).await;
    assert_eq!(view.idle.as_deref(), Some("revoked"));
    assert_eq!(desk.cached(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_holds_although_the_controller_has_not_heard_it() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    let config = fresh(device_config("council", "s1", 3));
    peer.config(seal(&config)).await;
    peer.answer().await;
    drop(peer);
    desk.until(|view| !view.controller.connected).await;
    let reply = call(&desk.socket(), &Request::Logout).await.unwrap();
    assert!(matches!(reply, Reply::SignedOut { .. }), "{reply:?}");
    assert_eq!(desk.words()[5..], ["cut", "undo"]);

    desk.restart().await;
    assert_eq!(desk.words(), ["cut", "undo"]);
    let mut peer = desk.welcomed(None).await;
    let ClientMessage::SignOut { request } = peer.answer().await else { panic!("no sign-out") };
    peer.config(seal(&fresh(device_config("council", "s1", 4)))).await;
    peer.send(&ServerMessage::SignedOut { request }).await;
    peer.config(seal(&fresh(device_config("council", "s2", 5)))).await;
    let ClientMessage::Applied { holding } = peer.answer().await else { panic!("not applied") };
    assert_eq!(holding.generation.0, 5);
    assert_eq!(desk.words()[2..], ["cut", "system", "replace"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_right_after_a_logout_waits_its_turn() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    peer.config(seal(&fresh(device_config("council", "s1", 3)))).await;
    peer.answer().await;
    call(&desk.socket(), &Request::Logout).await.unwrap();
    let _login = desk.login();
    let ClientMessage::SignOut { request } = peer.answer().await else { panic!("no sign-out") };
    let early = tokio::time::timeout(Duration::from_millis(200), peer.answer()).await;
    assert!(early.is_err(), "two requests at a time: {early:?}");
    peer.send(&ServerMessage::SignedOut { request }).await;
    assert!(matches!(peer.answer().await, ClientMessage::SignIn { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_the_controller_no_longer_knows_carries_nothing() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.welcomed(None).await;
    peer.config(seal(&fresh(device_config("council", "s1", 3)))).await;
    peer.answer().await;
    drop(peer);
    let mut peer = desk.controller.accept().await;
    peer.receive().await;
    let problem = Problem::new(403, "unknown-agent", "The machine is not known", "");
    peer.send(&ServerMessage::Refused { request: None, problem }).await;
    desk.until(|view| view.segment.is_none()).await;
    assert_eq!(desk.words()[5..], ["cut", "undo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_set_up_is_told_to_the_controller_and_to_people() {
    let mut desk = Desk::start("device/desk-1").await;
    desk.machine.lock().unwrap().broken = true;
    let mut peer = desk.welcomed(None).await;
    peer.config(seal(&fresh(device_config("council", "s1", 3)))).await;
    let ClientMessage::Rejected { problem } = peer.answer().await else { panic!("applied") };
    assert!(problem.detail.contains("nft is missing"), "{problem}");
    assert_eq!(desk.words().last().unwrap(), "cut");
    let view = desk.status().await;
    assert!(!view.enforced && view.warnings[0].contains("nft is missing"), "{view:?}");

    // It is tried again by itself.
    desk.machine.lock().unwrap().broken = false;
    assert!(matches!(peer.answer().await, ClientMessage::Applied { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_segment_key_is_refused_and_shown() {
    let mut desk = Desk::start("device/desk-1").await;
    let mut peer = desk.controller.accept().await;
    peer.receive().await;
    let ServerMessage::Welcome { agent, mut segment_keys, segments } =
        peer.welcome("device/desk-1")
    else {
        unreachable!()
    };
    segment_keys.insert("council".parse().unwrap(), [9; 32].into());
    peer.send(&ServerMessage::Welcome { agent, segment_keys, segments }).await;
    let view = desk.until(|view| view.controller.connected).await;
    assert!(view.warnings.iter().any(|warning| warning.contains("pinned")), "{view:?}");
    assert_eq!(Pins::read_in(&desk.state_path()), pins());
}

#[tokio::test]
async fn a_gateway_says_how_many_flow_records_were_lost_once_the_controller_is_there() {
    let mut desk = Desk::start("gateway/gw-1").await;
    let flows = desk.machine.lock().unwrap().flows.clone();
    flows.lose(3);
    let view = desk.until(|view| view.flow_records_lost == 3).await;
    assert!(!view.controller.connected);
    let mut peer = desk.welcomed(None).await;
    assert_eq!(peer.answer().await, ClientMessage::Flows { records: Vec::new(), lost: 3 });
    assert_eq!(desk.status().await.flow_records_lost, 3);
    assert!(flows.take().is_none(), "it is told once");
    desk.stop().await;
}

/// What the pretend machine was made to do.
#[derive(Debug, Default)]
struct Log {
    steps: Vec<Step>,
    connected: bool,
    broken: bool,
    flows: FlowQueue,
}

#[derive(Debug, Clone)]
struct Pretend(Arc<Mutex<Log>>);

impl Enforcer for Pretend {
    const MARKED: bool = false;

    fn controller_is_at(&mut self, _address: SocketAddr) {}

    async fn take(&mut self, step: Step) -> Result<(), EnforceError> {
        let mut log = self.0.lock().unwrap();
        if log.broken && matches!(step, Step::System(_)) {
            return Err(EnforceError::Retry("nft is missing".into()));
        }
        log.steps.push(step);
        Ok(())
    }

    fn flows(&self) -> FlowQueue {
        self.0.lock().unwrap().flows.clone()
    }

    async fn report(&self) -> Result<Report, EnforceError> {
        let handshake_age = self.0.lock().unwrap().connected.then_some(Duration::ZERO);
        let peer = PeerStatus {
            agent: "gateway/gw-1".parse().unwrap(),
            endpoint: None,
            handshake_age,
            received: Traffic::default(),
            sent: Traffic::default(),
        };
        Ok(Report { peers: vec![peer], ..Report::default() })
    }

    async fn explain(&self, _query: Query) -> Result<Option<Explanation>, EnforceError> {
        Ok(None)
    }

    async fn died(&self) -> EnforceError {
        std::future::pending().await
    }
}

/// A daemon, its pretend machine and its controller.
struct Desk {
    root: tempfile::TempDir,
    controller: FakeController,
    machine: Arc<Mutex<Log>>,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<(), DaemonError>>>,
}

impl Desk {
    async fn start(agent: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let controller = FakeController::start().await;
        let state = StateDir::open(&root.path().join("state")).unwrap();
        let enrolment = Enrolment {
            agent: agent.parse().unwrap(),
            controller: controller.address(),
            ca: controller.pki.ca(),
        };
        enrolment.write(&state).unwrap();
        pins().write(&state).unwrap();
        drop(state);
        let machine = Arc::default();
        let mut desk = Self { root, controller, machine, stop: None, running: None };
        desk.run().await;
        desk
    }

    async fn run(&mut self) {
        self.machine = Arc::default();
        let state = StateDir::open(&self.state_path()).unwrap();
        let machine = Pretend(self.machine.clone());
        let daemon = Daemon::start(state, self.socket(), machine).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        self.stop = Some(stop);
        self.running = Some(tokio::spawn(daemon.run(async {
            let _ = stopped.await;
        })));
    }

    async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        let running = self.running.take().unwrap();
        tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap();
    }

    /// As after a crash: nothing is undone, and another daemon starts on the same state.
    async fn restart(&mut self) {
        let running = self.running.take().unwrap();
        running.abort();
        let _ = running.await;
        self.run().await;
    }

    fn state_path(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("agent.sock")
    }

    fn words(&self) -> Vec<String> {
        let word = |step: &Step| match step {
            Step::Cut => "cut",
            Step::System(_) => "system",
            Step::Replace(_) => "replace",
            Step::PeerSet(_) => "set",
            Step::PeerGone(_) => "gone",
            Step::RulesSet { .. } => "rules",
            Step::Undo => "undo",
        };
        self.machine.lock().unwrap().steps.iter().map(|step| word(step).to_owned()).collect()
    }

    /// What a restart would find.
    fn cached(&self) -> Option<OverlayConfig> {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.state_path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let state = StateDir::open(copy.path()).unwrap();
        let agent = Enrolment::read(&state).unwrap().unwrap().agent;
        Cache::default().read(&state, &pins(), &agent).unwrap()
    }

    /// The agent's next connection, let in. Checks what it says it holds.
    async fn welcomed(&mut self, generation: Option<u64>) -> FakePeer {
        let mut peer = self.controller.accept().await;
        let Some(ClientMessage::Hello { agent, proof, holding, .. }) = peer.receive().await else {
            panic!("no hello")
        };
        proof.verify(peer.nonce()).unwrap();
        assert_eq!(holding.map(|holding| holding.generation.0), generation);
        let welcome = peer.welcome(&agent.to_string());
        peer.send(&welcome).await;
        self.until(|view| view.controller.connected).await;
        peer
    }

    fn login(&self) -> JoinHandle<Reply> {
        let socket = self.socket();
        let request = Request::Login {
            segment: "council".parse().unwrap(),
            user: "alice@council".parse().unwrap(),
            password: Secret::from("horse".to_owned()),
            code: Secret::from("123456".to_owned()),
        };
        tokio::spawn(async move { call(&socket, &request).await.unwrap() })
    }

    async fn status(&self) -> StatusView {
        let reply = call(&self.socket(), &Request::Status).await.unwrap();
        let Reply::Status(view) = reply else { panic!("{reply:?}") };
        *view
    }

    async fn until(&self, condition: impl Fn(&StatusView) -> bool) -> StatusView {
        let begin = Instant::now();
        loop {
            let view = self.status().await;
            if condition(&view) {
                return view;
            }
            assert!(begin.elapsed() < DEADLINE, "it never came to be: {view:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Pins {
    fn read_in(path: &Path) -> Self {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(path.join("segment_keys.json"), copy.path().join("segment_keys.json"))
            .unwrap();
        Self::read(&StateDir::open(copy.path()).unwrap()).unwrap()
    }
}

/// `config` as if it were signed now.
fn fresh(config: OverlayConfig) -> OverlayConfig {
    let now = Timestamp::now();
    let mut config = OverlayConfig { issued_at: now, valid_until: now + seconds(3600), ..config };
    if let partywall_proto::overlay::Role::Device { session, .. } = &mut config.role {
        session.ends_at = now + seconds(1800);
    }
    config
}

fn session_of(config: &OverlayConfig) -> partywall_proto::overlay::Session {
    match &config.role {
        partywall_proto::overlay::Role::Device { session, .. } => session.clone(),
        partywall_proto::overlay::Role::Gateway { .. } => panic!("a gateway has no session"),
    }
}
