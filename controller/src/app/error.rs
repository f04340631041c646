//! What the app answers when it does not do what was asked, and how that travels as a problem.

use partywall_proto::admin::PolicyVersion;
use partywall_proto::ids::OrganisationId;
use partywall_proto::problem::{Finding, Problem};

use crate::flows::FlowsError;
use crate::store::StoreError;

/// Why the app did not do it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// No token, or one that is not valid.
    #[error("the token is missing, unknown, expired or revoked; ask for a new one")]
    Unauthenticated,
    /// The token's role does not reach that far. The attempt is in the audit trail.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing, or none that the asker may see.
    #[error("there is no {0}")]
    NotFound(String),
    /// What was sent contradicts itself or what is already set up.
    #[error("nothing was changed: {} to put right", findings_in_words(.0.len()))]
    Invalid(Vec<Finding>),
    /// Someone else changed it meanwhile.
    #[error("{path} is at revision {current}, not {expected}; read it again and repeat the change")]
    ChangedMeanwhile {
        /// What was to be changed.
        path: String,
        /// The `If-Match` that was sent.
        expected: u64,
        /// The revision as stored; 0 if it does not exist.
        current: u64,
    },
    /// Someone else published a policy meanwhile.
    #[error("{}", published_in_words(.organisation, *.expected, .current.as_ref()))]
    PublishedMeanwhile {
        /// Whose policy.
        organisation: OrganisationId,
        /// The number in the `If-Match` that was sent; 0 for "none yet".
        expected: u64,
        /// The last version; none if there is none.
        current: Option<PolicyVersion>,
    },
    /// It was done before and can be done only once.
    #[error("{0}")]
    AlreadyDone(String),
    /// User, password or one-time code do not fit. Which of them is not said.
    #[error("user, password or one-time code is wrong; wait for the next code and try again")]
    SignInRefused,
    /// Too many failures; the next try is looked at later.
    #[error("too many failed attempts; try again in {wait_s} s")]
    TooSoon {
        /// Seconds to wait.
        wait_s: u64,
    },
    /// The enrolment code is not one that is waiting to be used.
    #[error(
        "the enrolment code is unknown, used up or expired; ask for a new one (partywallctl enrol-code)"
    )]
    EnrolmentCode,
    /// The agent's identity key or its proof is not the enrolled one.
    #[error("{0}")]
    AgentRefused(String),
    /// What was asked for cannot be done as things stand.
    #[error("{0}")]
    Unready(String),
    /// The store did not take it.
    #[error("the controller cannot write its store")]
    Store(#[from] StoreError),
    /// The flow records cannot be read.
    #[error("the controller cannot read its flow records")]
    Flows(#[source] FlowsError),
    /// What the store holds is not what this version writes.
    #[error("the store holds {key}, which this version cannot read")]
    Unreadable {
        /// The store key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl AppError {
    /// The error as it travels.
    pub fn problem(&self) -> Problem {
        let (status, name, title) = match self {
            Self::Unauthenticated => (401, "unauthenticated", "No valid token"),
            Self::Forbidden(_) => (403, "forbidden", "Not allowed"),
            Self::NotFound(_) => (404, "not-found", "Not found"),
            Self::Invalid(_) => (422, "invalid", "Not valid"),
            Self::ChangedMeanwhile { .. } | Self::PublishedMeanwhile { .. } => {
                (412, "changed-meanwhile", "Changed meanwhile")
            }
            Self::AlreadyDone(_) => (409, "already-done", "Already done"),
            Self::SignInRefused => (401, "sign-in-refused", "Sign-in refused"),
            Self::TooSoon { .. } => (429, "too-soon", "Too many attempts"),
            Self::EnrolmentCode => (403, "enrolment-code", "Enrolment code refused"),
            Self::AgentRefused(_) => (403, "agent-refused", "Agent refused"),
            Self::Unready(_) => (409, "unready", "Not possible as things stand"),
            Self::Store(_) => (503, "store", "Store unavailable"),
            Self::Flows(_) => (503, "flows", "Flow records unavailable"),
            Self::Unreadable { .. } => (500, "unreadable", "Store unreadable"),
        };
        let mut detail = self.to_string();
        if let Self::Store(store) = self {
            // What is wrong with the store is what an admin can mend: a full disk, above all.
            detail = format!("{detail}: {store}");
        }
        let mut problem = Problem::new(status, name, title, detail);
        if let Self::Invalid(findings) = self {
            problem.errors.clone_from(findings);
        }
        problem
    }
}

fn published_in_words(
    organisation: &OrganisationId,
    expected: u64,
    current: Option<&PolicyVersion>,
) -> String {
    let Some(current) = current else {
        return format!("the policy of {organisation} has no version {expected}, nor any other");
    };
    let PolicyVersion { number, published_by, published_at, .. } = current;
    format!(
        "the policy of {organisation} is at version {number}, not {expected}: {published_by} published it at \
         {published_at}; look at what changed and repeat the change on top of it"
    )
}

fn findings_in_words(count: usize) -> String {
    match count {
        1 => "one thing".to_owned(),
        count => format!("{count} things"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_to_whoever_asked() {
        let problem = AppError::from(StoreError::Full { free_bytes: 7 }).problem();
        assert_eq!(problem.status, 503);
        assert!(problem.detail.contains("free some space"), "{}", problem.detail);
    }
}
