//! Floods of handshakes: what they cost is bounded, and whoever is honest gets in meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::*;
use super::lab::*;
use crate::filter::DropReason;

/// A gateway that knows desk 1 and asks for cookies after so many handshakes a second.
fn guarded(handshakes_per_s: u64, handshakes_per_address_s: u32) -> Lab {
    let mut lab = Lab::apart();
    let mut settings = lab.gateway.settings.clone();
    settings.limits = Limits { handshakes_per_s, handshakes_per_address_s, ..settings.limits };
    lab.gateway = Shard::new(settings, lab.now);
    lab.at_gateway(&replace(gateway_config(&[device_peer("desk-1", 1, 9, DESK_1)]), RULES));
    lab
}

/// Somebody who has the gateway's public key and no session.
struct Stranger {
    shard: Shard,
    from: SocketAddr,
}

impl Stranger {
    fn new(lab: &Lab) -> Self {
        let mut shard = shard(Role::Device, 77, lab.now);
        let session = replace(device_config("council", "s9", 9), RULES);
        shard.apply(&session, lab.now, &mut Outbox::new());
        Self { shard, from: SocketAddr::from(([198, 51, 100, 1], 1)) }
    }

    /// A call that the gateway has to take keys to, to see that it is nobody's.
    fn call(&mut self, lab: &Lab) -> Vec<u8> {
        let Shard { peers, identity, .. } = &mut self.shard;
        let mut call = vec![0; 148];
        let tunnel = &mut peers.at_mut(0).unwrap().tunnel;
        assert_eq!(tunnel.call(identity, true, lab.now, &mut call), Some(148));
        call
    }

    /// Says it so many times from one address or from as many; the answers.
    fn floods(&self, lab: &mut Lab, bytes: &[u8], times: u16, spread: bool) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for time in 0..times {
            let mut from = self.from;
            if spread {
                let [high, low] = time.to_be_bytes();
                from.set_ip([203, 0, high, low].into());
            }
            let mut out = Outbox::new();
            lab.gateway.handle_datagram(from, bytes, lab.now, &mut out);
            answers.extend(out.datagrams().map(|answer| answer.bytes.to_vec()));
        }
        answers
    }
}

/// Signs in while somebody floods between any two of its calls; how many calls it took.
fn calls_until_connected(lab: &mut Lab, flood: impl Fn(&mut Lab)) -> usize {
    flood(lab);
    lab.at_device(&replace(device_config("council", "s1", 9), RULES));
    let until = lab.now + Duration::from_secs(4);
    while !lab.is_connected() && lab.now < until {
        flood(lab);
        lab.now = lab.device.poll_timeout().unwrap();
        lab.device_waits();
    }
    assert!(lab.is_connected());
    lab.wire.iter().filter(|(device, bytes)| *device && bytes.len() == 148).count()
}

#[test]
fn an_honest_peer_gets_in_while_calls_come_from_many_addresses() {
    let mut lab = guarded(10, 5);
    let mut stranger = Stranger::new(&lab);
    let call = stranger.call(&lab);
    let calls = calls_until_connected(&mut lab, |lab| {
        let answers = stranger.floods(lab, &call, 300, true);
        assert!(answers.iter().all(|answer| answer.len() == 64), "cookies are all that is said");
    });
    assert_eq!(calls, 2, "one that is asked for a cookie, and one with it");
    // What was looked into is what the limit lets through, for each second that this took.
    assert!(counted(&lab.gateway, DropReason::UnknownPeer) <= 3 * 10);
    assert!(counted(&lab.gateway, DropReason::UnderLoad) >= 570);
}

#[test]
fn an_honest_peer_gets_in_while_somebody_floods_who_answers_cookies() {
    let mut lab = guarded(10, 5);
    let mut stranger = Stranger::new(&lab);
    let call = stranger.call(&lab);
    let answers = stranger.floods(&mut lab, &call, 12, false);
    let cookie = answers.first().unwrap();
    stranger.shard.handle_datagram(
        SocketAddr::from(GATEWAY_AT),
        cookie,
        lab.now,
        &mut Outbox::new(),
    );
    let proved = stranger.call(&lab);
    let looked_into = counted(&lab.gateway, DropReason::UnknownPeer);
    let calls = calls_until_connected(&mut lab, |lab| {
        stranger.floods(lab, &call, 12, true);
        assert!(stranger.floods(lab, &proved, 300, false).is_empty());
    });
    assert_eq!(calls, 2);
    // The flood's first messages of each second need no cookie.
    let looked_into = counted(&lab.gateway, DropReason::UnknownPeer) - looked_into;
    assert!((5..=5 + 3 * 10).contains(&looked_into), "{looked_into}");
}

#[test]
fn garbage_is_told_by_its_code_and_no_key_is_taken_to_it() {
    let mut lab = guarded(10, 5);
    let mut stranger = Stranger::new(&lab);
    let mut call = stranger.call(&lab);
    call[60] ^= 1;
    assert!(stranger.floods(&mut lab, &call, 500, true).is_empty());
    assert_eq!(counted(&lab.gateway, DropReason::BadMac), 500);
    // And it uses up nothing: nobody is asked for a cookie for its sake.
    assert_eq!(calls_until_connected(&mut lab, |_| {}), 1);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the gate reads the clock itself")]
fn a_second_after_a_flood_nobody_is_asked_for_a_cookie() {
    let mut lab = guarded(10, 5);
    let mut stranger = Stranger::new(&lab);
    let call = stranger.call(&lab);
    assert!(!stranger.floods(&mut lab, &call, 20, true).is_empty());
    std::thread::sleep(Duration::from_millis(1050));
    lab.wait(1);
    assert!(stranger.floods(&mut lab, &call, 10, true).is_empty());
}
