//! What must hold inside a policy and between it and its segment.
//!
//! A destination outside the segment is a finding, not a rule that never matches: whoever wrote it
//! meant something else.

use std::collections::BTreeSet;

use partywall_proto::admin::{PolicySpec, SegmentSpec, ServiceSpec, Target, Who};
use partywall_proto::nets::Protocol;

use super::catalogue::Catalogue;
use super::checks::{Findings, no_such};
use super::group_key::GroupKey;
use super::resource::Resource;

impl Catalogue {
    pub(super) fn check_policy(&self, policy: &PolicySpec, found: &mut Findings) {
        let at = |field: &str| format!("{}/{field}", policy.path());
        let Some(segment) = self.segments.get(&policy.segment).map(|segment| &segment.spec) else {
            return found.add(at("segment"), no_such("segment", &policy.segment));
        };
        if segment.organisation != policy.organisation {
            let detail = format!(
                "segment {} belongs to {}; a policy governs a segment of its own organisation",
                segment.name, segment.organisation
            );
            found.add(at("organisation"), detail);
        }
        for (name, service) in &policy.services {
            check_service(&at(&format!("services/{name}")), service, segment, found);
        }
        let mut names = BTreeSet::new();
        for rule in &policy.rules {
            let at = |field: &str| format!("{}/rules/{}/{field}", policy.path(), rule.name);
            if !names.insert(&rule.name) {
                found.add(at("name"), "another rule of this policy has this name; choose another");
            }
            self.check_who(&at("who"), policy, &rule.who, found);
            if rule.what.is_empty() {
                found.add(at("what"), "nothing is named; name what may be reached");
            }
            for target in &rule.what {
                match target {
                    Target::Service(name) if policy.services.contains_key(name) => {}
                    Target::Service(name) => found.add(at("what"), no_such("service", name)),
                    Target::Net(net) => check_service(&at("what"), net, segment, found),
                }
            }
        }
    }

    fn check_who(&self, at: &str, policy: &PolicySpec, who: &Who, found: &mut Findings) {
        match who {
            Who::Everyone => {}
            Who::Groups(groups) if groups.is_empty() => {
                found.add(at, "nobody is named; name groups, or write `everyone`");
            }
            Who::Groups(groups) => {
                for name in groups {
                    let organisation = policy.organisation.clone();
                    let key = GroupKey { organisation, name: name.clone() };
                    if !self.groups.contains_key(&key) {
                        found.add(at, no_such("group", &key));
                    }
                }
            }
        }
    }
}

fn check_service(at: &str, service: &ServiceSpec, segment: &SegmentSpec, found: &mut Findings) {
    if service.prefixes.is_empty() {
        found.add(at, "no prefix is named; write where it is");
    }
    for prefix in &service.prefixes {
        let inside =
            segment.prefixes.iter().chain(&segment.pools).any(|outer| outer.covers(prefix));
        if !inside {
            let detail = format!("{prefix} is outside the prefixes and pools of segment");
            found.add(at, format!("{detail} {}; correct one of them", segment.name));
        }
    }
    let has_ports = matches!(service.protocol, Some(Protocol::Tcp | Protocol::Udp));
    if !service.ports.is_empty() && !has_ports {
        found.add(at, "ports need `protocol: tcp` or `protocol: udp`");
    }
}
