//! Lists as tables, for people.

use comfy_table::{ContentArrangement, Table, presets};
use partywall_proto::admin::{AuditRecord, AuditVerdict, SessionView, Token, TokenRole};

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

/// Columns apart by spaces alone: `awk` and `grep` read it as well as people do.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    table
}
