//! Promise 9: what was answered with success is there after a `kill -9` at any point, and the audit
//! chain holds; a full disk refuses clearly and loses nothing.
#![expect(clippy::unwrap_used, reason = "a step that fails ends its test where it stands")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use partywall_proto::admin::{GroupSpec, Manifest};
use partywall_tests::lab::{Host, wait_for};
use partywall_tests::stage::{ADDRESS, Alone, PATIENCE, ShowLogs};

const KILLS: usize = 200;
const WRITERS: usize = 6;
/// Each writer writes these groups in turn, again and again, so that updates are tested as creation is.
const GROUPS_PER_WRITER: u64 = 8;
/// Writes that must be acknowledged between two kills.
const WRITES_PER_ROUND: u64 = 12;

/// What the controller acknowledged: for each group the highest number written, and how many writes.
#[derive(Debug, Default, Clone)]
struct Acknowledged {
    numbers: BTreeMap<String, u64>,
    writes: u64,
}

#[test]
fn two_hundred_kills_under_write_load_lose_nothing_that_was_acknowledged() {
    let mut alone = Alone::up("/var/lib/data", &[]).unwrap();
    let _logs = ShowLogs::of(alone.lab.dir());
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let writing = Writing::start(&alone, acknowledged.clone());
    for kill in 0..KILLS {
        let before = acknowledged.lock().unwrap().writes;
        writing.go_on();
        wait_for("writes are acknowledged", PATIENCE, || {
            acknowledged.lock().unwrap().writes >= before + WRITES_PER_ROUND
        })
        .unwrap();
        // So that kills fall anywhere within a write, not only right after an answer.
        std::thread::sleep(Duration::from_micros(rand::random::<u64>() % 20_000));
        alone.kill();
        writing.pause();
        let expected = acknowledged.lock().unwrap().clone();
        alone.start().unwrap_or_else(|error| panic!("after kill {kill}: {error:#}"));
        let records =
            alone.verify_audit().unwrap_or_else(|error| panic!("after kill {kill}: {error:#}"));
        assert!(records >= expected.writes, "after kill {kill}: {records} records, {expected:?}");
        assert_holds(&alone.export().unwrap(), &expected, kill);
        if kill % 20 == 19 {
            println!(
                "{} kills, {} acknowledged writes, {records} audit records",
                kill + 1,
                expected.writes
            );
        }
    }
    writing.stop();
    let written = acknowledged.lock().unwrap().writes;
    println!("{KILLS} kills, {written} acknowledged writes, none lost");
}

fn assert_holds(stored: &Manifest, expected: &Acknowledged, kill: usize) {
    let stored: BTreeMap<&str, u64> =
        stored.groups.iter().map(|group| (group.name.as_str(), number(group))).collect();
    for (name, number) in &expected.numbers {
        let found = stored.get(name.as_str());
        // A write whose answer was lost may be there as well.
        assert!(found >= Some(number), "after kill {kill}: {name} is {found:?}, not {number}");
    }
}

fn number(group: &GroupSpec) -> u64 {
    group.title.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Writers over HTTPS with connections kept alive, on the controller's own loopback.
struct Writing {
    stop: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Writing {
    fn start(alone: &Alone, acknowledged: Arc<Mutex<Acknowledged>>) -> Self {
        let token = alone.read("/var/lib/council.token").unwrap().trim().to_owned();
        let client = client(&alone.read(&alone.ca()).unwrap());
        let (stop, pause) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let host: Host = alone.host().clone();
        let (stopped, paused) = (stop.clone(), pause.clone());
        let thread = std::thread::spawn(move || {
            host.enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let mut writers = tokio::task::JoinSet::new();
                    for writer in 0..WRITERS {
                        let (client, token) = (client.clone(), token.clone());
                        let (stop, pause) = (stopped.clone(), paused.clone());
                        let writer = Writer { writer, client, token, stop, pause };
                        writers.spawn(writer.write(acknowledged.clone()));
                    }
                    writers.join_all().await;
                });
            })
            .unwrap();
        });
        Self { stop, pause, thread }
    }

    fn go_on(&self) {
        self.pause.store(false, Ordering::Relaxed);
    }

    /// Between a kill and the look at what is left, so that the trail does not grow for nothing.
    fn pause(&self) {
        self.pause.store(true, Ordering::Relaxed);
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

struct Writer {
    writer: usize,
    client: reqwest::Client,
    token: String,
    stop: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
}

impl Writer {
    async fn write(self, acknowledged: Arc<Mutex<Acknowledged>>) {
        let mut number = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if self.pause.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            number += 1;
            let name = format!("writer-{}-{}", self.writer, number % GROUPS_PER_WRITER);
            let group = GroupSpec {
                organisation: "council".parse().unwrap(),
                name: name.parse().unwrap(),
                title: format!("write {number}"),
            };
            let url = format!("https://{ADDRESS}/v1/organisations/council/groups/{name}");
            match self.client.put(url).bearer_auth(&self.token).json(&group).send().await {
                Ok(answer) => {
                    let status = answer.status();
                    let text = answer.text().await.unwrap_or_default();
                    assert!(status.is_success(), "a write was refused: {status} {text}");
                    let mut acknowledged = acknowledged.lock().unwrap();
                    acknowledged.numbers.insert(name, number);
                    acknowledged.writes += 1;
                }
                // The controller is away; it will be back.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

fn client(ca: &str) -> reqwest::Client {
    // Fails only if another test of this program was first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([ca])
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

#[test]
fn a_full_disk_refuses_clearly_and_loses_nothing() {
    let data = "/var/lib/small/data";
    let small = "mkdir /var/lib/small && mount -t tmpfs -o size=64m,mode=755 small /var/lib/small";
    let mut alone = Alone::up(data, &["sh", "-c", small]).unwrap();
    let _logs = ShowLogs::of(alone.lab.dir());
    // All of it but what the store keeps in reserve (16 MiB) and two more, so that few writes fill it.
    let fill = "dd if=/dev/zero of=/var/lib/small/filler bs=64k count=$(( \
                ($(df --output=avail -k /var/lib/small | tail -1) - 18432) / 64 )) status=none";
    alone.host().ok(&["sh", "-c", fill]).unwrap();

    let mut acknowledged = 0;
    let refused = loop {
        let output = alone.ctl(&["apply", "-f", "-"], &manifest(acknowledged)).unwrap();
        if !output.success() {
            break output;
        }
        acknowledged += 1;
        assert!(acknowledged < 1000, "the disk does not fill up");
    };
    assert!(acknowledged > 0, "not one write fits: {}", refused.stderr);
    let message = refused.stderr.to_lowercase();
    assert!(message.contains("disk") || message.contains("space"), "unclear: {}", refused.stderr);

    // Somebody else takes the reserve as well, to the last byte: still a refusal, and reads go on.
    let rest = "dd if=/dev/zero of=/var/lib/small/rest bs=64k status=none; true";
    alone.host().ok(&["sh", "-c", rest]).unwrap();
    assert!(!alone.ctl(&["apply", "-f", "-"], &manifest(acknowledged)).unwrap().success());
    alone.export().unwrap();

    // Space alone changes nothing that was stored; a restart goes on from there.
    alone.host().ok(&["rm", "/var/lib/small/filler", "/var/lib/small/rest"]).unwrap();
    alone.kill();
    alone.start().unwrap();
    alone.verify_audit().unwrap();
    let stored: Vec<String> =
        alone.export().unwrap().groups.iter().map(|group| group.name.to_string()).collect();
    for batch in 0..acknowledged {
        for group in 0..GROUPS_PER_BATCH {
            let name = format!("batch-{batch}-{group}");
            assert!(stored.contains(&name), "{name} was acknowledged and is gone");
        }
    }
    alone.ctl(&["apply", "-f", "-"], &manifest(acknowledged + 1)).unwrap().ok().unwrap();
}

const GROUPS_PER_BATCH: usize = 40;

fn manifest(batch: usize) -> String {
    let group = |group| {
        format!(
            "  - {{ organisation: council, name: batch-{batch}-{group}, title: a group of many words }}\n"
        )
    };
    format!("groups:\n{}", (0..GROUPS_PER_BATCH).map(group).collect::<String>())
}
