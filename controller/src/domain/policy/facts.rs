//! What is known of a session when policy looks at it.

use partywall_proto::admin::{DeviceClass, SignInStrength};
use partywall_proto::ids::{BuildingId, GroupId, UserId};

use crate::domain::catalogue::Catalogue;
use crate::domain::session::SessionRecord;

/// What is known of a session. The time is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Who is signed in.
    pub user: &'a UserId,
    /// That person's groups in their organisation.
    pub groups: &'a [GroupId],
    /// What the device is taken for.
    pub device: DeviceClass,
    /// Where the device stands; none for one that moves about.
    pub building: Option<&'a BuildingId>,
    /// How the person signed in.
    pub sign_in: SignInStrength,
}

impl Catalogue {
    /// The facts of `session`; none where its user or its device is gone.
    pub fn facts<'a>(&'a self, session: &'a SessionRecord) -> Option<Facts<'a>> {
        let user = &self.users.get(&session.user)?.spec;
        let device = &self.devices.get(&session.device)?.spec;
        Some(Facts {
            user: &session.user,
            groups: &user.groups,
            device: device.class(),
            building: device.building.as_ref(),
            sign_in: session.sign_in,
        })
    }
}
