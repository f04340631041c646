//! What an agent should be carrying.
//!
//! A write that changes what [`desired`] says of an agent must be told by
//! [`Concerned`](super::concerned::Concerned): else the agent learns of it only when something else
//! happens to it.

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use partywall_proto::admin::{DeviceKind, GatewaySpec, SegmentSpec};
use partywall_proto::agent_api::{SegmentOffer, ServerMessage};
use partywall_proto::ids::{AgentId, DeviceId, GatewayId, SegmentId};
use partywall_proto::keys::WireguardKey;
use partywall_proto::overlay::{Generation, Observed, OverlayConfig, Peer, PolicyStamp};
use partywall_proto::rules::ClassId;

use super::state::State;
use crate::domain::overlay::{Admission, Frame, device_config, gateway_config, gateway_peer};
use crate::domain::policy::Compiled;
use crate::domain::session::{PskSecret, SessionRecord};

/// What an agent should be carrying.
pub(super) enum Desired<'a> {
    /// This, signed with the segment's key.
    Config(Box<OverlayConfig>, &'a SigningKey),
    /// Nothing, and why.
    Nothing(&'static str),
}

/// See the module.
pub(super) fn desired<'a>(state: &'a State, agent: &AgentId, now: Timestamp) -> Desired<'a> {
    match agent {
        AgentId::Device(device) => for_device(state, device, now),
        AgentId::Gateway(gateway) => for_gateway(state, gateway, now),
    }
}

fn for_gateway<'a>(state: &'a State, gateway: &GatewayId, now: Timestamp) -> Desired<'a> {
    let Some(gateway) = state.catalogue.gateways.get(gateway) else {
        return Desired::Nothing("the gateway was deleted");
    };
    let gateway = &gateway.spec;
    let Some((segment, key)) = segment(state, &gateway.segment) else {
        return Desired::Nothing("the gateway's segment was deleted");
    };
    let policy = state.compiled.get(&segment.name).map(AsRef::as_ref);
    let none = Compiled::default();
    let live = state.sessions.values().filter(|session| session.segment == segment.name);
    let admissions = live.filter_map(|session| admission(state, session, now));
    let frame = frame(state, now);
    let mut config = gateway_config(frame, segment, gateway, policy.unwrap_or(&none), admissions);
    config.policy = stamp(state, segment);
    config.observed = state.observed_in(segment).map(|(version, observed)| Observed {
        version,
        rules: observed.rules_beside(policy.unwrap_or(&none)),
    });
    Desired::Config(Box::new(config), key)
}

/// What a gateway should hold of some devices.
pub(super) struct DesiredPeers<'a> {
    pub(super) segment: &'a SegmentSpec,
    pub(super) key: &'a SigningKey,
    /// By name; none where the device has no session in the gateway's segment.
    pub(super) peers: Vec<(AgentId, Option<Peer>)>,
}

/// What [`desired`] says of `devices` in the config of `gateway`; none where it says that there is no config.
pub(super) fn desired_peers<'a, 'd>(
    state: &'a State,
    gateway: &GatewayId,
    devices: impl IntoIterator<Item = &'d DeviceId>,
    now: Timestamp,
) -> Option<DesiredPeers<'a>> {
    let gateway = &state.catalogue.gateways.get(gateway)?.spec;
    let (segment, key) = segment(state, &gateway.segment)?;
    let peer = |device: &DeviceId| {
        let session = state.session_on(device).filter(|it| it.segment == segment.name)?;
        Some(gateway_peer(gateway, admission(state, session, now)?))
    };
    let named = |device: &DeviceId| (AgentId::Device(device.clone()), peer(device));
    let peers = devices.into_iter().map(named).collect();
    Some(DesiredPeers { segment, key, peers })
}

fn for_device<'a>(state: &'a State, device: &DeviceId, now: Timestamp) -> Desired<'a> {
    let Some(session) = state.session_on(device) else {
        return Desired::Nothing("nobody is signed in");
    };
    let Some((segment, key)) = segment(state, &session.segment) else {
        return Desired::Nothing("the segment was deleted");
    };
    let Some(admission) = admission(state, session, now) else {
        return Desired::Nothing("the device is not enrolled");
    };
    let building = state
        .catalogue
        .devices
        .get(device)
        .and_then(|device| device.spec.building.as_ref())
        .and_then(|building| state.catalogue.buildings.get(building))
        .map(|building| &building.spec);
    let policy = state.compiled.get(&segment.name).map(AsRef::as_ref);
    let none = Compiled::default();
    let gateways = gateways(state, &segment.name);
    let mut config = device_config(
        frame(state, now),
        segment,
        building,
        &gateways,
        policy.unwrap_or(&none),
        &admission,
    );
    config.policy = stamp(state, segment);
    Desired::Config(Box::new(config), key)
}

fn stamp(state: &State, segment: &SegmentSpec) -> Option<PolicyStamp> {
    let version = state.version_in_force(&segment.organisation)?;
    Some(PolicyStamp { version: version.number })
}

fn frame(state: &State, now: Timestamp) -> Frame {
    Frame { generation: Generation(state.revision), issued_at: now }
}

fn segment<'a>(state: &'a State, name: &SegmentId) -> Option<(&'a SegmentSpec, &'a SigningKey)> {
    Some((&state.catalogue.segments.get(name)?.spec, state.segment_keys.get(name)?))
}

/// The segment's gateways that are enrolled, in the order of their names.
pub(super) fn gateways<'a>(
    state: &'a State,
    segment: &SegmentId,
) -> Vec<(&'a GatewaySpec, WireguardKey)> {
    let all = state.catalogue.gateways.values().map(|gateway| &gateway.spec);
    all.filter(|gateway| gateway.segment == *segment)
        .filter_map(|gateway| {
            let agent = state.agents.get(&AgentId::Gateway(gateway.name.clone()))?;
            Some((gateway, agent.wireguard_key))
        })
        .collect()
}

/// The device's WireGuard key: registered for a stock client, made at enrolment for an agent.
pub(super) fn wireguard_key(state: &State, device: &DeviceId) -> Option<WireguardKey> {
    match &state.catalogue.devices.get(device)?.spec.kind {
        DeviceKind::Stock { wireguard_key } => Some(*wireguard_key),
        DeviceKind::Agent => {
            Some(state.agents.get(&AgentId::Device(device.clone()))?.wireguard_key)
        }
    }
}

fn admission<'a>(
    state: &'a State,
    session: &'a SessionRecord,
    now: Timestamp,
) -> Option<Admission<'a>> {
    let device = state.catalogue.devices.get(&session.device)?;
    let psk: &PskSecret = match &device.spec.kind {
        DeviceKind::Agent => &session.secret,
        // The printed config of a stock client stays valid over its sessions.
        DeviceKind::Stock { .. } => state.stock_secrets.get(&session.device)?,
    };
    Some(Admission {
        session,
        wireguard_key: wireguard_key(state, &session.device)?,
        classes: classes(state, session, now)?,
        psk,
    })
}

/// The classes of `session` under its segment's policy, then those under the one on trial, which rules in
/// force do not name; none where its user or device is gone.
pub(super) fn classes(
    state: &State,
    session: &SessionRecord,
    now: Timestamp,
) -> Option<Vec<ClassId>> {
    let facts = state.catalogue.facts(session)?;
    let at = state.hours.get(session.user.organisation()).map_or(now, |hours| hours.at);
    let none = Compiled::default();
    let compiled = state.compiled.get(&session.segment).map_or(&none, AsRef::as_ref);
    let mut classes = compiled.classes_of(&facts, at);
    let segment = state.catalogue.segments.get(&session.segment);
    if let Some((_, observed)) = segment.and_then(|it| state.observed_in(&it.spec)) {
        let theirs = observed.classes_of(&facts, at);
        classes.extend(theirs.into_iter().map(|class| compiled.class_beside(class)));
    }
    Some(classes)
}

/// The message that tells an agent which segments there are for it.
pub(super) fn welcome(state: &State, agent: &AgentId) -> ServerMessage {
    let owner = match agent {
        AgentId::Device(device) => {
            state.catalogue.devices.get(device).and_then(|device| device.spec.owner.as_ref())
        }
        AgentId::Gateway(_) => None,
    };
    let offered = |segment: &&SegmentSpec| match agent {
        AgentId::Device(_) => owner.is_none_or(|user| *user.organisation() == segment.organisation),
        AgentId::Gateway(name) => {
            state.catalogue.gateways.get(name).is_some_and(|it| it.spec.segment == segment.name)
        }
    };
    let segments: Vec<_> =
        state.catalogue.segments.values().map(|it| &it.spec).filter(offered).collect();
    let segment_keys = segments
        .iter()
        .filter_map(|it| Some((it.name.clone(), state.segment_key(&it.name)?)))
        .collect();
    let offers = segments.into_iter().map(|it| SegmentOffer {
        segment: it.name.clone(),
        organisation: it.organisation.clone(),
        title: it.title.clone(),
    });
    let segments = match agent {
        AgentId::Device(_) => offers.collect(),
        AgentId::Gateway(_) => Vec::new(),
    };
    ServerMessage::Welcome { agent: agent.clone(), segment_keys, segments }
}
