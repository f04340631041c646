//! Which flow records somebody asks for.
//!
//! What is not stated does not narrow: a filter without fields is every record of the organisation.

use jiff::Timestamp;
use partywall_proto::admin::StoredFlow;
use partywall_proto::flows::{FlowEvent, FlowRecord};
use partywall_proto::ids::{BuildingId, DeviceId, RuleId, UserId};
use partywall_proto::nets::Prefix;
use partywall_proto::rules::Action;

/// Conditions that hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// At this moment or later.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// Whose session.
    pub user: Option<UserId>,
    /// At which device.
    pub device: Option<DeviceId>,
    /// In which building.
    pub building: Option<BuildingId>,
    /// What happened.
    pub event: Option<FlowEvent>,
    /// One end's address, the device's or the other, lies in here.
    pub address: Option<Prefix>,
    /// The rule that decided.
    pub rule: Option<RuleId>,
    /// Only where the policy version on trial would have decided otherwise.
    pub differing: bool,
}

impl FlowFilter {
    /// Whether `stored` is asked for.
    pub fn matches(&self, stored: &StoredFlow) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let flow = &stored.flow;
        let ends = [flow.device_address, flow.network_address];
        self.from.is_none_or(|from| from <= flow.at)
            && self.until.is_none_or(|until| flow.at < until)
            && fits(self.event.as_ref(), Some(&flow.event))
            && fits(self.user.as_ref(), stored.user.as_ref())
            && fits(self.device.as_ref(), Some(&flow.device))
            && fits(self.building.as_ref(), stored.building.as_ref())
            && fits(self.rule.as_ref(), flow.rule.as_ref())
            && (!self.differing || differs(&stored.flow))
            && self.address.is_none_or(|within| ends.into_iter().any(|ip| within.holds(ip)))
    }
}

/// Whether the version on trial says otherwise than what happened.
fn differs(flow: &FlowRecord) -> bool {
    let allows = flow.observed.as_ref().map(|it| it.action == Some(Action::Allow));
    match flow.event {
        FlowEvent::Opened => allows == Some(false),
        FlowEvent::Refused => allows == Some(true),
        // Told at the flow's beginning.
        FlowEvent::Ended => false,
    }
}
