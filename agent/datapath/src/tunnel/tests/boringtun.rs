//! boringtun's tunnel at the other end, in both roles.
//!
//! Its clock is the machine's own and stands as good as still here; ours goes as fast as a test likes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use x25519_dalek::StaticSecret;

use super::super::*;
use super::ends::*;
use crate::settings::{Limits, PrivateKey, Role};
use crate::testing::{start, wall_clock};

const OURS: u8 = 1;
const THEIRS: u8 = 2;

/// boringtun's end, with the gate that it has: after so many calls a second it asks for cookies.
fn theirs(preshared: Option<u8>, calls_per_s: u64) -> Tunn {
    let gate = Arc::new(RateLimiter::new(&public(THEIRS), calls_per_s));
    let secret = StaticSecret::from([THEIRS; 32]);
    let preshared = preshared.map(|byte| [byte; 32]);
    Tunn::new(secret, public(OURS), preshared, None, 7, Some(gate))
}

fn both(preshared: Option<u8>, now: Instant) -> (End, Tunn) {
    (End::new(OURS, THEIRS, preshared, now), theirs(preshared, 1000))
}

/// What boringtun makes of a datagram.
#[derive(Debug, PartialEq)]
enum Heard {
    Nothing,
    Says(Vec<u8>),
    Packet(Vec<u8>),
    Error,
}

fn heard(result: TunnResult<'_>) -> Heard {
    match result {
        TunnResult::Done => Heard::Nothing,
        TunnResult::Err(_) => Heard::Error,
        TunnResult::WriteToNetwork(bytes) => Heard::Says(bytes.to_vec()),
        TunnResult::WriteToTunnelV4(bytes, _) | TunnResult::WriteToTunnelV6(bytes, _) => {
            Heard::Packet(bytes.to_vec())
        }
    }
}

fn hears(theirs: &mut Tunn, datagram: &[u8]) -> Heard {
    let from = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    heard(theirs.decapsulate(Some(from), datagram, &mut [0; 2000]))
}

fn says(theirs: &mut Tunn, datagram: &[u8]) -> Vec<u8> {
    match hears(theirs, datagram) {
        Heard::Says(bytes) => bytes,
        other @ (Heard::Nothing | Heard::Packet(_) | Heard::Error) => panic!("{other:?}"),
    }
}

fn seals(theirs: &mut Tunn, packet: &[u8]) -> Vec<u8> {
    match heard(theirs.encapsulate(packet, &mut [0; 2000])) {
        Heard::Says(bytes) => bytes,
        other @ (Heard::Nothing | Heard::Packet(_) | Heard::Error) => panic!("{other:?}"),
    }
}

fn calls(theirs: &mut Tunn) -> Vec<u8> {
    match heard(theirs.format_handshake_initiation(&mut [0; 148], true)) {
        Heard::Says(bytes) => bytes,
        other @ (Heard::Nothing | Heard::Packet(_) | Heard::Error) => panic!("{other:?}"),
    }
}

/// We call, it answers, we confirm.
fn we_call(ours: &mut End, theirs: &mut Tunn, now: Instant) {
    let answer = says(theirs, &ours.calls(now));
    let confirmation = ours.hears(&answer, now).unwrap();
    assert_eq!(hears(theirs, &confirmation), Heard::Nothing);
}

/// It calls, we answer, it confirms.
fn it_calls(ours: &mut End, theirs: &mut Tunn, now: Instant) {
    let answer = ours.answers(&calls(theirs), now).unwrap();
    let confirmation = says(theirs, &answer);
    assert_eq!(ours.opens(&confirmation, now), Ok(Vec::new()));
}

fn talk(ours: &mut End, theirs: &mut Tunn, now: Instant) {
    for bytes in [28, 29, 64, 1420] {
        let sealed = ours.seals(&inner(bytes), now).unwrap();
        assert_eq!(hears(theirs, &sealed), Heard::Packet(inner(bytes)));
        let sealed = seals(theirs, &inner(bytes));
        assert_eq!(ours.opens(&sealed, now), Ok(inner(bytes)));
    }
    let keepalive = ours.seals(&[], now).unwrap();
    assert_eq!(hears(theirs, &keepalive), Heard::Nothing);
}

#[test]
fn it_talks_to_boringtun_in_both_roles_with_a_preshared_key_and_without() {
    for preshared in [None, Some(9)] {
        for handshake in [we_call, it_calls] {
            let now = start();
            let (mut ours, mut theirs) = both(preshared, now);
            handshake(&mut ours, &mut theirs, now);
            talk(&mut ours, &mut theirs, now);
        }
    }
}

#[test]
fn keys_are_renewed_with_boringtun_from_both_sides() {
    let begun = start();
    let (mut ours, mut theirs) = both(Some(9), begun);
    for (round, handshake) in [we_call, it_calls, it_calls, we_call, we_call].iter().enumerate() {
        let now = begun + Duration::from_secs(120) * round as u32;
        handshake(&mut ours, &mut theirs, now);
        talk(&mut ours, &mut theirs, now);
        talk(&mut ours, &mut theirs, now + Duration::from_secs(119));
    }
}

#[test]
fn timers_renew_keys_with_boringtun_when_something_is_sent() {
    let begun = start();
    let (mut ours, mut theirs) = both(None, begun);
    we_call(&mut ours, &mut theirs, begun);
    let now = begun + Duration::from_secs(120);
    hears(&mut theirs, &ours.seals(&inner(100), now).unwrap());
    assert_eq!(ours.tunnel.sooner(), Some(now));
    let (due, call) = ours.ticks(now);
    assert_eq!(due, Due::Call(148));
    ours.hears(&says(&mut theirs, &call), now).unwrap();
    talk(&mut ours, &mut theirs, begun + Duration::from_secs(290));
}

#[test]
fn another_preshared_key_is_found_out_by_either_side() {
    let now = start();
    let mut ours = End::new(OURS, THEIRS, Some(8), now);
    let mut theirs = theirs(Some(9), 1000);
    let answer = says(&mut theirs, &ours.calls(now));
    assert_eq!(ours.hears(&answer, now), Err(TunnelError::Handshake));
    let answer = ours.answers(&calls(&mut theirs), now).unwrap();
    assert_eq!(hears(&mut theirs, &answer), Heard::Error);
}

#[test]
fn a_cookie_of_boringtun_is_taken_and_lets_the_next_call_in() {
    let now = start();
    let mut ours = End::new(OURS, THEIRS, None, now);
    let mut theirs = theirs(None, 0);
    let cookie = says(&mut theirs, &ours.calls(now));
    assert_eq!(Message::read(&cookie), Some(Message::CookieReply(u32::from(OURS))));
    // One for another message is not ours, and a forged one is none.
    let mut forged = cookie.clone();
    forged[40] ^= 1;
    assert_eq!(ours.tunnel.take_cookie(&forged, now), Err(TunnelError::Handshake));
    assert_eq!(ours.tunnel.take_cookie(&cookie, now), Ok(()));
    assert_eq!(ours.tunnel.take_cookie(&cookie, now), Err(TunnelError::Handshake));
    let answer = says(&mut theirs, &ours.calls(now));
    assert_eq!(answer.len(), 92);
    // After two minutes it is forgotten, and another one is asked for.
    let later = now + Duration::from_secs(120);
    assert_eq!(says(&mut theirs, &ours.calls(later)).len(), 64);
}

#[test]
fn a_cookie_of_ours_is_taken_by_boringtun() {
    let now = start();
    let (mut ours, mut theirs) = both(None, now);
    let limits = Limits { handshakes_per_s: 0, ..Limits::for_role(Role::Gateway) };
    let key = PrivateKey::from([OURS; 32]);
    ours.identity = Identity::new(&key, wall_clock(now), &limits, now);
    let from = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    let mut reply = [0; HANDSHAKE_MAX_BYTES];
    let call = calls(&mut theirs);
    let refused = ours.identity.admit(from, &call, &mut reply, now);
    assert_eq!(refused, Err(Refusal::UnderLoad(64)));
    assert_eq!(hears(&mut theirs, &reply[..64]), Heard::Nothing);
    let call = calls(&mut theirs);
    assert_eq!(ours.identity.admit(from, &call, &mut reply, now), Ok(()));
    assert!(ours.answers(&call, now).is_ok());
}

#[test]
fn what_boringtun_sealed_is_opened_in_any_order_and_once() {
    let now = start();
    let (mut ours, mut theirs) = both(None, now);
    it_calls(&mut ours, &mut theirs, now);
    let sealed: Vec<_> = (0..100).map(|at| seals(&mut theirs, &inner(100 + at))).collect();
    for (at, datagram) in sealed.iter().enumerate().rev() {
        assert_eq!(ours.opens(datagram, now), Ok(inner(100 + at)));
    }
    for datagram in &sealed {
        assert_eq!(ours.opens(datagram, now), Err(TunnelError::Replayed));
    }
    let mut forged = seals(&mut theirs, &inner(100));
    forged[30] ^= 1;
    assert_eq!(ours.opens(&forged, now), Err(TunnelError::Unauthentic));
    forged[30] ^= 1;
    assert_eq!(ours.opens(&forged, now), Ok(inner(100)), "a forged one uses up nothing");
}

#[test]
fn a_call_of_boringtun_that_is_repeated_is_refused() {
    let now = start();
    let (mut ours, mut theirs) = both(None, now);
    let call = calls(&mut theirs);
    assert!(ours.answers(&call, now).is_ok());
    let later = now + Duration::from_secs(1);
    assert_eq!(ours.answers(&call, later), Err(TunnelError::Handshake));
    assert!(ours.answers(&calls(&mut theirs), later).is_ok());
}
