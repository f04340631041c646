//! What a policy would change, in words.
//!
//! A line for each change, so that `grep` finds a person or a rule.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use partywall_proto::admin::{
    EffectAudience, EffectConditions, EffectKind, PolicyDiff, PolicyEffect, WhatIfLine,
    WhatIfReport,
};
use partywall_proto::rules::Opener;

use super::client::Client;
use super::policy::in_file;
use super::{CtlError, hint, manifest_file, tables, write_json};

type Out<'a> = &'a mut (dyn Write + Send);

pub(super) async fn diff_of_file(
    client: &Client,
    organisation: &str,
    file: &Path,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let (source, text) = manifest_file::text_of(file)?;
    let asked = client.post_yaml(&["policies", organisation, "diff"], &[], text, None).await;
    show(&asked.map_err(|refused| in_file(&source, refused))?, json, out)
}

pub(super) async fn diff_of_versions(
    client: &Client,
    organisation: &str,
    from: u64,
    to: Option<u64>,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let (from, to) = (from.to_string(), to.map(|to| to.to_string()));
    let mut query = vec![("from", from.as_str())];
    query.extend(to.as_deref().map(|to| ("to", to)));
    show(&client.get(&["policies", organisation, "diff"], &query).await?, json, out)
}

pub(super) async fn what_if(
    client: &Client,
    organisation: &str,
    file: &Path,
    since: Timestamp,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let (source, text) = manifest_file::text_of(file)?;
    let (path, since) = (["policies", organisation, "what-if"], since.to_string());
    let asked = client.post_yaml(&path, &[("since", &since)], text, None).await;
    let report: WhatIfReport = asked.map_err(|refused| in_file(&source, refused))?;
    if json {
        return write_json(out, &report);
    }
    writeln!(out, "{}", tables::what_if(&report))?;
    let WhatIfReport { conversations, cut, allowed, unlisted, complete } = &report;
    let sum = |lines: &[WhatIfLine]| lines.iter().map(|it| it.conversations).sum::<u64>();
    let (cut, allowed) = (sum(cut), sum(allowed));
    hint(format_args!(
        "of {conversations} conversations since {since}, {cut} would be cut and {allowed} newly allowed"
    ));
    if *unlisted > 0 {
        hint(format_args!("{unlisted} more change, of too many kinds to list"));
    }
    if !complete {
        hint(format_args!("there are more records; say `--since` to look at the last ones alone"));
    }
    Ok(())
}

fn show(diff: &PolicyDiff, json: bool, out: Out<'_>) -> Result<(), CtlError> {
    if json {
        return write_json(out, diff);
    }
    let mut segment = None;
    for change in &diff.changes {
        if segment.replace(&change.segment) != Some(&change.segment) {
            writeln!(out, "segment {}", change.segment)?;
        }
        writeln!(out, "{}", line(change))?;
    }
    if diff.unlisted > 0 {
        writeln!(out, "and {} more changes", diff.unlisted)?;
    }
    if !diff.complete {
        hint(format_args!(
            "the two differ in too many ways to look at all of them: these are some of the changes"
        ));
    } else if diff.changes.is_empty() {
        hint(format_args!("nobody gains or loses anything"));
    }
    Ok(())
}

/// `+ alice@council: 10.1.7.0/24 tcp 22, on managed devices (rule night)`.
fn line(change: &PolicyEffect) -> String {
    let sign = match change.effect {
        EffectKind::Gains => '+',
        EffectKind::Loses => '-',
    };
    let mut what = change.what.join("; ");
    if change.what_unlisted > 0 {
        what.push_str(&format!("; and {} more", change.what_unlisted));
    }
    let way = match change.opened_by {
        Opener::Device => "",
        Opener::Network => "opened from ",
    };
    let (who, when) = (who(&change.who), when(&change.when));
    format!("  {sign} {who}: {way}{what}{when} (rule {})", change.rule)
}

fn who(who: &EffectAudience) -> String {
    if who.everyone {
        return format!("everyone ({} people)", who.people);
    }
    if let Some(group) = &who.group {
        return format!("group {group} ({} people)", who.people);
    }
    let names: Vec<_> = who.users.iter().map(ToString::to_string).collect();
    match who.people.saturating_sub(names.len() as u64) {
        0 => names.join(", "),
        others => format!("{} and {others} others", names.join(", ")),
    }
}

fn when(when: &EffectConditions) -> String {
    let mut text = String::new();
    let words = |all: &[String]| all.join(" or ");
    let EffectConditions { devices, buildings, elsewhere, sign_in, hours } = when;
    if !devices.is_empty() {
        let devices: Vec<_> = devices.iter().map(ToString::to_string).collect();
        text.push_str(&format!(", on {} devices", words(&devices)));
    }
    if !buildings.is_empty() || *elsewhere {
        let mut places: Vec<_> = buildings.iter().map(|it| format!("in {it}")).collect();
        places.extend(elsewhere.then(|| "elsewhere".to_owned()));
        text.push_str(&format!(", {}", words(&places)));
    }
    if !sign_in.is_empty() {
        let ways: Vec<_> = sign_in.iter().map(ToString::to_string).collect();
        text.push_str(&format!(", signed in by {}", words(&ways)));
    }
    if !hours.is_empty() {
        text.push_str(&format!(", {}", words(hours)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_as_a_sentence() {
        let change = |json: &str| line(&serde_json::from_str(json).unwrap());
        let gained = change(
            r#"{"segment": "council", "effect": "gains", "opened_by": "device", "rule": "night",
                "who": {"people": 233, "users": ["a@council", "b@council"]},
                "when": {"devices": ["managed", "personal"], "buildings": ["hq"], "elsewhere": true,
                         "hours": ["Mon 08:00 to Mon 18:00"]},
                "what": ["ledger", "10.1.0.0/16 tcp 22"], "what_unlisted": 4}"#,
        );
        assert_eq!(
            gained,
            "  + a@council, b@council and 231 others: ledger; 10.1.0.0/16 tcp 22; and 4 more, on managed or \
             personal devices, in hq or elsewhere, Mon 08:00 to Mon 18:00 (rule night)"
        );
        let lost = change(
            r#"{"segment": "council", "effect": "loses", "opened_by": "network", "rule": "help",
                "who": {"people": 5, "group": "staff", "users": ["a@council"]}, "what": ["10.1.0.0/16"]}"#,
        );
        assert_eq!(lost, "  - group staff (5 people): opened from 10.1.0.0/16 (rule help)");
    }
}
