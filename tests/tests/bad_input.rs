//! Bad input: each gets a clear error that says what to do, and changes nothing.

use std::time::Duration;

use partywall_tests::lab::Output;
use partywall_tests::stage::{INTRANET, Stage, Stock};

#[test]
fn an_enrolment_code_that_is_wrong_used_or_expired_admits_nobody() {
    let mut stage = Stage::up();
    // The three desks' codes were used when the stage went up; a fresh state wants to be desk-2 again.
    let enrol = |stage: &Stage, code: &str, state: &str| {
        let host = stage.host("desk-3");
        host.run(&["partywall-agent", "enrol", code, "--state", state]).unwrap()
    };
    let code = |stage: &Stage, more: &[&str]| {
        let args = [&["enrol-code", "device/desk-2"], more].concat();
        stage.ctl("facilities", &args, "").unwrap().ok().unwrap().trim().to_owned()
    };
    let short = code(&stage, &["--lifetime", "1s"]);
    // Time is the condition here: a code of one second, asked about a little later.
    std::thread::sleep(Duration::from_millis(1500));
    refused(&enrol(&stage, &short, "/var/lib/d"), &["code"]);

    let nonsense = enrol(&stage, "partywall-nonsense", "/var/lib/a");
    refused(&nonsense, &["code"]);
    let voided = code(&stage, &[]);
    let valid = code(&stage, &[]);
    let mut altered: Vec<char> = valid.chars().collect();
    let middle = altered.len() / 2;
    altered[middle] = if altered[middle] == 'A' { 'B' } else { 'A' };
    refused(&enrol(&stage, &altered.into_iter().collect::<String>(), "/var/lib/b"), &["code"]);
    refused(&enrol(&stage, &voided, "/var/lib/c"), &["code"]);
    enrol(&stage, &valid, "/var/lib/e").ok().unwrap();
    refused(&enrol(&stage, &valid, "/var/lib/f"), &["code"]);
    // A machine that is enrolled is not enrolled over by accident.
    let again = code(&stage, &[]);
    refused(&enrol(&stage, &again, "/var/lib/e"), &["enrolled"]);
    // desk-1 heard nothing of it.
    stage.sign_in("desk-1", "alice@council", "council");
    assert!(stage.page("desk-1", INTRANET[0]).is_some());
}

#[test]
fn a_wrong_or_repeated_code_signs_nobody_in_and_the_delay_grows() {
    let mut stage = Stage::up();
    let (password, code) = stage.credentials("alice@council");
    let login = |stage: &Stage, user: &str, password: &str, code: &str| {
        stage.login("desk-1", user, "council", &format!("{password}\n{code}\n"))
    };
    login(&stage, "alice@council", &password, &code).ok().unwrap();
    stage.sign_out("desk-1");
    // The same code again, as somebody who looked over a shoulder has it.
    let repeated = login(&stage, "alice@council", &password, &code);
    refused(&repeated, &["code"]);
    assert!(stage.sessions("council").is_empty());

    let (password, code) = stage.credentials("carol@council");
    let wrong = if code == "000000" { "111111" } else { "000000" };
    // Delays that are shorter than one `login` takes go by unseen, so the first is met sooner or later;
    // the last is long enough for what comes after.
    let mut waits: Vec<u64> = Vec::new();
    for _ in 0..20 {
        let answer = login(&stage, "carol@council", &password, wrong);
        refused(&answer, &["code", "try again in"]);
        let Some(wait_s) = wait_s(&message(&answer)) else { continue };
        waits.push(wait_s);
        // Obeyed, so that the next failure counts and makes it longer.
        std::thread::sleep(Duration::from_secs(wait_s));
        if wait_s > 2 && waits.len() > 1 {
            break;
        }
    }
    assert!(waits.len() > 1 && waits.first() < waits.last(), "{waits:?}");
    // The right code does not get round the delay. It is read before the failure that the delay is
    // for, since a fresh one may be as far off as the delay is long.
    let (password, code) = stage.credentials("carol@council");
    refused(&login(&stage, "carol@council", &password, wrong), &["code"]);
    refused(&login(&stage, "carol@council", &password, &code), &["try again in"]);
    // Nor does it say who exists.
    let nobody = login(&stage, "nobody@council", "a password of nobody's", "123456");
    let (password, _) = stage.credentials("nina@nhs");
    let somebody = stage.login("desk-1", "nina@nhs", "nhs", &format!("{password}\n000000\n"));
    assert!(!nobody.success() && !somebody.success());
    assert_eq!(
        message(&nobody).replace("nobody@council", "U"),
        message(&somebody).replace("nina@nhs", "U")
    );
    assert!(stage.sessions("council").is_empty() && stage.sessions("nhs").is_empty());
    assert_eq!(stage.page("desk-1", INTRANET[0]), None);
}

/// N of "try again in N s".
fn wait_s(text: &str) -> Option<u64> {
    text.split_once("try again in ")?.1.split_whitespace().next()?.parse().ok()
}

#[test]
fn two_devices_with_one_key_are_refused() {
    let mut stage = Stage::up();
    let stock = Stock::register(&mut stage, "desk-3", "tablet", "carol@council");
    let key =
        stage.host("desk-3").run_with_input(&["wg", "pubkey"], &stock.private_key).unwrap().stdout;
    let before = stage.export("council");
    let twin = format!(
        "devices:\n  - name: twin\n    owner: alice@council\n    kind: {{ runs: stock, wireguard_key: {:?} }}\n",
        key.trim()
    );
    refused(&stage.ctl("council", &["apply", "-f", "-"], &twin).unwrap(), &["tablet", "key"]);
    assert_eq!(stage.export("council"), before);
}

#[test]
fn a_manifest_that_does_not_hold_is_refused_with_its_place_and_changes_nothing() {
    let stage = Stage::up();
    let before = (stage.export("council"), stage.export("nhs"), stage.export("facilities"));
    let write = |name: &str, text: &str| {
        let path = stage.lab().dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let apply = |who: &str, file: &str| stage.ctl(who, &["apply", "-f", file], "").unwrap();

    let typo = write(
        "typo.yaml",
        "groups:\n  - organisation: council\n    name: night\n    title: Night\n    colour: red\n",
    );
    let answer = apply("council", &typo);
    refused(&answer, &["colour"]);
    assert!(answer.stderr.contains("typo.yaml:5:"), "no file:line:column in {}", answer.stderr);
    let torn = write("torn.yaml", "groups: [\n");
    refused(&apply("council", &torn), &["torn.yaml"]);

    // Each: who applies it, what it takes from council.yaml, what it becomes, what the message names.
    let council = include_str!("../manifests/council.yaml");
    let cases = [
        ("overlapping pool", "council", "100.64.10.0/24", "100.64.20.0/25", &["pool", "nhs"][..]),
        ("a pool within its own prefixes", "council", "100.64.10.0/24", "10.9.0.0/24", &["pool"]),
        (
            "prefix of another segment's pool",
            "council",
            "[10.0.0.0/8,",
            "[100.64.20.0/24,",
            &["nhs"],
        ),
        (
            "a rule for a service that is not there",
            "council",
            "{ service: ledger }",
            "{ service: lodger }",
            &["lodger"],
        ),
        (
            "a rule for nobody",
            "council",
            "who: { groups: [finance] }",
            "who: { groups: [] }",
            &["finance-ledger"],
        ),
        (
            "a destination outside the prefixes",
            "council",
            "[10.1.0.20/32,",
            "[192.0.2.1/32,",
            &["192.0.2.1"],
        ),
        ("host bits in a prefix", "council", "10.0.0.0/8", "10.0.0.1/8", &["10.0.0.0/8"]),
        ("another organisation's user", "council", "alice@council", "alice@nhs", &["nhs"]),
        ("another organisation's admin", "nhs", "Council network", "Mine now", &["council"]),
    ];
    for (name, who, from, to, says) in cases {
        assert!(council.contains(from), "{name}: {from} is not in council.yaml");
        let file = write("case.yaml", &council.replacen(from, to, 1));
        let answer = apply(who, &file);
        assert!(!answer.success(), "{name} was taken: {}", answer.stdout);
        refused(&answer, says);
    }
    let after = (stage.export("council"), stage.export("nhs"), stage.export("facilities"));
    assert_eq!(after, before, "a refused manifest changed something");
}

/// Fails, with one message that holds one of `words`, and no word that is for programmers.
fn refused(output: &Output, words: &[&str]) {
    assert!(!output.success(), "`{}` was taken: {}", output.command, output.stdout);
    let said = message(output);
    assert!(words.iter().any(|word| said.contains(word)), "`{}` says: {said}", output.command);
    for bad in ["panicked", "RUST_BACKTRACE", "Err("] {
        assert!(!said.contains(bad), "{said}");
    }
}

fn message(output: &Output) -> String {
    output.stderr.trim().to_owned()
}
