//! What must hold between the things that admins set up. Every finding says where and what to do.
//!
//! Prefixes of different organisations may overlap: both use 10.0.0.0/8 inside. Overlay pools may not
//! overlap anything of another segment, because one device may use each in turn.

use std::collections::BTreeSet;
use std::fmt::Display;

use partywall_proto::admin::{DeviceClass, DeviceKind, SegmentSpec};
use partywall_proto::nets::Prefix;
use partywall_proto::overlay::{MTU_MAX, MTU_MIN};
use partywall_proto::problem::Finding;

use super::catalogue::Catalogue;
use super::group_key::GroupKey;
use super::resource::Resource;
use super::session::SessionRecord;

/// Bounds of an organisation's one-time-code step in seconds.
const CODE_STEP_S: std::ops::RangeInclusive<u32> = 8..=60;
/// Bounds of a session's length: a minute to a week.
const SESSION_LENGTH_S: std::ops::RangeInclusive<u64> = 60..=7 * 24 * 3600;
/// Bounds of the staleness limit: a minute, so that a renewal every third of it is cheap, to 30 days.
const STALENESS_LIMIT_S: std::ops::RangeInclusive<u64> = 60..=30 * 24 * 3600;
/// Smallest pools: room for a gateway and one device.
const POOL_V4_LENGTH: std::ops::RangeInclusive<u8> = 8..=29;
const POOL_V6_LENGTH: std::ops::RangeInclusive<u8> = 32..=120;

/// Collects findings under a path.
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, at: impl Display, detail: impl Into<String>) {
        self.0.push(Finding::new(at.to_string(), detail.into()));
    }

    pub(super) fn range<T: PartialOrd + Display>(
        &mut self,
        at: impl Display,
        value: &T,
        allowed: &std::ops::RangeInclusive<T>,
    ) {
        if !allowed.contains(value) {
            let (low, high) = (allowed.start(), allowed.end());
            self.add(at, format!("{value} is out of bounds; write {low} to {high}"));
        }
    }
}

impl Catalogue {
    /// Everything that does not hold; empty if all is well.
    pub fn check(&self) -> Vec<Finding> {
        let mut found = Findings(Vec::new());
        self.check_organisations(&mut found);
        for segment in self.segments.values() {
            self.check_segment(&segment.spec, &mut found);
        }
        self.check_gateways(&mut found);
        self.check_devices(&mut found);
        self.check_people(&mut found);
        for policy in self.policies.values() {
            self.check_policy(&policy.spec, &mut found);
        }
        for settings in self.flow_settings.values() {
            self.check_flow_settings(&settings.spec, &mut found);
        }
        found.0
    }

    /// Why `session` cannot go on as things are set up, in words for the person; none if it can.
    pub fn ends_session(&self, session: &SessionRecord) -> Option<&'static str> {
        let Some(user) = self.users.get(&session.user) else {
            return Some("the user was deleted");
        };
        let Some(device) = self.devices.get(&session.device) else {
            return Some("the device was deleted");
        };
        let Some(segment) = self.segments.get(&session.segment) else {
            return Some("the segment was deleted");
        };
        if user.spec.disabled {
            return Some("the user was disabled");
        }
        if device.spec.owner.as_ref().is_some_and(|owner| *owner != session.user) {
            return Some("the device has another owner");
        }
        match super::addresses::still_fit(&segment.spec.pools, &session.addresses) {
            true => None,
            false => Some("the segment's pools were changed"),
        }
    }

    fn check_organisations(&self, found: &mut Findings) {
        for organisation in self.organisations.values() {
            let spec = &organisation.spec;
            if spec.name.as_str() == super::audit::FACILITIES_CHAIN {
                found.add(spec.path(), "this name is the building's own; choose another");
            }
            let at = format!("{}/code_step_s", spec.path());
            found.range(at, &spec.code_step_s, &CODE_STEP_S);
        }
        for building in self.buildings.values() {
            for service in &building.spec.lan {
                let icmp = service.protocol == partywall_proto::nets::Protocol::Icmp;
                if icmp != service.ports.is_empty() {
                    let at = format!("{}/lan", building.spec.path());
                    found.add(at, "state ports with tcp and udp, and none with icmp");
                }
            }
        }
    }

    fn check_segment(&self, spec: &SegmentSpec, found: &mut Findings) {
        let at = |field: &str| format!("{}/{field}", spec.path());
        if !self.organisations.contains_key(&spec.organisation) {
            found.add(at("organisation"), no_such("organisation", &spec.organisation));
        }
        found.range(at("session_length_s"), &spec.session_length_s, &SESSION_LENGTH_S);
        found.range(at("staleness_limit_s"), &spec.staleness_limit_s, &STALENESS_LIMIT_S);
        found.range(at("mtu"), &spec.mtu, &(MTU_MIN..=MTU_MAX));
        let of_family = |four| spec.pools.iter().filter(move |pool| pool.is_ipv4() == four).count();
        if spec.pools.is_empty() || of_family(true) > 1 || of_family(false) > 1 {
            found.add(at("pools"), "write one IPv4 prefix, one IPv6 prefix, or one of each");
        }
        for pool in &spec.pools {
            let lengths = if pool.is_ipv4() { &POOL_V4_LENGTH } else { &POOL_V6_LENGTH };
            if !lengths.contains(&pool.length()) {
                let (low, high) = (lengths.start(), lengths.end());
                let detail = format!("{pool} is a wrong size for a pool; use /{low} to /{high}");
                found.add(at("pools"), detail);
            }
            if spec.prefixes.iter().any(|prefix| prefix.overlaps(pool)) {
                let detail = format!("{pool} overlaps the segment's own prefixes; move the pool");
                found.add(at("pools"), detail);
            }
        }
        let distinct: BTreeSet<_> = spec.prefixes.iter().collect();
        if distinct.len() < spec.prefixes.len() {
            found.add(at("prefixes"), "a prefix is listed twice; leave one out");
        }
        self.check_against_others(spec, found);
    }

    fn check_against_others(&self, spec: &SegmentSpec, found: &mut Findings) {
        let at = |field: &str| format!("{}/{field}", spec.path());
        let others = self.segments.values().map(|other| &other.spec);
        for other in others.filter(|other| other.name != spec.name) {
            let overlapping = |ours: &[Prefix], theirs: &[Prefix]| {
                ours.iter().find(|a| theirs.iter().any(|b| a.overlaps(b))).copied()
            };
            if let Some(pool) = overlapping(&spec.pools, &other.pools) {
                let detail = format!("{pool} overlaps a pool of segment {}; move one", other.name);
                found.add(at("pools"), detail);
            }
            if let Some(prefix) = overlapping(&spec.prefixes, &other.pools) {
                let detail = format!("{prefix} belongs to a pool of segment {}", other.name);
                found.add(at("prefixes"), format!("{detail}; leave it out or move the pool"));
            }
            let same_organisation = other.organisation == spec.organisation;
            if same_organisation && let Some(prefix) = overlapping(&spec.prefixes, &other.prefixes)
            {
                let detail = format!("{prefix} belongs to segment {}", other.name);
                found.add(at("prefixes"), format!("{detail}; give it to one of the two"));
            }
        }
    }

    fn check_gateways(&self, found: &mut Findings) {
        for gateway in self.gateways.values().map(|gateway| &gateway.spec) {
            let at = |field: &str| format!("{}/{field}", gateway.path());
            if !self.segments.contains_key(&gateway.segment) {
                found.add(at("segment"), no_such("segment", &gateway.segment));
            }
            if gateway.endpoints.is_empty() || gateway.endpoints.iter().any(|it| it.port() == 0) {
                found.add(at("endpoints"), "write at least one address:port, the port not 0");
            }
        }
    }

    fn check_devices(&self, found: &mut Findings) {
        let mut keys = BTreeSet::new();
        for device in self.devices.values().map(|device| &device.spec) {
            let at = |field: &str| format!("{}/{field}", device.path());
            if let Some(building) = &device.building
                && !self.buildings.contains_key(building)
            {
                found.add(at("building"), no_such("building", building));
            }
            if let Some(owner) = &device.owner
                && !self.users.contains_key(owner)
            {
                found.add(at("owner"), no_such("user", owner));
            }
            let agentless = device.class == Some(DeviceClass::Agentless);
            match &device.kind {
                DeviceKind::Agent => {
                    if agentless {
                        found.add(at("class"), "it runs our agent; choose another class");
                    }
                }
                DeviceKind::Stock { wireguard_key } => {
                    if device.class.is_some() && !agentless {
                        found.add(at("class"), "a stock client is agentless; leave the class out");
                    }
                    if device.owner.is_none() {
                        found
                            .add(at("owner"), "a stock client needs an owner: who signs in on it?");
                    }
                    if !keys.insert(*wireguard_key) {
                        let detail = "another device has this key; make a new pair on this one";
                        found.add(at("kind/wireguard_key"), detail);
                    }
                }
            }
        }
    }

    fn check_people(&self, found: &mut Findings) {
        for group in self.groups.values().map(|group| &group.spec) {
            if !self.organisations.contains_key(&group.organisation) {
                let at = format!("{}/organisation", group.path());
                found.add(at, no_such("organisation", &group.organisation));
            }
        }
        for user in self.users.values().map(|user| &user.spec) {
            if !self.organisations.contains_key(user.name.organisation()) {
                let at = format!("{}/name", user.path());
                found.add(at, no_such("organisation", user.name.organisation()));
            }
            for name in &user.groups {
                let organisation = user.name.organisation().clone();
                let key = GroupKey { organisation, name: name.clone() };
                if !self.groups.contains_key(&key) {
                    found.add(format!("{}/groups", user.path()), no_such("group", &key));
                }
            }
        }
    }
}

pub(super) fn no_such(kind: &str, name: &impl Display) -> String {
    format!("there is no {kind} {name}; set it up first, or take this reference away")
}

#[cfg(test)]
mod tests {
    use super::super::testing::catalogue;
    use serde_json::{Value, json};

    /// A council and an NHS segment that share 10.0.0.0/8 inside, with one thing changed.
    fn with(pointer: &str, value: Value) -> Vec<String> {
        let mut manifest = json!({
            "organisations": [{"name": "council", "title": "C"}, {"name": "nhs", "title": "N"}],
            "buildings": [{"name": "hq", "title": "HQ", "underlay": ["192.0.2.0/24"]}],
            "segments": [
                {"name": "council", "organisation": "council", "title": "C", "tunnel": "split",
                 "pools": ["100.64.0.0/24"], "prefixes": ["10.0.0.0/8"]},
                {"name": "nhs", "organisation": "nhs", "title": "N", "tunnel": "full",
                 "pools": ["100.64.1.0/24", "fd00::/64"], "prefixes": ["10.0.0.0/8"]},
            ],
            "gateways": [{"name": "gw", "segment": "nhs", "endpoints": ["192.0.2.1:51820"],
                          "forwarding": "nat"}],
            "devices": [{"name": "desk-1", "building": "hq", "kind": {"runs": "agent"}}],
            "groups": [{"organisation": "nhs", "name": "ward", "title": "W"}],
            "users": [{"name": "nina@nhs", "title": "Nina", "groups": ["ward"]}],
            "policies": [{"version": 1, "organisation": "nhs"}],
        });
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = manifest.pointer_mut(parent).unwrap();
        match field.parse::<usize>() {
            Ok(index) => parent[index] = value,
            Err(_) => parent[field] = value,
        }
        let all = catalogue(manifest);
        all.check()
            .into_iter()
            .map(|finding| format!("{}: {}", finding.at, finding.detail))
            .collect()
    }

    #[test]
    fn two_organisations_may_use_the_same_prefixes_inside() {
        assert_eq!(with("/buildings/0/title", json!("HQ")), Vec::<String>::new());
    }

    #[test]
    fn every_contradiction_is_found_where_it_is() {
        for (pointer, value, at) in [
            (
                "/segments/0/pools",
                json!(["100.64.1.128/25"]),
                "segments/council/pools: 100.64.1.128/25",
            ),
            ("/segments/0/pools", json!(["10.1.0.0/24"]), "segments/council/pools: 10.1.0.0/24"),
            ("/segments/0/pools", json!([]), "segments/council/pools"),
            ("/segments/0/pools", json!(["10.64.0.0/31"]), "segments/council/pools"),
            (
                "/segments/0/prefixes",
                json!(["100.64.1.0/28"]),
                "segments/council/prefixes: 100.64.1.0/28",
            ),
            (
                "/segments/0/organisation",
                json!("nhs"),
                "segments/council/prefixes: 10.0.0.0/8 belongs to segment nhs",
            ),
            ("/segments/0/organisation", json!("police"), "segments/council/organisation"),
            ("/segments/0/session_length_s", json!(0), "segments/council/session_length_s"),
            ("/organisations/0/code_step_s", json!(7), "organisations/council/code_step_s"),
            ("/gateways/0/segment", json!("x"), "gateways/gw/segment"),
            ("/gateways/0/endpoints", json!([]), "gateways/gw/endpoints"),
            ("/devices/0/building", json!("x"), "devices/desk-1/building"),
            ("/devices/0/owner", json!("bob@nhs"), "devices/desk-1/owner"),
            (
                "/devices/0/kind",
                json!({"runs": "stock", "wireguard_key": "A".repeat(43) + "="}),
                "devices/desk-1/owner",
            ),
            ("/groups/0/organisation", json!("x"), "groups/x/ward/organisation"),
            ("/users/0/groups", json!(["x"]), "users/nina@nhs/groups"),
            ("/devices/0/class", json!("agentless"), "devices/desk-1/class"),
            ("/policies/0/organisation", json!("police"), "policies/police/organisation"),
        ] {
            let found = with(pointer, value.clone());
            assert!(
                found.iter().any(|finding| finding.starts_with(at)),
                "{pointer} {value}: {found:?}"
            );
        }
    }
}
