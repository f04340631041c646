//! What a policy would have meant for the conversations of the last days.
//!
//! Both policies, the one in force and the text, judge each record in the same way, by what is known now: so
//! equal policies never differ, whatever was in force when the record was made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use partywall_proto::admin::{
    DeviceClass, Endpoint, PolicySpec, SignInStrength, StoredFlow, WhatIfReport,
};
use partywall_proto::ids::{
    BuildingId, DeviceId, GroupId, OrganisationId, SegmentId, ServiceId, SessionId, UserId,
};
use partywall_proto::rules::{Action, ClassId, Opener};

use super::policy_effect::Ready;
use super::state::State;
use super::{App, FlowFilter, Principal, Result};
use crate::domain::policy::{Compiled, Facts, LocalTime, Opening};
use crate::domain::what_if::what_if;

/// How far back records are looked at unless somebody says so.
const SINCE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Kinds of session whose rules are remembered: tens of MB.
const REMEMBERED_MAX: usize = 20_000;

impl App {
    /// Which recorded conversations a text, as the policy of `organisation`, would have cut, and which it
    /// would have allowed; changes nothing. Records are looked at from `since` on, or of the last seven days.
    ///
    /// # Errors
    /// Everything that does not hold, with its place in the text; a principal who may not read the policy or
    /// the records, which is audited; files that cannot be read.
    pub async fn what_if(
        &self,
        principal: &Principal,
        organisation: &OrganisationId,
        text: &str,
        since: Option<Timestamp>,
    ) -> Result<WhatIfReport> {
        let (before, after) = self.tried(principal, organisation, "policy-what-if", text).await?;
        let known = Arc::new(Known::of(&self.state(), organisation));
        let from = since.or_else(|| self.now().checked_sub(SINCE).ok());
        let filter = FlowFilter { from, ..FlowFilter::default() };
        let work = move |flows: &mut dyn Iterator<Item = StoredFlow>| {
            let [old, new] = [&before, &after].map(|policy| Judging::new(policy, &known));
            // A service that is gone still names what is cut.
            let service = |flow: &StoredFlow| {
                let named = |policy: &Ready| service(policy.policy.as_ref()?, flow);
                named(&after).or_else(|| named(&before))
            };
            what_if(flows, &|flow| old.judge(flow), &|flow| new.judge(flow), &service)
        };
        let (mut report, complete) = self.walk_flows(principal, filter, work).await?;
        report.complete = complete;
        Ok(report)
    }
}

/// What is known now of those whom records name.
struct Known {
    groups: HashMap<UserId, Vec<GroupId>>,
    devices: HashMap<DeviceId, DeviceClass>,
    sign_ins: HashMap<SessionId, SignInStrength>,
}

impl Known {
    fn of(state: &State, organisation: &OrganisationId) -> Self {
        let users = state.catalogue.users.values().map(|it| &it.spec);
        let own = users.filter(|it| it.name.organisation() == organisation);
        let devices = state.catalogue.devices.values().map(|it| &it.spec);
        let sessions = state.sessions.values();
        Self {
            groups: own.map(|it| (it.name.clone(), it.groups.clone())).collect(),
            devices: devices.map(|it| (it.name.clone(), it.class())).collect(),
            sign_ins: sessions.map(|it| (it.id.clone(), it.sign_in)).collect(),
        }
    }
}

/// One policy as a judge.
struct Judging<'a> {
    policy: &'a Ready,
    known: &'a Known,
    remembered: RefCell<HashMap<Session, Rc<Concerned>>>,
}

/// What tells the rules of two records apart.
#[derive(PartialEq, Eq, Hash)]
struct Session {
    segment: SegmentId,
    user: Option<UserId>,
    device: DeviceClass,
    building: Option<BuildingId>,
    sign_in: SignInStrength,
    time: Option<LocalTime>,
}

/// The rules that concern a session, by their positions.
struct Concerned {
    classes: Vec<ClassId>,
    positions: Vec<usize>,
}

impl<'a> Judging<'a> {
    fn new(policy: &'a Ready, known: &'a Known) -> Self {
        Self { policy, known, remembered: RefCell::default() }
    }

    fn judge(&self, stored: &StoredFlow) -> Option<Action> {
        let compiled = self.policy.rules(&stored.segment)?;
        let concerned = self.concerned(compiled, stored);
        let Concerned { classes, positions } = &*concerned;
        compiled.decide_at(positions, classes, &opening(stored)).action
    }

    fn concerned(&self, compiled: &Compiled, stored: &StoredFlow) -> Rc<Concerned> {
        let flow = &stored.flow;
        // A device that is gone counts as one that nobody looks after.
        let device = self.known.devices.get(&flow.device).copied();
        let device = device.unwrap_or(DeviceClass::Agentless);
        let live = flow.session.as_ref().and_then(|it| self.known.sign_ins.get(it)).copied();
        let sign_in = live.unwrap_or(SignInStrength::Code);
        let time = compiled.has_hours().then(|| compiled.clock(flow.at)).flatten();
        let session = Session {
            segment: stored.segment.clone(),
            user: stored.user.clone(),
            device,
            building: stored.building.clone(),
            sign_in,
            time,
        };
        let mut remembered = self.remembered.borrow_mut();
        if let Some(known) = remembered.get(&session) {
            return Rc::clone(known);
        }
        let classes = stored.user.as_ref().map_or_else(Vec::new, |user| {
            let groups = self.known.groups.get(user).map(Vec::as_slice).unwrap_or_default();
            let building = stored.building.as_ref();
            let facts = Facts { user, groups, device, building, sign_in };
            compiled.classes_at(&facts, time)
        });
        let positions = compiled.positions(&classes);
        let concerned = Rc::new(Concerned { classes, positions });
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(session, Rc::clone(&concerned));
        concerned
    }
}

/// The opening that a record tells of.
fn opening(stored: &StoredFlow) -> Opening {
    let flow = &stored.flow;
    let port = match flow.opener {
        Opener::Device => flow.network_port,
        Opener::Network => flow.device_port,
    };
    let far = Endpoint::new(flow.network_address, flow.protocol, port);
    Opening { opener: flow.opener, far }
}

/// The first of the policy's services that the record's far end lies in.
fn service(policy: &PolicySpec, stored: &StoredFlow) -> Option<ServiceId> {
    let far = opening(stored).far;
    let found = policy.services.iter().find(|(_, it)| {
        it.prefixes.iter().any(|prefix| prefix.holds(far.address()))
            && it.protocol.is_none_or(|protocol| protocol == far.protocol())
            && (it.ports.is_empty() || it.ports.iter().any(|range| range.holds(far.port())))
    });
    found.map(|(name, _)| name.clone())
}
