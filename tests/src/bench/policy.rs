//! A policy of a given number of rules, exactly one of which allows what is measured.
//!
//! The one that matches stands in the middle: a filter that read its rules in turn would show it.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use partywall_proto::admin::{Manifest, Members, PolicyRule, ServiceSpec, Target, When, Who};
use partywall_proto::nets::{PortRange, Prefix, Protocol};
use partywall_proto::rules::{Action, Opener};

use crate::lab::{Site, Topology};

/// Destinations of the rules that never match begin here, within the segment's prefix and away from
/// the server.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

/// The manifests of the topology `pair`, with a policy that compiles to `rules` rules.
pub(super) fn site(topology: &Topology, rules: u32) -> Result<Site> {
    let mut site = Site::of(topology)?;
    let part = site.organisations.get_mut("bench").context("no organisation bench")?;
    set_rules(&mut part.manifest, rules)?;
    // JSON is YAML.
    part.yaml = serde_json::to_string(&part.manifest)?;
    Ok(site)
}

fn set_rules(manifest: &mut Manifest, rules: u32) -> Result<()> {
    let policy = manifest.policies.first_mut().context("no policy to fill")?;
    let others = rules.checked_sub(1).context("a policy has at least the rule that matches")?;
    policy.services.clear();
    let elsewhere = |first: u32, count: u32| -> Vec<Prefix> {
        let address = |at: u32| Ipv4Addr::from(u32::from(ELSEWHERE) + at);
        (first..first + count).map(|at| Prefix::host(address(at).into())).collect()
    };
    let before = others / 2;
    let web = |prefixes| ServiceSpec {
        prefixes,
        protocol: Some(Protocol::Tcp),
        ports: vec![PortRange::single(443)],
    };
    // All protocols, for all that is measured must hang on one rule.
    let all =
        ServiceSpec { prefixes: vec!["10.1.0.0/16".parse()?], protocol: None, ports: Vec::new() };
    let list = [
        ("before", web(elsewhere(0, before))),
        ("measurements", all),
        ("after", web(elsewhere(before, others - before))),
    ];
    let segment = policy.segments.values_mut().next().context("the policy governs no segment")?;
    segment.rules = Vec::new();
    for (name, service) in list {
        if service.prefixes.is_empty() {
            continue;
        }
        segment.rules.push(PolicyRule {
            name: name.parse()?,
            who: Who::Members(Members { groups: vec!["staff".parse()?], users: Vec::new() }),
            what: vec![Target::Net(service)],
            when: When::default(),
            action: Action::Allow,
            opened_by: Opener::Device,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_as_many_rules_as_it_is_asked_for_and_one_of_them_matches() {
        let topology = Topology::named("pair").unwrap();
        for rules in [1, 2, 1000, 100_000] {
            let site = site(&topology, rules).unwrap();
            let policy = &site.organisations["bench"].manifest.policies[0];
            let segment = policy.segments.values().next().unwrap();
            let nets =
                segment.rules.iter().flat_map(|rule| &rule.what).map(|target| match target {
                    Target::Net(service) => &service.prefixes,
                    Target::Service(name) => panic!("{name} is not written in place"),
                });
            let prefixes: Vec<_> = nets.flatten().collect();
            assert_eq!(prefixes.len(), rules as usize);
            let server = topology.ipv4("server", "inside");
            assert_eq!(prefixes.iter().filter(|prefix| prefix.holds(server)).count(), 1);
        }
        assert!(site(&topology, 0).is_err());
    }
}
