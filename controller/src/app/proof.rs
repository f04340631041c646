//! The proof that a change must pass before it is made: that what agents would enforce after it keeps
//! segments and devices apart, and says the same at both ends.
//!
//! It is over the compiled rules of every gateway and of every device with a session, those of other
//! organisations included: what separates two segments is not in either one's policy.

use std::net::IpAddr;

use jiff::Timestamp;
use partywall_proto::admin::SegmentSpec;
use partywall_proto::ids::{AgentId, SegmentId};
use partywall_proto::nets::Prefix;
use partywall_proto::problem::Finding;
use partywall_proto::rules::ClassId;

use super::state::State;
use crate::domain::catalogue::Catalogue;
use crate::domain::policy::Compiled;
use crate::domain::prover::{
    AgentFacts, Evidence, PeerFacts, Proof, Refutation, RuleList, SegmentFacts, Warning, prove,
};
use crate::domain::resource::Resource as _;

/// What was found of a catalogue, each finding at the policy concerned.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What speaks against it, each with a packet.
    pub(super) refutations: Vec<Finding>,
    /// Rules that never decide.
    pub(super) warnings: Vec<Finding>,
}

/// Proves `after`. The sessions are those of `state` that go on.
pub(super) fn of(after: &Catalogue, state: &State, now: Timestamp) -> Found {
    let carried: Vec<_> =
        after.segments.values().map(|it| Carried::of(&it.spec, after, state, now)).collect();
    let evidence = Evidence {
        segments: carried.iter().map(Carried::facts).collect(),
        // Nothing can be published yet.
        publications: &[],
    };
    let Proof { refutations, warnings } = prove(&evidence);
    let at = |segment: &SegmentId| {
        let segment = after.segments.get(segment).map(|it| &it.spec);
        let policy = segment.and_then(|it| after.policies.get(&it.organisation));
        policy.map(|it| it.spec.path()).or(segment.map(SegmentSpec::path)).unwrap_or_default()
    };
    let refutation = |it: &Refutation| Finding::new(at(&it.segment), it.to_string());
    let warning = |it: &Warning| {
        let at = format!("{}/segments/{}/rules/{}", at(&it.segment), it.segment, it.rule);
        Finding::new(at, it.to_string())
    };
    Found {
        refutations: refutations.iter().map(refutation).collect(),
        warnings: warnings.iter().map(warning).collect(),
    }
}

/// A segment as its agents would carry it.
struct Carried<'a> {
    segment: &'a SegmentSpec,
    compiled: Compiled,
    gateways: Vec<AgentId>,
    devices: Vec<Device>,
}

/// A device with a session.
struct Device {
    agent: AgentId,
    addresses: Vec<IpAddr>,
    hosts: Vec<Prefix>,
    classes: Vec<ClassId>,
}

impl Device {
    fn as_peer(&self) -> PeerFacts<'_> {
        PeerFacts { agent: &self.agent, allowed_ips: &self.hosts, classes: &self.classes }
    }
}

impl<'a> Carried<'a> {
    fn of(segment: &'a SegmentSpec, after: &Catalogue, state: &State, now: Timestamp) -> Self {
        let policy = after.policies.get(&segment.organisation);
        let compiled =
            policy.map_or_else(Compiled::default, |it| Compiled::of(&it.spec, &segment.name));
        let gateways = after.gateways.values().map(|it| &it.spec);
        let gateways = gateways.filter(|it| it.segment == segment.name);
        let gateways = gateways.map(|it| AgentId::Gateway(it.name.clone())).collect();
        let sessions = state.sessions.values().filter(|it| it.segment == segment.name);
        let live = sessions.filter(|it| after.ends_session(it).is_none());
        let devices = live.filter_map(|session| {
            let classes = compiled.classes_of(&after.facts(session)?, now);
            Some(Device {
                agent: AgentId::Device(session.device.clone()),
                addresses: session.addresses.clone(),
                hosts: session.addresses.iter().copied().map(Prefix::host).collect(),
                classes,
            })
        });
        let devices = devices.collect();
        Self { segment, compiled, gateways, devices }
    }

    fn facts(&self) -> SegmentFacts<'_> {
        let gateways = self.gateways.iter().map(|agent| AgentFacts {
            agent,
            addresses: &[],
            rules: RuleList::Listed(self.compiled.rules()),
            peers: self.devices.iter().map(Device::as_peer).collect(),
        });
        let devices = self.devices.iter().map(|device| AgentFacts {
            agent: &device.agent,
            addresses: &device.addresses,
            rules: RuleList::Made(Box::new(move || self.compiled.rules_for(&device.classes))),
            peers: Vec::new(),
        });
        SegmentFacts {
            segment: &self.segment.name,
            pools: &self.segment.pools,
            prefixes: &self.segment.prefixes,
            agents: gateways.chain(devices).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::{PolicySpec, Target};
    use partywall_proto::ids::OrganisationId;

    use super::super::testing::Building;
    use super::*;

    /// What speaks against a catalogue in which the council's segment and its rule got `prefix` too, past
    /// all other checks.
    async fn with(prefix: &str) -> Vec<String> {
        let building = Building::new().await;
        let (mut gateway, _nhs, mut desk) = building.seats().await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        let state = building.app.state();
        let mut after = state.catalogue.clone();
        let segment: SegmentId = "council".parse().unwrap();
        let prefix: Prefix = prefix.parse().unwrap();
        after.segments.get_mut(&segment).unwrap().spec.prefixes.push(prefix);
        let council: OrganisationId = "council".parse().unwrap();
        let policy: &mut PolicySpec = &mut after.policies.get_mut(&council).unwrap().spec;
        let rule = &mut policy.segments.get_mut(&segment).unwrap().rules[0];
        let Target::Net(net) = &mut rule.what[0] else { panic!("{rule:?}") };
        net.prefixes.push(prefix);
        let now = building.app.now();
        let found = of(&after, &state, now).refutations;
        found.into_iter().map(|it| it.to_string()).collect()
    }

    #[tokio::test]
    async fn what_every_other_check_let_pass_is_still_refused_with_a_packet() {
        assert_eq!(with("10.9.0.0/16").await, Vec::<String>::new());
        let crossing = with("100.64.1.0/25").await;
        assert!(
            crossing.iter().any(|it| it.starts_with("policies/council: in segment council, ")
                && it.contains("which is segment nhs's: rule web allows it")),
            "{crossing:?}"
        );
        let between = with("100.64.0.0/23").await;
        assert!(between.iter().any(|it| it.contains("in the pool of devices")), "{between:?}");
    }
}
