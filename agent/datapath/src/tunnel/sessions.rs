//! A tunnel's pairs of keys, of which one is sealed with: how one follows the other.
//!
//! Whoever answered a call must not seal with the new keys before the caller did: it cannot know that
//! its answer came through (WireGuard paper §5.4.5, §6.2). One thing is other than in Linux, where a second
//! call makes an end of the keys that the first one's answer brought: they are kept one round longer. A
//! new device calls several times within a second, and begins to talk when the first answer comes.

use std::time::Instant;

use super::session::Session;

/// Where a session stands. They are boxed: most tunnels of a gateway have one at most.
#[derive(Default)]
pub(super) struct Sessions {
    slots: [Option<Box<Session>>; Place::ALL.len()],
}

/// What a session is to its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Sealed with.
    Current,
    /// Opened with only, for what is still on its way.
    Previous,
    /// Not sealed with before the peer did.
    Next,
}

impl Place {
    pub(super) const ALL: [Self; 3] = [Self::Current, Self::Previous, Self::Next];
}

impl Sessions {
    /// The session at this place.
    pub(super) fn at(&self, place: Place) -> Option<&Session> {
        self.slots[place as usize].as_deref()
    }

    /// The session at this place, for use.
    pub(super) fn at_mut(&mut self, place: Place) -> Option<&mut Session> {
        self.slots[place as usize].as_deref_mut()
    }

    /// The place of the session with this receiver index.
    pub(super) fn place_of(&self, local: u32) -> Option<Place> {
        let has = |place: &Place| self.at(*place).is_some_and(|held| held.local() == local);
        Place::ALL.into_iter().find(has)
    }

    /// The peer has answered: its keys are good for both directions.
    pub(super) fn was_answered(&mut self, session: Session) {
        let next = self.slots[Place::Next as usize].take();
        let current = self.slots[Place::Current as usize].replace(Box::new(session));
        // What answers a call that crossed this one may still come.
        self.slots[Place::Previous as usize] = next.or(current);
    }

    /// The peer was answered: its keys are good for sealing once it has sealed with them.
    pub(super) fn answered(&mut self, session: Session) {
        let next = self.slots[Place::Next as usize].replace(Box::new(session));
        if next.is_some() {
            self.slots[Place::Previous as usize] = next;
        }
    }

    /// The peer has sealed with the session at this place; true if that made another one current.
    pub(super) fn confirm(&mut self, place: Place) -> bool {
        match place {
            Place::Current => return false,
            Place::Previous => {
                if self.at(Place::Current).is_some() {
                    return false;
                }
                self.slots[Place::Current as usize] = self.slots[place as usize].take();
            }
            Place::Next => {
                let next = self.slots[place as usize].take();
                let current = std::mem::replace(&mut self.slots[Place::Current as usize], next);
                self.slots[Place::Previous as usize] = current;
            }
        }
        true
    }

    /// Lets go of those whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        for slot in &mut self.slots {
            slot.take_if(|session| now >= session.ends_at());
        }
    }

    /// When the first one's time is over.
    pub(super) fn first_end(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|session| session.ends_at()).min()
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::handshake::Agreed;
    use super::*;
    use crate::testing::start;
    use zeroize::Zeroizing;

    fn session(local: u32) -> Session {
        let key = || Zeroizing::new([7; 32]);
        let agreed = Agreed { local, remote: 0, seals_with: key(), opens_with: key() };
        Session::new(&agreed, true, start())
    }

    /// The receiver indices of current, previous and next.
    fn held(sessions: &Sessions) -> [Option<u32>; 3] {
        Place::ALL.map(|place| sessions.at(place).map(Session::local))
    }

    #[test]
    fn who_answers_seals_with_new_keys_once_the_peer_did() {
        let mut sessions = Sessions::default();
        sessions.answered(session(1));
        assert_eq!(held(&sessions), [None, None, Some(1)]);
        assert!(sessions.confirm(Place::Next));
        sessions.answered(session(2));
        assert_eq!(held(&sessions), [Some(1), None, Some(2)]);
        assert!(!sessions.confirm(Place::Current));
        assert!(sessions.confirm(Place::Next));
        assert_eq!(held(&sessions), [Some(2), Some(1), None]);
        assert!(!sessions.confirm(Place::Previous), "what was still on its way changes nothing");
    }

    #[test]
    fn who_called_seals_with_new_keys_at_once() {
        let mut sessions = Sessions::default();
        sessions.was_answered(session(1));
        sessions.was_answered(session(2));
        assert_eq!(held(&sessions), [Some(2), Some(1), None]);
    }

    #[test]
    fn keys_of_a_repeated_call_do_not_end_those_of_the_call_before() {
        let mut sessions = Sessions::default();
        sessions.answered(session(1));
        sessions.answered(session(2));
        assert_eq!(held(&sessions), [None, Some(1), Some(2)]);
        // The caller talks as soon as the first answer is there.
        assert!(sessions.confirm(Place::Previous));
        assert_eq!(held(&sessions), [Some(1), None, Some(2)]);
        assert!(sessions.confirm(Place::Next));
        assert_eq!(held(&sessions), [Some(2), Some(1), None]);
    }

    #[test]
    fn calls_that_cross_leave_both_ends_with_both_pairs_of_keys() {
        let mut sessions = Sessions::default();
        sessions.answered(session(1));
        sessions.was_answered(session(2));
        assert_eq!(held(&sessions), [Some(2), Some(1), None]);
    }

    #[test]
    fn sessions_go_when_their_time_is_over() {
        let mut sessions = Sessions::default();
        sessions.was_answered(session(1));
        let end = sessions.first_end().unwrap();
        sessions.expire(end - Duration::from_millis(1));
        assert_eq!(held(&sessions), [Some(1), None, None]);
        sessions.expire(end);
        assert_eq!((held(&sessions), sessions.first_end()), ([None; 3], None));
    }
}
