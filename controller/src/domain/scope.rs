//! Whose something is: the building's or one organisation's.

use partywall_proto::ids::OrganisationId;

use super::audit::FACILITIES_CHAIN;

/// Whose something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The buildings': facilities'.
    Facilities,
    /// One organisation's.
    Organisation(OrganisationId),
}

impl Scope {
    /// The audit chain of what happens in this scope.
    pub fn chain(&self) -> &str {
        match self {
            Self::Facilities => FACILITIES_CHAIN,
            Self::Organisation(organisation) => organisation.as_str(),
        }
    }
}
