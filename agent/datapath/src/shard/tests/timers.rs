//! What is due when.

use std::time::Duration;

use super::super::*;
use super::lab::*;
use crate::filter::DropReason;
use crate::testing::*;

#[test]
fn what_is_over_is_forgotten_when_time_passes() {
    let mut lab = Lab::connected();
    lab.device_sends(&packet(DEVICE, SERVER, &udp(5000, 53, 1)));
    assert_eq!(lab.gateway.filter.flows(), 1);
    lab.wait(31);
    let mut out = Outbox::new();
    assert!(lab.gateway.poll_timeout().unwrap() <= lab.now);
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert_eq!(lab.gateway.filter.flows(), 0);
    assert!(lab.gateway.poll_timeout().unwrap() > lab.now);
}

#[test]
fn a_device_that_nobody_answers_goes_on_calling_and_a_gateway_gives_up() {
    let mut lab = Lab::connected();
    let (query, answer) =
        (packet(DEVICE, SERVER, &udp(5000, 53, 1)), packet(SERVER, DEVICE, &udp(53, 5000, 1)));
    lab.device_sends(&query);
    // From here on nothing arrives at either end.
    let begun = lab.now;
    let mut out = Outbox::new();
    lab.device.handle_packet(&query, begun, &mut out);
    lab.gateway.handle_packet(&answer, begun, &mut out);
    let until = begun + Duration::from_secs(200);
    let said_from = |shard: &mut Shard| said(shard, begun, until);
    let every_5_s = |from: u64, to: u64| (from..to).step_by(5).map(|second| (second, 148));
    // What was sent had no answer for 15 s; given up after 90 s, which a device begins again with.
    assert_eq!(said_from(&mut lab.device), every_5_s(15, 200).collect::<Vec<_>>());
    assert_eq!(said_from(&mut lab.gateway), every_5_s(15, 105).collect::<Vec<_>>());
}

#[test]
fn keys_are_renewed_while_there_is_traffic_and_not_a_packet_is_lost() {
    let mut lab = Lab::connected();
    let (query, answer) =
        (packet(DEVICE, SERVER, &udp(5000, 53, 1)), packet(SERVER, DEVICE, &udp(53, 5000, 1)));
    let begun = lab.now;
    let mut calls = Vec::new();
    for second in 1..=600 {
        lab.now = begun + Duration::from_secs(second);
        let before = lab.wire.len();
        assert_eq!(lab.device_sends(&query).at_network.len(), 1);
        assert_eq!(lab.network_sends(&answer).at_device.len(), 1);
        assert!(lab.device_waits().nowhere() && lab.gateway_waits().nowhere());
        let called = lab.wire[before..].iter().filter(|(_, bytes)| bytes.len() == 148);
        calls.extend(called.map(|(device, _)| (*device, second)));
    }
    assert_eq!(calls, [120, 240, 360, 480, 600].map(|second| (true, second)));
    let drops = |shard: &Shard| shard.counters().drops().map(|(_, count)| count).sum::<u64>();
    assert_eq!((drops(&lab.device), drops(&lab.gateway)), (0, 0));
}

#[test]
fn a_device_that_receives_only_renews_the_keys_before_they_end() {
    let mut lab = Lab::connected();
    let begun = lab.now;
    for second in [164, 165] {
        let before = lab.wire.len();
        lab.now = begun + Duration::from_secs(second);
        let help = packet("10.1.7.3", DEVICE, &tcp(50_000, 22, SYN));
        assert_eq!(lab.network_sends(&help).at_device.len(), 1);
        lab.device_waits();
        let called = lab.wire[before..].iter().any(|(_, bytes)| bytes.len() == 148);
        assert_eq!(called, second == 165);
    }
}

#[test]
fn keys_end_after_three_minutes_and_the_next_packet_brings_new_ones() {
    let mut lab = Lab::connected();
    lab.wait(1);
    lab.device_waits();
    lab.wait(178);
    assert!(lab.is_connected());
    lab.wait(1);
    assert!(!lab.is_connected());
    lab.device_waits();
    lab.gateway_waits();
    assert_eq!(lab.gateway.peers.at(0).unwrap().connected_at, None);
    let query = packet(DEVICE, SERVER, &udp(5000, 53, 1));
    assert_eq!(lab.device_sends(&query).at_network, [query]);
    assert!(lab.is_connected());
}

#[test]
fn keys_that_ended_are_not_sealed_with_even_if_nobody_looked_at_the_time() {
    let mut lab = Lab::connected();
    let before = lab.wire.len();
    lab.wait(180);
    let help = packet("10.1.7.3", DEVICE, &tcp(50_000, 22, SYN));
    assert_eq!(lab.network_sends(&help).at_device, [help], "after a handshake");
    assert_eq!(lab.wire[before].1.len(), 148);
}

#[test]
fn a_packet_that_finds_keys_just_ended_goes_as_soon_as_there_are_new_ones() {
    let mut lab = Lab::connected();
    let begun = lab.now;
    let at = |ms| begun + Duration::from_millis(ms);
    let mut out = Outbox::new();
    // A call is answered just before the end, and confirmed just after it.
    let mut call = [0; 148];
    let Shard { peers, identity, .. } = &mut lab.device;
    peers.at_mut(0).unwrap().tunnel.call(identity, true, at(179_900), &mut call).unwrap();
    lab.gateway.handle_datagram(SocketAddr::from(DEVICE_AT), &call, at(179_900), &mut out);
    let answer = out.datagrams().next().unwrap().bytes.to_vec();
    out.clear();
    let help = packet("10.1.7.3", DEVICE, &tcp(50_000, 22, SYN));
    lab.gateway.handle_packet(&help, at(180_010), &mut out);
    lab.now = at(180_020);
    assert_eq!(lab.datagram(true, &answer).at_device, [help]);
}

#[test]
fn what_is_received_is_acknowledged_after_ten_seconds_unless_something_is_sent() {
    for answered in [false, true] {
        let mut lab = Lab::connected();
        let query = packet(DEVICE, SERVER, &udp(5000, 53, 1));
        lab.wait(60);
        lab.device_sends(&query);
        let begun = lab.now;
        lab.wait(4);
        lab.device_sends(&query);
        if answered {
            lab.network_sends(&packet(SERVER, DEVICE, &udp(53, 5000, 1)));
        }
        let said = said(&mut lab.gateway, begun, begun + Duration::from_secs(60));
        // The answer itself is not acknowledged here: the device does not hear the keepalive.
        let expected = if answered { vec![(4 + 15, 148)] } else { vec![(10, 32)] };
        assert_eq!(said[..1], expected);
    }
}

#[test]
fn a_tunnel_with_keepalives_is_never_silent_for_longer() {
    let mut lab = Lab::apart();
    lab.at_gateway(&replace(gateway_config(&[device_peer("desk-1", 1, 9, DESK_1)]), RULES));
    let mut config = device_config("council", "s1", 9);
    config.peers[0].keepalive_s = Some(25);
    lab.at_device(&replace(config, RULES));
    let begun = lab.now;
    let mut heard = Vec::new();
    while lab.now < begun + Duration::from_secs(600) {
        let before = lab.wire.len();
        lab.now = lab.device.poll_timeout().unwrap();
        lab.device_waits();
        let said = lab.wire[before..].iter().filter(|(device, _)| *device);
        heard.extend(said.map(|(_, bytes)| ((lab.now - begun).as_secs(), bytes.len())));
    }
    // The first one that finds the keys old has them renewed.
    let first_round: Vec<_> = heard.iter().take_while(|(second, _)| *second <= 150).collect();
    let keepalives = (25..=125).step_by(25).map(|second| (second, 32));
    let expected: Vec<_> = keepalives.chain([(125, 148), (125, 32), (150, 32)]).collect();
    assert_eq!(first_round, expected.iter().collect::<Vec<_>>());
    assert!(heard.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 25));
}

#[test]
fn a_tick_that_fills_the_outbox_goes_on_after_the_flush() {
    let mut lab = Lab::connected();
    lab.now = lab.gateway.poll_timeout().unwrap();
    let mut out = Outbox::new();
    while !out.is_full() {
        out.datagram_room(1400).unwrap();
        out.send(DEVICE_AT.into(), 1400);
    }
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert!(lab.gateway.poll_timeout().unwrap() <= lab.now, "it is still due");
    out.clear();
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert!(lab.gateway.poll_timeout().unwrap() > lab.now);
}

#[test]
fn a_call_that_comes_before_the_gateway_knows_the_device_is_soon_repeated() {
    let mut lab = Lab::apart();
    lab.at_gateway(&replace(gateway_config(&[]), RULES));
    lab.at_device(&replace(device_config("council", "s1", 9), RULES));
    assert_eq!(counted(&lab.gateway, DropReason::UnknownPeer), 1);
    let desk = device_peer("desk-1", 1, 9, DESK_1);
    lab.at_gateway(&Update::PeerSet(Box::new(peer(&desk))));
    lab.now = lab.device.poll_timeout().unwrap().max(lab.now + Duration::from_millis(50));
    lab.device_waits();
    assert!(lab.is_connected());
}

#[test]
fn an_unanswered_call_is_repeated_ever_more_slowly_and_not_for_ever() {
    let mut lab = Lab::apart();
    lab.at_device(&replace(device_config("council", "s1", 9), RULES));
    let begun = lab.now;
    let mut calls = Vec::new();
    while lab.now < begun + Duration::from_secs(4) {
        lab.now = lab.device.poll_timeout().unwrap().max(lab.now + Duration::from_millis(1));
        let before = lab.wire.len();
        lab.device_waits();
        calls.extend((before < lab.wire.len()).then(|| (lab.now - begun).as_millis()));
    }
    assert_eq!(calls, [50, 150, 350, 750, 1550, 3150]);
    assert!(lab.device.repetitions.is_empty());
}

#[test]
fn ten_thousand_peers_without_a_session_are_never_looked_at() {
    let mut gateway = shard(Role::Gateway, 2, start());
    let mut out = Outbox::new();
    let mut config = gateway_config(&[]);
    config.peers = many_peers(10_000);
    gateway.apply(&replace(config, RULES), start(), &mut out);
    assert_eq!(gateway.poll_timeout(), None);
    assert!(out.is_empty());
}

#[test]
fn an_idle_tunnel_is_hardly_looked_at() {
    let mut lab = Lab::connected();
    let begun = lab.now;
    let mut looks = 0;
    let mut out = Outbox::new();
    while let Some(due) =
        lab.gateway.poll_timeout().filter(|due| *due < begun + Duration::from_secs(3600))
    {
        lab.gateway.handle_timeout(due, &mut out);
        looks += 1;
    }
    assert!(looks <= 3, "{looks} looks");
    assert!(out.is_empty());
}

#[test]
fn flows_are_swept_only_while_there_are_some() {
    let mut lab = Lab::connected();
    let mut out = Outbox::new();
    let due = |lab: &Lab| lab.gateway.poll_timeout().unwrap() - lab.now;
    lab.wait(1);
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert!(due(&lab) > Duration::from_secs(20));
    lab.device_sends(&packet(DEVICE, SERVER, &udp(5000, 53, 1)));
    lab.wait(1);
    lab.gateway.handle_timeout(lab.now, &mut out);
    assert_eq!(lab.gateway.filter.flows(), 1);
    lab.gateway.deadlines.clear();
    assert_eq!(lab.gateway.poll_timeout(), Some(lab.gateway.sweep_at));
    assert!(due(&lab) <= Duration::from_secs(16));
}

/// Peers of a gateway with keys that nobody holds.
fn many_peers(count: u32) -> Vec<partywall_proto::overlay::Peer> {
    let model = peer(&device_peer("desk", 1, 9, DESK_1));
    let numbered = |number: u32| {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let [.., high, low] = number.to_be_bytes();
        let mut peer = model.clone();
        peer.agent = format!("device/desk-{number}").parse().unwrap();
        peer.public_key = key.into();
        peer.allowed_ips = vec![format!("10.64.{high}.{low}").parse().unwrap()];
        peer
    };
    (0..count).map(numbered).collect()
}

#[test]
fn many_idle_tunnels_are_looked_at_in_few_wake_ups() {
    let mut gateway = shard(Role::Gateway, 2, start());
    let begun = start();
    let mut out = Outbox::new();
    let mut config = gateway_config(&[]);
    config.peers = many_peers(1000);
    gateway.apply(&replace(config, RULES), begun, &mut out);
    for number in 0..1000 {
        let now = begun + Duration::from_millis(number.into());
        let entry = gateway.peers.at_mut(number).unwrap();
        assert!(entry.tunnel.call(&gateway.identity, false, now, &mut [0; 148]).is_some());
        gateway.keep_time(number);
    }
    let mut wake_ups = 0;
    while let Some(due) = gateway.poll_timeout() {
        gateway.handle_timeout(due, &mut out);
        wake_ups += 1;
    }
    // Each is called 18 times and given up.
    assert!(wake_ups <= 18 * 5, "{wake_ups}");
}

/// What an end says of its own, and in which second, while nothing arrives there.
fn said(shard: &mut Shard, begun: Instant, until: Instant) -> Vec<(u64, usize)> {
    let mut said = Vec::new();
    while let Some(due) = shard.poll_timeout().filter(|due| *due < until) {
        let mut out = Outbox::new();
        shard.handle_timeout(due, &mut out);
        let second = (due - begun).as_secs();
        said.extend(out.datagrams().map(|datagram| (second, datagram.bytes.len())));
    }
    said
}
