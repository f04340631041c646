//! Routes and policy rules as values: what of them the agent wants, and what of the kernel's are
//! the agent's.
//!
//! Ours are the routes in table [`TABLE`] and those with our protocol number, and the policy rules
//! with our priorities. All else belongs to somebody and is never touched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use partywall_proto::nets::Prefix;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use crate::os::{FWMARK, TABLE};

/// The kernel's main routing table.
pub(super) const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// Marks our routes in tables that are not ours alone (`rtm_protocol`); free in rtnetlink.h.
const ROUTE_PROTOCOL: u8 = 0x57;
/// The policy rules' priorities: before the main table's, in the order that they are asked.
pub(super) const PRIORITY_CONTROLLER: u32 = TABLE - 3;
pub(super) const PRIORITY_PREFIXES: u32 = TABLE - 2;
pub(super) const PRIORITY_LAN: u32 = TABLE - 1;
pub(super) const PRIORITY_TUNNEL: u32 = TABLE;

/// A route through the TUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) table: u32,
    pub(super) prefix: Prefix,
}

impl Route {
    /// The request that adds this route, or without an interface the one that removes it.
    pub(super) fn message(&self, through: Option<u32>) -> RouteMessage {
        match self.prefix.address() {
            IpAddr::V4(address) => {
                let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(address, self.prefix.length())
                    .table_id(self.table)
                    .protocol(RouteProtocol::from(ROUTE_PROTOCOL));
                match through {
                    Some(link) => builder.output_interface(link).build(),
                    None => builder.build(),
                }
            }
            IpAddr::V6(address) => {
                let builder = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(address, self.prefix.length())
                    .table_id(self.table)
                    .protocol(RouteProtocol::from(ROUTE_PROTOCOL));
                match through {
                    Some(link) => builder.output_interface(link).build(),
                    None => builder.build(),
                }
            }
        }
    }

    /// One of our routes and the interface that it leads to; none for somebody else's.
    pub(super) fn ours(message: &RouteMessage) -> Option<(Self, Option<u32>)> {
        let header = &message.header;
        let mut table = u32::from(header.table);
        let mut through = None;
        let mut address = unspecified(header.address_family)?;
        for attribute in &message.attributes {
            if let RouteAttribute::Table(id) = attribute {
                table = *id;
            } else if let RouteAttribute::Oif(link) = attribute {
                through = Some(*link);
            } else if let RouteAttribute::Destination(RouteAddress::Inet(v4)) = attribute {
                address = IpAddr::V4(*v4);
            } else if let RouteAttribute::Destination(RouteAddress::Inet6(v6)) = attribute {
                address = IpAddr::V6(*v6);
            }
        }
        let is_ours = table == TABLE || u8::from(header.protocol) == ROUTE_PROTOCOL;
        let prefix = prefix(address, header.destination_prefix_length)?;
        is_ours.then_some((Self { table, prefix }, through))
    }
}

/// A policy rule: which routing table is asked for which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PolicyRule {
    pub(super) priority: u32,
    pub(super) ipv4: bool,
    pub(super) table: u32,
    /// Only for packets without our mark.
    pub(super) unmarked: bool,
    /// A default route found in the table does not count.
    pub(super) no_default: bool,
    /// Only for this destination.
    pub(super) to: Option<Prefix>,
}

impl PolicyRule {
    /// The request that adds or removes this rule.
    pub(super) fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Table(self.table));
        message.attributes.push(RuleAttribute::Priority(self.priority));
        if self.unmarked {
            message.attributes.push(RuleAttribute::FwMark(FWMARK));
            message.header.flags = RuleFlags::Invert;
        }
        if self.no_default {
            message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
        }
        if let Some(prefix) = self.to {
            message.header.dst_len = prefix.length();
            message.attributes.push(RuleAttribute::Destination(prefix.address()));
        }
        message
    }

    /// One of our rules; none for somebody else's.
    pub(super) fn ours(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        let any = unspecified(header.family)?;
        let mut rule = Self {
            priority: 0,
            ipv4: any.is_ipv4(),
            table: u32::from(header.table),
            unmarked: false,
            no_default: false,
            to: None,
        };
        for attribute in &message.attributes {
            if let RuleAttribute::Priority(priority) = attribute {
                rule.priority = *priority;
            } else if let RuleAttribute::Table(table) = attribute {
                rule.table = *table;
            } else if let RuleAttribute::FwMark(mark) = attribute {
                rule.unmarked = *mark == FWMARK && header.flags.contains(RuleFlags::Invert);
            } else if let RuleAttribute::SuppressPrefixLen(length) = attribute {
                rule.no_default = *length == 0;
            } else if let RuleAttribute::Destination(address) = attribute {
                rule.to = prefix(*address, header.dst_len);
            }
        }
        (PRIORITY_CONTROLLER..=PRIORITY_TUNNEL).contains(&rule.priority).then_some(rule)
    }
}

fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    if family == AddressFamily::Inet {
        Some(Ipv4Addr::UNSPECIFIED.into())
    } else if family == AddressFamily::Inet6 {
        Some(Ipv6Addr::UNSPECIFIED.into())
    } else {
        None
    }
}

fn prefix(address: IpAddr, length: u8) -> Option<Prefix> {
    format!("{address}/{length}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_asks_for_it_knows_again() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7", "fd00::/8", "::/0"] {
            for table in [TABLE, MAIN_TABLE] {
                let route = Route { table, prefix: text.parse().unwrap() };
                assert_eq!(Route::ours(&route.message(Some(7))), Some((route, Some(7))));
            }
            let prefix: Prefix = text.parse().unwrap();
            for unmarked in [false, true] {
                let rule = PolicyRule {
                    priority: PRIORITY_LAN,
                    ipv4: prefix.is_ipv4(),
                    table: MAIN_TABLE,
                    unmarked,
                    no_default: !unmarked,
                    to: Some(prefix),
                };
                assert_eq!(PolicyRule::ours(&rule.message()), Some(rule));
            }
        }
    }

    #[test]
    fn what_is_not_the_agents_it_does_not_know() {
        let mut foreign =
            Route { table: MAIN_TABLE, prefix: "10.0.0.0/8".parse().unwrap() }.message(Some(7));
        foreign.header.protocol = RouteProtocol::Static;
        assert_eq!(Route::ours(&foreign), None);
        let rule = PolicyRule {
            priority: 32_766,
            ipv4: true,
            table: MAIN_TABLE,
            unmarked: false,
            no_default: false,
            to: None,
        };
        assert_eq!(PolicyRule::ours(&rule.message()), None);
    }
}
