//! Lists as tables, for people.

use std::net::SocketAddr;

use comfy_table::{ContentArrangement, Table, presets};
use partywall_proto::admin::{
    AuditRecord, AuditVerdict, FlowStatus, PolicyMode, PolicyStatus, PolicyVersion, SessionView,
    StoredFlow, Token, TokenRole, WhatIfLine, WhatIfReport,
};
use partywall_proto::rules::Opener;

pub(super) fn sessions(sessions: &[SessionView]) -> Table {
    let rows = sessions.iter().map(|session| {
        let addresses: Vec<_> = session.addresses.iter().map(ToString::to_string).collect();
        vec![
            session.id.to_string(),
            session.user.to_string(),
            session.device.to_string(),
            session.segment.to_string(),
            addresses.join(" "),
            session.began_at.to_string(),
            session.ends_at.to_string(),
        ]
    });
    table(&["SESSION", "USER", "DEVICE", "SEGMENT", "ADDRESSES", "BEGAN", "ENDS"], rows)
}

pub(super) fn tokens(tokens: &[Token]) -> Table {
    let rows = tokens.iter().map(|token| {
        let (role, organisation) = match &token.role {
            TokenRole::Facilities => ("facilities", ""),
            TokenRole::Admin { organisation } => ("admin", organisation.as_str()),
            TokenRole::Auditor { organisation } => ("auditor", organisation.as_str()),
        };
        vec![
            token.id.to_string(),
            role.to_owned(),
            organisation.to_owned(),
            token.holder.clone(),
            token.expires_at.to_string(),
        ]
    });
    table(&["TOKEN", "ROLE", "ORGANISATION", "HOLDER", "ENDS"], rows)
}

pub(super) fn versions(versions: &[PolicyVersion]) -> Table {
    let rows = versions.iter().map(|version| {
        let restored = version.restored_from.map(|number| format!("as version {number} was"));
        vec![
            version.number.to_string(),
            version.published_at.to_string(),
            version.published_by.clone(),
            mode(version.mode).to_owned(),
            restored.unwrap_or_default(),
        ]
    });
    table(&["VERSION", "PUBLISHED", "BY", "TO", "SAYS"], rows)
}

fn mode(mode: PolicyMode) -> &'static str {
    match mode {
        PolicyMode::Enforce => "enforce",
        PolicyMode::Observe => "observe",
    }
}

pub(super) fn policy_status(status: &PolicyStatus) -> Table {
    let row = |what: &str, version: &Option<PolicyVersion>| match version {
        None => vec![what.to_owned(), "none".to_owned()],
        Some(version) => vec![
            what.to_owned(),
            version.number.to_string(),
            version.published_at.to_string(),
            version.published_by.clone(),
        ],
    };
    let rows = [row("in force", &status.in_force), row("on trial", &status.observed)];
    table(&["", "VERSION", "PUBLISHED", "BY"], rows.into_iter())
}

pub(super) fn audit(records: &[AuditRecord]) -> Table {
    let rows = records.iter().map(|record| {
        vec![
            record.chain.clone(),
            record.sequence.to_string(),
            record.time.to_string(),
            record.actor.clone(),
            record.action.clone(),
            record.subject.clone(),
            record.outcome.clone(),
        ]
    });
    table(&["CHAIN", "NO", "TIME", "WHO", "DID", "TO", "OUTCOME"], rows)
}

pub(super) fn verdicts(verdicts: &[AuditVerdict]) -> Table {
    let rows = verdicts.iter().map(|verdict| {
        vec![
            verdict.chain.clone(),
            verdict.records.to_string(),
            verdict.broken.clone().unwrap_or_else(|| "holds".to_owned()),
            verdict.head.clone(),
        ]
    });
    table(&["CHAIN", "RECORDS", "VERDICT", "HEAD"], rows)
}

pub(super) fn flows(flows: &[StoredFlow]) -> Table {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let rows = flows.iter().map(|stored| {
        let flow = &stored.flow;
        let device = SocketAddr::new(flow.device_address, flow.device_port).to_string();
        let network = SocketAddr::new(flow.network_address, flow.network_port).to_string();
        let (from, to) = match flow.opener {
            Opener::Device => (device, network),
            Opener::Network => (network, device),
        };
        vec![
            flow.at.to_string(),
            flow.event.to_string(),
            stored.reporter.to_string(),
            text(stored.user.as_ref().map(ToString::to_string)),
            flow.device.to_string(),
            text(stored.building.as_ref().map(ToString::to_string)),
            format!("{}/{from}", flow.protocol),
            to,
            text(flow.rule.as_ref().map(ToString::to_string)),
            text(flow.policy.map(|version| version.to_string())),
            text(flow.reason.clone()),
            flow.to_network.bytes.to_string(),
            flow.to_device.bytes.to_string(),
        ]
    });
    table(
        &[
            "TIME",
            "EVENT",
            "BY",
            "USER",
            "DEVICE",
            "BUILDING",
            "FROM",
            "TO",
            "RULE",
            "POLICY",
            "REASON",
            "BYTES-OUT",
            "BYTES-IN",
        ],
        rows,
    )
}

pub(super) fn what_if(report: &WhatIfReport) -> Table {
    let of = |change: &'static str, lines: &[WhatIfLine]| {
        let row = move |line: &WhatIfLine| {
            let opener = match line.opener {
                Opener::Device => "device",
                Opener::Network => "network",
            };
            vec![
                change.to_owned(),
                line.user.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                opener.to_owned(),
                line.destination.clone(),
                line.conversations.to_string(),
                line.last_at.to_string(),
                line.last.to_string(),
            ]
        };
        lines.iter().map(row).collect::<Vec<_>>()
    };
    let rows = of("cut", &report.cut).into_iter().chain(of("allowed", &report.allowed));
    table(&["WOULD-BE", "USER", "OPENER", "WITH", "TIMES", "LAST", "FLOW"], rows)
}

pub(super) fn flow_status(status: &FlowStatus) -> Table {
    let row = |place: &str, took: u64, dropped: u64, remark: String| {
        vec![place.to_owned(), took.to_string(), dropped.to_string(), remark]
    };
    let lost = status.lost_at_gateways.saturating_add(status.lost_at_devices);
    let devices = format!("{} of these at devices", status.lost_at_devices);
    let used = format!("{} of {} bytes", status.bytes, status.budget_bytes);
    let mut rows = vec![
        row("agents", status.received, lost, devices),
        row("controller", status.stored, status.dropped, used),
    ];
    rows.extend(status.sinks.iter().map(|sink| {
        let trouble = sink.trouble.clone().unwrap_or_else(|| "ok".to_owned());
        row(sink.name.as_str(), sink.sent, sink.dropped, trouble)
    }));
    table(&["PLACE", "TOOK", "DROPPED", "STATE"], rows.into_iter())
}

/// Columns apart by spaces alone: `awk` and `grep` read it as well as people do.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    table
}
