//! The verbs about an organisation's policy: check, publish, look back, roll back.
//!
//! The file goes to the controller as it is, comments and all; what is wrong with it is told by the
//! controller alone, so that `check` and `publish` cannot disagree.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use partywall_proto::admin::{
    Page, PolicyMode, PolicyPublished, PolicyReport, PolicyStatus, PolicyVersion,
    PolicyVersionText, SegmentSpec, Versioned,
};
use partywall_proto::ids::OrganisationId;
use partywall_proto::problem::Finding;

use super::client::Client;
use super::flows::Moment;
use super::{CtlError, hint, manifest_file, policy_effect, tables, write_json};

/// Items in one request.
const PAGE: &str = "1000";

/// Whose policy, and what to do with it.
#[derive(Debug, Args)]
pub(super) struct PolicyArguments {
    /// Whose policy; your own organisation's unless stated
    #[arg(long, global = true)]
    organisation: Option<OrganisationId>,
    /// What to do.
    #[command(subcommand)]
    verb: PolicyVerb,
}

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// Say what is wrong with a policy, as publishing it now would; changes nothing
    Check {
        /// The policy; `-` reads standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Say who would gain or lose what: by a policy against the version in force, or between two versions
    Diff {
        /// The policy; `-` reads standard input
        #[arg(short, long, value_name = "FILE", required_unless_present = "from")]
        file: Option<PathBuf>,
        /// The earlier version's number, from `partywallctl policy versions`
        #[arg(long, value_name = "NUMBER", conflicts_with = "file")]
        from: Option<u64>,
        /// The later version's number; the version in force unless stated
        #[arg(long, value_name = "NUMBER", requires = "from")]
        to: Option<u64>,
    },
    /// Say which recorded conversations a policy would have cut, and which it would have allowed
    WhatIf {
        /// The policy; `-` reads standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Records from then on: a time as in 2026-11-22T09:00:00Z, or how long ago as in 2h or 3d
        #[arg(long, default_value = "7d", value_name = "WHEN")]
        since: Moment,
    },
    /// Make a policy the next version
    Publish {
        /// The policy; `-` reads standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Only on top of this version, so that nobody else's change is lost; 0 is none yet
        #[arg(long, value_name = "NUMBER")]
        if_version: Option<u64>,
        /// Put it on trial: the version in force stays, and flow records say what this one would decide
        #[arg(long)]
        observe: bool,
    },
    /// Print the policy language as a JSON Schema, for an editor that checks what you write
    Schema,
    /// Show which version is in force, and which is on trial
    Status,
    /// End the trial of a version; the one in force stays
    EndObservation,
    /// List the versions, with who published each and when
    Versions,
    /// Print one version as it was written
    Show {
        /// Its number, from `partywallctl policy versions`
        number: u64,
    },
    /// Publish an earlier version again, as a new one
    Rollback {
        /// The earlier version's number, from `partywallctl policy versions`
        number: u64,
        /// Only on top of this version, so that nobody else's change is lost
        #[arg(long, value_name = "NUMBER")]
        if_version: Option<u64>,
    },
}

type Out<'a> = &'a mut (dyn Write + Send);

pub(super) async fn run(
    client: &Client,
    arguments: &PolicyArguments,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    if matches!(arguments.verb, PolicyVerb::Schema) {
        let schema: serde_json::Value = client.get(&["policy-schema.json"], &[]).await?;
        return write_json(out, &schema);
    }
    let organisation = match &arguments.organisation {
        Some(organisation) => organisation.clone(),
        None => own(client).await?,
    };
    let name = organisation.as_str();
    match &arguments.verb {
        PolicyVerb::Check { file } => check(client, name, file, json, out).await,
        PolicyVerb::Diff { file: Some(file), .. } => {
            policy_effect::diff_of_file(client, name, file, json, out).await
        }
        PolicyVerb::Diff { file: None, from, to } => {
            let from = from.ok_or_else(|| CtlError::Usage("add `--from NUMBER`".to_owned()))?;
            policy_effect::diff_of_versions(client, name, from, *to, json, out).await
        }
        PolicyVerb::WhatIf { file, since } => {
            let since = since.resolve(Timestamp::now());
            policy_effect::what_if(client, name, file, since, json, out).await
        }
        PolicyVerb::Publish { file, if_version, observe } => {
            let (source, text) = manifest_file::text_of(file)?;
            let path = ["policies", name, "versions"];
            let mode = if *observe { "observe" } else { "enforce" };
            let published = client.post_yaml(&path, &[("mode", mode)], text, *if_version).await;
            let published: PolicyPublished =
                published.map_err(|refused| in_file(&source, refused))?;
            warn(&source, &published.warnings);
            published_as(&published, json, out)
        }
        // It is nobody's.
        PolicyVerb::Schema => Ok(()),
        PolicyVerb::Status => {
            let status: PolicyStatus = client.get(&["policies", name, "status"], &[]).await?;
            match json {
                true => write_json(out, &status),
                false => Ok(writeln!(out, "{}", tables::policy_status(&status))?),
            }
        }
        PolicyVerb::EndObservation => client.delete(&["policies", name, "observed"]).await,
        PolicyVerb::Versions => {
            let versions = versions(client, name).await?;
            match json {
                true => write_json(out, &versions),
                false => Ok(writeln!(out, "{}", tables::versions(&versions))?),
            }
        }
        PolicyVerb::Show { number } => {
            let path = ["policies", name, "versions", &number.to_string()];
            let shown: PolicyVersionText = client.get(&path, &[]).await?;
            match json {
                true => write_json(out, &shown),
                false => Ok(out.write_all(shown.text.as_bytes())?),
            }
        }
        PolicyVerb::Rollback { number, if_version } => {
            let path = ["policies", name, "versions", &number.to_string(), "restore"];
            let published: PolicyPublished = client.post_if(&path, *if_version).await?;
            warn(&format!("version {number}"), &published.warnings);
            published_as(&published, json, out)
        }
    }
}

/// The one organisation whose segments the token shows.
async fn own(client: &Client) -> Result<OrganisationId, CtlError> {
    let page: Page<Versioned<SegmentSpec>> = client.get(&["segments"], &[("limit", PAGE)]).await?;
    let seen: BTreeSet<_> = page.items.into_iter().map(|it| it.spec.organisation).collect();
    let mut seen = seen.into_iter();
    match (seen.next(), seen.next()) {
        (Some(organisation), None) => Ok(organisation),
        (None | Some(_), _) => Err(CtlError::Usage(
            "your token does not say whose policy is meant: add `--organisation NAME`".to_owned(),
        )),
    }
}

async fn check(
    client: &Client,
    organisation: &str,
    file: &Path,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let (source, text) = manifest_file::text_of(file)?;
    let path = ["policies", organisation, "check"];
    let report: PolicyReport = client.post_yaml(&path, &[], text, None).await?;
    if json {
        write_json(out, &report)?;
    }
    if !report.findings.is_empty() {
        return Err(CtlError::Policy(lines(&source, &report.findings)));
    }
    warn(&source, &report.warnings);
    let PolicyReport { tests, rules, .. } = report;
    match json {
        true => Ok(()),
        false => {
            Ok(writeln!(out, "{source}: {rules} rules, {tests} tests hold; nothing is changed")?)
        }
    }
}

async fn versions(client: &Client, organisation: &str) -> Result<Vec<PolicyVersion>, CtlError> {
    let path = ["policies", organisation, "versions"];
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut query = vec![("limit", PAGE)];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: Page<PolicyVersion> = client.get(&path, &query).await?;
        all.extend(page.items);
        match page.next {
            None => return Ok(all),
            next => cursor = next,
        }
    }
}

fn published_as(published: &PolicyPublished, json: bool, out: Out<'_>) -> Result<(), CtlError> {
    if json {
        return write_json(out, published);
    }
    let version = &published.version;
    match version.restored_from {
        Some(earlier) => writeln!(out, "version {}, as version {earlier} was", version.number)?,
        None => writeln!(out, "version {}", version.number)?,
    }
    let number = version.number;
    match version.mode {
        PolicyMode::Enforce => hint(format_args!(
            "it is in force; `partywallctl policy rollback` brings an earlier one back"
        )),
        PolicyMode::Observe => hint(format_args!(
            "it is on trial: `partywallctl flows --differing` shows what it would decide otherwise; \
             `partywallctl policy rollback {number}` puts it in force"
        )),
    }
    Ok(())
}

/// Says what stands in no one's way but is surely not meant.
fn warn(source: &str, warnings: &[Finding]) {
    for warning in warnings {
        hint(format_args!("warning: {}", lines(source, std::slice::from_ref(warning))));
    }
}

/// A refusal whose findings are about a file.
pub(super) fn in_file(source: &str, refused: CtlError) -> CtlError {
    if let CtlError::Refused(problem) = &refused
        && !problem.errors.is_empty()
    {
        return CtlError::Policy(lines(source, &problem.errors));
    }
    refused
}

/// `council.yaml:8:21: policies/council/…: what is wrong`, a line for each.
fn lines(source: &str, findings: &[Finding]) -> String {
    let line = |finding: &Finding| match finding.line {
        Some(_) => format!("{source}:{finding}"),
        None => format!("{source}: {finding}"),
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_a_compiler_would_put_it() {
        let mut found = Finding::new("policies/council/tests/web", "expected allow");
        let without = lines("council.yaml", std::slice::from_ref(&found));
        assert_eq!(without, "council.yaml: policies/council/tests/web: expected allow");
        (found.line, found.column) = (Some(8), Some(21));
        let with = lines("council.yaml", &[found]);
        assert_eq!(with, "council.yaml:8:21: policies/council/tests/web: expected allow");
    }
}
