//! Fetches links, addresses, routes and policy rules by rtnetlink(7), and carries out the plan's
//! steps.
//!
//! A step that finds its work already done is no error: the kernel removes routes with their
//! interface, and somebody may have been faster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use futures_util::TryStreamExt;
use partywall_proto::nets::Prefix;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::{AddressMessageBuilder, Handle, IpVersion, LinkUnspec, RouteMessageBuilder};

use crate::os::error::{OsError, errno};
use crate::os::plan::{Current, CurrentLink, Step};
use crate::os::routing::{PolicyRule, Route};

/// A connection to the kernel's routing tables, in this process's network namespace.
pub(super) struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    pub(super) fn connect() -> Result<Self, OsError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| OsError::NetlinkSocket { source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// All of [`Current`] but nftables.
    pub(super) async fn fetch(&self, tun_name: &str) -> Result<Current, OsError> {
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let mut routes = BTreeMap::new();
        let mut rules = BTreeSet::new();
        for version in [IpVersion::V4, IpVersion::V6].into_iter().take(if ipv6 { 2 } else { 1 }) {
            self.fetch_routes(&version, &mut routes).await?;
            self.fetch_rules(version, &mut rules).await?;
        }
        let link = self.fetch_link(tun_name).await?;
        Ok(Current { ipv6, link, routes, rules, table: None })
    }

    /// Carries out one step on the interface with this index.
    pub(super) async fn carry_out(&self, step: &Step, link: u32) -> Result<(), OsError> {
        let handle = &self.handle;
        let done = match step {
            Step::RuleDel(rule) => handle.rule().del(rule.message()).execute().await,
            Step::RouteDel(route) => handle.route().del(route.message(None)).execute().await,
            Step::AddressDel(address, length) => {
                handle.address().del(address_message(*address, *length, link)).execute().await
            }
            Step::LinkDown => {
                handle.link().set(LinkUnspec::new_with_index(link).down().build()).execute().await
            }
            Step::LinkMtu(mtu) => {
                let message = LinkUnspec::new_with_index(link).mtu(u32::from(*mtu)).build();
                handle.link().set(message).execute().await
            }
            Step::LinkQueue(packets) => {
                let message = LinkUnspec::new_with_index(link).txqueuelen(*packets).build();
                handle.link().set(message).execute().await
            }
            Step::LinkSegments(segments) => {
                let segments = LinkAttribute::GsoMaxSegs(*segments);
                let message = LinkUnspec::new_with_index(link).append_extra_attribute(segments);
                handle.link().set(message.build()).execute().await
            }
            Step::AddressAdd(address, length) => {
                handle.address().add(link, *address, *length).execute().await
            }
            Step::LinkUp => {
                handle.link().set(LinkUnspec::new_with_index(link).up().build()).execute().await
            }
            Step::RouteAdd(route) => handle.route().add(route.message(Some(link))).execute().await,
            Step::RuleAdd(rule) => {
                let mut request = handle.rule().add();
                *request.message_mut() = rule.message();
                request.execute().await
            }
        };
        match done {
            Err(error) if !errno(&error).is_some_and(|code| is_done_already(step, code)) => {
                Err(OsError::netlink(in_words(step), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn fetch_link(&self, tun_name: &str) -> Result<Option<CurrentLink>, OsError> {
        let what = || format!("look up the interface {tun_name}");
        let mut found = self.handle.link().get().match_name(tun_name).execute();
        let message = match found.try_next().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(error) if errno(&error) == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(OsError::netlink(what(), error)),
        };
        let index = message.header.index;
        let mut link = CurrentLink {
            index,
            up: message.header.flags.contains(LinkFlags::Up),
            mtu: 0,
            queue: 0,
            segments: 0,
            addresses: BTreeSet::new(),
        };
        for attribute in &message.attributes {
            if let LinkAttribute::Mtu(mtu) = attribute {
                link.mtu = *mtu;
            } else if let LinkAttribute::TxQueueLen(packets) = attribute {
                link.queue = *packets;
            } else if let LinkAttribute::GsoMaxSegs(segments) = attribute {
                link.segments = *segments;
            }
        }
        let mut addresses = self.handle.address().get().set_link_index_filter(index).execute();
        while let Some(message) =
            addresses.try_next().await.map_err(|error| OsError::netlink(what(), error))?
        {
            link.addresses.extend(own_address(&message));
        }
        Ok(Some(link))
    }

    async fn fetch_routes(
        &self,
        version: &IpVersion,
        routes: &mut BTreeMap<Route, Option<u32>>,
    ) -> Result<(), OsError> {
        let filter = match version {
            IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let mut found = self.handle.route().get(filter).execute();
        let failed = |error| OsError::netlink("list the routes".to_owned(), error);
        while let Some(message) = found.try_next().await.map_err(failed)? {
            routes.extend(Route::ours(&message));
        }
        Ok(())
    }

    async fn fetch_rules(
        &self,
        version: IpVersion,
        rules: &mut BTreeSet<PolicyRule>,
    ) -> Result<(), OsError> {
        let mut found = self.handle.rule().get(version).execute();
        let failed = |error| OsError::netlink("list the policy rules".to_owned(), error);
        while let Some(message) = found.try_next().await.map_err(failed)? {
            rules.extend(PolicyRule::ours(&message));
        }
        Ok(())
    }
}

/// The address that a message tells; none for the kernel's own link-local one.
fn own_address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let mut address = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(local) = attribute {
            address = Some(*local);
        } else if let AddressAttribute::Address(other) = attribute {
            // On a point-to-point link this may be the far end; the local address then comes beside
            // it.
            address = address.or(Some(*other));
        }
    }
    let link_local: Prefix = "fe80::/10".parse().expect("it is a prefix");
    address.filter(|address| !link_local.holds(*address)).map(|a| (a, message.header.prefix_len))
}

fn address_message(address: IpAddr, length: u8, link: u32) -> AddressMessage {
    match address {
        IpAddr::V4(v4) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(link).address(v4, length).build()
        }
        IpAddr::V6(v6) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(link).address(v6, length).build()
        }
    }
}

fn is_done_already(step: &Step, code: i32) -> bool {
    match step {
        Step::RuleDel(_) | Step::RouteDel(_) | Step::AddressDel(..) | Step::LinkDown => {
            matches!(code, libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL | libc::ENODEV)
        }
        Step::AddressAdd(..) | Step::RouteAdd(_) | Step::RuleAdd(_) => code == libc::EEXIST,
        Step::LinkMtu(_) | Step::LinkQueue(_) | Step::LinkSegments(_) | Step::LinkUp => false,
    }
}

fn in_words(step: &Step) -> String {
    match step {
        Step::RuleDel(rule) => format!("remove the policy rule with priority {}", rule.priority),
        Step::RouteDel(route) => format!("remove the route to {}", route.prefix),
        Step::AddressDel(address, _) => format!("remove the address {address}"),
        Step::LinkDown => "take the tunnel's interface down".to_owned(),
        Step::LinkMtu(mtu) => format!("set the tunnel's MTU to {mtu}"),
        Step::LinkQueue(packets) => format!("have the tunnel's queue keep {packets} packets"),
        Step::LinkSegments(segments) => format!("limit super-packets to {segments} packets"),
        Step::AddressAdd(address, _) => format!("add the address {address}"),
        Step::LinkUp => "bring the tunnel's interface up".to_owned(),
        Step::RouteAdd(route) => format!("add the route to {}", route.prefix),
        Step::RuleAdd(rule) => format!("add the policy rule with priority {}", rule.priority),
    }
}
