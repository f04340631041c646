//! What there is of a tunnel from its first call on: what is done at each message, step by step.
//!
//! Nothing changes before a message was found authentic, but for a call's own bookkeeping.

use std::time::{Duration, Instant};

use partywall_aead::{BATCH, Piece};
use partywall_proto::keys::PresharedKey;
use x25519_dalek::{PublicKey, SharedSecret};

use super::TunnelError;
use super::handshake::{Call, Caller, Parties, answered_call};
use super::identity::Identity;
use super::macs::Macs;
use super::message::{HEADER_BYTES, RESPONSE_BYTES, read_data, receiver_index};
use super::session::{Session, no_pieces};
use super::sessions::{Place, Sessions};
use super::stamp::Stamp;
use super::timers::Timers;

/// A peer's calls are taken no faster: each costs three X25519 operations (Linux:
/// `INITIATIONS_PER_SECOND`).
const CALLS_APART: Duration = Duration::from_millis(20);

/// What a tunnel is made from.
pub(super) struct Origin {
    pub(super) peer: PublicKey,
    pub(super) preshared: Option<PresharedKey>,
    pub(super) keepalive_s: Option<u16>,
    pub(super) index: u32,
}

/// What there is of a tunnel from the first call on.
pub(super) struct Live {
    /// Of both static keys: the same in every handshake.
    shared: SharedSecret,
    pub(super) sessions: Sessions,
    /// The last call and the one before it: its answer may still be on its way when the last is made.
    pub(super) calls: [Option<Box<Call>>; 2],
    pub(super) macs: Macs,
    pub(super) timers: Timers,
    /// Of the last call of this end.
    called: Option<Stamp>,
    /// Of the last call that the peer made. It outlives all keys, for old calls can be repeated for ever.
    heard: Option<(Stamp, Instant)>,
    /// Of the last session.
    number: u8,
}

impl Live {
    pub(super) fn new(shared: SharedSecret, keepalive_s: Option<u16>) -> Self {
        Self {
            shared,
            sessions: Sessions::default(),
            calls: [None, None],
            macs: Macs::default(),
            timers: Timers::new(keepalive_s),
            called: None,
            heard: None,
            number: 0,
        }
    }

    pub(super) fn is_connected(&self, now: Instant) -> bool {
        self.sessions.at(Place::Current).is_some_and(|session| session.can_seal(now))
    }

    pub(super) fn call(
        &mut self,
        origin: &Origin,
        identity: &Identity,
        now: Instant,
        out: &mut [u8],
    ) -> Option<usize> {
        let message = out.first_chunk_mut()?;
        let stamp = Stamp::after(self.called, identity.clock.at(now));
        let local = self.fresh_index(origin.index);
        let call = Call::place(&origin.parties(identity, &self.shared), stamp, local, message)?;
        self.macs.write(&origin.peer, message, now);
        self.called = Some(stamp);
        let [last, before] = &mut self.calls;
        *before = last.replace(Box::new(call));
        self.timers.called(now);
        Some(message.len())
    }

    pub(super) fn answer(
        &mut self,
        origin: &Origin,
        identity: &Identity,
        caller: Caller,
        now: Instant,
        out: &mut [u8],
    ) -> Option<usize> {
        let message: &mut [u8; RESPONSE_BYTES] = out.first_chunk_mut()?;
        let local = self.fresh_index(origin.index);
        let parties = origin.parties(identity, &self.shared);
        let proven = caller.prove(&parties)?;
        let stamp = proven.stamp();
        if self.heard.is_some_and(|(last, at)| stamp <= last || now < at + CALLS_APART) {
            return None;
        }
        let agreed = proven.answer(&parties, local, message)?;
        self.heard = Some((stamp, now));
        self.macs.write(&origin.peer, message, now);
        self.sessions.answered(Session::new(&agreed, false, now));
        self.timers.answered(now);
        Some(message.len())
    }

    pub(super) fn was_answered(
        &mut self,
        origin: &Origin,
        identity: &Identity,
        response: &[u8],
        now: Instant,
    ) -> Option<()> {
        let response: &[u8; RESPONSE_BYTES] = response.try_into().ok()?;
        let local = answered_call(response)?;
        let is_it = |call: &Option<Box<Call>>| call.as_ref().is_some_and(|it| it.local() == local);
        let at = self.calls.iter().position(is_it)?;
        let call = self.calls[at].as_ref()?;
        let agreed = call.answered(&origin.parties(identity, &self.shared), response)?;
        // An answer to the call before is no news once the last was answered.
        self.calls[at..].fill_with(|| None);
        self.sessions.was_answered(Session::new(&agreed, true, now));
        self.timers.was_answered(at == 0, now);
        Some(())
    }

    /// The session of a data message, if it may be opened.
    pub(super) fn find(&self, datagram: &[u8], now: Instant) -> Result<(Place, u64), TunnelError> {
        let (local, counter) = read_data(datagram).ok_or(TunnelError::NoKeys)?;
        let place = self.sessions.place_of(local).ok_or(TunnelError::NoKeys)?;
        let session = self.sessions.at(place).ok_or(TunnelError::NoKeys)?;
        if !session.can_open(now) {
            return Err(TunnelError::NoKeys);
        }
        if session.is_new(counter) { Ok((place, counter)) } else { Err(TunnelError::Replayed) }
    }

    /// Opens those of the datagrams that were found to be of the session at `place`.
    pub(super) fn open(
        &mut self,
        place: Place,
        found: &[Option<(Place, u64)>; BATCH],
        datagrams: &mut [&mut [u8]],
        now: Instant,
        results: &mut [Result<usize, TunnelError>; BATCH],
    ) {
        let mut pieces = no_pieces();
        let mut of = [(0, 0); BATCH];
        let mut count = 0;
        for (at, (datagram, found)) in datagrams.iter_mut().zip(found).enumerate() {
            if let &Some((held, counter)) = found
                && held == place
            {
                pieces[count] = Piece { counter, bytes: &mut datagram[HEADER_BYTES..] };
                of[count] = (at, counter);
                count += 1;
            }
        }
        let Some(session) = self.sessions.at_mut(place).filter(|_| count > 0) else { return };
        let authentic = session.opening().open(&mut pieces[..count]);
        let mut heard = false;
        for (piece, &(at, counter)) in of[..count].iter().enumerate() {
            results[at] = if !authentic.is(piece) {
                Err(TunnelError::Unauthentic)
            } else if !session.mark(counter) {
                // Twice in this batch, or beyond the last counter that there is.
                Err(TunnelError::Replayed)
            } else {
                heard = true;
                inner_bytes(datagrams[at])
            };
        }
        if !heard {
            return;
        }
        let old = session.is_old_for_receiving(now);
        let data = |&&(at, _): &&(usize, u64)| results[at].is_ok_and(|bytes| bytes > 0);
        if of[..count].iter().find(data).is_some() {
            self.timers.received_data(now);
        } else {
            self.timers.received(now);
        }
        if old {
            self.timers.want_renewal(now);
        }
        if self.sessions.confirm(place) {
            self.calls = [None, None];
            self.timers.confirmed();
        }
    }

    /// A receiver index that nothing has which may still be answered.
    fn fresh_index(&mut self, tunnel: u32) -> u32 {
        loop {
            self.number = self.number.wrapping_add(1);
            let local = receiver_index(tunnel, self.number);
            let called = self.calls.iter().flatten().any(|call| call.local() == local);
            if !called && self.sessions.place_of(local).is_none() {
                return local;
            }
        }
    }
}

impl Origin {
    fn parties<'a>(&'a self, identity: &'a Identity, shared: &'a SharedSecret) -> Parties<'a> {
        let Self { peer, preshared, .. } = self;
        Parties { own: &identity.keys, peer, shared, preshared: preshared.as_ref() }
    }
}

/// The bytes of the packet in a message that was opened, as its IP header has them (RFC 791 §3.1, RFC 8200
/// §3): what is behind it is padding. 0 if there is none.
pub(super) fn inner_bytes(datagram: &[u8]) -> Result<usize, TunnelError> {
    let packet = datagram.get(HEADER_BYTES..datagram.len() - partywall_aead::TAG_BYTES);
    let packet = packet.ok_or(TunnelError::NotIp)?;
    let [first, ..] = packet else { return Ok(0) };
    let length =
        |at: usize| Some(usize::from(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?)));
    let (bytes, least) = match first >> 4 {
        4 => (length(2), 20),
        6 => (length(4).map(|payload| payload + 40), 40),
        _ => (None, 0),
    };
    bytes.filter(|bytes| (least..=packet.len()).contains(bytes)).ok_or(TunnelError::NotIp)
}
