//! The device's leak guard: while a session is up, the segment's traffic leaves by the tunnel or
//! not at all, and nothing on the LAN opens anything towards this machine.
//!
//! The guard names the tunnel by its interface name and holds without the agent: after a `kill -9`
//! the interface is gone, nothing matches it, and everything that the guard speaks of is dropped
//! until the agent mends.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use partywall_proto::nets::{PortRange, Prefix};
use partywall_proto::overlay::{LanService, TunnelMode};
use serde_json::{Value, json};

use crate::os::FWMARK;
use crate::os::ruleset::{
    Hook, Ruleset, accept, address_in, ct, drop_as, field, has, is, is_not, meta, one_of, port_in,
    set_to,
};

/// Between connection tracking (-200) and everything that judges (nft(8), "Standard priority
/// names").
const MANGLE: i32 = -150;

/// What the device's table is made of.
pub(super) struct DeviceRules<'a> {
    pub(super) tun_name: &'a str,
    pub(super) addresses: &'a BTreeSet<IpAddr>,
    pub(super) tunnel: TunnelMode,
    /// Disjoint.
    pub(super) prefixes: &'a [Prefix],
    pub(super) lan: &'a [LanService],
    pub(super) portal: Option<SocketAddr>,
}

impl DeviceRules<'_> {
    pub(super) fn ruleset(&self) -> Ruleset {
        let mut rules = Ruleset::new();
        for counter in ["leak", "overlay_source", "overlay_destination", "lan_opens", "forwarded"] {
            rules.counter(counter);
        }
        self.output(&mut rules);
        self.input(&mut rules);
        self.forward(&mut rules);
        keep_mark(&mut rules);
        rules
    }

    fn output(&self, rules: &mut Ruleset) {
        rules.chain("output", Hook::filter("output"));
        rules.rule("output", [is(meta("oifname"), "lo"), accept()]);
        rules.rule("output", [is(meta("oifname"), self.tun_name), accept()]);
        let own: Vec<Prefix> = self.addresses.iter().copied().map(Prefix::host).collect();
        for ipv4 in [true, false] {
            let Some(source) = address_in("saddr", &own, ipv4) else { continue };
            rules.rule("output", std::iter::once(source).chain(drop_as("overlay_source")));
        }
        rules.rule("output", [is(meta("mark"), FWMARK), accept()]);
        rules.rule("output", dhcp(68, 67));
        rules.rule("output", dhcp_v6(546, 547));
        // Router solicitation, neighbour discovery (RFC 4861) and multicast reports (RFC 2710, RFC
        // 3810).
        rules.rule("output", icmp_v6(&[131, 132, 133, 135, 136, 143]));
        for service in self.lan {
            // Answers alone: the service may not open anything.
            let answers = is(ct("direction"), "reply");
            rules.rule("output", lan_rule(service, "daddr", "sport", Some(answers)));
        }
        if let Some(portal) = self.portal {
            let host = Prefix::host(portal.ip());
            let port = port_in("tcp", "dport", &[PortRange::single(portal.port())]);
            rules.rule(
                "output",
                address_in("daddr", [&host], portal.is_ipv4())
                    .into_iter()
                    .chain(port)
                    .chain([accept()]),
            );
        }
        self.drop_segment(rules, "output", "leak");
    }

    fn input(&self, rules: &mut Ruleset) {
        rules.chain("input", Hook::filter("input"));
        rules.rule("input", [is(meta("iifname"), "lo"), accept()]);
        rules.rule("input", [is(meta("iifname"), self.tun_name), accept()]);
        let own: Vec<Prefix> = self.addresses.iter().copied().map(Prefix::host).collect();
        for ipv4 in [true, false] {
            // Linux answers for any of its addresses on any interface; the LAN must not even learn
            // ours.
            let Some(destination) = address_in("daddr", &own, ipv4) else { continue };
            rules.rule("input", std::iter::once(destination).chain(drop_as("overlay_destination")));
        }
        let known = has(ct("state"), vec!["established", "related"]);
        rules.rule("input", [known, is(ct("direction"), "reply"), accept()]);
        // A gateway may speak first on the agent's own sockets; WireGuard and TLS judge what comes.
        rules.rule("input", [is(json!({"socket": {"key": "mark"}}), FWMARK), accept()]);
        rules.rule("input", dhcp(67, 68));
        rules.rule("input", dhcp_v6(547, 546));
        rules.rule("input", icmp_v6(&[130]));
        // Advertisements, discovery and redirects count only from this very link (RFC 4861 §11.2).
        let on_link = is(field("ip6", "hoplimit"), 255);
        let discovery = icmp_v6(&[134, 135, 136, 137]);
        rules.rule("input", std::iter::once(on_link).chain(discovery));
        for service in self.lan {
            rules.rule("input", lan_rule(service, "saddr", "dport", None));
        }
        rules.rule("input", drop_as("lan_opens"));
    }

    /// A signed-in device is nobody's router: not the LAN's into the tunnel, nor the tunnel's into
    /// the LAN.
    fn forward(&self, rules: &mut Ruleset) {
        rules.chain("forward", Hook::filter("forward"));
        for direction in ["iifname", "oifname"] {
            let tunnel = is(meta(direction), self.tun_name);
            rules.rule("forward", std::iter::once(tunnel).chain(drop_as("forwarded")));
        }
        self.drop_segment(rules, "forward", "forwarded");
    }

    /// Drops what should have gone through the tunnel.
    fn drop_segment(&self, rules: &mut Ruleset, chain: &str, counter: &str) {
        match self.tunnel {
            TunnelMode::Full => rules.rule(chain, drop_as(counter)),
            TunnelMode::Split => {
                for ipv4 in [true, false] {
                    let Some(destination) = address_in("daddr", self.prefixes, ipv4) else {
                        continue;
                    };
                    rules.rule(chain, std::iter::once(destination).chain(drop_as(counter)));
                }
            }
        }
    }
}

/// Answers to marked packets get the mark too, so that a machine with strict reverse-path filtering
/// looks for their sender in the main table and not in the tunnel.
fn keep_mark(rules: &mut Ruleset) {
    rules.chain("save_mark", Hook { kind: "filter", hook: "postrouting", priority: MANGLE });
    rules.rule("save_mark", [is(meta("mark"), FWMARK), set_to(ct("mark"), FWMARK)]);
    rules.chain("restore_mark", Hook { kind: "filter", hook: "prerouting", priority: MANGLE });
    let not_yet = is_not(meta("mark"), FWMARK);
    rules.rule("restore_mark", [is(ct("mark"), FWMARK), not_yet, set_to(meta("mark"), FWMARK)]);
}

fn lan_rule(service: &LanService, address: &str, port: &str, also: Option<Value>) -> Vec<Value> {
    let protocol = service.protocol.to_string();
    let from = address_in(address, [&service.from], service.from.is_ipv4());
    let this_protocol = is(meta("l4proto"), protocol.as_str());
    let ports = port_in(&protocol, port, &service.ports);
    from.into_iter().chain([this_protocol]).chain(ports).chain(also).chain([accept()]).collect()
}

fn dhcp(from: u16, to: u16) -> [Value; 4] {
    let ipv4 = is(meta("nfproto"), "ipv4");
    [ipv4, is(field("udp", "sport"), from), is(field("udp", "dport"), to), accept()]
}

fn dhcp_v6(from: u16, to: u16) -> [Value; 4] {
    let link_local = json!({"prefix": {"addr": "fe80::", "len": 10}});
    let source = is(field("ip6", "saddr"), link_local);
    [source, is(field("udp", "sport"), from), is(field("udp", "dport"), to), accept()]
}

fn icmp_v6(types: &[u8]) -> [Value; 2] {
    [is(field("icmpv6", "type"), one_of(types.iter().map(|&kind| json!(kind)))), accept()]
}
