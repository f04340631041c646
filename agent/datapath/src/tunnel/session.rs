//! One pair of keys that were agreed, and how long it is good for (WireGuard paper §6).
//!
//! A counter is never used twice: it is taken before anything is sealed with it.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use partywall_aead::{BATCH, Key, Piece};

use super::handshake::Agreed;
use super::message::{HEADER_BYTES, write_data};
use super::replay::Window;
use super::timers::{KEEPALIVE_TIMEOUT, REKEY_TIMEOUT};

// WireGuard paper §6.1.
const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// One pair of keys.
pub(super) struct Session {
    local: u32,
    remote: u32,
    sealing: Key,
    opening: Key,
    /// Messages that were sealed, which is the next one's counter.
    sealed: u64,
    window: Window,
    agreed_at: Instant,
    /// Whether this end called; it is the caller who renews.
    called: bool,
}

impl Session {
    pub(super) fn new(agreed: &Agreed, called: bool, now: Instant) -> Self {
        Self {
            local: agreed.local,
            remote: agreed.remote,
            sealing: Key::new(&agreed.seals_with),
            opening: Key::new(&agreed.opens_with),
            sealed: 0,
            window: Window::default(),
            agreed_at: now,
            called,
        }
    }

    /// The receiver index of what this end gets.
    pub(super) fn local(&self) -> u32 {
        self.local
    }

    pub(super) fn agreed_at(&self) -> Instant {
        self.agreed_at
    }

    /// When its time is over.
    pub(super) fn ends_at(&self) -> Instant {
        self.agreed_at + REJECT_AFTER_TIME
    }

    /// Whether it can seal one more message.
    pub(super) fn can_seal(&self, now: Instant) -> bool {
        now < self.ends_at() && self.sealed < REJECT_AFTER_MESSAGES
    }

    /// Whether it is time for other keys, now that something is sent.
    pub(super) fn is_old_for_sending(&self, now: Instant) -> bool {
        self.sealed > REKEY_AFTER_MESSAGES
            || self.called && now >= self.agreed_at + REKEY_AFTER_TIME
    }

    /// Whether it is time for other keys, now that something was received: the last moment at which a
    /// keepalive and a call still come before the end.
    pub(super) fn is_old_for_receiving(&self, now: Instant) -> bool {
        let late = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT;
        self.called && now >= self.agreed_at + late
    }

    /// Seals data messages: of each the header is written before the packet, and the tag behind it.
    /// None, and nothing sealed, if it cannot seal as many.
    pub(super) fn seal(&mut self, datagrams: &mut [&mut [u8]], now: Instant) -> Option<()> {
        let first = self.sealed;
        let after = first.checked_add(datagrams.len() as u64)?;
        if now >= self.ends_at() || after > REJECT_AFTER_MESSAGES {
            return None;
        }
        self.sealed = after;
        let mut pieces = ArrayVec::<_, BATCH>::new();
        for (counter, datagram) in (first..).zip(datagrams) {
            write_data(datagram, self.remote, counter);
            pieces.push(Piece { counter, bytes: &mut datagram[HEADER_BYTES..] });
        }
        self.sealing.seal(&mut pieces);
        Some(())
    }

    /// Whether it can open messages.
    pub(super) fn can_open(&self, now: Instant) -> bool {
        now < self.ends_at()
    }

    /// Whether it has not opened a message with this counter, as far as can be told.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        self.window.is_new(counter)
    }

    /// Marks a message that was opened; false if it was opened before, or has a counter that nobody may
    /// use.
    pub(super) fn mark(&mut self, counter: u64) -> bool {
        counter < REJECT_AFTER_MESSAGES && self.window.mark(counter)
    }

    /// What messages to this end are sealed with.
    pub(super) fn opening(&self) -> &Key {
        &self.opening
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;
    use zeroize::Zeroizing;

    fn session(called: bool) -> Session {
        let key = || Zeroizing::new([7; 32]);
        let agreed = Agreed { local: 1, remote: 2, seals_with: key(), opens_with: key() };
        Session::new(&agreed, called, start())
    }

    fn seals(session: &mut Session, count: usize, now: Instant) -> bool {
        let mut rooms = vec![[0; 32]; count];
        let mut datagrams: Vec<&mut [u8]> = rooms.iter_mut().map(|room| &mut room[..]).collect();
        session.seal(&mut datagrams, now).is_some()
    }

    #[test]
    fn a_session_seals_until_its_messages_are_used_up() {
        let mut session = session(true);
        let now = session.agreed_at();
        session.sealed = REKEY_AFTER_MESSAGES;
        assert!(!session.is_old_for_sending(now));
        assert!(seals(&mut session, 1, now));
        assert!(session.is_old_for_sending(now));
        session.sealed = REJECT_AFTER_MESSAGES - 3;
        assert!(!seals(&mut session, 4, now), "a batch is sealed as a whole or not at all");
        assert!(seals(&mut session, 3, now));
        assert!(!session.can_seal(now) && !seals(&mut session, 1, now));
        assert!(!session.mark(REJECT_AFTER_MESSAGES) && session.mark(0));
        assert!(session.mark(REJECT_AFTER_MESSAGES - 1));
    }

    #[test]
    fn a_session_ends_after_three_minutes_for_both_directions() {
        let mut session = session(false);
        let last = session.agreed_at() + Duration::from_millis(179_999);
        assert!(seals(&mut session, 1, last) && session.can_open(last));
        let end = session.ends_at();
        assert!(!session.can_seal(end) && !seals(&mut session, 1, end) && !session.can_open(end));
    }

    #[test]
    fn only_who_called_finds_keys_old_by_time() {
        for called in [true, false] {
            let session = session(called);
            let at = |seconds| session.agreed_at() + Duration::from_secs(seconds);
            assert!(!session.is_old_for_sending(at(119)));
            assert_eq!(session.is_old_for_sending(at(120)), called);
            assert!(!session.is_old_for_receiving(at(164)));
            assert_eq!(session.is_old_for_receiving(at(165)), called);
        }
    }
}
