//! The verbs about flow records.
//!
//! There may be millions: they are printed as they come, a page at a time, and never held all at once.

use std::io::Write;
use std::str::FromStr;

use clap::{Args, Subcommand};
use jiff::{SpanRelativeTo, Timestamp};
use partywall_proto::admin::{FlowStatus, Page, StoredFlow};
use partywall_proto::flows::FlowEvent;
use partywall_proto::ids::{BuildingId, DeviceId, RuleId, UserId};
use partywall_proto::nets::Prefix;

use super::client::Client;
use super::{CtlError, hint, tables, write_json};

/// Records in one request, and in one table.
const PAGE: usize = 1000;

/// Which records, and how many.
#[derive(Debug, Args)]
pub(super) struct FlowsArguments {
    /// From then on: a time as in 2026-11-22T09:00:00Z, or how long ago as in 2h or 3d
    #[arg(long, default_value = "1h", value_name = "WHEN")]
    from: Moment,
    /// Up to then, written like `--from`; now unless stated
    #[arg(long, value_name = "WHEN")]
    until: Option<Moment>,
    /// Of this user, as NAME@ORGANISATION
    #[arg(long)]
    user: Option<UserId>,
    /// Of this device
    #[arg(long)]
    device: Option<DeviceId>,
    /// Of devices in this building
    #[arg(long)]
    building: Option<BuildingId>,
    /// What happened: opened, refused or ended
    #[arg(long, value_parser = event)]
    event: Option<FlowEvent>,
    /// With this address or prefix at either end
    #[arg(long)]
    address: Option<Prefix>,
    /// Decided by this rule
    #[arg(long)]
    rule: Option<RuleId>,
    /// Only where the policy version on trial would have decided otherwise
    #[arg(long)]
    differing: bool,
    /// Stop after so many records
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
}

#[derive(Debug, Subcommand)]
pub(super) enum FlowsVerb {
    /// Show what was kept, dropped and passed on
    Status,
}

/// A point in time, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    At(Timestamp),
    AgoS(i64),
}

impl Moment {
    pub(super) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::AgoS(seconds) => {
                now.checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)
            }
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let span: Option<jiff::Span> = text.parse().ok();
        let ago = span.and_then(|it| it.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        match ago.filter(|ago| !ago.is_negative()) {
            Some(ago) => Ok(Self::AgoS(ago.as_secs())),
            None => Err(format!(
                "{text:?} is no time; write 2026-11-22T09:00:00Z, or how long ago as in 30m, 2h or 3d"
            )),
        }
    }
}

fn event(text: &str) -> Result<FlowEvent, String> {
    serde_json::from_value(text.into()).map_err(|_| "write opened, refused or ended".to_owned())
}

pub(super) async fn list(
    client: &Client,
    asked: &FlowsArguments,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CtlError> {
    let query = asked.query(Timestamp::now());
    let (mut cursor, mut left) = (None::<String>, asked.limit);
    let mut printed = false;
    loop {
        let limit = left.min(PAGE as u64).to_string();
        let mut query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        query.push(("limit", &limit));
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor));
        }
        let page: Page<StoredFlow> = client.get(&["flows"], &query).await?;
        left = left.saturating_sub(page.items.len() as u64);
        if json {
            for stored in &page.items {
                serde_json::to_writer(&mut *out, stored).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
        } else if !page.items.is_empty() || (!printed && page.next.is_none()) {
            writeln!(out, "{}", tables::flows(&page.items))?;
            printed = true;
        }
        match page.next {
            None => return Ok(()),
            Some(_) if left == 0 => {
                hint(format_args!("there may be more; say `--limit` or narrow the question"));
                return Ok(());
            }
            next => cursor = next,
        }
    }
}

pub(super) async fn status(
    client: &Client,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CtlError> {
    let status: FlowStatus = client.get(&["flows", "status"], &[]).await?;
    match json {
        true => write_json(out, &status),
        false => Ok(writeln!(out, "{}", tables::flow_status(&status))?),
    }
}

impl FlowsArguments {
    fn query(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut query = vec![("from", self.from.resolve(now).to_string())];
        let mut add = |name, value: Option<String>| query.extend(value.map(|value| (name, value)));
        add("until", self.until.map(|until| until.resolve(now).to_string()));
        add("user", self.user.as_ref().map(ToString::to_string));
        add("device", self.device.as_ref().map(ToString::to_string));
        add("building", self.building.as_ref().map(ToString::to_string));
        add("event", self.event.map(|event| event.to_string()));
        add("address", self.address.map(|address| address.to_string()));
        add("rule", self.rule.as_ref().map(ToString::to_string));
        add("differing", self.differing.then(|| "true".to_owned()));
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let now: Timestamp = "2026-11-22T19:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Moment>().map(|it| it.resolve(now).to_string());
        assert_eq!(at("2026-11-22T09:00:00+01:00"), Ok("2026-11-22T08:00:00Z".to_owned()));
        assert_eq!(at("2h"), Ok("2026-11-22T17:00:00Z".to_owned()));
        assert_eq!(at("1d"), Ok("2026-11-21T19:00:00Z".to_owned()));
        for bad in ["", "yesterday", "-2h", "1 month"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
