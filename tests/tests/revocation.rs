//! Promise 4: whatever takes a right away cuts the flows that stood on it, in well under a second.

use std::time::{Duration, Instant};

use partywall_proto::admin::{Manifest, Target};
use partywall_tests::lab::wait_for;
use partywall_tests::stage::{INTRANET, Line, Stage, Transfer};

/// "In well under a second", with room for a machine that does other things at the time.
const CUT_LIMIT: Duration = Duration::from_millis(750);

#[test]
fn revoking_a_session_stops_its_running_transfer() {
    let mut stage = Stage::up();
    stage.sign_in("desk-1", "alice@council", "council");
    stage.sign_in("desk-2", "nina@nhs", "nhs");
    let dir = stage.lab().dir().to_owned();
    let cut = Transfer::start(stage.host("desk-1"), "http://10.1.0.10/slow", &dir).unwrap();
    let other = Transfer::start(stage.host("desk-2"), "http://10.1.0.10/slow", &dir).unwrap();
    let sessions = stage.sessions("council");
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert!(stage.ctl("nhs", &["revoke", sessions[0].id.as_str()], "").unwrap().ok().is_err());
    assert!(cut.runs(), "another organisation's admin cut the transfer");

    let begun = Instant::now();
    stage.ctl("council", &["revoke", sessions[0].id.as_str()], "").unwrap().ok().unwrap();
    let last = cut.last_byte_after(begun, Duration::from_secs(3));
    assert!(last < CUT_LIMIT, "the last byte came {last:?} after `revoke` was called");
    assert!(other.runs(), "the other organisation's transfer stopped as well");
    assert_eq!(stage.page("desk-1", INTRANET[0]), None);
    assert!(stage.sessions("council").is_empty());
    // Nothing is held against them: they sign in again.
    stage.sign_in("desk-1", "alice@council", "council");
    assert!(stage.page("desk-1", INTRANET[0]).is_some());
}

#[test]
fn taking_a_rule_away_cuts_the_flow_that_it_allowed_and_no_other() {
    let mut stage = Stage::up();
    stage.sign_in("desk-1", "alice@council", "council");
    let mut echo = Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").unwrap();
    let dir = stage.lab().dir().to_owned();
    let web = Transfer::start(stage.host("desk-1"), "http://10.1.0.10/slow", &dir).unwrap();

    let before = stage.export("council");
    let mut policy = Manifest { policies: before.policies.clone(), ..Manifest::default() };
    let is_echo =
        |target: &Target| matches!(target, Target::Service(name) if name.as_str() == "echo-tcp");
    policy.policies[0]
        .rules
        .iter_mut()
        .for_each(|rule| rule.what.retain(|target| !is_echo(target)));
    assert_ne!(policy.policies, before.policies, "there is no rule for the echo service");
    stage.apply("council", &policy);
    wait_for("the echo is cut", CUT_LIMIT, || !echo.answers(Duration::from_millis(200))).unwrap();
    assert!(web.runs(), "the web's rule is still there, its transfer is not");
    assert!(Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").is_err());

    stage.apply("council", &Manifest { policies: before.policies, ..Manifest::default() });
    Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").unwrap();
}

/// The shortest session that a segment may have.
const LENGTH_S: u64 = 60;

#[test]
fn a_session_that_reaches_its_end_is_cut() {
    let mut stage = Stage::up();
    let mut segment =
        Manifest { segments: stage.export("council").segments, ..Manifest::default() };
    segment.segments[0].session_length_s = LENGTH_S;
    stage.apply("council", &segment);
    stage.sign_in("desk-1", "alice@council", "council");
    let signed_in = Instant::now();
    let dir = stage.lab().dir().to_owned();
    let transfer = Transfer::start(stage.host("desk-1"), "http://10.1.0.10/slow", &dir).unwrap();
    let length = Duration::from_secs(LENGTH_S);
    let last = transfer.last_byte_after(signed_in, length + Duration::from_secs(3));
    assert!(last > length - Duration::from_secs(5), "it was cut after {last:?} already");
    assert!(last < length + CUT_LIMIT, "the last byte came after {last:?}");
    assert!(stage.sessions("council").is_empty());
    assert_eq!(stage.page("desk-1", INTRANET[0]), None);
}

#[test]
fn disabling_a_user_ends_their_session_and_lets_them_in_no_more() {
    let mut stage = Stage::up();
    stage.sign_in("desk-1", "alice@council", "council");
    let mut line = Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").unwrap();
    let mut users = Manifest { users: stage.export("council").users, ..Manifest::default() };
    let alice = users.users.iter_mut().find(|user| user.name.to_string() == "alice@council");
    alice.unwrap().disabled = true;
    stage.apply("council", &users);
    wait_for("the line is cut", CUT_LIMIT, || !line.answers(Duration::from_millis(200))).unwrap();
    let refused = stage.try_sign_in("desk-1", "alice@council", "council");
    assert!(!refused.success(), "a disabled user signs in: {}", refused.stdout);
    assert_eq!(stage.page("desk-1", INTRANET[0]), None);
}
