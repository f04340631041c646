//! The verbs about what is set up (`apply`, `diff`, `export`, `delete`) and about what happened (`audit`).

use std::io::Write;
use std::path::PathBuf;

use partywall_proto::admin::{ApplyReport, AuditRecord, AuditVerdict, Manifest, Page};
use reqwest::Method;

use super::client::Client;
use super::resource_path::ResourcePath;
use super::{CtlError, diff, done, hint, manifest_file, tables, write_json};

type Out<'a> = &'a mut (dyn Write + Send);

pub(super) async fn apply(
    client: &Client,
    files: &[PathBuf],
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let report = post_manifest(client, files, "false").await?;
    show(&report, json, out)?;
    hint(format_args!("{}; revision {}", diff::summary(&report), report.revision));
    Ok(())
}

pub(super) async fn diff(
    client: &Client,
    files: &[PathBuf],
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let report = post_manifest(client, files, "true").await?;
    show(&report, json, out)?;
    let next = match report.changes.is_empty() {
        true => "",
        false => "; nothing is changed yet, `partywallctl apply` with the same files does it",
    };
    hint(format_args!("{}{next}", diff::summary(&report)));
    Ok(())
}

async fn post_manifest(
    client: &Client,
    files: &[PathBuf],
    dry_run: &str,
) -> Result<ApplyReport, CtlError> {
    let manifest = manifest_file::read(files)?;
    client.send_json(Method::POST, &["apply"], &[("dry_run", dry_run)], &manifest).await
}

fn show(report: &ApplyReport, json: bool, out: Out<'_>) -> Result<(), CtlError> {
    match json {
        true => write_json(out, report),
        false => Ok(out.write_all(diff::render(report).as_bytes())?),
    }
}

pub(super) async fn export(client: &Client, json: bool, out: Out<'_>) -> Result<(), CtlError> {
    let manifest: Manifest = client.get(&["export"], &[]).await?;
    match json {
        true => write_json(out, &manifest),
        false => Ok(out.write_all(manifest_file::write(&manifest)?.as_bytes())?),
    }
}

pub(super) async fn delete(
    client: &Client,
    resource: &ResourcePath,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    client.delete(&resource.parts()).await?;
    let deleted = serde_json::json!({ "deleted": resource.to_string() });
    done(json, out, &deleted, &format!("{resource} is deleted"))
}

/// Follows the cursors of a list to its end.
pub(super) async fn all<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &[&str],
    query: &[(&str, &str)],
) -> Result<Vec<T>, CtlError> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        query.push(("limit", "1000"));
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor));
        }
        let page: Page<T> = client.get(path, &query).await?;
        items.extend(page.items);
        match page.next {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            Some(_) | None => return Ok(items),
        }
    }
}

pub(super) async fn audit(
    client: &Client,
    chain: Option<&str>,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let query: Vec<_> = chain.map(|chain| ("chain", chain)).into_iter().collect();
    let records: Vec<AuditRecord> = all(client, &["audit"], &query).await?;
    match json {
        true => write_json(out, &records),
        false => Ok(writeln!(out, "{}", tables::audit(&records))?),
    }
}

pub(super) async fn audit_verify(
    client: &Client,
    json: bool,
    out: Out<'_>,
) -> Result<(), CtlError> {
    let verdicts: Vec<AuditVerdict> = client.get(&["audit", "verify"], &[]).await?;
    match json {
        true => write_json(out, &verdicts)?,
        false => writeln!(out, "{}", tables::verdicts(&verdicts))?,
    }
    match verdicts.iter().filter(|verdict| verdict.broken.is_some()).count() {
        0 => Ok(()),
        broken => Err(CtlError::AuditBroken { broken, all: verdicts.len() }),
    }
}
