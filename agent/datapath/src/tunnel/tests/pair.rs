//! Two tunnels of ours: what is let in, and what is refused.

use std::time::Duration;

use super::super::message::read_data;
use super::super::*;
use super::ends::*;
use crate::testing::start;

/// Caller and answerer, with keys agreed.
fn connected(now: Instant) -> (End, End) {
    let (mut caller, mut answerer) = apart(now);
    agree(&mut caller, &mut answerer, now);
    (caller, answerer)
}

fn apart(now: Instant) -> (End, End) {
    (End::new(1, 2, Some(9), now), End::new(2, 1, Some(9), now))
}

fn agree(caller: &mut End, answerer: &mut End, now: Instant) {
    let answer = answerer.answers(&caller.calls(now), now).unwrap();
    let confirmation = caller.hears(&answer, now).unwrap();
    assert_eq!(answerer.opens(&confirmation, now), Ok(Vec::new()));
}

#[test]
fn who_answers_seals_nothing_before_the_caller_did() {
    let now = start();
    let (mut caller, mut answerer) = apart(now);
    let answer = answerer.answers(&caller.calls(now), now).unwrap();
    assert!(answerer.seals(&inner(100), now).is_none());
    assert!(!answerer.tunnel.is_connected(now));
    let confirmation = caller.hears(&answer, now).unwrap();
    assert_eq!(confirmation.len(), OVERHEAD_BYTES);
    answerer.opens(&confirmation, now).unwrap();
    let sealed = answerer.seals(&inner(100), now).unwrap();
    assert_eq!(caller.opens(&sealed, now), Ok(inner(100)));
}

#[test]
fn a_call_that_is_repeated_by_somebody_is_refused_for_ever() {
    let now = start();
    let (mut caller, mut answerer) = apart(now);
    let old = caller.calls(now);
    agree(&mut caller, &mut answerer, now + Duration::from_secs(1));
    let year = now + Duration::from_secs(365 * 86_400);
    for at in [now + Duration::from_secs(2), year] {
        let (_, _) = answerer.ticks(at);
        assert_eq!(answerer.answers(&old, at), Err(TunnelError::Handshake));
    }
    assert!(answerer.answers(&caller.calls(year), year).is_ok());
}

#[test]
fn a_peer_that_calls_too_often_is_refused() {
    let now = start();
    let (mut caller, mut answerer) = apart(now);
    let answered = (0..100)
        .map(|ms| now + Duration::from_millis(10 * ms))
        .filter(|&at| answerer.answers(&caller.calls(at), at).is_ok());
    assert_eq!(answered.count(), 50);
}

#[test]
fn another_preshared_key_or_another_static_key_is_no_answer() {
    let now = start();
    let (mut caller, _) = apart(now);
    let call = caller.calls(now);
    let mut other = End::new(2, 1, Some(8), now);
    let answer = other.answers(&call, now).unwrap();
    assert_eq!(caller.hears(&answer, now), Err(TunnelError::Handshake));
    let mut strangers = End::new(2, 3, Some(9), now);
    assert_eq!(strangers.answers(&call, now), Err(TunnelError::Handshake));
    let mut elsewhere = End::new(4, 1, Some(9), now);
    assert_eq!(elsewhere.answers(&call, now), Err(TunnelError::Handshake));
    // The call is still good: the right one may answer yet.
    let mut right = End::new(2, 1, Some(9), now);
    assert!(caller.hears(&right.answers(&call, now).unwrap(), now).is_ok());
}

#[test]
fn a_handshake_message_with_any_bit_flipped_is_refused() {
    let now = start();
    let (mut caller, mut answerer) = apart(now);
    let call = caller.calls(now);
    // Past its sender index, and before its codes, which the gate looks at.
    for at in 8..116 {
        let mut forged = call.clone();
        forged[at] ^= 1 << (at % 8);
        assert_eq!(answerer.answers(&forged, now), Err(TunnelError::Handshake), "byte {at}");
    }
    let answer = answerer.answers(&call, now).unwrap();
    for at in 8..60 {
        let mut forged = answer.clone();
        forged[at] ^= 1 << (at % 8);
        assert_eq!(caller.hears(&forged, now), Err(TunnelError::Handshake), "byte {at}");
    }
    assert!(caller.hears(&answer, now).is_ok());
    assert_eq!(caller.hears(&answer, now), Err(TunnelError::Handshake), "it counts once");
}

#[test]
fn a_key_of_low_order_is_no_key() {
    let now = start();
    let zero = WireguardKey::from([0; 32]);
    let (mut caller, answerer) = apart(now);
    let mut tunnel = Tunnel::new(&zero, None, None, 7);
    let mut out = [0; HANDSHAKE_MAX_BYTES];
    assert_eq!(tunnel.call(&caller.identity, true, now, &mut out), None);
    // An ephemeral key that makes every shared secret zero.
    let mut call = caller.calls(now);
    call[8..40].fill(0);
    assert!(answerer.identity.caller(&call).is_none());
}

#[test]
fn a_batch_is_opened_in_one_go_whatever_is_wrong_with_some_of_it() {
    let now = start();
    let (mut caller, mut answerer) = connected(now);
    let mut datagrams: Vec<Vec<u8>> =
        (0..14).map(|at| caller.seals(&inner(100 + at), now).unwrap()).collect();
    // A second session in the same batch.
    let later = now + Duration::from_secs(120);
    agree(&mut caller, &mut answerer, later);
    datagrams.push(caller.seals(&inner(300), later).unwrap());
    datagrams.push(datagrams[3].clone());
    datagrams[5][20] ^= 1;
    datagrams[6][4] ^= 0x40;
    let mut batch: Vec<&mut [u8]> = datagrams.iter_mut().map(|bytes| &mut bytes[..]).collect();
    let opened = answerer.tunnel.open(&mut batch, later);
    for (at, result) in opened.into_iter().enumerate() {
        let expected = match at {
            5 => Err(TunnelError::Unauthentic),
            6 => Err(TunnelError::NoKeys),
            14 => Ok(300),
            15 => Err(TunnelError::Replayed),
            _ => Ok(100 + at),
        };
        assert_eq!(result, expected, "datagram {at}");
        if let Ok(bytes) = result {
            assert_eq!(datagrams[at][16..16 + bytes], inner(bytes));
        }
    }
    let late = answerer.tunnel.open(&mut [&mut datagrams[0].clone()], later);
    assert_eq!(late[..], [Err(TunnelError::Replayed)]);
}

#[test]
fn a_batch_is_sealed_with_counters_in_a_row() {
    let now = start();
    let (mut caller, mut answerer) = connected(now);
    let mut rooms = vec![[&[0; 16], &inner(64)[..], &[0; 16]].concat(); BATCH];
    let mut batch: Vec<&mut [u8]> = rooms.iter_mut().map(|room| &mut room[..]).collect();
    caller.tunnel.seal(&mut batch, now).unwrap();
    let counters: Vec<_> = rooms.iter().map(|room| read_data(room).unwrap().1).collect();
    assert_eq!(counters, (1..17).collect::<Vec<_>>(), "0 was the confirmation's");
    for room in rooms.iter().rev() {
        assert_eq!(answerer.opens(room, now), Ok(inner(64)));
    }
}

#[test]
fn what_is_on_its_way_while_keys_are_renewed_arrives() {
    let now = start();
    let (mut caller, mut answerer) = connected(now);
    let early = [caller.seals(&inner(50), now), answerer.seals(&inner(51), now)];
    let later = now + Duration::from_secs(121);
    let answer = answerer.answers(&caller.calls(later), later).unwrap();
    let between = answerer.seals(&inner(52), later).unwrap();
    let confirmation = caller.hears(&answer, later).unwrap();
    assert_eq!(caller.opens(&between, later), Ok(inner(52)));
    answerer.opens(&confirmation, later).unwrap();
    let [to_answerer, to_caller] = early.map(Option::unwrap);
    assert_eq!(answerer.opens(&to_answerer, later), Ok(inner(50)));
    assert_eq!(caller.opens(&to_caller, later), Ok(inner(51)));
    // Until the old keys' time is over.
    let late = caller.seals(&inner(53), later).unwrap();
    let end = now + Duration::from_secs(180);
    assert_eq!(answerer.opens(&between, end), Err(TunnelError::NoKeys));
    assert_eq!(answerer.opens(&late, end), Ok(inner(53)));
}

#[test]
fn a_call_that_is_repeated_too_soon_loses_nothing() {
    let now = start();
    let (mut caller, mut answerer) = apart(now);
    let later = now + Duration::from_millis(50);
    // Both are on their way when the first is answered.
    let calls = [caller.calls(now), caller.calls(later)];
    let [first, second] = calls.map(|call| {
        let at = if answerer.tunnel.live.is_none() { now } else { later };
        answerer.answers(&call, at).unwrap()
    });
    caller.hears(&first, later).unwrap();
    let sealed = caller.seals(&inner(100), later).unwrap();
    assert_eq!(answerer.opens(&sealed, later), Ok(inner(100)));
    assert!(answerer.tunnel.is_connected(later));
    let confirmation = caller.hears(&second, later).unwrap();
    answerer.opens(&confirmation, later).unwrap();
    let back = answerer.seals(&inner(101), later).unwrap();
    assert_eq!(caller.opens(&back, later), Ok(inner(101)));
}

#[test]
fn calls_that_cross_end_with_both_connected() {
    let now = start();
    let (mut one, mut other) = apart(now);
    let calls = [one.calls(now), other.calls(now)];
    let answers = [one.answers(&calls[1], now).unwrap(), other.answers(&calls[0], now).unwrap()];
    let confirmations =
        [one.hears(&answers[1], now).unwrap(), other.hears(&answers[0], now).unwrap()];
    one.opens(&confirmations[1], now).unwrap();
    other.opens(&confirmations[0], now).unwrap();
    for _ in 0..3 {
        let sealed = one.seals(&inner(100), now).unwrap();
        assert_eq!(other.opens(&sealed, now), Ok(inner(100)));
        let sealed = other.seals(&inner(100), now).unwrap();
        assert_eq!(one.opens(&sealed, now), Ok(inner(100)));
    }
}

#[test]
fn nothing_of_a_silent_tunnel_is_left_after_nine_minutes() {
    let now = start();
    let (mut caller, _) = connected(now);
    caller.calls(now + Duration::from_secs(100));
    assert_eq!(caller.places(), [true, false, false]);
    let mut given_up = Vec::new();
    while let Some(at) = caller.tunnel.next_tick() {
        if caller.ticks(at).0 == Due::GivenUp {
            given_up.push((at - now).as_secs());
        }
    }
    assert_eq!(given_up, [190, 540]);
    let live = caller.tunnel.live.as_ref().unwrap();
    assert_eq!(caller.places(), [false; 3]);
    assert!(live.calls.iter().all(Option::is_none));
}

#[test]
fn a_tunnel_is_next_to_nothing_before_the_first_call_and_allocates_for_no_packet() {
    let now = start();
    assert!(size_of::<Tunnel>() <= 128, "{}", size_of::<Tunnel>());
    const { assert!(Tunnel::CALLED_BYTES <= 12_000) };
    let (mut caller, mut answerer) = connected(now);
    let mut datagram = [&[0; 16], &inner(1408)[..], &[0; 16]].concat();
    let allocations = allocation_counter::measure(|| {
        for ms in 0..100 {
            let at = now + Duration::from_millis(ms);
            datagram[16..1424].copy_from_slice(&inner_of_1408());
            caller.tunnel.seal(&mut [&mut datagram], at).unwrap();
            let opened = answerer.tunnel.open(&mut [&mut datagram], at);
            assert_eq!(opened[..], [Ok(1408)]);
        }
    });
    assert_eq!(allocations.count_total, 0);
}

/// A packet's beginning, made without allocating.
fn inner_of_1408() -> [u8; 1408] {
    let mut packet = [0; 1408];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&1408_u16.to_be_bytes());
    packet
}
