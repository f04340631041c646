//! The verb that asks why something is let through or refused.

use std::io::Write;

use clap::Args;
use partywall_proto::admin::{EndVerdict, Endpoint, PolicyVersion, WhyReport};
use partywall_proto::flows::FlowId;
use partywall_proto::ids::DeviceId;
use partywall_proto::rules::{Action, Opener};

use super::client::Client;
use super::{CtlError, write_json};

/// What is asked about.
#[derive(Debug, Args)]
pub(super) struct WhyArguments {
    /// The device, or a session's id from `partywallctl sessions`
    #[arg(long, value_name = "DEVICE", required_unless_present = "flow", requires = "to")]
    from: Option<DeviceId>,
    /// The far end, as in 10.2.0.5:443/tcp, `[fd10::10]:53/udp` or 10.2.0.5/icmp
    #[arg(long, value_name = "ADDRESS:PORT/PROTOCOL", requires = "from")]
    to: Option<Endpoint>,
    /// The side that opens it, device or network; where the network does, `--to` is its address with the
    /// device's own port
    #[arg(long, value_parser = opener, default_value = "device")]
    opened_by: Opener,
    /// A recorded flow instead, by its id from `partywallctl flows --json`
    #[arg(long, value_name = "ID", conflicts_with_all = ["from", "to", "opened_by"])]
    flow: Option<FlowId>,
}

fn opener(text: &str) -> Result<Opener, String> {
    serde_json::from_value(text.into()).map_err(|_| "write device or network".to_owned())
}

pub(super) async fn run(
    client: &Client,
    asked: &WhyArguments,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CtlError> {
    let query = asked.query();
    let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let report: WhyReport = client.get(&["why"], &query).await?;
    match json {
        true => write_json(out, &report),
        false => Ok(out.write_all(text(&report).as_bytes())?),
    }
}

impl WhyArguments {
    fn query(&self) -> Vec<(&'static str, String)> {
        if let Some(flow) = self.flow {
            return vec![("flow", flow.to_string())];
        }
        let opened_by = match self.opened_by {
            Opener::Device => "device",
            Opener::Network => "network",
        };
        let mut query = vec![("opened_by", opened_by.to_owned())];
        query.extend(self.from.as_ref().map(|from| ("from", from.to_string())));
        query.extend(self.to.map(|to| ("to", to.to_string())));
        query
    }
}

/// The sentence first, then the facts that it rests on, a line for each.
fn text(report: &WhyReport) -> String {
    let mut lines = Vec::new();
    if let Some(recorded) = &report.recorded {
        lines.push(recorded.sentence.clone());
        lines.push(format!("Now: {}", report.sentence));
    } else {
        lines.push(report.sentence.clone());
    }
    let mut fact = |name: &str, value: String| lines.push(format!("  {name:<8} {value}"));
    if let Some(session) = &report.session {
        let place = session.building.as_ref().map_or_else(String::new, |it| format!(" in {it}"));
        fact(
            "session",
            format!(
                "{}: {} in segment {} on a {} device{place}, since {}",
                session.id, session.user, session.segment, session.class, session.began_at
            ),
        );
    }
    let ends = [("device", &report.at_device), ("gateway", &report.at_gateway)];
    for (name, verdict) in ends {
        if let Some(verdict) = verdict {
            fact(name, end(verdict));
        }
    }
    if let Some(PolicyVersion { number, published_by, published_at, .. }) = &report.policy {
        fact("policy", format!("version {number}, by {published_by} at {published_at}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn end(verdict: &EndVerdict) -> String {
    let agent = verdict.agent.as_ref().map_or_else(String::new, |agent| format!("{agent} "));
    let words = &verdict.words;
    match (verdict.action, verdict.drop) {
        (Some(Action::Allow), _) => format!("{agent}allows it: {words}"),
        (Some(Action::Deny), Some(drop)) => format!("{agent}drops it ({drop}): {words}"),
        (Some(Action::Deny), None) => format!("{agent}drops it: {words}"),
        (None, _) => format!("no verdict: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Arguments;

    #[test]
    fn either_a_flow_or_both_ends_are_asked_about() {
        let read = |words: &str| {
            Arguments::try_parse_from(["partywallctl", "why"].into_iter().chain(words.split(' ')))
        };
        for good in [
            "--from desk-1 --to 10.2.0.5:443/tcp",
            "--from desk-1 --to 10.2.0.5/icmp --opened-by network",
            "--flow 00000000000000aa --json",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "--from desk-1",
            "--to 10.2.0.5:443/tcp",
            "--from desk-1 --to 10.2.0.5",
            "--from desk-1 --to 10.2.0.5:443/tcp --opened-by both",
            "--flow aa",
            "--flow 00000000000000aa --opened-by network",
            "--flow 00000000000000aa --from desk-1 --to 10.2.0.5:443/tcp",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
