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

#[cfg(test)]
mod tests {
    use crate::os::desired::tests::gateway_config;
    use crate::os::{Desired, System, SystemOptions};
    use crate::sys::netns::{self, Elsewhere, shell};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_secs(10);
    const SILENCE: Duration = Duration::from_millis(300);

    fn opens(to: &'static str, wait: Duration) -> bool {
        TcpStream::connect_timeout(&to.parse().unwrap(), wait).is_ok()
    }

    /// A machine with one cable to this one, and a server on port 7000.
    fn attach(cable: &str, script: &'static str) -> (Elsewhere, TcpListener) {
        let machine = Elsewhere::new();
        let id = machine.thread_id();
        shell(&format!(
            "ip link add {cable} type veth peer name up0 netns {id}; ip link set {cable} up"
        ));
        let server = machine.run(move || {
            shell(&format!("ip link set lo up; ip link set up0 up; {script}"));
            TcpListener::bind("0.0.0.0:7000").unwrap()
        });
        (machine, server)
    }

    /// A cable plays the TUN: to the rules it is an interface of that name.
    fn with_gateway(forwarding: &str, test: impl FnOnce([(Elsewhere, TcpListener); 3]) + Send) {
        let desired = Desired::for_config(&gateway_config(forwarding), "tun0", None);
        netns::in_private_network_async(|| async move {
            shell("ip link set lo up");
            let device = attach(
                "tun0",
                "ip addr add 100.64.0.5/32 dev up0; ip route add default via 100.64.0.1 dev up0 onlink",
            );
            let inside =
                attach("in0", "ip addr add 10.0.0.9/24 dev up0; ip route add default via 10.0.0.2");
            let lan = attach(
                "lan0",
                "ip addr add 192.0.2.77/24 dev up0; ip route add default via 192.0.2.1",
            );
            shell("ip addr add 10.0.0.2/24 dev in0; ip addr add 192.0.2.1/24 dev lan0");
            let state = tempfile::tempdir().unwrap();
            let mut system = System::new(SystemOptions::new("tun0", state.path()));
            system.reconcile(&desired).await.unwrap();
            let _own = TcpListener::bind("0.0.0.0:7000").unwrap();
            test([device, inside, lan]);
            system.reconcile(&Desired::nothing()).await.unwrap();
        });
    }

    #[test]
    fn a_gateway_joins_the_tunnel_to_the_segment_and_nothing_else_to_anything() {
        with_gateway("routed", |[(device, _d), (inside, _i), (lan, _l)]| {
            assert!(device.run(|| opens("10.0.0.9:7000", DEADLINE)));
            assert!(inside.run(|| opens("100.64.0.5:7000", DEADLINE)));
            assert!(!device.run(|| opens("192.0.2.77:7000", SILENCE)), "past the segment");
            assert!(!lan.run(|| opens("100.64.0.5:7000", SILENCE)), "from the LAN into the tunnel");
            assert!(!lan.run(|| opens("10.0.0.9:7000", SILENCE)), "past the tunnel");
            assert!(!inside.run(|| opens("192.0.2.77:7000", SILENCE)), "past the tunnel, outwards");
            for own in ["100.64.0.1:7000", "10.0.0.2:7000", "192.0.2.1:7000"] {
                assert!(!device.run(move || opens(own, SILENCE)), "the gateway's own {own}");
            }
            assert!(
                !lan.run(|| opens("100.64.0.1:7000", SILENCE)),
                "the overlay address from the LAN"
            );
        });
    }

    #[test]
    fn behind_nat_devices_appear_under_the_gateways_own_address_and_else_under_theirs() {
        for (forwarding, expected) in [("nat", "10.0.0.2"), ("routed", "100.64.0.5")] {
            with_gateway(forwarding, |[(device, _d), (_inside, server), _lan]| {
                assert!(device.run(|| opens("10.0.0.9:7000", DEADLINE)));
                assert_eq!(server.accept().unwrap().1.ip().to_string(), expected);
            });
        }
    }
}
