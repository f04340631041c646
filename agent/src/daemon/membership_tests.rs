//! Tests of the membership state machine: promises 1, 2, 4 and 5 as far as the agent holds them.
//!
//! They look at the steps, in order: that is what the machine will do.

use partywall_proto::envelope::EnvelopeError;
use partywall_proto::overlay::{ConfigError, Generation};

use super::*;
use crate::daemon::testing::{
    delta, device_config, gateway_config, peer, pins, rule, seal, seconds, session, start,
};

fn device() -> Membership {
    Membership::new("device/desk-1".parse().unwrap(), None)
}

fn gateway() -> Membership {
    Membership::new("gateway/gw-1".parse().unwrap(), None)
}

fn snapshot(config: &OverlayConfig) -> Payload {
    Payload::Snapshot(Box::new(config.clone()))
}

fn steps(membership: &mut Membership) -> Vec<Step> {
    std::iter::from_fn(|| membership.poll_step()).collect()
}

fn words(membership: &mut Membership) -> Vec<String> {
    let word = |step: Step| match step {
        Step::Cut => "cut".to_owned(),
        Step::System(config) => format!("system {}", config.segment),
        Step::Replace(config) => format!("replace {}", config.segment),
        Step::PeerSet(peer) => format!("set {}", peer.agent),
        Step::PeerGone(agent) => format!("gone {agent}"),
        Step::RulesSet { rules, .. } => format!("rules {}", rules.len()),
        Step::Undo => "undo".to_owned(),
    };
    steps(membership).into_iter().map(word).collect()
}

/// A membership that enforces `config`.
fn enforcing(config: &OverlayConfig) -> Membership {
    let mut membership = Membership::new(config.agent.clone(), None);
    membership.handle_payload(snapshot(config), start()).unwrap();
    steps(&mut membership);
    assert!(membership.is_settled());
    membership
}

#[test]
fn an_agent_that_starts_with_nothing_cleans_up_first() {
    let mut membership = device();
    assert!(!membership.is_settled());
    membership.handle_timeout(start());
    assert_eq!(words(&mut membership), ["cut", "undo"]);
    assert!(membership.is_settled());
    membership.handle_timeout(start());
    assert_eq!(words(&mut membership), [""; 0]);
}

#[test]
fn the_leak_guard_is_up_before_the_tunnel_carries_anything() {
    let mut membership = device();
    membership.handle_payload(snapshot(&device_config("council", "s1", 1)), start()).unwrap();
    assert_eq!(words(&mut membership), ["cut", "system council", "replace council"]);
}

#[test]
fn another_segment_is_cut_off_before_the_new_one_begins() {
    let mut membership = enforcing(&device_config("council", "s1", 1));
    membership.handle_payload(snapshot(&device_config("nhs", "s2", 2)), start()).unwrap();
    assert_eq!(words(&mut membership), ["cut", "system nhs", "replace nhs"]);
    assert_eq!(membership.holding().unwrap().segment.as_str(), "nhs");
}

#[test]
fn another_session_of_the_same_segment_is_cut_off_as_well() {
    let mut membership = enforcing(&device_config("council", "s1", 1));
    membership.handle_payload(snapshot(&device_config("council", "s2", 2)), start()).unwrap();
    assert_eq!(words(&mut membership)[0], "cut");
}

#[test]
fn what_is_taken_away_comes_before_what_is_new() {
    let held = gateway_config(1);
    let mut membership = enforcing(&held);
    let changes = vec![
        Change::PeerSet { peer: Box::new(peer("device/a-new-desk", 20)) },
        Change::RulesSet { rules: Vec::new(), policy: None, observed: None },
        Change::PeerGone { agent: "device/desk-2".parse().unwrap() },
    ];
    membership.handle_payload(Payload::Delta(delta(&held, 2, changes)), start()).unwrap();
    assert_eq!(words(&mut membership), ["gone device/desk-2", "rules 0", "set device/a-new-desk"]);
}

#[test]
fn a_change_of_the_frame_cuts_in_the_data_path_before_the_system_is_touched() {
    let held = device_config("council", "s1", 1);
    let mut membership = enforcing(&held);
    let mut next = device_config("council", "s1", 2);
    next.interface.mtu = 1400;
    membership.handle_payload(snapshot(&next), start()).unwrap();
    assert_eq!(words(&mut membership), ["replace council", "system council"]);
}

#[test]
fn another_port_begins_anew() {
    let mut membership = enforcing(&gateway_config(1));
    let mut next = gateway_config(2);
    next.interface.listen_port = Some(51821);
    membership.handle_payload(snapshot(&next), start()).unwrap();
    assert_eq!(words(&mut membership), ["cut", "system council", "replace council"]);
}

#[test]
fn a_devices_routes_follow_its_gateways() {
    let held = device_config("council", "s1", 1);
    let mut membership = enforcing(&held);
    let changes = vec![
        Change::PeerSet { peer: Box::new(peer("gateway/gw-2", 2)) },
        Change::PeerGone { agent: "gateway/gw-1".parse().unwrap() },
    ];
    membership.handle_payload(Payload::Delta(delta(&held, 2, changes)), start()).unwrap();
    assert_eq!(words(&mut membership), ["gone gateway/gw-1", "system council", "set gateway/gw-2"]);
}

#[test]
fn a_generation_that_does_not_grow_is_refused() {
    let held = device_config("council", "s1", 5);
    let mut membership = enforcing(&held);
    for generation in [4, 5] {
        let mut other = device_config("council", "s1", generation);
        other.rules = vec![rule("wider"), rule("still-wider")];
        let refused = membership.handle_payload(snapshot(&other), start()).unwrap_err();
        assert!(matches!(refused, Refusal::Stale { .. }), "{refused}");
    }
    assert_eq!(membership.held().unwrap().as_ref(), &held);
    assert_eq!(words(&mut membership), [""; 0]);
}

#[test]
fn a_renewal_keeps_the_generation_and_moves_the_limit() {
    let held = device_config("council", "s1", 5);
    let mut membership = enforcing(&held);
    let mut renewal = delta(&held, 5, Vec::new());
    renewal.issued_at = start() + seconds(60);
    renewal.valid_until = held.valid_until + seconds(60);
    membership.handle_payload(Payload::Delta(renewal.clone()), start()).unwrap();
    assert_eq!(words(&mut membership), [""; 0]);
    assert_eq!(membership.poll_timeout(), Some(renewal.valid_until));

    let again = OverlayConfig { issued_at: start() + seconds(90), ..held.with(&renewal).unwrap() };
    membership.handle_payload(snapshot(&again), start()).unwrap();
    let mut replayed = held.clone();
    replayed.valid_until = start() + seconds(3600);
    let refused = membership.handle_payload(snapshot(&replayed), start()).unwrap_err();
    assert!(matches!(refused, Refusal::Stale { .. }), "{refused}");
}

#[test]
fn a_delta_on_another_generation_or_on_nothing_is_refused() {
    let held = device_config("council", "s1", 5);
    let mut membership = device();
    let step = |base: u64| {
        let base = device_config("council", "s1", base);
        Payload::Delta(delta(
            &base,
            9,
            vec![Change::RulesSet { rules: Vec::new(), policy: None, observed: None }],
        ))
    };
    let refused = membership.handle_payload(step(5), start()).unwrap_err();
    assert!(matches!(refused, Refusal::NothingHeld), "{refused}");
    let mut membership = enforcing(&held);
    let refused = membership.handle_payload(step(4), start()).unwrap_err();
    assert!(matches!(refused, Refusal::Config(ConfigError::WrongBase { .. })), "{refused}");
    assert_eq!(membership.held().unwrap().as_ref(), &held);
}

#[test]
fn an_unknown_action_match_or_version_refuses_all_of_it() {
    let config = device_config("council", "s1", 1);
    let text = serde_json::to_string(&Payload::Snapshot(Box::new(config))).unwrap();
    for (known, unknown) in [
        (r#""action":"allow""#, r#""action":"shape""#),
        (r#""opener":"device""#, r#""opener":"device","hour":9"#),
        (r#""version":1"#, r#""version":2"#),
        (r#""role":"device""#, r#""role":"edge""#),
    ] {
        let wrong = text.replace(known, unknown);
        assert_ne!(wrong, text, "{known} is not in the config");
        let refused = Payload::from_json(&wrong).map_err(Refusal::from).unwrap_err();
        let told = refused.problem();
        assert_eq!(told.name(), "config-refused", "{unknown}: {told}");
    }
}

#[test]
fn an_envelope_of_an_unknown_key_is_told_as_such() {
    let config = device_config("other", "s1", 1);
    let refused = Refusal::from(pins().open(&seal(&config)).unwrap_err());
    assert!(matches!(refused, Refusal::Envelope(EnvelopeError::UnknownKey { .. })), "{refused}");
    assert_eq!(refused.problem().name(), "config-signature");
}

#[test]
fn another_machines_config_and_another_role_are_refused() {
    let mut config = device_config("council", "s1", 1);
    config.agent = "device/desk-2".parse().unwrap();
    let refused = device().handle_payload(snapshot(&config), start()).unwrap_err();
    assert!(matches!(refused, Refusal::OtherAgent { .. }), "{refused}");
    let mut config = gateway_config(1);
    config.agent = "device/desk-1".parse().unwrap();
    let refused = device().handle_payload(snapshot(&config), start()).unwrap_err();
    assert!(matches!(refused, Refusal::Role { .. }), "{refused}");
}

#[test]
fn a_device_ends_its_session_by_itself() {
    let mut config = device_config("council", "s1", 1);
    config.valid_until = start() + seconds(24 * 3600);
    let mut membership = enforcing(&config);
    let end = session("s1").ends_at;
    assert_eq!(membership.poll_timeout(), Some(end));
    membership.handle_timeout(end - seconds(1));
    assert_eq!(words(&mut membership), [""; 0]);
    membership.handle_timeout(end);
    assert_eq!(words(&mut membership), ["cut", "undo"]);
    assert_eq!((membership.idle(), membership.poll_timeout()), (&Idle::SessionOver, None));
    let refused = membership.handle_payload(snapshot(&config), end).unwrap_err();
    assert!(matches!(refused, Refusal::SessionOver { .. }), "{refused}");
}

#[test]
fn a_gateway_cuts_a_peer_at_the_end_of_its_session_and_keeps_the_others() {
    let mut config = gateway_config(1);
    let end = start() + seconds(600);
    config.peers[0].session.as_mut().unwrap().ends_at = end;
    let mut membership = enforcing(&config);
    assert_eq!(membership.poll_timeout(), Some(end));
    membership.handle_timeout(end);
    assert_eq!(words(&mut membership), ["gone device/desk-1"]);
    assert_eq!(membership.poll_timeout(), Some(session("s1").ends_at));

    // The controller's own word for it comes later and finds nothing left to do.
    let gone = vec![Change::PeerGone { agent: "device/desk-1".parse().unwrap() }];
    let step = delta(&config, 2, gone);
    membership.handle_payload(Payload::Delta(step), end).unwrap();
    assert_eq!(words(&mut membership), [""; 0]);
}

#[test]
fn a_peer_whose_session_is_over_does_not_come_in_with_a_snapshot() {
    let config = gateway_config(1);
    let end = session("s1").ends_at;
    let mut membership = gateway();
    membership.handle_payload(snapshot(&config), end).unwrap();
    let taken = steps(&mut membership);
    let Some(Step::Replace(enforced)) = taken.last() else { panic!("{taken:?}") };
    assert!(enforced.peers.is_empty());
    assert_eq!(membership.holding().unwrap().generation, Generation(1));
}

#[test]
fn a_config_past_its_limit_is_void_for_devices_and_gateways() {
    for config in [device_config("council", "s1", 1), gateway_config(1)] {
        let config = OverlayConfig { valid_until: start() + seconds(300), ..config };
        let mut membership = enforcing(&config);
        membership.handle_timeout(start() + seconds(299));
        assert_eq!(words(&mut membership), [""; 0]);
        membership.handle_timeout(start() + seconds(300));
        assert_eq!(words(&mut membership), ["cut", "undo"]);
        assert_eq!((membership.idle(), membership.holding()), (&Idle::Stale, None));
    }
}

#[test]
fn a_restart_without_the_controller_brings_back_what_is_still_valid() {
    let config = device_config("council", "s1", 7);
    let mut membership = device();
    membership.handle_restored(config.clone(), start() + seconds(3600)).unwrap();
    assert_eq!(words(&mut membership), ["cut", "system council", "replace council"]);

    let mut membership = device();
    let refused = membership.handle_restored(config.clone(), config.valid_until).unwrap_err();
    assert!(matches!(refused, Refusal::Void { .. }), "{refused}");
    membership.handle_timeout(config.valid_until);
    assert_eq!(words(&mut membership), ["cut", "undo"]);
}

#[test]
fn a_clock_that_is_wrong_by_hours_changes_nothing_once_the_controller_was_heard() {
    let config =
        OverlayConfig { valid_until: start() + seconds(300), ..device_config("council", "s1", 1) };
    for off in [seconds(-7200), seconds(7200)] {
        let mut membership = device();
        membership.handle_skew(ClockSkew::measured(start(), start() + off), start() + off);
        steps(&mut membership);
        membership.handle_payload(snapshot(&config), start() + off).unwrap();
        steps(&mut membership);
        assert_eq!(membership.poll_timeout(), Some(config.valid_until + off));
        membership.handle_timeout(config.valid_until + off - seconds(1));
        assert!(membership.held().is_some());
        membership.handle_timeout(config.valid_until + off);
        assert!(membership.held().is_none());
    }
}

#[test]
fn a_session_that_was_signed_out_of_does_not_come_back() {
    let mut membership = enforcing(&device_config("council", "s1", 1));
    assert_eq!(membership.handle_sign_out(start()).unwrap().as_str(), "s1");
    assert_eq!(words(&mut membership), ["cut", "undo"]);
    let again = device_config("council", "s1", 2);
    let refused = membership.handle_payload(snapshot(&again), start()).unwrap_err();
    assert!(matches!(refused, Refusal::SignedOut), "{refused}");
    membership.handle_payload(snapshot(&device_config("council", "s2", 3)), start()).unwrap();
    assert_eq!(membership.handle_sign_out(start()).unwrap().as_str(), "s2");
}

#[test]
fn nothing_from_the_controller_tears_down_and_says_why() {
    let mut membership = enforcing(&device_config("council", "s1", 1));
    membership.handle_nothing("the session was revoked".to_owned(), start());
    assert_eq!(words(&mut membership), ["cut", "undo"]);
    assert_eq!(membership.idle(), &Idle::Told("the session was revoked".to_owned()));
}

#[test]
fn a_failed_step_leaves_nothing_carried_and_is_tried_again_from_the_beginning() {
    let mut membership = device();
    membership.handle_payload(snapshot(&device_config("council", "s1", 1)), start()).unwrap();
    assert_eq!(membership.poll_step(), Some(Step::Cut));
    membership.handle_failure(start());
    assert_eq!(words(&mut membership), ["cut"]);
    assert!(!membership.is_settled());
    let retry = membership.poll_timeout().unwrap();
    assert_eq!(retry, start() + RETRY);
    membership.handle_timeout(retry - seconds(1));
    assert_eq!(words(&mut membership), [""; 0]);
    membership.handle_timeout(retry);
    assert_eq!(words(&mut membership), ["cut", "system council", "replace council"]);
}
