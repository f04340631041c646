//! The promises that a data path makes, each with what would happen if it were broken.

use super::super::*;
use super::lab::*;
use crate::testing::*;

/// Opens a TCP connection to the server's port 443 and leaves it open.
fn open_connection(lab: &mut Lab) {
    let steps = [(true, SYN), (false, SYN | ACK), (true, ACK)];
    for (by_device, flags) in steps {
        let arrived = match by_device {
            true => lab.device_sends(&packet(DEVICE, SERVER, &tcp(40_000, 443, flags))),
            false => lab.network_sends(&packet(SERVER, DEVICE, &tcp(443, 40_000, flags))),
        };
        assert!(!arrived.nowhere());
    }
}

#[test]
fn a_new_device_calls_its_gateway_at_once_and_both_families_get_through() {
    let mut lab = Lab::connected();
    for (from, to) in [(DEVICE, SERVER), (DEVICE_V6, SERVER_V6)] {
        let v4 = from == DEVICE;
        let exchanges = [
            (tcp(40_000, 443, SYN), tcp(443, 40_000, SYN | ACK)),
            (udp(5000, 53, 30), udp(53, 5000, 300)),
            (ping(7, v4), pong(7, v4)),
        ];
        for (asked, answered) in exchanges {
            let asked = packet(from, to, &asked);
            assert_eq!(lab.device_sends(&asked).at_network, [asked]);
            let answered = packet(to, from, &answered);
            assert_eq!(lab.network_sends(&answered).at_device, [answered]);
        }
    }
    assert_eq!(lab.device.counters().drops().map(|(_, count)| count).sum::<u64>(), 0);
    assert_eq!(lab.gateway.counters().drops().map(|(_, count)| count).sum::<u64>(), 0);
    assert_eq!(lab.device.counters().sent, lab.gateway.counters().received);
}

#[test]
fn nothing_passes_without_a_rule_at_either_end() {
    let mut lab = Lab::connected();
    let unwanted = packet(DEVICE, SERVER, &tcp(40_000, 80, SYN));
    assert!(lab.device_sends(&unwanted).nowhere());
    assert_eq!(counted(&lab.device, DropReason::NoRule), 1);
    assert!(lab.forged_by_device(&unwanted).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::NoRule), 1);
    let unasked = packet(SERVER, DEVICE, &tcp(443, 22, SYN));
    assert!(lab.network_sends(&unasked).nowhere());
    assert!(lab.forged_by_gateway(&unasked).nowhere());
    assert_eq!(counted(&lab.device, DropReason::NoRule), 2);
}

#[test]
fn the_network_opens_towards_a_device_only_what_a_rule_says() {
    let mut lab = Lab::connected();
    let help = packet("10.1.7.3", DEVICE, &tcp(50_000, 22, SYN));
    assert_eq!(lab.network_sends(&help).at_device.len(), 1);
    let answer = packet(DEVICE, "10.1.7.3", &tcp(22, 50_000, SYN | ACK));
    assert_eq!(lab.device_sends(&answer).at_network.len(), 1);
    let elsewhere = packet("10.1.8.3", DEVICE, &tcp(50_000, 22, SYN));
    assert!(lab.network_sends(&elsewhere).nowhere());
}

#[test]
fn replacing_a_rule_cuts_an_open_flow() {
    let mut lab = Lab::connected();
    open_connection(&mut lab);
    let data = packet(SERVER, DEVICE, &tcp(443, 40_000, ACK));
    assert_eq!(lab.network_sends(&data).at_device.len(), 1);
    let without_web = RULES.replace("443", "8443");
    lab.at_gateway(&Update::RulesSet(table(&without_web)));
    assert!(lab.network_sends(&data).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::FlowCut), 1);
    // And it is not picked up again from the middle.
    assert!(lab.network_sends(&data).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::TcpNoFlow), 1);
}

#[test]
fn a_rule_set_that_still_allows_a_flow_leaves_it_open() {
    let mut lab = Lab::connected();
    open_connection(&mut lab);
    lab.at_gateway(&Update::RulesSet(table(RULES)));
    lab.at_device(&Update::RulesSet(table(RULES)));
    let data = packet(SERVER, DEVICE, &tcp(443, 40_000, ACK));
    assert_eq!(lab.network_sends(&data).at_device.len(), 1);
}

#[test]
fn losing_a_class_cuts_what_only_the_class_allowed() {
    let mut lab = Lab::connected();
    open_connection(&mut lab);
    let query = packet(DEVICE, SERVER, &udp(5000, 53, 1));
    lab.device_sends(&query);
    let without_class = device_peer("desk-1", 1, 9, DESK_1).replace("[1]", "[2]");
    lab.at_gateway(&Update::PeerSet(Box::new(peer(&without_class))));
    let data = packet(SERVER, DEVICE, &tcp(443, 40_000, ACK));
    assert!(lab.network_sends(&data).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::FlowCut), 1);
    assert!(!lab.device_sends(&query).nowhere(), "the tunnel itself goes on");
}

#[test]
fn a_peer_that_is_gone_is_cut_with_its_flows_and_its_keys() {
    let mut lab = Lab::connected();
    open_connection(&mut lab);
    lab.at_gateway(&Update::PeerGone("device/desk-1".parse().unwrap()));
    assert_eq!(lab.gateway.filter.flows(), 0);
    assert!(lab.network_sends(&packet(SERVER, DEVICE, &tcp(443, 40_000, ACK))).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::NoRoute), 1);
    assert!(lab.device_sends(&packet(DEVICE, SERVER, &tcp(40_000, 443, ACK))).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::UnknownIndex), 1);
}

#[test]
fn another_segment_or_session_cuts_every_flow_before_its_first_packet() {
    for (segment, session) in [("nhs", "s1"), ("council", "s2")] {
        let mut lab = Lab::connected();
        open_connection(&mut lab);
        let old_key = lab.wire.iter().rev().find(|(device, _)| !device).unwrap().1.clone();
        // Same keys, addresses and rules: only segment or session differ.
        let mut out = Outbox::new();
        let next = replace(device_config(segment, session, 9), RULES);
        lab.device.apply(&next, lab.now, &mut out);
        assert_eq!(lab.device.filter.flows(), 0);
        lab.device.handle_datagram(SocketAddr::from(GATEWAY_AT), &old_key, lab.now, &mut out);
        assert_eq!(counted(&lab.device, DropReason::UnknownIndex), 1);
        assert_eq!(lab.device.peer_status(lab.now)[0].handshake_age, None);
    }
}

#[test]
fn the_same_session_goes_on_over_a_new_generation() {
    let mut lab = Lab::connected();
    open_connection(&mut lab);
    let mut next = device_config("council", "s1", 9);
    next.generation.0 += 1;
    lab.at_device(&replace(next, RULES));
    lab.at_gateway(&replace(gateway_config(&[device_peer("desk-1", 1, 9, DESK_1)]), RULES));
    assert!(lab.is_connected());
    let data = packet(SERVER, DEVICE, &tcp(443, 40_000, ACK));
    assert_eq!(lab.network_sends(&data).at_device.len(), 1);
}

#[test]
fn clear_carries_nothing() {
    let mut lab = Lab::connected();
    open_connection(&mut lab);
    lab.at_device(&Update::Clear);
    assert!(lab.device_sends(&packet(DEVICE, SERVER, &tcp(40_000, 443, ACK))).nowhere());
    assert!(lab.network_sends(&packet(SERVER, DEVICE, &tcp(443, 40_000, ACK))).nowhere());
    assert_eq!(counted(&lab.device, DropReason::NoConfig), 2);
    assert_eq!(lab.device.poll_timeout(), None);
}

#[test]
fn a_replayed_datagram_is_dropped() {
    let mut lab = Lab::connected();
    let query = packet(DEVICE, SERVER, &udp(5000, 53, 1));
    assert!(!lab.device_sends(&query).nowhere());
    let sealed = lab.wire.last().unwrap().1.clone();
    assert!(lab.datagram(false, &sealed).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::Replayed), 1);
    let call = lab.wire[0].1.clone();
    assert!(lab.datagram(false, &call).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::BadHandshake), 1);
}

#[test]
fn a_device_speaks_for_its_own_addresses_only() {
    let mut lab = Lab::connected();
    for from in ["10.64.0.6", "10.1.0.7", "192.0.2.5"] {
        assert!(lab.forged_by_device(&packet(from, SERVER, &udp(5000, 53, 1))).nowhere());
    }
    assert_eq!(counted(&lab.gateway, DropReason::WrongSource), 3);
    assert!(lab.device_sends(&packet("192.0.2.5", SERVER, &udp(5000, 53, 1))).nowhere());
    assert_eq!(counted(&lab.device, DropReason::WrongSource), 1);
}

#[test]
fn another_device_does_not_speak_in_this_ones_flow() {
    let mut lab = Lab::connected();
    let other = device_peer("desk-2", 3, 8, r#""10.64.0.6""#);
    lab.at_gateway(&Update::PeerSet(Box::new(peer(&other))));
    lab.device_sends(&packet(DEVICE, SERVER, &udp(5000, 53, 1)));
    let answer = packet(SERVER, "10.64.0.6", &udp(53, 5000, 1));
    assert!(lab.network_sends(&answer).nowhere());
    assert_eq!(
        counted(&lab.gateway, DropReason::NoEndpoint) + counted(&lab.gateway, DropReason::NoRule),
        1
    );
}

#[test]
fn without_the_same_preshared_key_there_is_no_tunnel() {
    let mut lab = Lab::apart();
    lab.at_gateway(&replace(gateway_config(&[device_peer("desk-1", 1, 9, DESK_1)]), RULES));
    lab.at_device(&replace(device_config("council", "s1", 10), RULES));
    assert!(!lab.is_connected());
    assert_eq!(counted(&lab.device, DropReason::BadHandshake), 1);
    assert!(lab.device_sends(&packet(DEVICE, SERVER, &udp(5000, 53, 1))).nowhere());
}

#[test]
fn packets_that_waited_for_the_handshake_are_judged_again_when_they_go() {
    let mut lab = Lab::apart();
    let mut out = Outbox::new();
    lab.device.apply(&replace(device_config("council", "s1", 9), RULES), lab.now, &mut out);
    let call = out.datagrams().next().unwrap().bytes.to_vec();
    let (web, query) =
        (packet(DEVICE, SERVER, &tcp(40_000, 443, SYN)), packet(DEVICE, SERVER, &udp(5000, 53, 1)));
    assert!(lab.device_sends(&web).nowhere() && lab.device_sends(&query).nowhere());
    lab.device.apply(&Update::RulesSet(table(&RULES.replace("443", "8443"))), lab.now, &mut out);
    lab.at_gateway(&replace(gateway_config(&[device_peer("desk-1", 1, 9, DESK_1)]), RULES));
    assert_eq!(lab.datagram(false, &call).at_network, [query]);
    assert_eq!(counted(&lab.device, DropReason::FlowCut), 1);
}

#[test]
fn a_peer_is_followed_to_where_it_was_last_heard_beyond_doubt() {
    let mut lab = Lab::connected();
    let elsewhere = SocketAddr::from(([198, 51, 100, 7], 999));
    let endpoint = |lab: &Lab| lab.gateway.peer_status(lab.now)[0].endpoint.unwrap();
    let before = endpoint(&lab);
    let mut out = Outbox::new();
    lab.device.handle_packet(&packet(DEVICE, SERVER, &udp(5000, 53, 1)), lab.now, &mut out);
    let sealed = out.datagrams().next().unwrap().bytes.to_vec();
    let mut forged = sealed.clone();
    *forged.last_mut().unwrap() ^= 1;
    lab.gateway.handle_datagram(elsewhere, &forged, lab.now, &mut out);
    assert_eq!(endpoint(&lab), before);
    // As a dual-stack socket shows an IPv4 sender.
    let dressed = SocketAddr::new([0, 0, 0, 0, 0, 0xffff, 0xc633, 0x6407].into(), 999);
    lab.gateway.handle_datagram(dressed, &sealed, lab.now, &mut out);
    assert_eq!(endpoint(&lab), elsewhere);
}

#[test]
fn inner_packets_are_padded_to_16_and_arrive_without_their_padding() {
    let mut lab = Lab::connected();
    for payload in [0, 1, 3, 4, 5, 100, 1380, 1391, 1392] {
        let query = packet(DEVICE, SERVER, &udp(5000, 53, payload));
        assert_eq!(lab.device_sends(&query).at_network, std::slice::from_ref(&query));
        let inner = lab.wire.last().unwrap().1.len() - 32;
        assert!(inner.is_multiple_of(16) || inner == 1420, "{payload} bytes became {inner}");
        assert!(inner >= query.len() && inner <= 1420);
    }
}

#[test]
fn a_connection_is_picked_up_from_the_middle_only_where_its_originator_may_open_it() {
    let mut lab = Lab::connected();
    let from_device = packet(DEVICE, SERVER, &tcp(40_000, 443, ACK));
    let from_server = packet(SERVER, DEVICE, &tcp(443, 40_000, ACK));
    // Shortly after the tunnel came up either end is heard, as after a failover.
    assert_eq!(lab.network_sends(&from_server).at_device.len(), 1);
    assert!(lab.network_sends(&packet(SERVER, DEVICE, &tcp(80, 40_000, ACK))).nowhere());
    // Later only the originator.
    let mut lab = Lab::connected();
    lab.wait(3600);
    assert!(lab.network_sends(&from_server).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::TcpNoFlow), 1);
    assert_eq!(lab.device_sends(&from_device).at_network.len(), 1);
    assert_eq!(lab.network_sends(&from_server).at_device.len(), 1);
    // Never to a port that is not allowed, and never by an end of a connection.
    for (port, flags) in [(80, ACK), (443, ACK | 1), (443, RST), (443, SYN | ACK)] {
        let stray = packet(DEVICE, SERVER, &tcp(40_001, port, flags));
        assert!(lab.forged_by_device(&stray).nowhere(), "port {port} flags {flags}");
    }
}

#[test]
fn fragments_follow_their_first_one_through_the_tunnel() {
    for (from, to) in [(DEVICE, SERVER), (DEVICE_V6, SERVER_V6)] {
        let mut lab = Lab::connected();
        let big = udp(5000, 53, 3000);
        for range in [0..1352, 1352..2704, 2704..3008] {
            assert_eq!(lab.device_sends(&part(from, to, &big, range, 7)).at_network.len(), 1);
        }
        let secret = tcp(5000, 80, SYN);
        assert!(lab.forged_by_device(&part(from, to, &secret, 8..20, 9)).nowhere());
        assert_eq!(counted(&lab.gateway, DropReason::FragmentWithoutFirst), 1);
    }
}

#[test]
fn an_icmp_error_passes_only_for_a_live_flow_of_the_same_peer() {
    for (from, to, router) in [(DEVICE, SERVER, "10.1.0.254"), (DEVICE_V6, SERVER_V6, "fd01::fe")] {
        let v4 = from == DEVICE;
        let mut lab = Lab::connected();
        let query = packet(from, to, &udp(5000, 53, 1));
        lab.device_sends(&query);
        let error = packet(router, from, &unreachable(&query, v4));
        assert_eq!(lab.network_sends(&error).at_device.len(), 1);
        let other = packet(from, to, &udp(5001, 53, 1));
        assert!(lab.network_sends(&packet(router, from, &unreachable(&other, v4))).nowhere());
        // The quote must have been sent by whom the error is sent to.
        let reversed = packet(to, from, &udp(53, 5000, 1));
        assert!(lab.network_sends(&packet(router, from, &unreachable(&reversed, v4))).nowhere());
        lab.wait(301);
        assert!(lab.network_sends(&error).nowhere());
        assert_eq!(counted(&lab.gateway, DropReason::IcmpNoFlow), 3);
    }
}

#[test]
fn a_device_that_nobody_answers_goes_on_to_the_next_endpoint() {
    let mut lab = Lab::apart();
    let mut config = device_config("council", "s1", 9);
    config.peers[0].endpoints.push(([192, 0, 2, 2], 51_820).into());
    let mut out = Outbox::new();
    lab.device.apply(&replace(config, RULES), lab.now, &mut out);
    let entry = lab.device.peers.at_mut(0).unwrap();
    let called: Vec<_> = (0..3).map(|_| entry.endpoint_to_call().unwrap().to_string()).collect();
    assert_eq!(called, ["192.0.2.2:51820", "192.0.2.1:51820", "192.0.2.2:51820"]);
    assert_eq!(out.datagrams().next().unwrap().destination, GATEWAY_AT.into());
}

#[test]
fn a_datagram_names_its_shard() {
    let mut lab = Lab::apart();
    let now = lab.now;
    let private_key = PrivateKey::from([2; 32]);
    let settings = Settings {
        shard: 2,
        shards: 3,
        role: Role::Gateway,
        private_key,
        wall_clock: wall_clock(now),
        limits: Limits::for_role(Role::Device),
    };
    lab.gateway = Shard::new(settings, now);
    lab.at_gateway(&replace(gateway_config(&[device_peer("desk-1", 1, 9, DESK_1)]), RULES));
    lab.at_device(&replace(device_config("council", "s1", 9), RULES));
    assert!(lab.is_connected());
    let sent_by_device = lab.wire.iter().filter(|(device, _)| *device);
    let owners: Vec<_> = sent_by_device.map(|(_, bytes)| owner_of(bytes, 3)).collect();
    assert_eq!(owners, [None, Some(2)]);
    assert_eq!(owner_of(b"garbage", 3), None);
}

#[test]
fn a_packet_of_a_known_flow_allocates_nothing_on_its_way() {
    let mut lab = Lab::connected();
    let (query, answer) =
        (packet(DEVICE, SERVER, &udp(5000, 53, 700)), packet(SERVER, DEVICE, &udp(53, 5000, 1392)));
    lab.device_sends(&query);
    lab.network_sends(&answer);
    let (mut near, mut far) = (Outbox::new(), Outbox::new());
    let Lab { device, gateway, now, .. } = &mut lab;
    let allocations = allocation_counter::measure(|| {
        for _ in 0..100 {
            near.clear();
            far.clear();
            device.handle_packet(&query, *now, &mut near);
            gateway.handle_packet(&answer, *now, &mut far);
            near.datagrams().for_each(|datagram| {
                gateway.handle_datagram(
                    SocketAddr::from(DEVICE_AT),
                    datagram.bytes,
                    *now,
                    &mut far,
                );
            });
            assert_eq!(far.packets().len(), 1);
        }
    });
    assert_eq!(allocations.count_total, 0);
}

#[test]
fn another_session_on_the_same_keys_cuts_the_flows_of_the_one_before() {
    let mut lab = Lab::connected();
    let with_session = |id: &str| {
        let session = format!(
            r#""session":{{"id":"{id}","user":"alice@council","ends_at":"2026-01-01T08:00:00Z"}},"allowed_ips""#
        );
        let json = device_peer("desk-1", 1, 9, DESK_1).replace(r#""allowed_ips""#, &session);
        Update::PeerSet(Box::new(peer(&json)))
    };
    lab.at_gateway(&with_session("s1"));
    open_connection(&mut lab);
    lab.at_gateway(&with_session("s1"));
    assert_eq!(lab.gateway.filter.flows(), 1);
    lab.at_gateway(&with_session("s2"));
    assert_eq!(lab.gateway.filter.flows(), 0);
    assert!(lab.is_connected());
}

#[test]
fn an_icmp_error_goes_to_the_address_that_sent_what_it_quotes() {
    let mut lab = Lab::connected();
    let two = device_peer("desk-1", 1, 9, r#""10.64.0.5","10.64.0.7""#);
    lab.at_gateway(&Update::PeerSet(Box::new(peer(&two))));
    let query = packet(DEVICE, SERVER, &udp(5000, 53, 1));
    lab.device_sends(&query);
    assert!(lab.network_sends(&packet(SERVER, "10.64.0.7", &unreachable(&query, true))).nowhere());
    assert_eq!(counted(&lab.gateway, DropReason::IcmpNoFlow), 1);
}
