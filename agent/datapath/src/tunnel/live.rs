//! What there is of a tunnel from its first call on: what is done at each message, step by step.
//!
//! Nothing changes before a message was found authentic, but for a call's own bookkeeping.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use partywall_aead::{BATCH, Piece, TAG_BYTES};
use partywall_proto::keys::PresharedKey;
use x25519_dalek::{PublicKey, SharedSecret};

use super::handshake::{Call, Caller, Parties, answered_call};
use super::identity::Identity;
use super::macs::Macs;
use super::message::{HEADER_BYTES, RESPONSE_BYTES, read_data, receiver_index};
use super::session::Session;
use super::sessions::{Place, Sessions};
use super::stamp::Stamp;
use super::timers::Timers;
use super::{Opened, TunnelError};

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
    fn find(&self, datagram: &[u8], now: Instant) -> Result<(Place, u64), TunnelError> {
        let (local, counter) = read_data(datagram).ok_or(TunnelError::NoKeys)?;
        let place = self.sessions.place_of(local).ok_or(TunnelError::NoKeys)?;
        let session = self.sessions.at(place).ok_or(TunnelError::NoKeys)?;
        if !session.can_open(now) {
            return Err(TunnelError::NoKeys);
        }
        if session.is_new(counter) { Ok((place, counter)) } else { Err(TunnelError::Replayed) }
    }

    /// Opens data messages in place, and says of each what came of it.
    pub(super) fn open(&mut self, mut datagrams: &mut [&mut [u8]], now: Instant) -> Opened {
        let mut opened = Opened::new();
        while let [first, ..] = &*datagrams {
            let count = match self.find(first, now) {
                Ok((place, counter)) => self.open_run(place, counter, datagrams, now, &mut opened),
                Err(error) => {
                    opened.push(Err(error));
                    1
                }
            };
            datagrams = &mut datagrams[count..];
        }
        opened
    }

    /// Opens the first message, which has this counter, and those behind it that are of the same session;
    /// how many they are.
    fn open_run(
        &mut self,
        place: Place,
        mut counter: u64,
        datagrams: &mut [&mut [u8]],
        now: Instant,
        opened: &mut Opened,
    ) -> usize {
        let mut pieces = ArrayVec::<_, BATCH>::new();
        for datagram in datagrams {
            if !pieces.is_empty() {
                match self.find(datagram, now) {
                    Ok((held, its)) if held == place => counter = its,
                    Ok(_) | Err(_) => break,
                }
            }
            pieces.push(Piece { counter, bytes: &mut datagram[HEADER_BYTES..] });
        }
        let count = pieces.len();
        let Some(session) = self.sessions.at_mut(place) else {
            opened.extend(pieces.iter().map(|_| Err(TunnelError::NoKeys)));
            return count;
        };
        let authentic = session.opening().open(&mut pieces);
        let (mut heard, mut brought) = (false, false);
        for (at, piece) in pieces.iter().enumerate() {
            opened.push(if !authentic.is(at) {
                Err(TunnelError::Unauthentic)
            } else if !session.mark(piece.counter) {
                // Twice in this batch, or beyond the last counter that there is.
                Err(TunnelError::Replayed)
            } else {
                let bytes = inner_bytes(piece.bytes);
                heard = true;
                brought |= bytes.is_ok_and(|bytes| bytes > 0);
                bytes
            });
        }
        if !heard {
            return count;
        }
        let old = session.is_old_for_receiving(now);
        if brought {
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
        count
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

/// The bytes of the packet in what was opened, its tag included, as the packet's IP header has them (RFC 791 §3.1, RFC 8200
/// §3): what is behind it is padding. 0 if there is none.
pub(super) fn inner_bytes(opened: &[u8]) -> Result<usize, TunnelError> {
    let (packet, _tag) = opened.split_last_chunk::<TAG_BYTES>().ok_or(TunnelError::NotIp)?;
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
