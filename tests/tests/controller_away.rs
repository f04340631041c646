//! Promise 5: the controller may die. Tunnels go on until the staleness limit, nothing new starts, and
//! recovery needs no hands.

use std::time::{Duration, Instant};

use partywall_proto::admin::Manifest;
use partywall_tests::lab::wait_for;
use partywall_tests::stage::{INTRANET, Line, PATIENCE, Stage};
use rustix::process::Signal;

#[test]
fn tunnels_go_on_without_the_controller_and_over_an_agents_restart() {
    let mut stage = Stage::up();
    stage.sign_in("desk-1", "alice@council", "council");
    stage.sign_in("desk-2", "nina@nhs", "nhs");
    let mut line = Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").unwrap();
    stage.kill_controller();
    assert!(line.answers(PATIENCE), "an open flow died with the controller");
    assert_eq!(stage.page("desk-2", INTRANET[0]).as_deref(), Some("NHS records"));

    // The device's agent and the gateway's, by a clean end and by a crash.
    for (agent, signal) in
        [("desk-1", Signal::TERM), ("desk-1", Signal::KILL), ("gw-council", Signal::KILL)]
    {
        stage.end_agent(agent, signal);
        stage.start_agent(agent);
        wait_for("the tunnel is back", PATIENCE, || {
            stage.page("desk-1", INTRANET[0]).as_deref() == Some("Council intranet")
        })
        .unwrap_or_else(|error| panic!("{agent} after {signal:?}: {error}"));
    }

    let refused = stage.try_sign_in("desk-3", "carol@council", "council");
    assert!(!refused.success(), "a session began without a controller");
    let message = refused.stderr.to_lowercase();
    assert!(message.contains("controller"), "unclear: {}", refused.stderr);
    assert!(stage.page("desk-1", INTRANET[0]).is_some(), "a refused sign-in changed something");

    stage.start_controller();
    wait_for("desk-3 signs in again", PATIENCE, || {
        stage.try_sign_in("desk-3", "carol@council", "council").success()
    })
    .unwrap();
    assert!(stage.page("desk-3", INTRANET[0]).is_some());
    assert_eq!(stage.sessions("council").len(), 2, "desk-1's session was lost");
    // And what was up can be revoked by the new process.
    let desk =
        stage.sessions("council").into_iter().find(|s| s.device.as_str() == "desk-1").unwrap();
    stage.ctl("council", &["revoke", desk.id.as_str()], "").unwrap().ok().unwrap();
    wait_for("the session is cut", PATIENCE, || stage.page("desk-1", INTRANET[0]).is_none())
        .unwrap();
}

/// The shortest staleness limit that a segment may have.
const LIMIT_S: u64 = 60;

#[test]
fn past_the_staleness_limit_the_tunnel_is_torn_down_and_comes_back_with_the_controller() {
    let mut stage = Stage::up();
    let mut segment =
        Manifest { segments: stage.export("council").segments, ..Manifest::default() };
    segment.segments[0].staleness_limit_s = LIMIT_S;
    stage.apply("council", &segment);
    stage.sign_in("desk-1", "alice@council", "council");
    let valid_until =
        |stage: &Stage| stage.status("desk-1")["valid_until"].as_str().unwrap().to_owned();
    let first = valid_until(&stage);
    let mut line = Line::open(stage.host("desk-1"), "TCP:10.1.0.10:7").unwrap();
    // With the controller there, the limit moves on and nothing ends.
    wait_for("the limit is renewed", Duration::from_secs(LIMIT_S), || valid_until(&stage) != first)
        .unwrap();
    assert!(line.answers(PATIENCE), "cut by a renewal");
    stage.kill_controller();
    let gone = Instant::now();
    let torn_down = Duration::from_secs(LIMIT_S) + Duration::from_secs(15);
    wait_for("the tunnel is torn down", torn_down, || !line.answers(Duration::from_secs(3)))
        .unwrap();
    // It was renewed at most a third of the limit before.
    assert!(gone.elapsed() > Duration::from_secs(LIMIT_S / 2), "cut after {:?}", gone.elapsed());
    assert_eq!(stage.page("desk-1", INTRANET[0]), None);

    stage.start_controller();
    wait_for("the session goes on", PATIENCE, || stage.page("desk-1", INTRANET[0]).is_some())
        .unwrap();
}
