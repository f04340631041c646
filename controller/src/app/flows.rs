//! Flow records: taken from gateways, joined with what the controller knows, read by their organisation.
//!
//! A gateway is believed about packets and about nothing else: whose a session is, where its device stands
//! and which organisation may read the record come from the controller's own state. A gateway that names
//! another segment's session would learn that session's person from its own records, so it is cut off.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use partywall_proto::admin::{FlowStatus, Page, StoredFlow};
use partywall_proto::flows::{FLOWS_PER_MESSAGE_MAX, FlowRecord};
use partywall_proto::ids::{
    AgentId, DeviceId, GatewayId, OrganisationId, SegmentId, SessionId, UserId,
};
use partywall_proto::problem::Finding;

use super::agents::chain_of;
use super::change::Change;
use super::resources::PAGE_MAX;
use super::state::State;
use super::{App, AppError, Principal, Result};
use crate::domain::flow_filter::FlowFilter;
use crate::domain::scope::Scope;
use crate::domain::session::SessionRecord;
use crate::flows::{Flows, FlowsError};

/// Sessions that are remembered after their end, for the records of flows that ended with them: a
/// working day of a large site, 10 MB.
const ENDED_MAX: usize = 65_536;
/// How far a gateway's clock may be ahead before its time is not believed.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);
/// Bytes that one question may go through: about four million records, within a request's time limit.
const WALK_MAX_BYTES: u64 = 2 << 30;
/// Longest drop reason that is kept, in bytes.
const REASON_MAX_BYTES: usize = 64;

impl App {
    /// Keeps flow records in `flows` from now on. Call it once, before the first agent connects.
    pub fn keep_flows(&self, flows: Flows) {
        flows.configure(self.state().catalogue.flow_settings.values().map(|it| &it.spec));
        if self.inner.flows.set(flows).is_err() {
            tracing::error!("flow records are kept already; the second place is not used");
        }
    }

    /// Takes what a gateway says about flows. Never waits for a disk or a sink.
    ///
    /// # Errors
    /// An agent that is no gateway, or speaks of sessions that are not its segment's. Nothing is taken
    /// then, the attempt is audited, and the agent is to be cut off.
    pub async fn flows_reported(
        &self,
        agent: &AgentId,
        records: Vec<FlowRecord>,
        lost: u64,
    ) -> Result<()> {
        let now = self.now();
        let joined = {
            let state = self.state();
            let ended = self.inner.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            joined(&state, &ended, agent, records, now)
        };
        match joined {
            Ok((organisation, flows)) => {
                if let Some(keeping) = self.inner.flows.get() {
                    keeping.take(&organisation, flows, lost);
                }
                Ok(())
            }
            Err(why) => {
                let writer = self.writer().await;
                let mut change = Change::default();
                let (chain, name) = (chain_of(&self.state(), agent), agent.to_string());
                change.refused(&chain, now, &name, "flow-records", name.clone(), &why);
                self.commit(writer, change, None).await?;
                Err(AppError::AgentRefused(why))
            }
        }
    }

    /// A page of the flow records of the principal's organisation.
    ///
    /// # Errors
    /// A principal of no organisation, which is audited; a cursor that is none; files that cannot be read.
    pub async fn flows(
        &self,
        principal: &Principal,
        filter: FlowFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<StoredFlow>> {
        let organisation = self.reader_of_flows(principal).await?;
        let limit = limit.clamp(1, PAGE_MAX);
        self.kept_flows()?.read(&organisation, filter, after, limit).await.map_err(|failure| {
            match failure {
                FlowsError::Cursor => {
                    AppError::Invalid(vec![Finding::new("cursor", failure.to_string())])
                }
                FlowsError::Open { .. } | FlowsError::Read(_) => AppError::Flows(failure),
            }
        })
    }

    /// Gives `work` the flow records of the principal's organisation that `filter` asks for, the oldest
    /// first, and answers what it made of them, and whether these were all: the walk ends after
    /// two gibibytes.
    ///
    /// # Errors
    /// A principal of no organisation, which is audited; files that cannot be read.
    pub async fn walk_flows<T: Send + 'static>(
        &self,
        principal: &Principal,
        filter: FlowFilter,
        work: impl FnOnce(&mut dyn Iterator<Item = StoredFlow>) -> T + Send + 'static,
    ) -> Result<(T, bool)> {
        let organisation = self.reader_of_flows(principal).await?;
        let walk = self.kept_flows()?.walk(&organisation, filter, WALK_MAX_BYTES, work);
        walk.await.map_err(AppError::Flows)
    }

    /// What became of the flow records of the principal's organisation.
    ///
    /// # Errors
    /// A principal of no organisation, which is audited.
    pub async fn flow_status(&self, principal: &Principal) -> Result<FlowStatus> {
        let organisation = self.reader_of_flows(principal).await?;
        Ok(self.kept_flows()?.status(&organisation))
    }

    async fn reader_of_flows(&self, principal: &Principal) -> Result<OrganisationId> {
        let own = match principal.scope() {
            Scope::Organisation(organisation) => Ok(organisation),
            Scope::Facilities => {
                let why = "flow records are read by the organisation whose network was reached";
                Err(AppError::Forbidden(why.to_owned()))
            }
        };
        self.audited(principal, "flows-read", "flows", own).await
    }

    fn kept_flows(&self) -> Result<&Flows> {
        let none = || AppError::Unready("this controller keeps no flow records".to_owned());
        self.inner.flows.get().ok_or_else(none)
    }
}

/// Whose the sessions were that are over: the last ones only.
#[derive(Debug, Default)]
pub(super) struct EndedSessions {
    order: VecDeque<SessionId>,
    by_id: HashMap<SessionId, Ended>,
}

#[derive(Debug, Clone)]
struct Ended {
    user: UserId,
    device: DeviceId,
    segment: SegmentId,
}

impl EndedSessions {
    /// Remembers `session`, which is over.
    pub(super) fn add(&mut self, session: &SessionRecord) {
        let SessionRecord { id, user, device, segment, .. } = session;
        let ended = Ended { user: user.clone(), device: device.clone(), segment: segment.clone() };
        if self.by_id.insert(id.clone(), ended).is_none() {
            self.order.push_back(id.clone());
        }
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }
}

/// The records with all that goes with them, and whose they are; or what is wrong with the agent.
fn joined(
    state: &State,
    ended: &EndedSessions,
    agent: &AgentId,
    records: Vec<FlowRecord>,
    now: Timestamp,
) -> Result<(OrganisationId, Vec<StoredFlow>), String> {
    let AgentId::Gateway(gateway) = agent else {
        return Err("only gateways report flows".to_owned());
    };
    if records.len() > FLOWS_PER_MESSAGE_MAX {
        return Err(format!("a message has at most {FLOWS_PER_MESSAGE_MAX} flow records"));
    }
    let spec = state.catalogue.gateways.get(gateway).map(|it| &it.spec);
    let segment = spec.and_then(|spec| state.catalogue.segments.get(&spec.segment));
    let Some(segment) = segment.map(|it| &it.spec) else {
        return Err("this gateway has no segment whose flows it could report".to_owned());
    };
    let mut flows = Vec::with_capacity(records.len());
    for record in records {
        flows.push(join(state, ended, (gateway, &segment.name), record, now)?);
    }
    Ok((segment.organisation.clone(), flows))
}

fn join(
    state: &State,
    ended: &EndedSessions,
    (gateway, segment): (&GatewayId, &SegmentId),
    mut flow: FlowRecord,
    now: Timestamp,
) -> Result<StoredFlow, String> {
    // A clock that is far ahead would put records where no retention reaches them.
    if flow.at.duration_since(now) > AHEAD_MAX {
        flow.at = now;
    }
    if let Some(reason) = &mut flow.reason {
        reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
    }
    let live = flow.session.as_ref().and_then(|id| state.sessions.get(id)).map(|it| Ended {
        user: it.user.clone(),
        device: it.device.clone(),
        segment: it.segment.clone(),
    });
    let past = || flow.session.as_ref().and_then(|id| ended.by_id.get(id)).cloned();
    let (mut user, mut building) = (None, None);
    if let Some(session) = live.or_else(past) {
        if session.segment != *segment || session.device != flow.device {
            return Err("it reports a session that was not opened through it".to_owned());
        }
        let device = state.catalogue.devices.get(&session.device);
        building = device.and_then(|it| it.spec.building.clone());
        user = Some(session.user);
    }
    Ok(StoredFlow { gateway: gateway.clone(), segment: segment.clone(), user, building, flow })
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::TokenRequest;
    use partywall_proto::admin::TokenRole;
    use serde_json::json;

    use super::super::testing::Building;
    use super::*;
    use crate::flows::FlowLimits;

    fn keeping(building: &Building) -> (tempfile::TempDir, Flows) {
        let place = tempfile::tempdir().unwrap();
        let flows = Flows::open(
            place.path(),
            FlowLimits { budget_bytes: 1 << 30, sinks: Default::default() },
        )
        .unwrap();
        building.app.keep_flows(flows.clone());
        (place, flows)
    }

    fn record(device: &str, session: Option<&SessionId>) -> FlowRecord {
        serde_json::from_value(json!({
            "id": "00000000000000aa", "event": "opened", "at": "2027-01-15T08:00:00Z",
            "device": device, "session": session, "opener": "device",
            "device_address": "100.64.0.2", "network_address": "10.1.0.80", "protocol": "tcp",
            "device_port": 40000, "network_port": 443, "rule": "web",
            "to_network": { "packets": 1, "bytes": 60 }, "to_device": { "packets": 0, "bytes": 0 },
        }))
        .unwrap()
    }

    async fn read(building: &Building, principal: &Principal) -> Vec<StoredFlow> {
        let page = building.app.flows(principal, FlowFilter::default(), None, 100).await;
        page.unwrap().items
    }

    fn agent(name: &str) -> AgentId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_record_gets_its_person_and_building_also_after_the_sessions_end() {
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let session = building.sessions(&building.council).await.remove(0).id;
        let report = |records| {
            let app = building.app.clone();
            async move { app.flows_reported(&agent("gateway/gw-council"), records, 2).await }
        };
        report(vec![record("desk-1", Some(&session))]).await.unwrap();
        building.app.revoke_session(&building.council, &session).await.unwrap();
        report(vec![record("desk-1", Some(&session)), record("desk-1", None)]).await.unwrap();
        flows.settle().await;
        let read = read(&building, &building.council).await;
        let people: Vec<_> = read
            .iter()
            .map(|it| {
                let user = it.user.as_ref().map(ToString::to_string);
                (user, it.building.as_ref().map(ToString::to_string))
            })
            .collect();
        let alice = (Some("alice@council".to_owned()), Some("hq".to_owned()));
        assert_eq!(people, [alice.clone(), alice, (None, None)]);
        assert_eq!((read[0].gateway.as_str(), read[0].segment.as_str()), ("gw-council", "council"));
        let status = building.app.flow_status(&building.council).await.unwrap();
        assert_eq!((status.received, status.stored, status.lost_at_gateways), (3, 3, 4));
    }

    #[tokio::test]
    async fn only_their_own_organisation_reads_flow_records() {
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        building.seats().await;
        let report = vec![record("desk-1", None)];
        building.app.flows_reported(&agent("gateway/gw-council"), report, 0).await.unwrap();
        flows.settle().await;
        assert_eq!(read(&building, &building.council).await.len(), 1);
        assert_eq!(read(&building, &building.nhs).await, []);
        assert_eq!(building.app.flow_status(&building.nhs).await.unwrap().received, 0);
        let refused =
            building.app.flows(&building.facilities, FlowFilter::default(), None, 10).await;
        assert!(matches!(refused, Err(AppError::Forbidden(_))), "{refused:?}");
        assert!(building.app.flow_status(&building.facilities).await.is_err());
        let trail = building.app.audit(&building.facilities, None, None, 1000).await.unwrap().items;
        assert!(
            trail.iter().any(|it| it.action == "flows-read" && it.outcome.starts_with("refused"))
        );
        let auditor = TokenRequest {
            role: TokenRole::Auditor { organisation: "council".parse().unwrap() },
            holder: "Gus".to_owned(),
            lifetime_s: 3600,
        };
        let auditor = building.app.create_token(&building.council, auditor).await.unwrap();
        let auditor = building.app.authenticate(auditor.secret.expose()).await.unwrap();
        assert_eq!(read(&building, &auditor).await.len(), 1);
        let walked = async |principal| {
            let count = |it: &mut dyn Iterator<Item = StoredFlow>| it.count();
            building.app.walk_flows(principal, FlowFilter::default(), count).await.ok()
        };
        assert_eq!(walked(&auditor).await, Some((1, true)));
        assert_eq!(walked(&building.nhs).await, Some((0, true)));
        assert_eq!(walked(&building.facilities).await, None);
    }

    #[tokio::test]
    async fn nobody_but_a_gateway_reports_and_only_what_was_opened_through_it() {
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let session = building.sessions(&building.council).await.remove(0).id;
        for (who, records) in [
            ("device/desk-1", vec![record("desk-1", Some(&session))]),
            // Another segment's session would name its person to this organisation.
            ("gateway/gw-nhs", vec![record("desk-1", None), record("desk-1", Some(&session))]),
            ("gateway/gw-council", vec![record("desk-2", Some(&session))]),
            ("gateway/gw-council", vec![record("desk-1", None); FLOWS_PER_MESSAGE_MAX + 1]),
            ("gateway/nowhere", vec![record("desk-1", None)]),
        ] {
            let refused = building.app.flows_reported(&agent(who), records, 0).await;
            assert!(matches!(refused, Err(AppError::AgentRefused(_))), "{who}: {refused:?}");
        }
        building.app.revoke_session(&building.council, &session).await.unwrap();
        let late = vec![record("desk-1", Some(&session))];
        assert!(building.app.flows_reported(&agent("gateway/gw-nhs"), late, 0).await.is_err());
        flows.settle().await;
        for principal in [&building.council, &building.nhs] {
            assert_eq!(read(&building, principal).await, []);
        }
        let trail = building.app.audit(&building.nhs, None, None, 1000).await.unwrap().items;
        let refusals = trail.iter().filter(|it| it.action == "flow-records").count();
        assert_eq!(refusals, 2);
    }

    #[tokio::test]
    async fn a_clock_far_ahead_is_not_believed_and_reasons_are_short() {
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        let now = building.app.now();
        let mut ahead = record("desk-1", None);
        ahead.at = now + SignedDuration::from_hours(1000);
        ahead.reason = Some("é".repeat(500));
        let report = vec![ahead];
        building.app.flows_reported(&agent("gateway/gw-council"), report, 0).await.unwrap();
        flows.settle().await;
        let stored = read(&building, &building.council).await.remove(0);
        assert_eq!(stored.flow.at, now);
        assert!(stored.flow.reason.unwrap().len() <= REASON_MAX_BYTES);
    }

    #[tokio::test]
    async fn settings_take_hold_when_they_are_written_and_are_the_organisations_own() {
        use partywall_proto::admin::FlowSettingsSpec;
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        let mut old = record("desk-1", None);
        old.at = building.app.now() - SignedDuration::from_hours(72);
        let report = vec![old];
        building.app.flows_reported(&agent("gateway/gw-council"), report, 0).await.unwrap();
        let spec = FlowSettingsSpec {
            organisation: "council".parse().unwrap(),
            retention_days: 2,
            sinks: Vec::new(),
        };
        let settled = async || {
            building.app.sweep().await.unwrap();
            flows.settle().await;
            read(&building, &building.council).await.len()
        };
        assert_eq!(settled().await, 1);
        for other in [&building.nhs, &building.facilities] {
            assert!(building.app.put(other, spec.clone(), None).await.is_err());
        }
        building.app.put(&building.council, spec.clone(), None).await.unwrap();
        assert_eq!(settled().await, 0);
        let key = spec.organisation.clone();
        for other in [&building.nhs, &building.facilities] {
            assert!(building.app.get::<FlowSettingsSpec>(other, &key).await.is_err());
        }
    }

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
}
