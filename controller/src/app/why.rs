//! Why a flow passes or does not, for the organisation whose segment the session is in.
//!
//! Another organisation's session is answered as if nobody were signed in: that somebody sits at the
//! device is that organisation's business.

use jiff::{SignedDuration, Timestamp};
use partywall_proto::admin::{DeviceKind, Endpoint, PolicyVersion, StoredFlow, WhyReport};
use partywall_proto::flows::{FlowEvent, FlowId};
use partywall_proto::ids::{DeviceId, OrganisationId};
use partywall_proto::rules::Opener;

use super::desired::{classes, gateways, wireguard_key};
use super::state::State;
use super::{App, AppError, Principal, Result};
use crate::domain::flow_filter::FlowFilter;
use crate::domain::policy::{Compiled, Opening};
use crate::domain::scope::Scope;
use crate::domain::session::SessionRecord;
use crate::domain::why::{Case, DeviceEnd, nobody, recorded, why};

/// How far back a flow is looked for, in hours, step by step: most that is asked about is recent, and
/// each step looks at so many bytes at most.
const STEPS_H: [i64; 3] = [1, 24, 168];

impl App {
    /// Why `opening` passes or does not for the session on the device `from`, or for the session of
    /// that id.
    ///
    /// # Errors
    /// A principal of no organisation, which is audited.
    pub async fn why(
        &self,
        principal: &Principal,
        from: &DeviceId,
        opening: Opening,
    ) -> Result<WhyReport> {
        let organisation = self.asker(principal).await?;
        Ok(explained(&self.state(), &organisation, from, opening, self.now()))
    }

    /// What became of a recorded flow, and what would become of it now.
    ///
    /// # Errors
    /// A principal of no organisation, which is audited; a flow that is not among the organisation's
    /// records; files that cannot be read.
    pub async fn why_flow(&self, principal: &Principal, id: FlowId) -> Result<WhyReport> {
        let organisation = self.asker(principal).await?;
        let record = self.recorded(principal, id).await?;
        let flow = &record.flow;
        let port = match flow.opener {
            Opener::Device => flow.network_port,
            Opener::Network => flow.device_port,
        };
        let far = Endpoint::new(flow.network_address, flow.protocol, port);
        let opening = Opening { opener: flow.opener, far };
        let state = self.state();
        let mut report = explained(&state, &organisation, &flow.device, opening, self.now());
        let now = report.session.as_ref();
        if let (Some(now), Some(then)) = (now, &record.user)
            && now.user != *then
        {
            let was = format!(" When it was recorded, {then} was signed in there.");
            report.sentence.push_str(&was);
        }
        let version = flow.policy.and_then(|number| version(&state, &organisation, number));
        report.recorded = Some(recorded(record, version));
        Ok(report)
    }

    async fn asker(&self, principal: &Principal) -> Result<OrganisationId> {
        let own = match principal.scope() {
            Scope::Organisation(organisation) => Ok(organisation),
            Scope::Facilities => {
                let why = "only the organisation whose network is reached may ask why";
                Err(AppError::Forbidden(why.to_owned()))
            }
        };
        self.audited(principal, "why", "why", own).await
    }

    /// The record of the flow's opening or refusal; of its end where that is all there is.
    async fn recorded(&self, principal: &Principal, id: FlowId) -> Result<StoredFlow> {
        let (mut until, mut ended, mut complete) = (None, None, true);
        let edges = STEPS_H.map(|hours| self.now().checked_sub(SignedDuration::from_hours(hours)));
        for from in edges.into_iter().map(Result::ok).chain([None]) {
            let filter = FlowFilter { from, until, ..FlowFilter::default() };
            let (found, whole) =
                self.walk_flows(principal, filter, move |all| pick(all, id)).await?;
            match found {
                Some(found) if found.flow.event != FlowEvent::Ended => return Ok(found),
                Some(end) => ended = ended.or(Some(end)),
                None => {}
            }
            (until, complete) = (from, complete && whole);
        }
        let detail = match complete {
            true => "among your flow records; it may be older than they are kept",
            false => {
                "among the flow records that were looked at; there are too many to look at all"
            }
        };
        ended.ok_or_else(|| AppError::NotFound(format!("flow {id} {detail}")))
    }
}

fn pick(all: &mut dyn Iterator<Item = StoredFlow>, id: FlowId) -> Option<StoredFlow> {
    let mut ended = None;
    for stored in all.filter(|it| it.flow.id == id) {
        match stored.flow.event {
            FlowEvent::Opened | FlowEvent::Refused => return Some(stored),
            FlowEvent::Ended => ended = Some(stored),
        }
    }
    ended
}

fn version<'a>(
    state: &'a State,
    organisation: &OrganisationId,
    number: u64,
) -> Option<&'a PolicyVersion> {
    state.versions.get(organisation)?.get(&number)
}

fn explained(
    state: &State,
    organisation: &OrganisationId,
    from: &DeviceId,
    opening: Opening,
    now: Timestamp,
) -> WhyReport {
    let by_id = || state.sessions.get(&from.as_str().parse().ok()?);
    let sessions = [state.session_on(from), by_id()];
    let mut known = sessions.into_iter().flatten();
    known.find_map(|session| of_session(state, organisation, session, opening, now)).unwrap_or_else(
        || nobody(organisation, from, &opening, state.version_in_force(organisation)),
    )
}

/// None where `session` is not in a segment of `organisation`.
fn of_session(
    state: &State,
    organisation: &OrganisationId,
    session: &SessionRecord,
    opening: Opening,
    now: Timestamp,
) -> Option<WhyReport> {
    let segment = &state.catalogue.segments.get(&session.segment)?.spec;
    if segment.organisation != *organisation {
        return None;
    }
    let facts = state.catalogue.facts(session)?;
    let device = match &state.catalogue.devices.get(&session.device)?.spec.kind {
        DeviceKind::Stock { .. } => DeviceEnd::Stock,
        DeviceKind::Agent if wireguard_key(state, &session.device).is_none() => {
            DeviceEnd::NotEnrolled
        }
        DeviceKind::Agent => DeviceEnd::Agent,
    };
    let gateways = gateways(state, &segment.name);
    let none = Compiled::default();
    Some(why(&Case {
        session,
        facts,
        segment,
        device,
        // A device uses the first.
        gateway: gateways.first().map(|(gateway, _)| &gateway.name),
        policy: state.compiled.get(&segment.name).map_or(&none, AsRef::as_ref),
        classes: &classes(state, session, now)?,
        version: state.version_in_force(organisation),
        opening,
    }))
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::{PolicySpec, TokenRequest, TokenRole};
    use partywall_proto::rules::Action;
    use serde_json::json;

    use super::super::Clock as _;
    use super::super::testing::Building;
    use super::*;
    use crate::flows::{FlowLimits, Flows};

    fn to(far: &str) -> Opening {
        Opening { opener: Opener::Device, far: far.parse().unwrap() }
    }

    async fn ask(building: &Building, principal: &Principal, from: &str, far: &str) -> WhyReport {
        building.app.why(principal, &from.parse().unwrap(), to(far)).await.unwrap()
    }

    #[tokio::test]
    async fn the_answer_is_what_both_agents_were_sent() {
        let building = Building::new().await;
        let (mut gateway, _, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let council = &building.council;
        for (far, allowed) in [("10.1.0.5:443/tcp", true), ("10.1.0.5:22/tcp", false)] {
            let report = ask(&building, council, "desk-1", far).await;
            assert_eq!(report.allowed, allowed, "{}", report.sentence);
            let classes = &gateway.held.as_ref().unwrap().peers[0].classes;
            for (seat, classes, verdict) in [
                (&desk, &[][..], report.at_device.as_ref().unwrap()),
                (&gateway, classes, report.at_gateway.as_ref().unwrap()),
            ] {
                let rules = &seat.held.as_ref().unwrap().rules;
                let decided = crate::domain::policy::decide(rules, classes, &to(far));
                let (agent, action) = (Some(&seat.agent), decided.action.unwrap_or(Action::Deny));
                assert_eq!((verdict.agent.as_ref(), verdict.action), (agent, Some(action)));
                assert_eq!(verdict.rule.as_ref(), decided.rule);
            }
            let session = report.session.unwrap();
            assert_eq!(session.user.to_string(), "alice@council");
            assert_eq!(session.building.unwrap().as_str(), "hq");
            let version = report.policy.unwrap();
            assert_eq!((version.number, version.published_by), (1, council.actor()));
            let by_id = ask(&building, council, session.id.as_str(), far).await;
            assert_eq!((by_id.allowed, by_id.device.as_str()), (allowed, "desk-1"));
        }
    }

    #[tokio::test]
    async fn anothers_session_is_answered_as_if_nobody_were_signed_in() {
        let building = Building::new().await;
        let (mut gateway, _, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let session = building.sessions(&building.council).await.remove(0).id;
        let answer = |from: &'static str| {
            let building = &building;
            async move {
                let mut report = ask(building, &building.nhs, from, "10.1.0.5:443/tcp").await;
                report.sentence = report.sentence.replace(from, "X");
                report.device = "x".parse().unwrap();
                report
            }
        };
        let taken = answer("desk-1").await;
        assert!(taken.session.is_none() && taken.at_gateway.is_none(), "{taken:?}");
        assert_eq!(taken, answer("desk-2").await, "nobody is signed in there");
        assert_eq!(taken, answer("nowhere").await, "there is no such device");
        let far = to("10.1.0.5:443/tcp");
        let by_id = session.as_str().parse().unwrap();
        let report = building.app.why(&building.nhs, &by_id, far).await.unwrap();
        assert!(report.session.is_none());
    }

    #[tokio::test]
    async fn facilities_may_not_ask_and_an_auditor_may() {
        let building = Building::new().await;
        let from = "desk-1".parse().unwrap();
        let far = to("10.1.0.5:443/tcp");
        let refused = building.app.why(&building.facilities, &from, far).await;
        assert!(matches!(refused, Err(AppError::Forbidden(_))));
        let page = building.app.audit(&building.facilities, None, None, 1000).await.unwrap();
        assert!(page.items.iter().any(|it| it.action == "why" && it.outcome.contains("refused")));
        let role = TokenRole::Auditor { organisation: "council".parse().unwrap() };
        let request = TokenRequest { role, holder: "Ida".to_owned(), lifetime_s: 600 };
        let token = building.app.create_token(&building.council, request).await.unwrap();
        let auditor = building.app.authenticate(token.secret.expose()).await.unwrap();
        building.app.why(&auditor, &from, far).await.unwrap();
    }

    #[tokio::test]
    async fn of_a_recorded_flow_it_tells_what_was_and_what_is() {
        let building = Building::new().await;
        let place = tempfile::tempdir().unwrap();
        let limits = FlowLimits { budget_bytes: 1 << 30, sinks: Default::default() };
        let flows = Flows::open(place.path(), limits).unwrap();
        building.app.keep_flows(flows.clone());
        let (mut gateway, _, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let session = building.sessions(&building.council).await.remove(0).id;
        let now = building.clock.now();
        let record = |id: &str, event: &str, hours: i64| {
            serde_json::from_value(json!({
                "id": id, "event": event, "at": now - SignedDuration::from_hours(hours),
                "device": "desk-1", "session": session, "opener": "device",
                "device_address": "100.64.0.2", "network_address": "10.1.0.80",
                "protocol": "tcp", "device_port": 40000, "network_port": 443,
                "rule": "web", "policy": 1,
                "to_network": { "packets": 1, "bytes": 60 },
                "to_device": { "packets": 0, "bytes": 0 },
            }))
            .unwrap()
        };
        let (long, only_end) = ("00000000000000aa", "00000000000000bb");
        let all = vec![
            record(long, "opened", 30),
            record(long, "ended", 0),
            record(only_end, "ended", 2),
        ];
        let agent = "gateway/gw-council".parse().unwrap();
        building.app.flows_reported(&agent, all, 0).await.unwrap();
        flows.settle().await;
        // Nothing is allowed any more.
        let policy = json!({"version": 1, "organisation": "council", "segments": {"council": {}}});
        let policy: PolicySpec = serde_json::from_value(policy).unwrap();
        building.app.put(&building.council, policy, None).await.unwrap();

        let id = |text: &str| text.parse::<FlowId>().unwrap();
        let report = building.app.why_flow(&building.council, id(long)).await.unwrap();
        assert!(!report.allowed && report.policy.unwrap().number == 2, "{}", report.sentence);
        assert_eq!(report.far.to_string(), "10.1.0.80:443/tcp");
        let then = report.recorded.unwrap();
        assert_eq!((then.record.flow.event, then.policy.unwrap().number), (FlowEvent::Opened, 1));
        assert!(then.sentence.contains("rule web decided"), "{}", then.sentence);
        assert!(then.sentence.contains(&building.council.actor()), "{}", then.sentence);
        let report = building.app.why_flow(&building.council, id(only_end)).await.unwrap();
        assert_eq!(report.recorded.unwrap().record.flow.event, FlowEvent::Ended);
        for (principal, asked) in [(&building.council, "00000000000000cc"), (&building.nhs, long)] {
            let refused = building.app.why_flow(principal, id(asked)).await;
            assert!(matches!(refused, Err(AppError::NotFound(_))), "{refused:?}");
        }
    }
}
