//! What is set up in a lab: the manifests, and what follows from them.
//!
//! Hosts and agents have the same names, in the topology as in the manifests, so that no second list
//! could disagree.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use partywall_proto::admin::{DeviceKind, Manifest};

use super::topology::Topology;

/// One manifest, as it is applied and as it is read.
#[derive(Debug, Clone)]
pub struct Part {
    /// What `partywallctl apply` is given.
    pub yaml: String,
    /// The same.
    pub manifest: Manifest,
}

/// The manifests of one lab.
#[derive(Debug, Clone)]
pub struct Site {
    /// What facilities set up.
    pub facilities: Part,
    /// What each organisation's admin sets up.
    pub organisations: BTreeMap<String, Part>,
}

impl Site {
    /// The manifests that belong to one of the topologies that come with the tests.
    ///
    /// # Errors
    /// There are none for it.
    pub fn of(topology: &Topology) -> Result<Self> {
        match topology.name.as_str() {
            "building" => Self::new(
                include_str!("../../manifests/building.yaml"),
                &[
                    ("council", include_str!("../../manifests/council.yaml")),
                    ("nhs", include_str!("../../manifests/nhs.yaml")),
                ],
            ),
            "pair" => Self::new(
                include_str!("../../manifests/pair.yaml"),
                &[("bench", include_str!("../../manifests/bench.yaml"))],
            ),
            other => bail!("no manifests for topology {other:?}"),
        }
    }

    /// A site from manifests in YAML: one of facilities, one of each organisation.
    ///
    /// # Errors
    /// One is no manifest.
    pub fn new(facilities: &str, organisations: &[(&str, &str)]) -> Result<Self> {
        let mut site =
            Self { facilities: part("facilities", facilities)?, organisations: BTreeMap::new() };
        for (organisation, yaml) in organisations {
            site.organisations.insert((*organisation).into(), part(organisation, yaml)?);
        }
        Ok(site)
    }

    /// Every agent: its host, its name, and whose token makes its enrolment code. Gateways first, for
    /// devices call them.
    pub(super) fn agents(&self) -> Vec<(String, String, String)> {
        let mut agents = Vec::new();
        for (organisation, part) in &self.organisations {
            for gateway in &part.manifest.gateways {
                let name = &gateway.name;
                agents.push((name.to_string(), format!("gateway/{name}"), organisation.clone()));
            }
        }
        for device in &self.facilities.manifest.devices {
            if matches!(device.kind, DeviceKind::Agent) {
                let name = &device.name;
                agents.push((name.to_string(), format!("device/{name}"), "facilities".into()));
            }
        }
        agents
    }

    /// Where the gateways are reached.
    pub(super) fn gateway_endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let gateways = self.organisations.values().flat_map(|part| &part.manifest.gateways);
        gateways.flat_map(|gateway| gateway.endpoints.iter().copied())
    }
}

fn part(whose: &str, yaml: &str) -> Result<Part> {
    let manifest =
        serde_saphyr::from_str(yaml).with_context(|| format!("the manifest of {whose}"))?;
    Ok(Part { yaml: yaml.into(), manifest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_of_the_manifests_has_a_host_in_the_topology() {
        for name in ["building", "pair"] {
            let topology = Topology::named(name).unwrap();
            let site = Site::of(&topology).unwrap();
            assert!(!site.agents().is_empty());
            for (host, ..) in site.agents() {
                assert!(topology.hosts.contains_key(&host), "{host}");
            }
        }
    }

    #[test]
    fn gateways_listen_where_the_topology_puts_them() {
        let topology = Topology::named("building").unwrap();
        let underlay = |host| [topology.ipv4(host, "underlay"), topology.ipv6(host, "underlay")];
        let known = [underlay("gw-council"), underlay("gw-nhs")].concat();
        for endpoint in Site::of(&topology).unwrap().gateway_endpoints() {
            assert!(known.contains(&endpoint.ip()), "{endpoint}");
        }
    }
}
