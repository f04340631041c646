//! Sinks against real peers: a TLS syslog server, an OTLP server, a file, and one that never reads.

use std::fs;
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use partywall_proto::admin::{FlowSettingsSpec, FlowStatus};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::flows::testing::flow;
use crate::flows::{FlowLimits, Flows};
use crate::pki::{self, Authority, ServerIdentity};

const DEADLINE: Duration = Duration::from_secs(30);

/// Records on disk and a CA for the peers.
struct Place {
    directory: tempfile::TempDir,
    flows: Flows,
    council: OrganisationId,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let authority = Authority::create(at, "A CA", Timestamp::now()).unwrap();
        authority.issue_server(at, &["127.0.0.1".to_owned()], Timestamp::now()).unwrap();
        let networks = vec!["127.0.0.0/8".parse().unwrap()];
        let sinks = SinkLimits { files: Some(at.join("files")), networks };
        let limits = FlowLimits { budget_bytes: 1 << 30, sinks };
        let flows = Flows::open(&at.join("flows"), limits).unwrap();
        Self { directory, flows, council: "council".parse().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let identity = ServerIdentity::from_directory(self.path(), Timestamp::now()).unwrap();
        Arc::new(pki::server_config(identity).unwrap())
    }

    fn ca(&self) -> String {
        fs::read_to_string(self.path().join(pki::CA_FILE)).unwrap()
    }

    fn configure(&self, sinks: Vec<FlowSink>) {
        let organisation = self.council.clone();
        self.flows.configure([&FlowSettingsSpec { organisation, retention_days: 400, sinks }]);
    }

    fn syslog(&self, name: &str, port: u16) -> FlowSink {
        let server = format!("127.0.0.1:{port}");
        FlowSink::Syslog { name: name.parse().unwrap(), server, ca: self.ca() }
    }

    fn take(&self, devices: std::ops::Range<usize>) {
        let flows = devices.map(|number| flow(&format!("d{number}"), 0)).collect();
        self.flows.take(&self.council, flows, 0);
    }

    /// The status once it is as `wanted`.
    async fn status(&self, what: &str, wanted: impl Fn(&FlowStatus) -> bool) -> FlowStatus {
        let begun = Instant::now();
        loop {
            let status = self.flows.status(&self.council);
            if wanted(&status) {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "not in time: {what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What `step` brings, in time.
async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, step).await.expect("it takes too long")
}

/// One syslog message, by its frame (RFC 5425 §4.3).
async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut length = Vec::new();
    while length.last() != Some(&b' ') {
        length.push(stream.read_u8().await.ok()?);
    }
    let length = String::from_utf8(length).unwrap().trim_end().parse().unwrap();
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.ok()?;
    Some(String::from_utf8(message).unwrap())
}

#[tokio::test]
async fn a_syslog_server_gets_every_record_also_after_it_hung_up() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    place.configure(vec![place.syslog("siem", listener.local_addr().unwrap().port())]);
    let acceptor = TlsAcceptor::from(place.server_config());
    let accept = async || {
        let (tcp, _) = listener.accept().await.unwrap();
        BufReader::new(acceptor.accept(tcp).await.unwrap())
    };
    place.take(0..3);
    let mut first = soon(accept()).await;
    for number in 0..3 {
        let message = soon(frame(&mut first)).await.unwrap();
        assert!(message.starts_with("<110>1 2026-11-22T08:00:00.000000Z gw-council partywall - "));
        assert!(message.contains(&format!(r#""device":"d{number}""#)), "{message}");
    }
    place.status("sent", |it| it.sinks[0].sent == 3).await;
    drop(first);
    // Until it is noticed, the dead connection swallows what is sent: syslog has no acknowledgement.
    let begun = Instant::now();
    let mut second = loop {
        assert!(begun.elapsed() < DEADLINE, "it does not come back");
        place.take(3..6);
        tokio::select! {
            second = accept() => break second,
            () = tokio::time::sleep(Duration::from_millis(200)) => (),
        }
    };
    let mut last = String::new();
    while !last.contains(r#""device":"d5""#) {
        last = soon(frame(&mut second)).await.unwrap();
    }
    let status = place.status("sent again", |it| it.sinks[0].sent == it.received).await;
    assert_eq!((status.sinks[0].dropped, &status.sinks[0].trouble), (0, &None));
}

#[tokio::test]
async fn a_server_of_another_ca_gets_nothing() {
    let (place, other) = (Place::new(), Place::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    place.configure(vec![place.syslog("siem", listener.local_addr().unwrap().port())]);
    place.take(0..1);
    let (tcp, _) = soon(listener.accept()).await.unwrap();
    assert!(soon(TlsAcceptor::from(other.server_config()).accept(tcp)).await.is_err());
    let status = place.status("refused", |it| it.sinks[0].trouble.is_some()).await;
    let trouble = status.sinks[0].trouble.clone().unwrap();
    assert!(trouble.contains("certificate") && status.sinks[0].sent == 0, "{trouble}");
}

#[tokio::test]
async fn a_sink_that_never_reads_loses_records_and_holds_up_nothing_else() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = FlowSink::File { name: "archive".parse().unwrap() };
    place.configure(vec![place.syslog("siem", listener.local_addr().unwrap().port()), file]);
    let acceptor = TlsAcceptor::from(place.server_config());
    // It shakes hands, and then it does not read.
    let stalled = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _held = acceptor.accept(tcp).await.unwrap();
        std::future::pending::<()>().await;
    });
    let all = 60_000;
    let mut slowest = Duration::ZERO;
    for first in (0..all).step_by(500) {
        let begun = Instant::now();
        place.take(first..first + 500);
        slowest = slowest.max(begun.elapsed());
        // As gateways do: no faster than the disk, which would drop as well.
        let waits = |it: &FlowStatus| it.received - it.stored - it.dropped < 5000;
        place.status("the disk", waits).await;
        place
            .status("the file", |it| first as u64 - it.sinks[1].sent.min(first as u64) < 5000)
            .await;
    }
    let all = all as u64;
    let status = place.status("the file", |it| it.sinks[1].sent == all && it.stored == all).await;
    assert_eq!((status.dropped, status.sinks[1].dropped), (0, 0));
    let siem = &status.sinks[0];
    assert!(siem.dropped > 0 && siem.sent + siem.dropped <= all, "{siem:?}");
    assert!(all - siem.sent - siem.dropped <= WAITING_MAX, "{siem:?}");
    let written = fs::read_to_string(place.path().join("files/council/archive.jsonl")).unwrap();
    assert_eq!(written.lines().count() as u64, all);
    // Made in `take` besides: 500 records of the test itself, in a build without optimisation.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    stalled.abort();
}

#[tokio::test]
async fn an_otlp_server_gets_log_records_and_is_tried_again_when_it_is_busy() {
    let place = Place::new();
    let (bodies, mut posted) = mpsc::unbounded_channel::<Value>();
    let answers = Arc::new(Mutex::new(vec![
        (503, json!({})),
        (200, json!({})),
        (200, json!({ "partialSuccess": { "rejectedLogRecords": "1" } })),
        (400, json!({})),
    ]));
    let handler = move |Json(body): Json<Value>| async move {
        bodies.send(body).unwrap();
        let (status, answer) = lock(&answers).remove(0);
        (axum::http::StatusCode::from_u16(status).unwrap(), Json(answer))
    };
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://127.0.0.1:{}/v1/logs", listener.local_addr().unwrap().port());
    let tls = RustlsConfig::from_config(place.server_config());
    let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
    let router = Router::new().route("/v1/logs", post(handler));
    tokio::spawn(server.serve(router.into_make_service()));

    let name = "otel".parse().unwrap();
    place.configure(vec![FlowSink::Otlp { name, url, ca: place.ca() }]);
    place.take(0..2);
    let busy = soon(posted.recv()).await.unwrap();
    assert_eq!(soon(posted.recv()).await.unwrap(), busy, "the same batch again");
    place.status("taken", |it| it.sinks[0].sent == 2).await;
    let resource = &busy["resourceLogs"][0];
    let whose = json!({ "key": "partywall.organisation", "value": { "stringValue": "council" } });
    assert_eq!(resource["resource"]["attributes"][1], whose);
    let record = &resource["scopeLogs"][0]["logRecords"][1];
    assert_eq!(record["timeUnixNano"], "1795334400000000000");
    assert_eq!(record["eventName"], "partywall.flow.opened");
    let has = |key: &str, value: Value| {
        let attribute = json!({ "key": key, "value": value });
        assert!(record["attributes"].as_array().unwrap().contains(&attribute), "{attribute}");
    };
    has("user.name", json!({ "stringValue": "alice@council" }));
    has("server.address", json!({ "stringValue": "10.1.0.80" }));
    has("server.port", json!({ "intValue": "443" }));
    has("partywall.device", json!({ "stringValue": "d1" }));
    has("partywall.to_network.bytes", json!({ "intValue": "60" }));

    place.take(2..5);
    let status = place.status("taken in part", |it| it.sinks[0].dropped == 1).await;
    assert_eq!(status.sinks[0].sent, 4);
    // What is refused for good is not tried for ever.
    place.take(5..7);
    let status = place.status("refused", |it| it.sinks[0].dropped == 3).await;
    assert!(status.sinks[0].trouble.as_ref().unwrap().contains("400"));
}

#[tokio::test]
async fn a_sink_that_stays_goes_on_and_one_that_goes_ends() {
    let place = Place::new();
    let file = |name: &str| FlowSink::File { name: name.parse().unwrap() };
    place.configure(vec![file("a"), file("b")]);
    place.take(0..3);
    place.status("written", |it| it.sinks.iter().all(|sink| sink.sent == 3)).await;
    place.configure(vec![file("c"), file("b")]);
    place.take(3..4);
    let status = place.status("written", |it| it.sinks[1].sent == 4 && it.sinks[0].sent == 1).await;
    assert_eq!(status.sinks[0].name.as_str(), "c");
    let lines = |name: &str| {
        let path = place.path().join(format!("files/council/{name}.jsonl"));
        fs::read_to_string(path).unwrap().lines().count()
    };
    assert_eq!((lines("a"), lines("b"), lines("c")), (3, 4, 1));
}
