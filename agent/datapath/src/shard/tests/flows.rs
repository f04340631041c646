//! What is told of flows, and what that must not cost.

use std::sync::Arc;

use partywall_proto::flows::{DEVICE_FLOW_STEP_S, DEVICE_FLOWS_AT_ONCE, ObservedVerdict, Traffic};
use partywall_proto::overlay::{Observed, PolicyStamp};
use partywall_proto::rules::Action;

use super::super::*;
use super::lab::*;
use crate::filter::{FlowEnd, Happening, RuleTable, Side};
use crate::testing::*;

const FIN: u8 = 0x11;

/// All that the gateway has to tell.
fn told(lab: &mut Lab) -> Vec<FlowEvent> {
    std::iter::from_fn(|| lab.gateway.poll_flow_event()).collect()
}

fn happenings(lab: &mut Lab) -> Vec<Happening> {
    told(lab).iter().map(|event| event.happening).collect()
}

fn rule(event: &FlowEvent) -> Option<&str> {
    Some(event.judgement.as_ref()?.rule()?.as_str())
}

/// A whole conversation with the server's port 443; what passed from the network and from the device.
fn converse(lab: &mut Lab, port: u16) -> [Traffic; 2] {
    let mut sums = [Traffic::default(); 2];
    let steps =
        [(true, SYN), (false, SYN | ACK), (true, ACK), (true, ACK), (false, FIN), (true, FIN)];
    for (by_device, flags) in steps {
        let packet = match by_device {
            true => packet(DEVICE, SERVER, &tcp(port, 443, flags)),
            false => packet(SERVER, DEVICE, &tcp(443, port, flags)),
        };
        let sum = &mut sums[usize::from(by_device)];
        sum.packets += 1;
        sum.bytes += packet.len() as u64;
        let arrived =
            if by_device { lab.device_sends(&packet) } else { lab.network_sends(&packet) };
        assert!(!arrived.nowhere());
    }
    sums
}

/// The gateway looks at all of its flows.
fn sweep(lab: &mut Lab) {
    lab.gateway.handle_timeout(lab.now, &mut Outbox::new());
}

#[test]
fn a_conversation_is_told_of_from_its_opening_to_its_end_with_all_that_passed() {
    let mut lab = Lab::connected();
    let [network, device] = converse(&mut lab, 40_000);
    let opened = told(&mut lab);
    assert_eq!(opened.len(), 1);
    assert_eq!((opened[0].happening, rule(&opened[0])), (Happening::Opened, Some("web")));
    assert_eq!(opened[0].party.agent.to_string(), "device/desk-1");
    assert_eq!(opened[0].originator, Side::Remote);
    assert_eq!((opened[0].key.port(Side::Remote), opened[0].key.port(Side::Local)), (40_000, 443));
    assert_eq!((opened[0].from_local.packets, opened[0].from_remote.packets), (0, 1));
    lab.wait(20);
    sweep(&mut lab);
    let ended = told(&mut lab);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].happening, Happening::Ended(FlowEnd::Closed));
    assert_eq!((ended[0].number, rule(&ended[0])), (opened[0].number, Some("web")));
    assert_eq!((ended[0].from_local, ended[0].from_remote), (network, device));
}

#[test]
fn ports_that_are_used_again_are_another_flow() {
    let mut lab = Lab::connected();
    let sums = [converse(&mut lab, 40_000), converse(&mut lab, 40_000)];
    assert_eq!(sums[0], sums[1]);
    let told = told(&mut lab);
    let closed = Happening::Ended(FlowEnd::Closed);
    let happened: Vec<_> = told.iter().map(|event| event.happening).collect();
    assert_eq!(happened, [Happening::Opened, closed, Happening::Opened]);
    assert_eq!(told[0].number, told[1].number);
    assert_ne!(told[1].number, told[2].number);
    assert_eq!((told[1].from_local, told[1].from_remote), (sums[0][0], sums[0][1]));
}

#[test]
fn a_refusal_is_told_once_a_minute_with_the_rule_that_says_so() {
    let mut lab = Lab::connected();
    let denied = packet("10.1.0.99", DEVICE, &udp(1, 2, 3));
    let closed = packet(DEVICE, "10.1.0.99", &tcp(40_000, 443, SYN));
    for _ in 0..5 {
        lab.network_sends(&denied);
        lab.forged_by_device(&closed);
        lab.wait(7);
    }
    let refused = told(&mut lab);
    let what: Vec<_> = refused.iter().map(|event| (event.happening, rule(event))).collect();
    let none = (Happening::Refused(DropReason::NoRule), None);
    assert_eq!(what, [none, (Happening::Refused(DropReason::Denied), Some("no-admin"))]);
    assert_eq!((refused[0].originator, refused[1].originator), (Side::Local, Side::Remote));
    assert_eq!(refused[0].from_local, Traffic::default());
    lab.wait(60);
    lab.network_sends(&denied);
    assert_eq!(happenings(&mut lab).len(), 1);
    assert_eq!(lab.gateway.flow_events_lost(), 0);
}

#[test]
fn what_cuts_a_flow_is_told_and_whose_it_was_even_when_nobody_is_left() {
    let with_session = |id| {
        let session = format!(
            r#","session":{{"id":"{id}","user":"a@council","ends_at":"2026-01-01T08:00:00Z"}}}}"#
        );
        device_peer("desk-1", 1, 9, DESK_1).trim_end_matches('}').to_owned() + &session
    };
    let set = |id| Update::PeerSet(Box::new(peer(&with_session(id))));
    let cuts: [(Update, FlowEnd); 4] = [
        (Update::RulesSet(table(&RULES.replace("443", "8443"))), FlowEnd::Policy),
        (Update::PeerGone("device/desk-1".parse().unwrap()), FlowEnd::Session),
        (set("s-2"), FlowEnd::Session),
        (Update::Clear, FlowEnd::Shutdown),
    ];
    for (update, why) in cuts {
        let mut lab = Lab::connected();
        lab.at_gateway(&set("s-1"));
        let asked = packet(DEVICE, SERVER, &tcp(40_000, 443, SYN));
        lab.device_sends(&asked);
        lab.at_gateway(&update);
        lab.network_sends(&packet(SERVER, DEVICE, &tcp(443, 40_000, SYN | ACK)));
        let told = told(&mut lab);
        let happened: Vec<_> = told.iter().map(|event| event.happening).collect();
        assert_eq!(happened, [Happening::Opened, Happening::Ended(why)]);
        for event in &told {
            assert_eq!(event.party.session.as_ref().unwrap().as_str(), "s-1", "{why:?}");
        }
    }
}

#[test]
fn a_flow_that_was_judged_by_rules_that_are_gone_names_none() {
    let mut lab = Lab::connected();
    lab.device_sends(&packet(DEVICE, SERVER, &udp(5000, 53, 10)));
    lab.at_gateway(&Update::RulesSet(table("[]")));
    lab.wait(31);
    sweep(&mut lab);
    let told = told(&mut lab);
    assert_eq!(rule(&told[0]), Some("names"), "what was told before stays so");
    assert_eq!(told[1].happening, Happening::Ended(FlowEnd::Idle));
    assert!(told[1].judgement.is_none());
}

#[test]
fn classes_that_change_leave_a_flow_its_rule() {
    let mut lab = Lab::connected();
    lab.device_sends(&packet(DEVICE, SERVER, &udp(5000, 53, 10)));
    let other = device_peer("desk-1", 1, 9, DESK_1).replace("[1]", "[2]");
    lab.at_gateway(&Update::PeerSet(Box::new(peer(&other))));
    lab.wait(31);
    sweep(&mut lab);
    assert_eq!(rule(&told(&mut lab)[1]), Some("names"));
}

#[test]
fn a_policy_on_trial_is_asked_and_changes_nothing() {
    let mut lab = Lab::connected();
    let trial = RULES
        .replace("\"web\"", "\"web-2\"")
        .replace("\"names\",\"action\":\"allow\"", "\"names-2\",\"action\":\"deny\"");
    let observed = Observed { version: 8, rules: rules(&trial) };
    let in_force = RuleTable::of(&rules(RULES), Some(PolicyStamp { version: 7 }), Some(&observed));
    lab.at_gateway(&Update::RulesSet(Arc::new(in_force)));
    let web = packet(DEVICE, SERVER, &tcp(40_000, 443, SYN));
    assert!(!lab.device_sends(&web).nowhere());
    let names = packet(DEVICE, SERVER, &udp(5000, 53, 10));
    assert!(!lab.device_sends(&names).nowhere(), "the version on trial refused it");
    lab.network_sends(&packet(SERVER, DEVICE, &udp(9, 9, 10)));
    let told = told(&mut lab);
    let verdict = |action, rule: &str| {
        let rule = Some(rule.parse().unwrap());
        Some(ObservedVerdict { version: 8, action: Some(action), rule })
    };
    let seen: Vec<_> =
        told.iter().map(|event| event.judgement.as_ref().unwrap().observed()).collect();
    let none = Some(ObservedVerdict { version: 8, action: None, rule: None });
    assert_eq!(seen, [verdict(Action::Allow, "web-2"), verdict(Action::Deny, "names-2"), none]);
    assert!(told.iter().all(|event| event.judgement.as_ref().unwrap().policy() == Some(7)));
    assert_eq!(rule(&told[1]), Some("names"));
}

#[test]
fn parts_of_packets_and_what_waited_are_counted_as_they_came() {
    let mut lab = Lab::connected();
    let long = udp(5000, 53, 2000);
    let mut sent = Traffic::default();
    for range in [0..800, 800..1600, 1600..2008] {
        let part = part(DEVICE, SERVER, &long, range, 7);
        assert!(!lab.device_sends(&part).nowhere());
        sent.packets += 1;
        sent.bytes += part.len() as u64;
    }
    lab.wait(31);
    sweep(&mut lab);
    assert_eq!(told(&mut lab)[1].from_remote, sent);
}

#[test]
fn a_device_tells_of_what_it_refused_itself_and_of_nothing_else() {
    let mut lab = Lab::connected();
    converse(&mut lab, 40_000);
    let denied = packet(DEVICE, "10.1.0.99", &tcp(40_000, 443, SYN));
    for _ in 0..3 {
        assert!(lab.device_sends(&denied).nowhere());
    }
    lab.forged_by_gateway(&packet(SERVER, DEVICE, &udp(9, 9, 10)));
    // The next session's is another, however soon it comes.
    lab.at_device(&replace(device_config("council", "s2", 9), RULES));
    lab.device_sends(&denied);
    let told: Vec<_> = std::iter::from_fn(|| lab.device.poll_flow_event()).collect();
    let seen: Vec<_> = told
        .iter()
        .map(|event| {
            let session = event.party.session.as_ref().unwrap().as_str();
            (event.happening, rule(event), event.originator, session)
        })
        .collect();
    let by_rule = (Happening::Refused(DropReason::Denied), Some("no-admin"), Side::Local);
    let by_none = (Happening::Refused(DropReason::NoRule), None, Side::Remote);
    let of = |(happening, rule, side), session| (happening, rule, side, session);
    assert_eq!(seen, [of(by_rule, "s1"), of(by_none, "s1"), of(by_rule, "s2")]);
    assert!(told.iter().all(|event| event.party.agent.to_string() == "device/desk-1"));
    assert!(told.iter().all(|event| event.device == Side::Local));
    assert_eq!(lab.device.flow_events_lost(), 0);
    // Nothing else came to the gateway.
    assert_eq!(happenings(&mut lab), [Happening::Opened]);
}

#[test]
fn a_device_tells_of_no_more_than_its_controller_takes() {
    let mut lab = Lab::connected();
    let mut told_of = |ports: std::ops::Range<u16>, after_s| {
        lab.wait(after_s);
        let mut told = 0;
        for port in ports {
            lab.device_sends(&packet(DEVICE, "10.1.0.99", &tcp(port, 443, SYN)));
            told += std::iter::from_fn(|| lab.device.poll_flow_event()).count() as u32;
        }
        (told, lab.device.flow_events_lost())
    };
    assert_eq!(told_of(1024..4024, 0), (DEVICE_FLOWS_AT_ONCE, 2000));
    assert_eq!(told_of(5000..5100, 60), (60 / DEVICE_FLOW_STEP_S, 2090));
}

#[test]
fn a_log_that_nobody_reads_fills_up_and_counts_and_changes_no_verdict() {
    let mut lab = Lab::connected();
    let limits = Limits { flow_events: 3, ..lab.gateway.settings.limits };
    lab.gateway.filter = Filter::new(Role::Gateway, &limits);
    lab.at_gateway(&Update::RulesSet(table(RULES)));
    let queries: Vec<_> = (0..6).map(|port| packet(DEVICE, SERVER, &udp(port, 53, 1))).collect();
    for query in &queries {
        assert!(!lab.device_sends(query).nowhere());
    }
    assert_eq!(lab.gateway.flow_events_lost(), 3);
    let first: Vec<_> = told(&mut lab).iter().map(|e| e.key.port(Side::Remote)).collect();
    assert_eq!(first, [0, 1, 2], "what was told first is not written over");
    lab.wait(31);
    sweep(&mut lab);
    assert_eq!((told(&mut lab).len(), lab.gateway.flow_events_lost()), (3, 6));
}

#[test]
fn a_scan_does_not_crowd_out_what_became_of_conversations() {
    let mut lab = Lab::connected();
    for port in 1024..u16::MAX {
        lab.network_sends(&packet(SERVER, DEVICE, &tcp(443, port, SYN)));
    }
    let told_of = told(&mut lab).len();
    assert_eq!(told_of, 2048);
    assert_eq!(lab.gateway.flow_events_lost(), u64::from(u16::MAX - 1024) - told_of as u64);
}

#[test]
fn telling_of_flows_allocates_nothing() {
    let mut lab = Lab::connected();
    lab.device_sends(&packet(DEVICE, SERVER, &udp(4999, 53, 1)));
    let answers: Vec<_> = [packet(SERVER, DEVICE, &udp(53, 4999, 9))]
        .into_iter()
        .chain((1..2000).map(|port| packet("10.1.7.3", DEVICE, &tcp(50_000, port, SYN))))
        .collect();
    let mut out = Outbox::new();
    let taken = allocation_counter::measure(|| {
        for bytes in &answers {
            out.clear();
            lab.gateway.handle_packet(bytes, lab.now, &mut out);
        }
        while lab.gateway.poll_flow_event().is_some() {}
    });
    assert_eq!(taken.count_total, 0);
}
