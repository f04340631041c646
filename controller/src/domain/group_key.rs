//! What names a group: its name is unique within its organisation only.

use std::fmt::{self, Display};

use partywall_proto::ids::{GroupId, OrganisationId};

/// Names a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Whose group.
    pub organisation: OrganisationId,
    /// Which one.
    pub name: GroupId,
}

impl Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organisation, self.name)
    }
}
