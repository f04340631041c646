//! A topology: the networks and hosts of a lab, as data.
//!
//! A topology names everything that exists in its lab. Nothing is joined to a network that is not
//! listed here, which is what makes "no uplink" a matter of reading one file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Networks, hosts and what runs on them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The topology's name.
    pub name: String,
    /// Ethernet segments; each becomes a bridge.
    pub networks: BTreeMap<String, NetworkPlan>,
    /// Machines; each becomes a network, mount and UTS namespace.
    pub hosts: BTreeMap<String, HostPlan>,
}

/// One Ethernet segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPlan {
    /// In words.
    pub title: String,
}

/// One machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPlan {
    /// In words.
    pub title: String,
    /// Its network cards, by network.
    pub links: BTreeMap<String, LinkPlan>,
    /// Its routes beyond the links' own.
    #[serde(default)]
    pub routes: Vec<RoutePlan>,
    /// Its `/etc/resolv.conf`.
    #[serde(default)]
    pub nameservers: Vec<IpAddr>,
    /// Whether it is a router.
    #[serde(default)]
    pub forwards: bool,
    /// What it serves.
    #[serde(default)]
    pub servers: ServerPlan,
}

/// One network card.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPlan {
    /// As the host calls it.
    pub name: String,
    /// With the length of the network.
    pub addresses: Vec<IpNetwork>,
}

/// One route.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePlan {
    /// A prefix, or `default`.
    pub to: String,
    /// The next hop.
    pub via: IpAddr,
}

/// What a host serves. Every server is a real one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerPlan {
    /// nginx on port 80.
    #[serde(default)]
    pub http: Option<HttpPlan>,
    /// dnsmasq on port 53.
    #[serde(default)]
    pub dns: Option<DnsPlan>,
    /// socat, TCP and UDP, on this port.
    #[serde(default)]
    pub echo: Option<u16>,
    /// One iperf3 server on each of these ports.
    #[serde(default)]
    pub iperf3: Vec<u16>,
}

/// A web server: `/` names the organisation, `/large` is 1 GiB, `/slow` is the same at 8 MB/s, in small pieces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpPlan {
    /// Text of the page.
    pub page: String,
}

/// A name server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsPlan {
    /// A and AAAA records; every other name does not exist.
    pub names: BTreeMap<String, Vec<IpAddr>>,
}

impl Topology {
    /// One of the topologies that come with the tests: `building` or `pair`.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn named(name: &str) -> Result<Self> {
        let text = match name {
            "building" => include_str!("../../topologies/building.yaml"),
            "pair" => include_str!("../../topologies/pair.yaml"),
            other => bail!("no topology {other:?}; there are building and pair, or give a file"),
        };
        Self::parse(text).with_context(|| format!("topology {name}"))
    }

    /// Reads a topology from a file.
    ///
    /// # Errors
    /// The file cannot be read, or is no topology.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no topology", path.display()))
    }

    /// Reads a topology from YAML.
    ///
    /// # Errors
    /// It is no topology, or does not hold together.
    pub fn parse(yaml: &str) -> Result<Self> {
        let topology: Self = serde_saphyr::from_str(yaml)?;
        topology.check()?;
        Ok(topology)
    }

    /// Checks what the types alone cannot hold.
    ///
    /// # Errors
    /// A name that would not fit an interface, an unknown network, an address that is used twice on
    /// one network, or a next hop that is on none of the host's networks.
    pub fn check(&self) -> Result<()> {
        for name in self.networks.keys().chain(self.hosts.keys()) {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
                bail!("{name:?} is not a name: use 1 to 32 of a-z, 0-9 and '-'");
            }
        }
        let mut taken = BTreeSet::new();
        for (name, host) in &self.hosts {
            for (network, link) in &host.links {
                if !self.networks.contains_key(network) {
                    bail!("{name}: there is no network {network:?}");
                }
                if link.name.is_empty() || link.name.len() > 15 || link.name.contains(['/', ' ']) {
                    bail!("{name}: {:?} is no interface name (1 to 15 characters)", link.name);
                }
                for address in &link.addresses {
                    if !taken.insert((network, address.ip())) {
                        bail!("{name}: {} is used twice on {network}", address.ip());
                    }
                }
            }
            for route in &host.routes {
                if route.to != "default" && route.to.parse::<IpNetwork>().is_err() {
                    bail!("{name}: route to {:?}: write a prefix or default", route.to);
                }
                let mut nets = host.links.values().flat_map(|link| &link.addresses);
                if !nets.any(|net| net.contains(route.via)) {
                    bail!("{name}: next hop {} is on none of its networks", route.via);
                }
            }
        }
        Ok(())
    }

    /// The first IPv4 address of a host on a network.
    ///
    /// # Panics
    /// There is none: the caller is wrong.
    pub fn ipv4(&self, host: &str, network: &str) -> IpAddr {
        self.address(host, network, IpAddr::is_ipv4)
    }

    /// The first IPv6 address of a host on a network.
    ///
    /// # Panics
    /// There is none: the caller is wrong.
    pub fn ipv6(&self, host: &str, network: &str) -> IpAddr {
        self.address(host, network, IpAddr::is_ipv6)
    }

    fn address(&self, host: &str, network: &str, family: fn(&IpAddr) -> bool) -> IpAddr {
        let link = self.hosts.get(host).and_then(|host| host.links.get(network));
        link.into_iter()
            .flat_map(|link| &link.addresses)
            .map(IpNetwork::ip)
            .find(family)
            .unwrap_or_else(|| panic!("{host} has no such address on {network}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "name: t\nnetworks: {lan: {title: x}}\nhosts:\n  a: {title: a, links: {lan: {name: eth0, addresses: [10.0.0.1/8]}}}\n";

    #[test]
    fn the_topologies_that_come_with_the_tests_hold_together() {
        for name in ["building", "pair"] {
            Topology::named(name).unwrap();
        }
        assert!(Topology::named("moon").is_err());
    }

    #[test]
    fn both_organisations_use_the_same_addresses_inside() {
        let building = Topology::named("building").unwrap();
        let (council, nhs) = ("council-intranet", "nhs-records");
        assert_eq!(building.ipv4(council, "council"), building.ipv4(nhs, "nhs"));
        assert_eq!(building.ipv6(council, "council"), building.ipv6(nhs, "nhs"));
    }

    #[test]
    fn only_a_gateway_and_its_own_servers_are_in_an_organisations_network() {
        let building = Topology::named("building").unwrap();
        for (name, host) in &building.hosts {
            let of = |network: &str| host.links.contains_key(network);
            assert!(!(of("council") && of("nhs")), "{name} joins both networks");
            assert!(!(of("lan") && (of("council") || of("nhs"))), "{name} bypasses the gateways");
        }
    }

    #[test]
    fn a_topology_that_does_not_hold_together_is_refused() {
        Topology::parse(ONE).unwrap();
        for (from, to) in [
            ("links: {lan:", "links: {wan:"),
            ("eth0", "a-name-that-is-far-too-long"),
            ("title: a, links", "title: a, routes: [{to: default, via: 192.0.2.1}], links"),
            ("title: a, links", "title: a, colour: red, links"),
        ] {
            assert!(Topology::parse(&ONE.replace(from, to)).is_err(), "{to} was taken");
        }
    }
}
