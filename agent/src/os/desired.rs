//! What the operating system should look like for one overlay config. Pure.
//!
//! On a device the routes sit in a table of their own, which everything but the agent's own packets
//! asks first; the main table is never changed, so that undoing cannot lose what was somebody
//! else's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use partywall_datapath::shard::Outbox;
use partywall_proto::ids::SessionId;
use partywall_proto::nets::Prefix;
use partywall_proto::overlay::{OverlayConfig, Role, TunnelMode};

use crate::os::device_rules::DeviceRules;
use crate::os::gateway_rules::GatewayRules;
use crate::os::names::Names;
use crate::os::routing::{
    MAIN_TABLE, PRIORITY_CONTROLLER, PRIORITY_LAN, PRIORITY_PREFIXES, PRIORITY_TUNNEL, PolicyRule,
    Route,
};
use crate::os::ruleset::Ruleset;
use crate::os::{TABLE, sysctl};

/// What the operating system should look like. [`Desired::nothing`] is how it looked before the
/// agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// A change of session kills the old one's sockets.
    pub(super) session: Option<SessionId>,
    pub(super) link: Option<Link>,
    pub(super) routes: BTreeSet<Route>,
    pub(super) rules: BTreeSet<PolicyRule>,
    pub(super) ruleset: Option<Ruleset>,
    pub(super) names: Option<Names>,
    pub(super) sysctls: BTreeMap<String, String>,
}

/// The TUN interface, up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) mtu: u16,
    /// The longest super-packet that the kernel makes for it, in packets; as the kernel has it, if none.
    pub(super) segments: Option<u32>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Desired {
    /// Nothing of ours: undoes everything.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// What `config` asks for. `controller` stays reachable beside a full tunnel for the staff's
    /// own browser, by TCP and at that port only; the agent's own connection needs no exception.
    pub fn for_config(
        config: &OverlayConfig,
        tun_name: &str,
        controller: Option<SocketAddr>,
    ) -> Self {
        let addresses: BTreeSet<IpAddr> = config.interface.addresses.iter().copied().collect();
        let mtu = config.interface.mtu;
        let segments = match &config.role {
            Role::Device { .. } => Some(Outbox::run_packets(mtu) as u32),
            // What comes from elsewhere is as long as it is, and longer ones would be taken apart by the kernel.
            Role::Gateway { .. } => None,
        };
        let link = Link { mtu, segments, addresses };
        match &config.role {
            Role::Device { session, tunnel, prefixes, dns, lan } => {
                let through_peers = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
                let all = prefixes.iter().chain(through_peers).copied();
                let (carried, portal) = match tunnel {
                    TunnelMode::Split => (disjoint(all), None),
                    TunnelMode::Full => {
                        let carried = disjoint(all.filter(|prefix| prefix.length() > 0));
                        let outside =
                            |at: &SocketAddr| !carried.iter().any(|prefix| prefix.holds(at.ip()));
                        let portal = controller.filter(outside);
                        (carried, portal)
                    }
                };
                let device = DeviceRules {
                    tun_name,
                    addresses: &link.addresses,
                    tunnel: *tunnel,
                    prefixes: &carried,
                    lan,
                    portal,
                };
                Self {
                    session: Some(session.id.clone()),
                    routes: device_routes(*tunnel, &carried),
                    rules: device_policy(*tunnel, portal),
                    ruleset: Some(device.ruleset()),
                    names: Names::for_session(dns, *tunnel, &config.segment),
                    sysctls: sysctl::for_device(),
                    link: Some(link),
                }
            }
            Role::Gateway { forwarding, pools, prefixes } => {
                let (pools, prefixes) =
                    (disjoint(pools.iter().copied()), disjoint(prefixes.iter().copied()));
                let gateway = GatewayRules {
                    tun_name,
                    addresses: &link.addresses,
                    forwarding: *forwarding,
                    pools: &pools,
                    prefixes: &prefixes,
                };
                Self {
                    session: None,
                    routes: pools
                        .iter()
                        .map(|&prefix| Route { table: MAIN_TABLE, prefix })
                        .collect(),
                    rules: BTreeSet::new(),
                    ruleset: Some(gateway.ruleset()),
                    names: None,
                    sysctls: sysctl::for_gateway(pools.iter().any(|pool| !pool.is_ipv4())),
                    link: Some(link),
                }
            }
        }
    }

    /// Whether this undoes everything.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::nothing()
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.link.as_ref().map(|link| link.addresses.clone()).unwrap_or_default()
    }
}

fn device_routes(tunnel: TunnelMode, carried: &[Prefix]) -> BTreeSet<Route> {
    let default = match tunnel {
        TunnelMode::Full => everything().to_vec(),
        TunnelMode::Split => Vec::new(),
    };
    let prefixes = carried.iter().copied().chain(default);
    prefixes.map(|prefix| Route { table: TABLE, prefix }).collect()
}

/// Split: our table, which has the segment's prefixes alone. Full: the segment's prefixes first,
/// even where the LAN has one of them; then what the LAN itself reaches without a default route,
/// which the leak guard still judges; then the tunnel.
fn device_policy(tunnel: TunnelMode, portal: Option<SocketAddr>) -> BTreeSet<PolicyRule> {
    let rule = |priority, ipv4, table| PolicyRule {
        priority,
        ipv4,
        table,
        unmarked: table == TABLE,
        no_default: matches!(priority, PRIORITY_PREFIXES | PRIORITY_LAN),
        to: None,
    };
    let mut rules = BTreeSet::new();
    for ipv4 in [true, false] {
        rules.insert(rule(PRIORITY_TUNNEL, ipv4, TABLE));
        if tunnel == TunnelMode::Full {
            rules.insert(rule(PRIORITY_PREFIXES, ipv4, TABLE));
            rules.insert(rule(PRIORITY_LAN, ipv4, MAIN_TABLE));
        }
    }
    if let Some(portal) = portal {
        let to = Some(Prefix::host(portal.ip()));
        rules.insert(PolicyRule { to, ..rule(PRIORITY_CONTROLLER, portal.is_ipv4(), MAIN_TABLE) });
    }
    rules
}

fn everything() -> [Prefix; 2] {
    ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("both are prefixes"))
}

/// The same addresses without a prefix that lies in another: nftables takes no overlapping sets,
/// and the kernel needs no route twice.
fn disjoint(prefixes: impl Iterator<Item = Prefix>) -> Vec<Prefix> {
    let all: BTreeSet<Prefix> = prefixes.collect();
    let covered = |prefix: &Prefix| all.iter().any(|other| other != prefix && other.covers(prefix));
    all.iter().filter(|prefix| !covered(prefix)).copied().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const COMMON: &str = r#""version":1,"segment":"council","generation":7,"issued_at":"2026-01-01T00:00:00Z",
        "valid_until":"2026-01-02T00:00:00Z","rules":[],"#;

    /// A device with a session of the council's, which also uses what the LAN uses.
    pub(in crate::os) fn device_config(tunnel: &str) -> OverlayConfig {
        config(&format!(
            r#"{{{COMMON}"agent":"device/desk-1","interface":{{"addresses":["100.64.0.5","fd00:64::5"],"mtu":1380}},
            "role":"device","session":{{"id":"s1","user":"alice@council","ends_at":"2026-01-01T08:00:00Z"}},
            "tunnel":"{tunnel}","prefixes":["10.0.0.0/8","fd00:10::/32"],
            "dns":{{"servers":["10.0.0.53"],"search":["council.example"]}},
            "lan":[{{"from":"192.0.2.0/24","protocol":"tcp","ports":[22,"8000-8099",8050]}}],
            "peers":[{{"agent":"gateway/gw","public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "endpoints":["192.0.2.1:51820"],"allowed_ips":["10.0.0.0/8","10.1.0.0/16","100.64.0.0/16","fd00:64::/64"]}}]}}"#
        ))
    }

    pub(in crate::os) fn gateway_config(forwarding: &str) -> OverlayConfig {
        config(&format!(
            r#"{{{COMMON}"agent":"gateway/gw","interface":{{"addresses":["100.64.0.1","fd00:64::1"],"mtu":1380,
            "listen_port":51820}},"role":"gateway","forwarding":"{forwarding}",
            "pools":["100.64.0.0/16","fd00:64::/64"],"prefixes":["10.0.0.0/8","fd00:10::/32"],"peers":[]}}"#
        ))
    }

    fn config(json: &str) -> OverlayConfig {
        serde_json::from_str(json).unwrap()
    }

    fn prefixes(routes: &BTreeSet<Route>) -> Vec<String> {
        routes.iter().map(|route| format!("{} {}", route.table, route.prefix)).collect()
    }

    #[test]
    fn a_split_tunnel_takes_the_segments_prefixes_and_no_more() {
        let desired = Desired::for_config(&device_config("split"), "tun0", None);
        let expected =
            ["20567 10.0.0.0/8", "20567 100.64.0.0/16", "20567 fd00:10::/32", "20567 fd00:64::/64"];
        assert_eq!(prefixes(&desired.routes), expected);
        assert!(desired.rules.iter().all(|rule| rule.unmarked && rule.table == TABLE));
        assert_eq!(desired.rules.len(), 2);
    }

    #[test]
    fn a_full_tunnel_takes_everything_and_the_segments_prefixes_before_the_lans() {
        let desired = Desired::for_config(&device_config("full"), "tun0", None);
        assert!(prefixes(&desired.routes).contains(&"20567 0.0.0.0/0".to_owned()));
        assert!(prefixes(&desired.routes).contains(&"20567 ::/0".to_owned()));
        let asked: Vec<_> = desired.rules.iter().filter(|rule| rule.ipv4).collect();
        let order: Vec<_> = asked.iter().map(|rule| (rule.table, rule.no_default)).collect();
        assert_eq!(order, [(TABLE, true), (MAIN_TABLE, true), (TABLE, false)]);
    }

    #[test]
    fn the_controller_is_an_exception_to_a_full_tunnel_unless_the_segment_has_its_address() {
        let rules = |controller: &str, tunnel: &str| {
            let controller = Some(controller.parse().unwrap());
            Desired::for_config(&device_config(tunnel), "tun0", controller).rules
        };
        let excepted = |rules: BTreeSet<PolicyRule>| rules.iter().any(|rule| rule.to.is_some());
        assert!(excepted(rules("192.0.2.9:8443", "full")));
        assert!(!excepted(rules("10.0.0.9:8443", "full")));
        assert!(!excepted(rules("192.0.2.9:8443", "split")));
    }

    #[test]
    fn a_gateway_routes_its_pools_to_the_tunnel_and_leaves_policy_routing_alone() {
        let desired = Desired::for_config(&gateway_config("nat"), "tun0", None);
        assert_eq!(prefixes(&desired.routes), ["254 100.64.0.0/16", "254 fd00:64::/64"]);
        assert!(desired.rules.is_empty() && desired.names.is_none());
        assert!(Desired::nothing().is_nothing() && !desired.is_nothing());
    }
}
