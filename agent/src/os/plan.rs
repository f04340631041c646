//! From what is to what should be, as steps in an order that never leaves a gap. Pure.
//!
//! Tighten, remove, add, loosen: a guard that is wanted stands before anything else changes, and
//! one that is not goes last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::os::desired::Desired;
use crate::os::routing::{PolicyRule, Route};
use crate::os::ruleset::{Fingerprint, Ruleset};

/// Packets, or super-packets, that each queue of the TUN keeps until they are read. What the kernel begins with
/// (`TUN_READQ_SIZE` in drivers/net/tun.c), and here whatever somebody made of it: with 250 a seventh of small
/// datagrams is lost under load, and 2,000 lose no fewer than 500.
pub(super) const QUEUE_PACKETS: u32 = 500;

/// What of the operating system is the agent's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Current {
    /// Whether the kernel knows IPv6. Where it does not, nothing of IPv6 is wanted or could leak.
    pub(super) ipv6: bool,
    pub(super) link: Option<CurrentLink>,
    /// Our routes, and the interface that each leads to.
    pub(super) routes: BTreeMap<Route, Option<u32>>,
    pub(super) rules: BTreeSet<PolicyRule>,
    pub(super) table: Option<Fingerprint>,
}

/// The TUN interface as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CurrentLink {
    pub(super) index: u32,
    pub(super) up: bool,
    pub(super) mtu: u32,
    /// Packets that each of its queues keeps.
    pub(super) queue: u32,
    /// The longest super-packet that the kernel makes for it, in packets.
    pub(super) segments: u32,
    /// With prefix lengths; without the kernel's own link-local ones.
    pub(super) addresses: BTreeSet<(IpAddr, u8)>,
}

/// One change of links, addresses, routes or rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    RuleDel(PolicyRule),
    RouteDel(Route),
    AddressDel(IpAddr, u8),
    LinkDown,
    LinkMtu(u16),
    LinkQueue(u32),
    LinkSegments(u32),
    AddressAdd(IpAddr, u8),
    LinkUp,
    RouteAdd(Route),
    RuleAdd(PolicyRule),
}

impl Step {
    /// Whether it only makes the tunnel faster.
    pub(super) fn is_tuning(&self) -> bool {
        matches!(self, Self::LinkQueue(_) | Self::LinkSegments(_))
    }
}

/// What to do, in this order. Default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) tighten: Option<Ruleset>,
    pub(super) remove: Vec<Step>,
    pub(super) add: Vec<Step>,
    pub(super) loosen: bool,
}

/// The steps from `current` to `desired`; none where they agree.
pub(super) fn plan(current: &Current, desired: &Desired) -> Plan {
    let wanted = desired.ruleset.as_ref();
    let stands = wanted.map(Ruleset::fingerprint) == current.table;
    let in_reach = |ipv4: bool| ipv4 || current.ipv6;
    let none = CurrentLink::default();
    let link = current.link.as_ref().unwrap_or(&none);

    let rules: BTreeSet<_> =
        desired.rules.iter().filter(|rule| in_reach(rule.ipv4)).copied().collect();
    let routes: BTreeSet<_> =
        desired.routes.iter().filter(|route| in_reach(route.prefix.is_ipv4())).copied().collect();
    let addresses: BTreeSet<_> = desired
        .addresses()
        .into_iter()
        .filter(|address| in_reach(address.is_ipv4()))
        .map(|address| (address, if address.is_ipv4() { 32 } else { 128 }))
        .collect();
    // The kernel takes an interface's IPv4 routes along with its last IPv4 address (fib_disable_ip in
    // net/ipv4/fib_frontend.c), so none of them outlives a change of all addresses.
    let mut ipv4 = link.addresses.iter().filter(|(address, _)| address.is_ipv4()).peekable();
    let loses_ipv4 = ipv4.peek().is_some() && ipv4.all(|address| !addresses.contains(address));
    // A route to an interface that went is not the route that is wanted.
    let placed = |route: &Route| {
        let through = current.routes.get(route);
        through.is_some_and(|through| *through == Some(link.index))
            && !(loses_ipv4 && route.prefix.is_ipv4())
    };

    let mut remove = Vec::new();
    remove.extend(current.rules.difference(&rules).copied().map(Step::RuleDel));
    let stale = current.routes.keys().filter(|route| !routes.contains(route) || !placed(route));
    remove.extend(stale.copied().map(Step::RouteDel));
    let gone = link.addresses.difference(&addresses);
    remove.extend(gone.map(|&(address, length)| Step::AddressDel(address, length)));
    if desired.link.is_none() && link.up {
        remove.push(Step::LinkDown);
    }

    let mut add = Vec::new();
    if let Some(wanted) = &desired.link {
        if link.mtu != u32::from(wanted.mtu) {
            add.push(Step::LinkMtu(wanted.mtu));
        }
        if link.queue != QUEUE_PACKETS {
            add.push(Step::LinkQueue(QUEUE_PACKETS));
        }
        if let Some(segments) = wanted.segments.filter(|&segments| segments != link.segments) {
            add.push(Step::LinkSegments(segments));
        }
        let new = addresses.difference(&link.addresses);
        add.extend(new.map(|&(address, length)| Step::AddressAdd(address, length)));
        if !link.up {
            add.push(Step::LinkUp);
        }
    }
    add.extend(routes.iter().filter(|route| !placed(route)).copied().map(Step::RouteAdd));
    add.extend(rules.difference(&current.rules).copied().map(Step::RuleAdd));

    Plan {
        tighten: wanted.filter(|_| !stands).cloned(),
        remove,
        add,
        loosen: wanted.is_none() && current.table.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::desired::tests::{device_config, gateway_config};

    /// What the kernel begins with (`GSO_MAX_SEGS` in include/linux/netdevice.h).
    const AS_MADE: u32 = 65_535;

    /// What is there once `desired` is applied.
    fn applied(desired: &Desired) -> Current {
        let length = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let addresses = desired.addresses().iter().map(|a| (*a, length(a))).collect();
        let link = desired.link.as_ref();
        Current {
            ipv6: true,
            link: link.map(|link| CurrentLink {
                index: 9,
                up: true,
                mtu: link.mtu.into(),
                queue: QUEUE_PACKETS,
                segments: link.segments.unwrap_or(AS_MADE),
                addresses,
            }),
            routes: desired.routes.iter().map(|route| (*route, Some(9))).collect(),
            rules: desired.rules.clone(),
            table: desired.ruleset.as_ref().map(Ruleset::fingerprint),
        }
    }

    #[test]
    fn routes_that_go_with_the_last_address_are_put_back() {
        let old = Desired::for_config(&device_config("full"), "tun0", None);
        let mut config = device_config("split");
        config.interface.addresses =
            vec!["100.64.20.9".parse().unwrap(), "fd64:20::9".parse().unwrap()];
        let new = Desired::for_config(&config, "tun0", None);
        let plan = plan(&applied(&old), &new);
        let ipv4 = new.routes.iter().filter(|route| route.prefix.is_ipv4());
        for route in ipv4 {
            assert!(
                plan.add.contains(&Step::RouteAdd(*route)),
                "{route:?} is gone with the address"
            );
        }
    }

    fn all() -> Vec<Desired> {
        let configs = [
            device_config("split"),
            device_config("full"),
            gateway_config("nat"),
            gateway_config("routed"),
        ];
        let desired = configs.iter().map(|config| Desired::for_config(config, "tun0", None));
        desired.chain([Desired::nothing()]).collect()
    }

    #[test]
    fn an_interface_as_it_was_found_is_set_before_it_goes_up() {
        let desired = Desired::for_config(&device_config("split"), "tun0", None);
        let made = CurrentLink {
            index: 9,
            mtu: 1500,
            queue: 1000,
            segments: AS_MADE,
            ..CurrentLink::default()
        };
        let current = Current { ipv6: true, link: Some(made), ..Current::default() };
        let add = plan(&current, &desired).add;
        // 46 datagrams of 1,412 bytes are 64,952, and 47 would be more than UDP takes.
        let set = [Step::LinkMtu(1380), Step::LinkQueue(500), Step::LinkSegments(46)];
        assert_eq!(add[..3], set);
        let up = add.iter().position(|step| *step == Step::LinkUp);
        let first_route = add.iter().position(|step| matches!(step, Step::RouteAdd(_)));
        assert!(up.is_some() && up < first_route);
    }

    #[test]
    fn what_is_as_it_should_be_needs_no_step() {
        for desired in all() {
            assert_eq!(plan(&applied(&desired), &desired), Plan::default());
        }
    }

    #[test]
    fn from_any_state_every_difference_is_planned_and_no_more() {
        for from in all() {
            for to in all() {
                let (current, goal) = (applied(&from), applied(&to));
                let plan = plan(&current, &to);
                let mut routes: BTreeSet<_> = current.routes.keys().copied().collect();
                let mut rules = current.rules.clone();
                for step in plan.remove.iter().chain(&plan.add) {
                    match step {
                        Step::RouteDel(route) => assert!(routes.remove(route)),
                        Step::RouteAdd(route) => assert!(routes.insert(*route)),
                        Step::RuleDel(rule) => assert!(rules.remove(rule)),
                        Step::RuleAdd(rule) => assert!(rules.insert(*rule)),
                        Step::AddressDel(..) | Step::AddressAdd(..) => {}
                        Step::LinkDown | Step::LinkUp => {}
                        Step::LinkMtu(_) | Step::LinkQueue(_) | Step::LinkSegments(_) => {}
                    }
                }
                assert_eq!(routes, goal.routes.keys().copied().collect());
                assert_eq!(rules, goal.rules);
                assert_eq!(
                    plan.tighten.is_some(),
                    goal.table.is_some() && goal.table != current.table
                );
                assert_eq!(plan.loosen, goal.table.is_none() && current.table.is_some());
            }
        }
    }

    #[test]
    fn a_route_to_an_interface_that_went_is_made_anew() {
        let desired = Desired::for_config(&gateway_config("nat"), "tun0", None);
        let mut current = applied(&desired);
        let route = *desired.routes.first().unwrap();
        current.routes.insert(route, Some(3));
        let plan = plan(&current, &desired);
        assert_eq!(
            (plan.remove, plan.add),
            (vec![Step::RouteDel(route)], vec![Step::RouteAdd(route)])
        );
    }

    #[test]
    fn a_kernel_without_ipv6_is_asked_for_none() {
        let desired = Desired::for_config(&device_config("full"), "tun0", None);
        let steps = plan(&Current::default(), &desired).add;
        let ipv6 = |step: &Step| match step {
            Step::RouteAdd(route) => !route.prefix.is_ipv4(),
            Step::RuleAdd(rule) => !rule.ipv4,
            Step::AddressAdd(address, _) => address.is_ipv6(),
            Step::RuleDel(_) | Step::RouteDel(_) | Step::AddressDel(..) => true,
            Step::LinkDown | Step::LinkUp => false,
            Step::LinkMtu(_) | Step::LinkQueue(_) | Step::LinkSegments(_) => false,
        };
        assert!(!steps.iter().any(ipv6), "{steps:?}");
    }
}
