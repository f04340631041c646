//! The session that a person signed out of here while the controller may not know it yet.
//!
//! It is on disk so that an agent that restarts before the controller is back does not bring the
//! session to life again.

use partywall_proto::ids::SessionId;

use super::{StateDir, StateError};

const FILE: &str = "signed_out.json";

/// A session that must not come back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedOut(Option<SessionId>);

impl SignedOut {
    /// What was recorded.
    ///
    /// # Errors
    /// What the file system says, or a damaged file.
    pub fn read(state: &StateDir) -> Result<Self, StateError> {
        Ok(Self(state.read_json(FILE)?))
    }

    /// Records that `session` is over, durably.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set(&mut self, state: &StateDir, session: SessionId) -> Result<(), StateError> {
        state.write_json(FILE, &session)?;
        self.0 = Some(session);
        Ok(())
    }

    /// The controller has confirmed it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn clear(&mut self, state: &StateDir) -> Result<(), StateError> {
        self.0 = None;
        state.remove(FILE)
    }

    /// The session that is over, where the controller has not confirmed it.
    pub fn session(&self) -> Option<&SessionId> {
        self.0.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_out_outlives_the_agent() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        let session: SessionId = "s1".parse().unwrap();
        SignedOut::read(&state).unwrap().set(&state, session.clone()).unwrap();
        let mut read = SignedOut::read(&state).unwrap();
        assert_eq!(read.session(), Some(&session));
        read.clear(&state).unwrap();
        assert_eq!(SignedOut::read(&state).unwrap().session(), None);
    }
}
