//! What another policy would have meant for conversations that took place.
//!
//! A conversation counts once, by the record of its opening or refusal; the record of its end says the same
//! again. What was refused for another reason than policy (a forged source, a packet in mid-stream) would
//! be refused by any policy, and is left out.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use partywall_proto::admin::{StoredFlow, WhatIfLine, WhatIfReport};
use partywall_proto::flows::FlowEvent;
use partywall_proto::ids::{ServiceId, UserId};
use partywall_proto::rules::{Action, Opener};

/// Kinds of conversation in one report: more than anybody reads, and a bound on memory.
const LINES_MAX: usize = 10_000;

/// Drop reasons of refusals that a policy decided, as the data path words them.
const BY_POLICY: &[&str] = &["denied", "no-rule"];

/// A policy's answer to a conversation; none is no rule, which refuses.
pub type Judge<'a> = &'a dyn Fn(&StoredFlow) -> Option<Action>;

/// Compares two policies over `flows`, in words of the services that `service` knows.
pub fn what_if<F: Borrow<StoredFlow>>(
    flows: impl IntoIterator<Item = F>,
    before: Judge<'_>,
    after: Judge<'_>,
    service: &dyn Fn(&StoredFlow) -> Option<ServiceId>,
) -> WhatIfReport {
    let mut report = WhatIfReport::default();
    let (mut cut, mut allowed) = (Kinds::default(), Kinds::default());
    for flow in flows {
        let stored = flow.borrow();
        if !is_conversation(stored) {
            continue;
        }
        report.conversations += 1;
        let [was, would_be] = [before, after].map(|judge| judge(stored) == Some(Action::Allow));
        let changed = match (was, would_be) {
            (true, false) => &mut cut,
            (false, true) => &mut allowed,
            (true, true) | (false, false) => continue,
        };
        if !changed.add(stored, service) {
            report.unlisted += 1;
        }
    }
    (report.cut, report.allowed) = (cut.lines(), allowed.lines());
    report
}

fn is_conversation(stored: &StoredFlow) -> bool {
    match stored.flow.event {
        FlowEvent::Opened => true,
        FlowEvent::Refused => {
            stored.flow.reason.as_deref().is_none_or(|reason| BY_POLICY.contains(&reason))
        }
        FlowEvent::Ended => false,
    }
}

#[derive(Default)]
struct Kinds(BTreeMap<(Option<UserId>, Opener, String), WhatIfLine>);

impl Kinds {
    /// Counts a conversation; false where its kind is one too many.
    fn add(
        &mut self,
        stored: &StoredFlow,
        service: &dyn Fn(&StoredFlow) -> Option<ServiceId>,
    ) -> bool {
        let flow = &stored.flow;
        let destination = service(stored).map_or_else(|| destination(stored), |it| it.to_string());
        let key = (stored.user.clone(), flow.opener, destination);
        if self.0.len() >= LINES_MAX && !self.0.contains_key(&key) {
            return false;
        }
        let (user, opener, destination) = key.clone();
        let line = self.0.entry(key).or_insert(WhatIfLine {
            user,
            opener,
            destination,
            conversations: 0,
            last: flow.id,
            last_at: flow.at,
        });
        line.conversations += 1;
        if line.last_at <= flow.at {
            (line.last, line.last_at) = (flow.id, flow.at);
        }
        true
    }

    fn lines(self) -> Vec<WhatIfLine> {
        let mut lines: Vec<_> = self.0.into_values().collect();
        // Stable: equals stay in the order of their names.
        lines.sort_by_key(|line| std::cmp::Reverse(line.conversations));
        lines
    }
}

/// As in `10.1.0.80:443/tcp`; where the network opens, its address and the device's port.
fn destination(stored: &StoredFlow) -> String {
    let flow = &stored.flow;
    let port = match flow.opener {
        Opener::Device => flow.network_port,
        Opener::Network => flow.device_port,
    };
    match port {
        0 => format!("{}/{}", flow.network_address, flow.protocol),
        port => {
            let end = std::net::SocketAddr::new(flow.network_address, port);
            format!("{end}/{}", flow.protocol)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flow(user: &str, address: &str, port: u16, event: &str, reason: Option<&str>) -> StoredFlow {
        serde_json::from_value(json!({
            "reporter": "gateway/gw", "segment": "council", "user": user,
            "flow": {
                "id": format!("{:016x}", port), "event": event, "at": "2026-11-22T09:00:00Z",
                "device": "desk-1", "opener": "device", "reason": reason,
                "device_address": "100.64.0.2", "network_address": address, "protocol": "tcp",
                "device_port": 40000, "network_port": port,
                "to_network": { "packets": 1, "bytes": 60 }, "to_device": { "packets": 0, "bytes": 0 },
            },
        }))
        .unwrap()
    }

    fn by_ports(allowed: &'static [u16]) -> impl Fn(&StoredFlow) -> Option<Action> {
        |stored| allowed.contains(&stored.flow.network_port).then_some(Action::Allow)
    }

    #[test]
    fn what_is_cut_and_what_is_allowed_are_told_by_person_and_destination() {
        let (alice, bob) = ("alice@council", "bob@council");
        let flows = [
            flow(alice, "10.1.0.1", 443, "opened", None),
            flow(alice, "10.1.0.1", 443, "ended", Some("closed")),
            flow(alice, "10.1.0.1", 22, "opened", None),
            flow(alice, "10.1.0.1", 22, "opened", None),
            flow(bob, "10.1.0.1", 22, "opened", None),
            flow(bob, "10.1.0.2", 80, "refused", Some("no-rule")),
            flow(bob, "10.1.0.2", 80, "refused", Some("spoofed-source")),
            flow(bob, "10.1.0.2", 25, "refused", Some("denied")),
        ];
        let web = |stored: &StoredFlow| {
            (stored.flow.network_port == 80).then(|| "intranet".parse().unwrap())
        };
        let report = what_if(&flows, &by_ports(&[443, 22]), &by_ports(&[443, 80]), &web);
        let lines = |lines: &[WhatIfLine]| {
            let line = |it: &WhatIfLine| {
                (it.user.as_ref().unwrap().to_string(), it.destination.clone(), it.conversations)
            };
            lines.iter().map(line).collect::<Vec<_>>()
        };
        let (alice, bob) = (alice.to_owned(), bob.to_owned());
        let ssh = || "10.1.0.1:22/tcp".to_owned();
        assert_eq!(lines(&report.cut), [(alice, ssh(), 2), (bob.clone(), ssh(), 1)]);
        assert_eq!(lines(&report.allowed), [(bob, "intranet".to_owned(), 1)]);
        assert_eq!((report.conversations, report.unlisted), (6, 0));
    }

    #[test]
    fn the_same_policy_changes_nothing_and_a_denial_is_a_refusal_like_no_rule() {
        let flows = [flow("a@b", "10.1.0.1", 443, "opened", None)];
        let web = by_ports(&[443]);
        let report = what_if(&flows, &web, &web, &|_| None);
        assert_eq!((report.cut.len(), report.allowed.len(), report.conversations), (0, 0, 1));
        let report = what_if(&flows, &|_| Some(Action::Deny), &|_| None, &|_| None);
        assert_eq!((report.cut.len(), report.allowed.len()), (0, 0));
    }

    #[test]
    fn a_report_is_bounded_and_counts_what_it_leaves_out() {
        let flows = (0..LINES_MAX + 5).map(|number| {
            let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
            flow("a@b", &format!("10.1.{high}.{low}"), 443, "opened", None)
        });
        let report = what_if(flows, &|_| Some(Action::Allow), &|_| None, &|_| None);
        assert_eq!((report.cut.len(), report.unlisted), (LINES_MAX, 5));
    }
}
