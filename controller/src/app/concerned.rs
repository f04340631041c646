//! Which agents a write concerns, and in what part of their configs.
//!
//! Where a gateway is concerned by some devices only, just their peers are made anew: a person who signs
//! in costs the same with ten thousand others as with none.

use std::collections::{BTreeMap, BTreeSet};

use partywall_proto::ids::{AgentId, DeviceId, GatewayId, SegmentId, UserId};

use super::state::State;
use crate::domain::session::SessionRecord;

/// The agents whose configs may be others after some writes.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    /// In any part.
    wholly: BTreeSet<AgentId>,
    /// Gateways, in the peers that these devices are to them.
    by_peers: BTreeMap<GatewayId, BTreeSet<DeviceId>>,
}

impl Concerned {
    /// This agent alone.
    pub(super) fn only(agent: AgentId) -> Self {
        Self { wholly: BTreeSet::from([agent]), by_peers: BTreeMap::new() }
    }

    /// Adds whom writes to `keys` concern, as `state` has it. Ask before and after.
    pub(super) fn add<'a>(&mut self, state: &State, keys: impl Iterator<Item = &'a str>) {
        keys.for_each(|key| self.add_key(state, key));
    }

    /// Leaves `agent` out.
    pub(super) fn leave_out(&mut self, agent: &AgentId) {
        self.wholly.remove(agent);
        if let AgentId::Gateway(gateway) = agent {
            self.by_peers.remove(gateway);
        }
    }

    /// Agents of whose configs every part may have changed.
    pub(super) fn wholly(&self) -> impl Iterator<Item = &AgentId> {
        self.wholly.iter()
    }

    /// The other gateways, with the devices that are the only peers that may have changed.
    pub(super) fn by_peers(&self) -> impl Iterator<Item = (AgentId, &BTreeSet<DeviceId>)> {
        let named =
            self.by_peers.iter().map(|(it, devices)| (AgentId::Gateway(it.clone()), devices));
        named.filter(|(agent, _)| !self.wholly.contains(agent))
    }

    fn add_key(&mut self, state: &State, key: &str) {
        let mut words = key.splitn(3, '/');
        let (first, second, third) = (words.next(), words.next(), words.next());
        let sessions = || state.sessions.values();
        match (first, second, third) {
            (Some("session"), Some(id), _) => {
                let session = id.parse().ok().and_then(|id| state.sessions.get(&id));
                session.into_iter().for_each(|session| self.both_ends(state, session));
            }
            (Some("agent"), Some(_), Some(_)) => {
                if let Some(agent) = key.strip_prefix("agent/").and_then(|it| it.parse().ok()) {
                    self.around_agent(state, &agent);
                    self.wholly.insert(agent);
                }
            }
            (Some("resource"), Some("segments"), Some(name))
            | (Some("segment-key"), Some(name), None) => {
                name.parse().into_iter().for_each(|segment| self.all_of_segment(state, &segment));
            }
            (Some("resource"), Some("policies"), Some(name))
            | (Some("policy-version"), Some(name), Some(_))
            | (Some("hours"), Some(name), None) => {
                let all = state.catalogue.segments.values().map(|segment| &segment.spec);
                all.filter(|segment| segment.organisation.as_str() == name)
                    .for_each(|segment| self.all_of_segment(state, &segment.name));
            }
            (Some("observed"), Some(name), None) => {
                let all = state.catalogue.segments.values().map(|segment| &segment.spec);
                let own = all.filter(|segment| segment.organisation.as_str() == name);
                let gateways = own.flat_map(|segment| gateways(state, &segment.name));
                self.wholly.extend(gateways.cloned().map(AgentId::Gateway));
            }
            (Some("resource"), Some("gateways"), Some(name)) => {
                if let Ok(gateway) = name.parse() {
                    let agent = AgentId::Gateway(gateway);
                    self.around_agent(state, &agent);
                    self.wholly.insert(agent);
                }
            }
            (Some("resource"), Some("users"), Some(name)) => {
                let user: Option<UserId> = name.parse().ok();
                sessions()
                    .filter(|session| Some(&session.user) == user.as_ref())
                    .for_each(|session| self.both_ends(state, session));
            }
            (Some("resource"), Some("devices"), Some(name))
            | (Some("stock-secret"), Some(name), _) => {
                let session = name.parse().ok().and_then(|device| state.session_on(&device));
                session.into_iter().for_each(|session| self.both_ends(state, session));
            }
            (Some("resource"), Some("buildings"), Some(name)) => {
                let here = |device: &DeviceId| {
                    let device = state.catalogue.devices.get(device);
                    device
                        .and_then(|it| it.spec.building.as_ref())
                        .is_some_and(|it| it.as_str() == name)
                };
                let devices = sessions().map(|session| &session.device).filter(|it| here(it));
                self.wholly.extend(devices.cloned().map(AgentId::Device));
            }
            (_, _, _) => {}
        }
    }

    /// The agents of a session.
    fn both_ends(&mut self, state: &State, session: &SessionRecord) {
        self.wholly.insert(AgentId::Device(session.device.clone()));
        self.gateways_of(state, session);
    }

    /// A session's gateways, in what its device is to them.
    fn gateways_of(&mut self, state: &State, session: &SessionRecord) {
        for gateway in gateways(state, &session.segment) {
            self.by_peers.entry(gateway.clone()).or_default().insert(session.device.clone());
        }
    }

    /// The agents that have `agent` for a peer.
    fn around_agent(&mut self, state: &State, agent: &AgentId) {
        match agent {
            AgentId::Device(device) => {
                let session = state.session_on(device);
                session.into_iter().for_each(|session| self.gateways_of(state, session));
            }
            AgentId::Gateway(gateway) => {
                if let Some(gateway) = state.catalogue.gateways.get(gateway) {
                    self.all_of_segment(state, &gateway.spec.segment);
                }
            }
        }
    }

    fn all_of_segment(&mut self, state: &State, segment: &SegmentId) {
        self.wholly.extend(gateways(state, segment).cloned().map(AgentId::Gateway));
        let live = state.sessions.values().filter(|session| session.segment == *segment);
        self.wholly.extend(live.map(|session| AgentId::Device(session.device.clone())));
    }
}

fn gateways<'a>(
    state: &'a State,
    segment: &'a SegmentId,
) -> impl Iterator<Item = &'a GatewayId> + 'a {
    let all = state.catalogue.gateways.values().map(|gateway| &gateway.spec);
    all.filter(move |it| it.segment == *segment).map(|it| &it.name)
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::UserSpec;

    use super::super::testing::Building;

    #[tokio::test]
    async fn a_change_of_ones_groups_reaches_ones_own_agents_as_a_delta_and_nobody_else() {
        let building = Building::new().await;
        let (mut gateway, mut nhs, mut desk) = building.seats().await;
        let mut other = building.enrol(&building.facilities, "device/desk-2").await;
        building.sign_in(&mut desk, "alice@council", &mut [&mut gateway]).await.unwrap();
        building.sign_in(&mut other, "nina@nhs", &mut [&mut nhs]).await.unwrap();
        let alice = "alice@council".parse().unwrap();
        let spec = building.app.get::<UserSpec>(&building.council, &alice).await.unwrap().spec;
        for seat in [&mut gateway, &mut nhs, &mut desk, &mut other] {
            seat.drain();
        }
        let classes = |gateway: &super::super::testing::Seat| {
            gateway.held.as_ref().unwrap().peers[0].classes.len()
        };
        assert_eq!(classes(&gateway), 1);

        let without = UserSpec { groups: Vec::new(), ..spec.clone() };
        for (spec, then) in [(without, 0), (spec, 1)] {
            building.app.put(&building.council, spec, None).await.unwrap();
            assert_eq!((gateway.drain(), desk.drain()), (vec!["delta"], vec!["delta"]));
            assert_eq!(classes(&gateway), then);
            assert_eq!((nhs.drain(), other.drain()), (Vec::new(), Vec::<&str>::new()));
        }
    }
}
