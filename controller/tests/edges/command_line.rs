//! The two programs as an administrator uses them.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(40);

const BUILDING: &str = "\
organisations:
  - { name: council, title: The Council, code_step_s: 8 }
buildings:
  - { name: old-town-hall, title: Old Town Hall, underlay: [192.168.77.0/24] }
devices:
  - { name: desk-1, building: old-town-hall, kind: { runs: agent } }
";

const COUNCIL: &str = "\
segments:
  - { name: council, organisation: council, title: Council, pools: [100.64.0.0/16], prefixes: [10.0.0.0/8], tunnel: split }
gateways:
  - { name: gw-council, segment: council, endpoints: ['198.51.100.10:51820'], forwarding: nat }
groups:
  - { organisation: council, name: staff, title: Staff }
users:
  - { name: alice@council, title: Alice, groups: [staff] }
";

#[test]
fn a_first_building_by_the_command_line() {
    let place = Place::initialised();
    let _serving = place.serve();
    let building = place.file("building.yaml", BUILDING);
    let facilities = place.path("token");

    let diff = place.ctl(&facilities, &["diff", "-f", &building]);
    assert!(diff.contains("+ devices/desk-1 (new)"), "{diff}");
    assert!(place.ctl(&facilities, &["export"]).trim().len() < 4, "diff changed something");
    place.ctl(&facilities, &["apply", "-f", &building]);
    assert_eq!(place.ctl(&facilities, &["diff", "-f", &building]), "");
    let exported = place.file("exported.yaml", &place.ctl(&facilities, &["export"]));
    assert_eq!(place.ctl(&facilities, &["diff", "-f", &exported]), "");

    let create = [
        "token",
        "create",
        "--role",
        "admin",
        "--organisation",
        "council",
        "--holder",
        "network team",
    ];
    let admin = place.file("admin-token", &place.ctl(&facilities, &create));
    let admin = PathBuf::from(admin);
    let council = place.file("council.yaml", COUNCIL);
    place.ctl(&admin, &["apply", "-f", &council]);
    let made = place.ctl_with(&admin, &["credentials", "alice@council"], "correct horse battery\n");
    let made = String::from_utf8(made.stdout).unwrap();
    assert!(made.starts_with("otpauth://totp/"), "{made}");
    assert!(made.contains('█') || made.contains('▀'), "no QR code: {made}");

    let code = place.ctl(&facilities, &["enrol-code", "device/desk-1", "--lifetime", "30m"]);
    assert!(code.starts_with("pw1-") && code.lines().count() == 1, "{code}");
    assert!(place.ctl(&admin, &["sessions"]).contains("SESSION"));
    let sessions: Value =
        serde_json::from_str(&place.ctl(&admin, &["sessions", "--json"])).unwrap();
    assert_eq!(sessions, serde_json::json!([]));
    assert!(place.ctl(&admin, &["audit"]).contains("users/alice@council"));
    assert!(place.ctl(&admin, &["audit", "verify"]).contains("holds"));
    assert!(place.ctl(&admin, &["token", "list"]).contains("network team"));

    policy_by_the_command_line(&place, &admin);

    let said = place.ctl(&facilities, &["delete", "devices/desk-1"]);
    assert_eq!(said, "devices/desk-1 is deleted\n");
    assert!(!place.ctl(&facilities, &["export"]).contains("desk-1"));
    place.ctl(&admin, &["delete", "users/alice@council"]);
    place.ctl(&admin, &["delete", "groups/council/staff"]);
    assert!(!place.ctl(&admin, &["export"]).contains("staff"));
}

const POLICY: &str = "\
# Who reaches what.
version: 1
organisation: council
segments:
  council:
    rules:
      - name: web
        who: { groups: [staff] }
        what:
          - net: { prefixes: [10.1.0.0/16], protocol: tcp, ports: [443] }
tests:
  - name: the web is there
    given: { user: alice@council }
    to: 10.1.2.3:443/tcp
    expect: allow
";

/// As `admin`, from the first draft to the way back.
fn policy_by_the_command_line(place: &Place, admin: &Path) {
    let good = place.file("policy.yaml", POLICY);
    let typo = place.file("typo.yaml", &POLICY.replace("[staff]", "[stuff]"));
    let refused = |arguments: &[&str], says: &str| {
        let output = place.ctl_with(admin, arguments, "");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(says), "{arguments:?}: {text}");
    };
    refused(&["policy", "check", "-f", &typo], "typo.yaml:8:");
    refused(&["policy", "publish", "-f", &typo], "typo.yaml:8:");
    let said = place.ctl(admin, &["policy", "check", "-f", &good]);
    assert!(said.contains("1 rules, 1 tests hold"), "{said}");
    let report: Value =
        serde_json::from_str(&place.ctl(admin, &["policy", "check", "-f", &good, "--json"]))
            .unwrap();
    assert_eq!(report, serde_json::json!({ "findings": [], "tests": 1, "rules": 1 }));
    let (rules, tests) = POLICY.split_at(POLICY.find("tests:").unwrap());
    let rule = rules[rules.find("      - name: web").unwrap()..].replace("web", "web-again");
    let idle = place.file("idle.yaml", &format!("{rules}{rule}{tests}"));
    let warned = place.ctl_with(admin, &["policy", "check", "-f", &idle], "");
    let text = String::from_utf8(warned.stderr).unwrap();
    assert!(warned.status.success() && text.contains("idle.yaml:11:9: "), "{text}");
    assert!(text.starts_with("warning: ") && text.contains("changes nothing"), "{text}");
    let publish = ["policy", "publish", "-f", &good, "--if-version", "0"];
    assert_eq!(place.ctl(admin, &publish), "version 1\n");
    refused(&publish, "is at version 1, not 0: network team");
    let narrower = place.file("narrower.yaml", &POLICY.replace("10.1.0.0/16", "10.1.2.0/24"));
    let diff = place.ctl(admin, &["policy", "diff", "-f", &narrower]);
    assert!(
        diff.starts_with(
            "segment council\n  - everyone (1 people): 10.1.0.0/23 tcp 443; 10.1.3.0/24 tcp 443; "
        ),
        "{diff}"
    );
    assert_eq!(place.ctl(admin, &["policy", "diff", "-f", &good]), "");
    refused(&["policy", "diff", "-f", &typo], "typo.yaml:8:");
    refused(&["policy", "what-if", "-f", &typo, "--since", "2d"], "typo.yaml:8:");
    let table = place.ctl(admin, &["policy", "what-if", "-f", &narrower]);
    assert!(table.trim_start().starts_with("WOULD-BE") && table.lines().count() == 1, "{table}");
    assert_eq!(place.ctl(admin, &["policy", "publish", "-f", &narrower]), "version 2\n");
    let back = place.ctl(admin, &["policy", "diff", "--from", "2", "--to", "1"]);
    assert_eq!(back, diff.replace("  - ", "  + "));
    assert_eq!(place.ctl(admin, &["policy", "diff", "--from", "2"]), "");
    refused(&["policy", "diff", "--from", "9"], "there is no policies/council/versions/9");
    let said = place.ctl(admin, &["policy", "rollback", "1", "--if-version", "2"]);
    assert_eq!(said, "version 3, as version 1 was\n");
    assert_eq!(place.ctl(admin, &["policy", "show", "3"]), POLICY);
    let listed = place.ctl(admin, &["policy", "versions"]);
    assert!(listed.contains("network team") && listed.contains("as version 1 was"), "{listed}");
    refused(&["policy", "rollback", "7"], "there is no policies/council/versions/7");
    place.ctl(admin, &["delete", "policies/council"]);
}

#[test]
fn what_goes_wrong_is_said_once_and_clearly() {
    let place = Place::initialised();
    let serving = place.serve();
    let token = place.path("token");
    let refused = |arguments: &[&str], says: &[&str]| {
        let output = place.ctl_with(&token, arguments, "");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        for say in says {
            assert!(text.contains(say), "{arguments:?}: {say:?} is not in {text}");
        }
    };
    let typo = place.file("typo.yaml", &BUILDING.replace("underlay", "underlai"));
    refused(&["apply", "-f", &typo], &["typo.yaml:4:", "underlai"]);
    let wrong = "  - { name: desk-2, building: moon, kind: { runs: agent } }\n\
                 \x20 - { name: desk-3, building: mars, kind: { runs: agent } }\n";
    let wrong = place.file("wrong.yaml", &format!("{BUILDING}{wrong}"));
    refused(&["apply", "-f", &wrong], &["devices/desk-2", "moon", "devices/desk-3", "mars"]);
    refused(&["apply", "-f", &place.file("council.yaml", COUNCIL)], &["Not allowed"]);
    refused(&["enrol-code", "device/nowhere"], &["nowhere"]);
    refused(&["enrol-code", "desk-1"], &["device/NAME"]);
    refused(&["apply", "-f", "/nonexistent.yaml"], &["/nonexistent.yaml"]);
    refused(&["revoke", "nothing"], &["nothing"]);
    refused(&["delete", "device/desk-1"], &["devices/desk-1"]);
    refused(&["delete", "devices/nowhere"], &["there is no devices/nowhere"]);

    // Another controller's CA.
    let other = Place::initialised();
    let output = Command::new(env!("CARGO_BIN_EXE_partywallctl"))
        .args(["--controller", &place.url(), "--ca", &other.text("data/ca.pem")])
        .args(["--token-file", &place.text("token"), "export"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("ca.pem"), "{text}");
    drop(serving);
    refused(&["export"], &["cannot connect", "--controller"]);
}

#[test]
fn init_never_touches_what_is_there_and_leaves_nothing_half_made() {
    let place = Place::initialised();
    let before = std::fs::read(place.path("data/ca.pem")).unwrap();
    let token = place.text("another-token");
    let again = place.init(&["--address", "127.0.0.1:8443", "--token-file", &token]);
    assert!(!again.status.success());
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("never overwritten") && !place.path("another-token").exists(), "{said}");
    assert_eq!(std::fs::read(place.path("data/ca.pem")).unwrap(), before);

    // Somebody else's directory is refused for one file in it; an empty one is taken.
    let fresh = Place::new();
    std::fs::create_dir(fresh.path("data")).unwrap();
    fresh.file("data/.hidden", "somebody's");
    let refused = fresh.init(&["--address", "127.0.0.1:8443"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("never overwritten"), "{said}");
    std::fs::remove_file(fresh.path("data/.hidden")).unwrap();
    assert!(fresh.init(&["--address", "127.0.0.1:8443"]).status.success());

    let fresh = Place::new();
    for bad in [["--address", "nonsense"], ["--address", "bad name:8443"]] {
        assert!(!fresh.init(&bad).status.success());
    }
    let also = fresh.init(&["--address", "127.0.0.1:8443", "--also", "not a name"]);
    assert!(!also.status.success());
    assert_eq!(std::fs::read_dir(fresh.directory.path()).unwrap().count(), 0, "something was left");
}

#[test]
fn keys_and_tokens_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::initialised();
    let mode =
        |name: &str| std::fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data"), 0o700);
    for secret in ["token", "data/ca-key.pem", "data/server.pem"] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }
}

#[test]
fn a_told_controller_stops_in_good_order_and_comes_back() {
    let place = Place::initialised();
    let mut serving = place.serve();
    let building = place.file("building.yaml", BUILDING);
    place.ctl(&place.path("token"), &["apply", "-f", &building]);
    let id = serving.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(serving.0.wait().unwrap().success(), "SIGTERM is an orderly end");
    let _serving = place.serve();
    assert_eq!(place.ctl(&place.path("token"), &["diff", "-f", &building]), "");
}

#[test]
fn it_serves_on_the_socket_that_the_service_manager_holds() {
    let place = Place::initialised();
    let listener = TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    let token = place.path("token");
    // A call that comes while nobody serves waits in the socket's queue, before and after a restart.
    for _ in 0..2 {
        let serving = place.serve_on(listener.try_clone().unwrap().into());
        assert!(place.ctl(&token, &["export"]).trim().len() < 4);
        drop(serving);
    }
    let nothing = std::fs::File::open("/dev/null").unwrap();
    let mut refused = place.serve_on(nothing.into());
    assert!(!refused.0.wait().unwrap().success(), "it took /dev/null for a socket");
}

/// A port that stays free until the controller takes it: below those that the kernel gives to clients
/// (from 32768 on), and never the same twice.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000);
    ports.take(2_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// A directory with everything of one controller.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    pub(crate) port: u16,
}

pub(crate) struct Serving(pub(crate) Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended on its own.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), port: free_port() }
    }

    pub(crate) fn initialised() -> Self {
        let place = Self::new();
        let address = format!("127.0.0.1:{}", place.port);
        let output = place.init(&["--address", &address, "--token-file", &place.text("token")]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        assert!(text.contains("partywallctl --controller"), "no next steps: {text}");
        assert!(output.stdout.is_empty());
        place
    }

    fn init(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_partywall-controller"))
            .args(["init", "--data", &self.text("data"), "--name", "Old Town Hall"])
            .args(arguments)
            .output()
            .unwrap()
    }

    pub(crate) fn serve(&self) -> Serving {
        let child = Command::new(env!("CARGO_BIN_EXE_partywall-controller"))
            .args(["serve", "--data", &self.text("data")])
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let serving = Serving(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < DEADLINE, "the controller does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        serving
    }

    /// As under socket activation (sd_listen_fds(3)): `passed` is descriptor 3, and the environment says
    /// for which process.
    fn serve_on(&self, passed: OwnedFd) -> Serving {
        let script =
            "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --data \"$1\"";
        let child = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_partywall-controller"), &self.text("data")])
            .stdin(passed)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Serving(child)
    }

    /// Runs `partywallctl`, expects success and answers its standard output.
    pub(crate) fn ctl(&self, token: &Path, arguments: &[&str]) -> String {
        let output = self.ctl_with(token, arguments, "");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn ctl_with(&self, token: &Path, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_partywallctl"))
            .env("PARTYWALL_CONTROLLER", self.url())
            .env("PARTYWALL_CA", self.path("data/ca.pem"))
            .env("PARTYWALL_TOKEN_FILE", token)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A verb that asks nothing closes its end first.
        let _unread = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.text(name)
    }
}
