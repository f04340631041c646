//! A change of policy from draft to rollback, with the verbs that an admin has and packets that feel it,
//! while the other organisation notices nothing.
#![expect(clippy::unwrap_used, reason = "a step that fails ends its test where it stands")]

use std::time::Duration;

use partywall_proto::admin::{
    EffectKind, PolicyDiff, PolicySpec, PolicyStatus, StoredFlow, WhatIfLine, WhatIfReport,
    WhyReport,
};
use partywall_proto::ids::RuleId;
use partywall_tests::lab::{Output, wait_for};
use partywall_tests::stage::{Line, PATIENCE, Stage};
use serde_json::json;

const ECHO: &str = "TCP:10.1.0.10:7";
const LEDGER: &str = "http://10.1.0.20/";
/// An echo that takes longer does not come.
const ECHO_LIMIT: Duration = Duration::from_secs(1);

#[test]
fn a_change_is_checked_foreseen_published_explained_and_taken_back() {
    let mut stage = Stage::up();
    stage.sign_in("desk-1", "alice@council", "council");
    stage.sign_in("desk-2", "nina@nhs", "nhs");
    let mut echo = Line::open(stage.host("desk-1"), ECHO).unwrap();
    let mut theirs = Line::open(stage.host("desk-2"), ECHO).unwrap();
    assert_eq!(stage.page("desk-1", LEDGER), None, "it is finance's");

    let council = |args: &[&str], text: &str| -> Output {
        stage.ctl("council", &[&["policy"], args].concat(), text).unwrap()
    };
    let original = stage.export("council").policies.remove(0);
    let (original, draft) = (lines(&original), draft(&original));

    // A slip is refused, with its place; so is what breaks a test of its own.
    let slip = draft.replacen(r#""service": "ledger""#, r#""service": "legder""#, 1);
    // The place of what names it.
    let line = slip.lines().position(|line| line.contains("legder")).unwrap();
    let refused = council(&["check", "-f", "-"], &slip);
    let told = format!(":{line}:");
    assert!(!refused.success() && refused.stderr.contains(&told), "{told} {refused:?}");
    let broken = draft.replacen(r#""expect": "refuse""#, r#""expect": "allow""#, 1);
    let refused = council(&["publish", "-f", "-"], &broken);
    assert!(refused.stderr.contains("nobody reaches the echo"), "{refused:?}");
    council(&["check", "-f", "-"], &draft).ok().unwrap();

    // What it would do, to people and to what they did.
    let diff: PolicyDiff = read(&council(&["diff", "-f", "-", "--json"], &draft));
    let mut changes: Vec<_> = diff
        .changes
        .iter()
        .map(|it| (it.effect, it.what.join(" "), it.rule.to_string(), it.who.people))
        .collect();
    changes.sort();
    // Carol is in finance and has the ledger already.
    let expected = [
        (EffectKind::Loses, "echo-tcp".to_owned(), "staff-services".to_owned(), 2),
        (EffectKind::Gains, "ledger".to_owned(), "finance-ledger".to_owned(), 1),
    ];
    assert_eq!(changes, expected, "{diff:?}");
    let what_if = || -> WhatIfReport { read(&council(&["what-if", "-f", "-", "--json"], &draft)) };
    let has = |lines: &[WhatIfLine], service: &str| {
        lines.iter().any(|it| {
            it.user.as_ref().is_some_and(|user| user.to_string() == "alice@council")
                && it.destination == service
        })
    };
    wait_for("what-if knows what alice did", PATIENCE, || {
        let report = what_if();
        has(&report.cut, "echo-tcp") && has(&report.allowed, "ledger")
    })
    .unwrap();
    assert!(!has(&what_if().cut, "intranet"));

    // Published: the running flow ends with its next packet, and nobody else's does.
    let foreign = ["policy", "publish", "-f", "-", "--organisation", "council"];
    assert!(!stage.ctl("nhs", &foreign, &draft).unwrap().success());
    assert!(echo.answers(PATIENCE), "the council's policy was changed by the NHS");
    council(&["publish", "-f", "-", "--if-version", "1"], &draft).ok().unwrap();
    wait_for("the echo is cut", PATIENCE, || !echo.answers(ECHO_LIMIT)).unwrap();
    assert!(theirs.answers(PATIENCE), "the other organisation's flow was cut");
    assert!(stage.page("desk-1", LEDGER).is_some());
    let late = council(&["publish", "-f", "-", "--if-version", "1"], &original);
    assert!(!late.success() && late.stderr.contains("at version 2, not 1"), "{late:?}");

    // Explained, to those whom it concerns.
    let why = |who: &str| -> WhyReport {
        let why = ["why", "--from", "desk-1", "--to", "10.1.0.10:7/tcp", "--json"];
        read(&stage.ctl(who, &why, "").unwrap())
    };
    let report = why("council");
    assert!(!report.allowed, "{report:?}");
    assert_eq!(report.policy.as_ref().map(|it| it.number), Some(2));
    assert_eq!(report.session.as_ref().unwrap().user.to_string(), "alice@council");
    for end in [&report.at_device, &report.at_gateway] {
        assert!(end.as_ref().unwrap().drop.is_some(), "{report:?}");
    }
    assert_eq!(why("nhs").session, None);
    let own = stage.host("desk-1").run(&["partywall", "why", "10.1.0.10:7/tcp"]).unwrap();
    assert!(own.stdout.contains("version 2"), "{own:?}");

    // The old one on trial: nothing is dropped, and what it would have refused is recorded.
    council(&["publish", "-f", "-", "--observe"], &original).ok().unwrap();
    let status: PolicyStatus = read(&council(&["status", "--json"], ""));
    let numbers = [status.in_force, status.observed].map(|it| it.map(|it| it.number));
    assert_eq!(numbers, [Some(2), Some(3)]);
    let ledger: RuleId = "finance-ledger".parse().unwrap();
    let differs = |it: &StoredFlow| {
        it.flow.rule.as_ref() == Some(&ledger)
            && it.flow.observed.as_ref().is_some_and(|it| it.version == 3 && it.action.is_none())
    };
    wait_for("a flow is told to differ", PATIENCE, || {
        assert!(stage.page("desk-1", LEDGER).is_some(), "a version on trial drops nothing");
        stage.flows("council", &["--differing"]).iter().any(differs)
    })
    .unwrap();

    // And taken back.
    council(&["rollback", "1"], "").ok().unwrap();
    wait_for("the echo is back", PATIENCE, || Line::open(stage.host("desk-1"), ECHO).is_ok())
        .unwrap();
    assert_eq!(stage.page("desk-1", LEDGER), None);
    assert!(theirs.answers(PATIENCE), "the other organisation's flow was cut");
    let status: PolicyStatus = read(&council(&["status", "--json"], ""));
    let numbers = [status.in_force, status.observed].map(|it| it.map(|it| it.number));
    assert_eq!(numbers, [Some(4), None]);
}

/// Takes the echo from all staff and gives them the ledger, and says so in tests.
fn draft(original: &PolicySpec) -> String {
    let mut draft = serde_json::to_value(original).unwrap();
    let rules = &mut draft["segments"]["council"]["rules"];
    assert_eq!(rules[1]["name"], "staff-services");
    assert_eq!(rules[2]["name"], "finance-ledger");
    let what = rules[1]["what"].as_array_mut().unwrap();
    what.retain(|target| target["service"] != "echo-tcp");
    rules[2]["who"] = json!({ "groups": ["finance", "staff"] });
    let test = |name: &str, service: &str, expect: &str| {
        json!({ "name": name, "given": { "user": "alice@council" }, "to": { "service": service },
                "expect": expect })
    };
    draft["tests"] = json!([
        test("staff reach the ledger", "ledger", "allow"),
        test("nobody reaches the echo", "echo-tcp", "refuse"),
    ]);
    lines(&draft)
}

/// JSON is YAML, and this way each word of it has a line.
fn lines(policy: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(policy).unwrap()
}

fn read<T: serde::de::DeserializeOwned>(output: &Output) -> T {
    assert!(output.success(), "{output:?}");
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}
