//! Why a config is refused. What is held and enforced stays as it is.

use jiff::Timestamp;
use partywall_proto::envelope::EnvelopeError;
use partywall_proto::ids::AgentId;
use partywall_proto::overlay::{ConfigError, Generation};
use partywall_proto::problem::Problem;

const STATUS_CONFLICT: u16 = 409;
const STATUS_UNPROCESSABLE: u16 = 422;

/// A config that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The signature or the payload does not hold.
    #[error("the config is refused")]
    Envelope(#[from] EnvelopeError),
    /// A delta that does not fit what is held, or whose result contradicts itself.
    #[error("the change is refused")]
    Config(#[from] ConfigError),
    /// A delta, and nothing is held that it could change.
    #[error("a change came, but nothing is held that it could change")]
    NothingHeld,
    /// It was made for another machine.
    #[error("the config is for {found}, and this is {agent}")]
    OtherAgent {
        /// Whom it is for.
        found: AgentId,
        /// Who we are.
        agent: AgentId,
    },
    /// A device was given a gateway's config, or the reverse.
    #[error("the config's role does not fit {agent}")]
    Role {
        /// Who we are.
        agent: AgentId,
    },
    /// The generation did not grow.
    #[error("generation {found} is not newer than {held}, which is held")]
    Stale {
        /// What came.
        found: Generation,
        /// What is held.
        held: Generation,
    },
    /// Its staleness limit has passed.
    #[error("the config was valid until {valid_until}; is this machine's clock right?")]
    Void {
        /// Its limit.
        valid_until: Timestamp,
    },
    /// Its session is over.
    #[error("the session ended at {ends_at}; is this machine's clock right?")]
    SessionOver {
        /// When it ended.
        ends_at: Timestamp,
    },
    /// Its session was signed out of on this machine.
    #[error("the session was signed out of here")]
    SignedOut,
}

impl Refusal {
    /// The refusal as the controller is told.
    pub fn problem(&self) -> Problem {
        let (status, name, title) = match self {
            Self::Envelope(EnvelopeError::UnknownKey { .. } | EnvelopeError::Signature) => {
                (STATUS_UNPROCESSABLE, "config-signature", "The config's signature does not hold")
            }
            Self::Envelope(
                EnvelopeError::TooLarge { .. }
                | EnvelopeError::Payload(_)
                | EnvelopeError::Config(_),
            ) => (STATUS_UNPROCESSABLE, "config-refused", "The config is not understood"),
            Self::Config(_) | Self::NothingHeld | Self::Stale { .. } => {
                (STATUS_CONFLICT, "config-generation", "The config does not follow what is held")
            }
            Self::OtherAgent { .. } | Self::Role { .. } => {
                (STATUS_UNPROCESSABLE, "config-not-ours", "The config is not for this machine")
            }
            Self::Void { .. } | Self::SessionOver { .. } | Self::SignedOut => {
                (STATUS_CONFLICT, "config-void", "The config is over")
            }
        };
        Problem::new(status, name, title, crate::daemon::describe(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_the_controller_the_cause() {
        let problem = Refusal::from(ConfigError::Version { found: 2 }).problem();
        assert!(problem.detail.contains("update the agent"), "{problem}");
        assert_eq!(Refusal::NothingHeld.problem().name(), "config-generation");
    }
}
