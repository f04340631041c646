//! Enrolment: one code, one connection, and this machine is known.
//!
//! The code's fingerprint is checked before the token leaves: a machine in the middle sees neither
//! the token nor a key.

use std::sync::{Arc, OnceLock};

use partywall_proto::agent_api::{ClientMessage, ServerMessage};
use partywall_proto::enrolment::EnrolmentCode;
use partywall_proto::ids::AgentId;
use partywall_proto::keys::Secret;
use partywall_proto::problem::Problem;

use super::{Addresses, Stream, StreamError, Trust};
use crate::state::{Enrolment, Keys, Pins, StateDir, StateError};

/// Enrolment did not happen.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It had happened before.
    #[error(
        "this machine is already enrolled as {agent}; to enrol it anew, stop the agent and remove {state}"
    )]
    Already {
        /// Its name.
        agent: AgentId,
        /// The state directory.
        state: String,
    },
    /// The controller could not be reached or trusted.
    #[error("enrolment failed")]
    Stream(#[from] StreamError),
    /// The controller refuses the code.
    #[error("the controller refuses the enrolment code: {0}")]
    Refused(Problem),
    /// The controller said something else.
    #[error("the controller's answer to the enrolment code is not understood; update the agent")]
    Answer,
    /// The outcome could not be kept.
    #[error("the enrolment could not be recorded")]
    State(#[from] StateError),
}

/// Uses up `code`: makes this machine's keys, has the controller admit it, records the outcome.
///
/// # Errors
/// See [`EnrolError`]. Nothing is recorded then; the keys, if they were made, are used next time.
pub async fn enrol(state: &StateDir, code: &EnrolmentCode) -> Result<Enrolment, EnrolError> {
    if let Some(enrolment) = Enrolment::read(state)? {
        let state = state.path().display().to_string();
        return Err(EnrolError::Already { agent: enrolment.agent, state });
    }
    let keys = Keys::open(state)?;
    let seen = Arc::new(OnceLock::new());
    let trust = Trust::Fingerprint(*code.ca_fingerprint(), seen.clone());
    let mut addresses = Addresses::new(code.address(), Vec::new());
    let (mut stream, challenge) = Stream::open(&mut addresses, &trust, None).await?;
    let enrol = ClientMessage::Enrol {
        token: Secret::from(data_encoding::BASE64.encode(code.token())),
        proof: keys.prove(&challenge.nonce),
        wireguard_key: keys.wireguard_key(),
        software: super::link::software(),
    };
    stream.send(&enrol).await?;
    let (agent, segment_keys) = match stream.next().await? {
        ServerMessage::Welcome { agent, segment_keys, segments: _ } => (agent, segment_keys),
        ServerMessage::Refused { problem, request: _ } => return Err(EnrolError::Refused(problem)),
        ServerMessage::Challenge { .. }
        | ServerMessage::Config { .. }
        | ServerMessage::Nothing { .. }
        | ServerMessage::SignedIn { .. }
        | ServerMessage::SignedOut { .. } => return Err(EnrolError::Answer),
    };
    let ca = seen.get().cloned().ok_or(EnrolError::Answer)?;
    let mut pins = Pins::default();
    pins.learn(&segment_keys);
    pins.write(state)?;
    let enrolment = Enrolment { agent, controller: code.address().to_owned(), ca };
    enrolment.write(state)?;
    Ok(enrolment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::FakeController;
    use crate::daemon::testing::council;

    fn state() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        (root, state)
    }

    #[tokio::test]
    async fn a_code_enrols_a_machine_once() {
        let (_root, state) = state();
        let mut controller = FakeController::start().await;
        let code = controller.code();
        let enrolling = enrol(&state, &code);
        let answering = async {
            let mut peer = controller.accept().await;
            let Some(ClientMessage::Enrol { token, proof, .. }) = peer.receive().await else {
                panic!("no enrolment came")
            };
            assert_eq!(token.expose(), data_encoding::BASE64.encode(code.token()));
            proof.verify(peer.nonce()).unwrap();
            peer.send(&peer.welcome("device/desk-1")).await;
        };
        let (enrolment, ()) = tokio::join!(enrolling, answering);
        let enrolment = enrolment.unwrap();
        assert_eq!(enrolment.ca, controller.pki.ca());
        assert_eq!(Enrolment::read(&state).unwrap(), Some(enrolment));
        let key = crate::daemon::testing::segment_key(&council()).verifying_key().to_bytes();
        let conflicts = Pins::read(&state).unwrap().learn(&[(council(), key.into())].into());
        assert!(conflicts.is_empty());

        let again = enrol(&state, &code).await.unwrap_err();
        assert!(matches!(again, EnrolError::Already { .. }), "{again}");
    }

    #[tokio::test]
    async fn a_controller_with_another_ca_gets_no_token() {
        let (_root, state) = state();
        let mut controller = FakeController::start().await;
        let code = EnrolmentCode::new([1; 16], [9; 32], &controller.address()).unwrap();
        let (refused, peer) = tokio::join!(enrol(&state, &code), controller.try_accept());
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, EnrolError::Stream(StreamError::Untrusted { .. })),
            "{refused:?}"
        );
        assert!(peer.is_err(), "the handshake went through");
        assert!(Enrolment::read(&state).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_refused_code_says_why_and_records_nothing() {
        let (_root, state) = state();
        let mut controller = FakeController::start().await;
        let code = controller.code();
        let answering = async {
            let mut peer = controller.accept().await;
            peer.receive().await;
            let problem = Problem::new(403, "code-used", "The code was used", "Ask for a new one.");
            peer.send(&ServerMessage::Refused { request: None, problem }).await;
        };
        let (refused, ()) = tokio::join!(enrol(&state, &code), answering);
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains("Ask for a new one."), "{refused}");
        assert!(Enrolment::read(&state).unwrap().is_none());
    }
}
