//! The gateway's table: from the tunnel only towards the segment's prefixes, towards the tunnel
//! only from them, and nothing past the tunnel at all.
//!
//! The agent turns forwarding on, so the last rule of `forward` must stay: without it the
//! building's LAN and the organisation's network would be joined by the machine that exists to keep
//! them apart.

use std::collections::BTreeSet;
use std::net::IpAddr;

use partywall_proto::nets::Prefix;
use partywall_proto::overlay::Forwarding;
use serde_json::{Value, json};

use crate::os::ruleset::{
    Hook, Ruleset, accept, address_in, ct, drop_as, field, has, is, is_not, meta, set_to,
};

/// Where source addresses are rewritten (nft(8), "Standard priority names").
const SOURCE_NAT: i32 = 100;

/// What the gateway's table is made of.
pub(super) struct GatewayRules<'a> {
    pub(super) tun_name: &'a str,
    pub(super) addresses: &'a BTreeSet<IpAddr>,
    pub(super) forwarding: Forwarding,
    /// Disjoint.
    pub(super) pools: &'a [Prefix],
    /// Disjoint.
    pub(super) prefixes: &'a [Prefix],
}

impl GatewayRules<'_> {
    pub(super) fn ruleset(&self) -> Ruleset {
        let mut rules = Ruleset::new();
        for counter in [
            "tunnel_to_gateway",
            "overlay_destination",
            "past_segment",
            "into_tunnel",
            "past_tunnel",
        ] {
            rules.counter(counter);
        }
        self.input(&mut rules);
        self.forward(&mut rules);
        self.nat(&mut rules);
        rules
    }

    /// The gateway itself offers nothing to devices.
    fn input(&self, rules: &mut Ruleset) {
        rules.chain("input", Hook::filter("input"));
        rules.rule("input", [is(meta("iifname"), "lo"), accept()]);
        let from_tunnel = is(meta("iifname"), self.tun_name);
        rules.rule("input", std::iter::once(from_tunnel).chain(drop_as("tunnel_to_gateway")));
        let own: Vec<Prefix> = self.addresses.iter().copied().map(Prefix::host).collect();
        for ipv4 in [true, false] {
            let Some(destination) = address_in("daddr", &own, ipv4) else { continue };
            rules.rule("input", std::iter::once(destination).chain(drop_as("overlay_destination")));
        }
    }

    fn forward(&self, rules: &mut Ruleset) {
        let into_tunnel = || is(meta("oifname"), self.tun_name);
        let from_tunnel = || is(meta("iifname"), self.tun_name);
        rules.chain("forward", Hook::filter("forward"));
        // Networks that lose ICMP "too big" are common behind gateways; a fitting segment size
        // needs none.
        let opening = has(field("tcp", "flags"), "syn");
        let segment_size = json!({"tcp option": {"name": "maxseg", "field": "size"}});
        let fitting = set_to(segment_size, json!({"rt": {"key": "mtu"}}));
        rules.rule("forward", [into_tunnel(), opening, fitting]);
        for ipv4 in [true, false] {
            let Some(from_pool) = address_in("saddr", self.pools, ipv4) else { continue };
            let Some(to_pool) = address_in("daddr", self.pools, ipv4) else { continue };
            // From one device to another through the gateway; the data path's rules decide.
            let hairpin = [from_tunnel(), into_tunnel(), from_pool.clone(), to_pool.clone()];
            rules.rule("forward", hairpin.into_iter().chain([accept()]));
            if let Some(to_segment) = address_in("daddr", self.prefixes, ipv4) {
                rules.rule("forward", [from_tunnel(), from_pool, to_segment, accept()]);
            }
            let from_inside = is_not(meta("iifname"), self.tun_name);
            if let Some(from_segment) = address_in("saddr", self.prefixes, ipv4) {
                let rule = [from_inside.clone(), into_tunnel(), from_segment, to_pool.clone()];
                rules.rule("forward", rule.into_iter().chain([accept()]));
            }
            // ICMP errors come from routers on the way, whose addresses need not be the segment's.
            let about_a_flow = has(ct("state"), vec!["related"]);
            rules.rule("forward", [from_inside, into_tunnel(), to_pool, about_a_flow, accept()]);
        }
        rules.rule("forward", counted(from_tunnel(), "past_segment"));
        rules.rule("forward", counted(into_tunnel(), "into_tunnel"));
        rules.rule("forward", drop_as("past_tunnel"));
    }

    fn nat(&self, rules: &mut Ruleset) {
        match self.forwarding {
            Forwarding::Routed => {}
            Forwarding::Nat => {
                let hook = Hook { kind: "nat", hook: "postrouting", priority: SOURCE_NAT };
                rules.chain("nat", hook);
                for ipv4 in [true, false] {
                    let Some(from_pool) = address_in("saddr", self.pools, ipv4) else { continue };
                    let outwards = is_not(meta("oifname"), self.tun_name);
                    rules.rule("nat", [from_pool, outwards, json!({"masquerade": null})]);
                }
            }
        }
    }
}

fn counted(matched: Value, counter: &str) -> impl Iterator<Item = Value> {
    std::iter::once(matched).chain(drop_as(counter))
}
