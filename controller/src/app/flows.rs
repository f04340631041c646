//! Flow records: taken from agents, joined with what the controller knows, read by their organisation.
//!
//! An agent is believed about packets and about nothing else; see [`flow_reports`](super::flow_reports).

use std::sync::PoisonError;

use partywall_proto::admin::{FlowStatus, Page, StoredFlow};
use partywall_proto::flows::FlowRecord;
use partywall_proto::ids::{AgentId, OrganisationId};
use partywall_proto::problem::Finding;

use super::agents::chain_of;
use super::change::Change;
use super::flow_reports::Taken;
use super::resources::PAGE_MAX;
use super::{App, AppError, Principal, Result};
use crate::domain::flow_filter::FlowFilter;
use crate::domain::scope::Scope;
use crate::flows::{Flows, FlowsError};

/// Bytes that one question may go through: about four million records, within a request's time limit.
const WALK_MAX_BYTES: u64 = 2 << 30;

impl App {
    /// Keeps flow records in `flows` from now on. Call it once, before the first agent connects.
    pub fn keep_flows(&self, flows: Flows) {
        flows.configure(self.state().catalogue.flow_settings.values().map(|it| &it.spec));
        if self.inner.flows.set(flows).is_err() {
            tracing::error!("flow records are kept already; the second place is not used");
        }
    }

    /// Takes what an agent says about flows. Never waits for a disk or a sink.
    ///
    /// # Errors
    /// A gateway that speaks of sessions that are not its segment's, or a device that speaks of anything but
    /// what it refused in sessions of its own. Nothing is taken then, the attempt is audited, and the agent
    /// is to be cut off.
    pub async fn flows_reported(
        &self,
        agent: &AgentId,
        records: Vec<FlowRecord>,
        lost: u64,
    ) -> Result<()> {
        let now = self.now();
        let taken = {
            let state = self.state();
            let mut reports = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports.take(&state, agent, records, lost, now)
        };
        match taken {
            Ok(taken) => {
                if let Some(keeping) = self.inner.flows.get() {
                    for (organisation, Taken { flows, lost_at_gateways, lost_at_devices }) in taken
                    {
                        keeping.lose_at_devices(&organisation, lost_at_devices);
                        keeping.take(&organisation, flows, lost_at_gateways);
                    }
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use partywall_proto::admin::TokenRequest;
    use partywall_proto::admin::TokenRole;
    use partywall_proto::flows::{
        DEVICE_FLOW_STEP_S, DEVICE_FLOWS_AT_ONCE, FLOWS_PER_MESSAGE_MAX, FlowEvent, Traffic,
    };
    use partywall_proto::ids::SessionId;
    use serde_json::json;

    use super::super::flow_reports::REASON_MAX_BYTES;
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
        assert_eq!(
            (read[0].reporter.to_string(), read[0].segment.as_str()),
            ("gateway/gw-council".to_owned(), "council")
        );
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
    async fn a_gateway_reports_only_what_was_opened_through_it() {
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let session = building.sessions(&building.council).await.remove(0).id;
        for (who, records) in [
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

    /// A record of what a device refused.
    fn refused(device: &str, session: Option<&SessionId>) -> FlowRecord {
        let refused = FlowEvent::Refused;
        FlowRecord { event: refused, reason: Some("no-rule".to_owned()), ..record(device, session) }
    }

    #[tokio::test]
    async fn a_device_reports_what_it_refused_itself_to_whom_each_session_belongs() {
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        let (mut council, mut nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut council]).await.unwrap();
        let ended = building.sessions(&building.council).await.remove(0).id;
        building.app.revoke_session(&building.council, &ended).await.unwrap();
        building.sign_in(&mut desk, "nina@nhs", &mut [&mut nhs]).await.unwrap();
        let live = building.sessions(&building.nhs).await.remove(0).id;
        let forgotten = "s-long-ago".parse().unwrap();
        let records = [&ended, &live, &forgotten].map(|id| refused("desk-1", Some(id)));
        building.app.flows_reported(&agent("device/desk-1"), records.to_vec(), 3).await.unwrap();
        flows.settle().await;
        for (principal, user, lost) in
            [(&building.council, "alice@council", 0), (&building.nhs, "nina@nhs", 3)]
        {
            let told = read(&building, principal).await;
            let [stored] = &told[..] else { panic!("{told:?}") };
            assert_eq!(stored.reporter.to_string(), "device/desk-1");
            assert_eq!(stored.user.as_ref().unwrap().to_string(), user);
            assert_eq!(stored.building.as_ref().unwrap().as_str(), "hq");
            assert_eq!(stored.segment.as_str(), user.split_once('@').unwrap().1);
            assert_eq!(stored.flow.to_network, Traffic::default(), "nothing passed");
            let status = building.app.flow_status(principal).await.unwrap();
            assert_eq!((status.lost_at_gateways, status.lost_at_devices), (0, lost));
        }
    }

    #[tokio::test]
    async fn a_device_that_reports_anything_else_is_cut_off() {
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.enrol(&building.facilities, "device/desk-2").await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let session = building.sessions(&building.council).await.remove(0).id;
        let good = || refused("desk-1", Some(&session));
        let ended = FlowRecord { event: FlowEvent::Ended, ..good() };
        let lies = [
            ("device/desk-1", vec![good(), record("desk-1", Some(&session))]),
            ("device/desk-1", vec![good(), ended]),
            ("device/desk-1", vec![good(), refused("desk-1", None)]),
            ("device/desk-1", vec![good(), refused("desk-2", Some(&session))]),
            ("device/desk-2", vec![refused("desk-2", Some(&session))]),
            ("device/desk-2", vec![good()]),
            ("device/desk-1", vec![good(); FLOWS_PER_MESSAGE_MAX + 1]),
        ];
        let count = lies.len();
        for (who, records) in lies {
            let answer = building.app.flows_reported(&agent(who), records, 7).await;
            assert!(matches!(answer, Err(AppError::AgentRefused(_))), "{who}: {answer:?}");
        }
        flows.settle().await;
        assert_eq!(read(&building, &building.council).await, []);
        assert_eq!(building.app.flow_status(&building.council).await.unwrap().lost_at_devices, 0);
        let trail = building.app.audit(&building.facilities, None, None, 1000).await.unwrap().items;
        assert_eq!(trail.iter().filter(|it| it.action == "flow-records").count(), count);
    }

    #[tokio::test]
    async fn a_device_brings_so_many_records_and_what_is_more_is_counted() {
        let building = Building::new().await;
        let (_place, flows) = keeping(&building);
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let session = building.sessions(&building.council).await.remove(0).id;
        let desk_1 = agent("device/desk-1");
        let brought = async |records: usize, lost| {
            for part in vec![refused("desk-1", Some(&session)); records].chunks(500) {
                building.app.flows_reported(&desk_1, part.to_vec(), lost).await.unwrap();
            }
            flows.settle().await;
            let status = building.app.flow_status(&building.council).await.unwrap();
            (status.stored, status.lost_at_devices)
        };
        let at_once = u64::from(DEVICE_FLOWS_AT_ONCE);
        assert_eq!(brought(1500, 0).await, (at_once, 500));
        building.clock.advance_s(i64::from(3 * DEVICE_FLOW_STEP_S));
        assert_eq!(brought(5, 0).await, (at_once + 3, 502));
        assert_eq!(brought(1, u64::MAX).await, (at_once + 3, u64::MAX), "it cannot be made less");
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
}
