//! What agents report of flows: joined with what the controller knows, or found to be none of theirs.
//!
//! An agent is believed about packets and about nothing else: whose a session is, where its device stands
//! and which organisation may read the record come from the controller's own state. A gateway that names
//! another segment's session would learn that session's person from its own records, so it is cut off.
//! A device is believed less: of its own sessions, of what it refused, and of so much in a while.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use partywall_proto::admin::StoredFlow;
use partywall_proto::flows::{
    DEVICE_FLOW_STEP_S, DEVICE_FLOWS_AT_ONCE, FLOWS_PER_MESSAGE_MAX, FlowEvent, FlowRecord, Traffic,
};
use partywall_proto::ids::{
    AgentId, DeviceId, GatewayId, OrganisationId, SegmentId, SessionId, UserId,
};

use super::state::State;
use crate::domain::session::SessionRecord;

/// Sessions that are remembered after their end, for the records of flows that ended with them: a
/// working day of a large site, 10 MB.
const ENDED_MAX: usize = 65_536;
/// How far an agent's clock may be ahead before its time is not believed.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);
/// Longest drop reason that is kept, in bytes.
pub(super) const REASON_MAX_BYTES: usize = 64;
/// In this time every device may again bring all that it may at once.
const FILLED_AFTER: SignedDuration =
    SignedDuration::from_secs(DEVICE_FLOWS_AT_ONCE as i64 * DEVICE_FLOW_STEP_S as i64);

/// What is remembered for the sake of reports.
#[derive(Debug, Default)]
pub(super) struct FlowReports {
    ended: EndedSessions,
    devices: Allowances,
}

/// What was taken of one message, for one organisation.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// With all that goes with them.
    pub(super) flows: Vec<StoredFlow>,
    /// Records that a gateway lost.
    pub(super) lost_at_gateways: u64,
    /// Records that a device lost, or had too many of.
    pub(super) lost_at_devices: u64,
}

impl FlowReports {
    /// Remembers `session`, which is over.
    pub(super) fn ended(&mut self, session: &SessionRecord) {
        self.ended.add(session);
    }

    /// What there is to take of a message, and whose it is; or what is wrong with the agent.
    pub(super) fn take(
        &mut self,
        state: &State,
        agent: &AgentId,
        records: Vec<FlowRecord>,
        lost: u64,
        now: Timestamp,
    ) -> Result<BTreeMap<OrganisationId, Taken>, String> {
        if records.len() > FLOWS_PER_MESSAGE_MAX {
            return Err(format!("a message has at most {FLOWS_PER_MESSAGE_MAX} flow records"));
        }
        match agent {
            AgentId::Gateway(gateway) => self.of_gateway(state, gateway, records, lost, now),
            AgentId::Device(device) => self.of_device(state, device, records, lost, now),
        }
    }

    fn of_gateway(
        &self,
        state: &State,
        gateway: &GatewayId,
        records: Vec<FlowRecord>,
        lost: u64,
        now: Timestamp,
    ) -> Result<BTreeMap<OrganisationId, Taken>, String> {
        let spec = state.catalogue.gateways.get(gateway).map(|it| &it.spec);
        let segment = spec.and_then(|spec| state.catalogue.segments.get(&spec.segment));
        let Some(segment) = segment.map(|it| &it.spec) else {
            return Err("this gateway has no segment whose flows it could report".to_owned());
        };
        let reporter = AgentId::Gateway(gateway.clone());
        let mut flows = Vec::with_capacity(records.len());
        for record in records {
            let session = record.session.as_ref().and_then(|id| self.session(state, id));
            if session
                .as_ref()
                .is_some_and(|it| it.segment != segment.name || it.device != record.device)
            {
                return Err("it reports a session that was not opened through it".to_owned());
            }
            flows.push(join(state, &reporter, &segment.name, session, record, now));
        }
        let taken = Taken { flows, lost_at_gateways: lost, lost_at_devices: 0 };
        Ok(BTreeMap::from([(segment.organisation.clone(), taken)]))
    }

    fn of_device(
        &mut self,
        state: &State,
        device: &DeviceId,
        records: Vec<FlowRecord>,
        lost: u64,
        now: Timestamp,
    ) -> Result<BTreeMap<OrganisationId, Taken>, String> {
        let organisation_of = |segment: &SegmentId| {
            state.catalogue.segments.get(segment).map(|it| it.spec.organisation.clone())
        };
        let reporter = AgentId::Device(device.clone());
        let mut taken: BTreeMap<OrganisationId, Taken> = BTreeMap::new();
        // Whose loss it is, as far as anybody can tell.
        let mut last = state.session_on(device).and_then(|it| organisation_of(&it.segment));
        for mut record in records {
            if record.event != FlowEvent::Refused {
                return Err("a device reports what it refused, and nothing else".to_owned());
            }
            let Some(id) = record.session.as_ref().filter(|_| record.device == *device) else {
                return Err("it reports what is not of its own sessions".to_owned());
            };
            // An honest device may bring records of a session that is forgotten: one that slept while
            // the controller was restarted. They are nobody's any more.
            let Some(session) = self.session(state, id) else { continue };
            if session.device != *device {
                return Err("it reports what is not of its own sessions".to_owned());
            }
            let Some(organisation) = organisation_of(&session.segment) else { continue };
            last = Some(organisation.clone());
            let taken = taken.entry(organisation).or_default();
            if !self.devices.admit(device, now) {
                taken.lost_at_devices += 1;
                continue;
            }
            // Nothing passed, and it has no version on trial to ask.
            (record.to_network, record.to_device) = (Traffic::default(), Traffic::default());
            record.observed = None;
            let segment = session.segment.clone();
            taken.flows.push(join(state, &reporter, &segment, Some(session), record, now));
        }
        if let Some(organisation) = last.filter(|_| lost > 0) {
            let lost_at_devices = &mut taken.entry(organisation).or_default().lost_at_devices;
            *lost_at_devices = lost_at_devices.saturating_add(lost);
        }
        Ok(taken)
    }

    /// A session that is live, or remembered.
    fn session(&self, state: &State, id: &SessionId) -> Option<Named> {
        let live = state.sessions.get(id).map(Named::of);
        live.or_else(|| self.ended.by_id.get(id).cloned())
    }
}

fn join(
    state: &State,
    reporter: &AgentId,
    segment: &SegmentId,
    session: Option<Named>,
    mut flow: FlowRecord,
    now: Timestamp,
) -> StoredFlow {
    // A clock that is far ahead would put records where no retention reaches them.
    if flow.at.duration_since(now) > AHEAD_MAX {
        flow.at = now;
    }
    if let Some(reason) = &mut flow.reason {
        reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
    }
    let device = session.as_ref().and_then(|it| state.catalogue.devices.get(&it.device));
    let building = device.and_then(|it| it.spec.building.clone());
    let user = session.map(|it| it.user);
    StoredFlow { reporter: reporter.clone(), segment: segment.clone(), user, building, flow }
}

/// What a session says about its flows.
#[derive(Debug, Clone)]
struct Named {
    user: UserId,
    device: DeviceId,
    segment: SegmentId,
}

impl Named {
    fn of(session: &SessionRecord) -> Self {
        let SessionRecord { user, device, segment, .. } = session;
        Self { user: user.clone(), device: device.clone(), segment: segment.clone() }
    }
}

/// Whose the sessions were that are over: the last ones only.
#[derive(Debug, Default)]
struct EndedSessions {
    order: VecDeque<SessionId>,
    by_id: HashMap<SessionId, Named>,
}

impl EndedSessions {
    fn add(&mut self, session: &SessionRecord) {
        if self.by_id.insert(session.id.clone(), Named::of(session)).is_none() {
            self.order.push_back(session.id.clone());
        }
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }
}

/// What each device may still bring. Those that may bring all are forgotten now and then.
#[derive(Debug, Default)]
struct Allowances {
    by_device: HashMap<DeviceId, Allowance>,
    swept_at: Timestamp,
}

#[derive(Debug)]
struct Allowance {
    left: u32,
    /// Up to when it was filled.
    filled_at: Timestamp,
}

impl Allowances {
    /// Whether `device` may bring one more record now.
    fn admit(&mut self, device: &DeviceId, now: Timestamp) -> bool {
        if now.duration_since(self.swept_at).abs() >= FILLED_AFTER {
            self.swept_at = now;
            self.by_device.retain(|_, it| now.duration_since(it.filled_at).abs() < FILLED_AFTER);
        }
        let full = Allowance { left: DEVICE_FLOWS_AT_ONCE, filled_at: now };
        self.by_device.entry(device.clone()).or_insert(full).admit(now)
    }
}

impl Allowance {
    fn admit(&mut self, now: Timestamp) -> bool {
        // A clock that was set back gives nothing, and takes nothing.
        let past_s = now.duration_since(self.filled_at).as_secs();
        let steps = past_s / i64::from(DEVICE_FLOW_STEP_S);
        if steps >= i64::from(DEVICE_FLOWS_AT_ONCE - self.left) {
            (self.left, self.filled_at) = (DEVICE_FLOWS_AT_ONCE, now);
        } else if let Ok(more @ 1..) = u32::try_from(steps) {
            self.left += more;
            self.filled_at += SignedDuration::from_secs((more * DEVICE_FLOW_STEP_S).into());
        }
        let admitted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_sessions_are_remembered_up_to_a_bound() {
        let mut ended = EndedSessions::default();
        for number in 0..ENDED_MAX + 10 {
            ended.add(&SessionRecord {
                id: format!("s-{number}").parse().unwrap(),
                user: "alice@council".parse().unwrap(),
                device: "desk-1".parse().unwrap(),
                segment: "council".parse().unwrap(),
                addresses: Vec::new(),
                sign_in: partywall_proto::admin::SignInStrength::Code,
                began_at: Timestamp::UNIX_EPOCH,
                ends_at: Timestamp::UNIX_EPOCH,
                secret: crate::domain::session::PskSecret::from_bytes([0; 32]),
            });
        }
        assert_eq!((ended.order.len(), ended.by_id.len()), (ENDED_MAX, ENDED_MAX));
        assert!(ended.by_id.contains_key(&"s-10".parse().unwrap()));
        assert!(!ended.by_id.contains_key(&"s-9".parse().unwrap()));
    }

    #[test]
    fn a_device_may_bring_some_at_once_and_then_a_little() {
        let mut allowances = Allowances::default();
        let (one, other) = ("desk-1".parse().unwrap(), "desk-2".parse().unwrap());
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let at = |seconds| start + SignedDuration::from_secs(seconds);
        let mut admitted = |device, seconds| {
            (0..5000).filter(|_| allowances.admit(device, at(seconds))).count() as u32
        };
        assert_eq!(admitted(&one, 0), DEVICE_FLOWS_AT_ONCE);
        assert_eq!(admitted(&one, 5), 0);
        assert_eq!(admitted(&one, 60), 60 / DEVICE_FLOW_STEP_S);
        assert_eq!(admitted(&other, 60), DEVICE_FLOWS_AT_ONCE, "each has its own");
        assert_eq!(admitted(&one, -3600), 0, "a clock that was set back");
        assert_eq!(admitted(&one, 66), 1);
        assert_eq!(admitted(&one, 1_000_000), DEVICE_FLOWS_AT_ONCE);
        assert_eq!(allowances.by_device.len(), 1, "the other one may bring all, and is forgotten");
    }
}
