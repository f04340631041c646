//! What staff read: short sentences without jargon.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::ipc::{SessionView, StatusView, WhyView};

/// "You are signed in to Council network until 17:30."
pub(super) fn signed_in(session: &SessionView, now: Timestamp, zone: &TimeZone) -> String {
    let until = clock(session.ends_at, now, zone);
    format!("You are signed in to {} as {} until {until}.", session.title, session.user)
}

/// "You are signed out of Council network."
pub(super) fn signed_out(session: &SessionView) -> String {
    format!("You are signed out of {}.", session.title)
}

/// The status in a few lines.
pub(super) fn status(view: &StatusView, now: Timestamp, zone: &TimeZone) -> String {
    let mut text = String::new();
    let mut line = |sentence: String| {
        text.push_str(&sentence);
        text.push('\n');
    };
    match (&view.session, &view.segment) {
        (Some(session), _) => line(signed_in(session, now, zone)),
        (None, Some(segment)) => line(format!("This is {}, a gateway of {segment}.", view.agent)),
        (None, None) => {
            let why = view.idle.as_deref().unwrap_or("nobody is signed in");
            line(format!("Not connected: {why}."));
        }
    }
    match (&view.session, view.live_peers) {
        _ if view.segment.is_none() => {}
        _ if !view.enforced => line("The network is being set up.".to_owned()),
        (Some(_), 0) => line("The network does not answer at the moment.".to_owned()),
        (Some(_), _) => line("The network answers.".to_owned()),
        (None, 1) => line("1 device is connected.".to_owned()),
        (None, devices) => line(format!("{devices} devices are connected.")),
    }
    match (view.controller.connected, view.valid_until) {
        (true, _) => {}
        (false, Some(until)) => line(format!(
            "The controller cannot be reached; the connection goes on without it until {}.",
            clock(until, now, zone)
        )),
        (false, None) => line("The controller cannot be reached.".to_owned()),
    }
    if let Some(trouble) = &view.controller.trouble {
        line(format!("  ({trouble})"));
    }
    if view.session.is_none() && !view.segments.is_empty() {
        line(
            "To sign in: partywall login SEGMENT --user YOU@ORGANISATION, where SEGMENT is"
                .to_owned(),
        );
        for offer in &view.segments {
            line(format!("  {}  {}", offer.segment, offer.title));
        }
    }
    match view.flow_records_lost {
        0 => {}
        1 => line("1 flow record was lost: the record of what passed has a gap.".to_owned()),
        lost => line(format!("{lost} flow records were lost: the record of what passed has gaps.")),
    }
    for warning in &view.warnings {
        line(format!("Warning: {warning}"));
    }
    text
}

/// What was dropped, the most frequent first, each with its meaning.
pub(super) fn drops(view: &StatusView) -> String {
    if view.drops.is_empty() {
        return "Nothing was dropped since the agent started.\n".to_owned();
    }
    let mut rows: Vec<_> = view.drops.iter().collect();
    rows.sort_by_key(|(reason, drop)| (std::cmp::Reverse(drop.packets), (*reason).clone()));
    let mut text = "Dropped since the agent started:\n".to_owned();
    for (reason, drop) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:>10}  {reason}: {}", drop.packets, drop.meaning);
    }
    text
}

/// What would become of a flow.
pub(super) fn why(target: &str, view: &WhyView) -> String {
    let mut text = match (view.allowed, &view.rule) {
        (true, Some(rule)) => format!("{target} is allowed, by the rule {rule}."),
        (true, None) => format!("{target} is allowed."),
        (false, Some(rule)) => format!("{target} is blocked, by the rule {rule}."),
        (false, None) => format!("{target} is blocked."),
    };
    if let (Some(drop), Some(meaning)) = (&view.drop, &view.meaning) {
        let _ = write!(text, "\n{drop}: {meaning}");
    }
    match (view.policy, &view.policy_of) {
        (Some(version), Some(organisation)) => {
            let _ = write!(text, "\nThat is version {version} of the {organisation}'s policy.");
        }
        (Some(version), None) => {
            let _ = write!(text, "\nThat is version {version} of the policy.");
        }
        (None, _) => {}
    }
    match (&view.gateway, view.connected) {
        (Some(gateway), true) => {
            let _ = write!(text, "\nIt goes through {gateway}, which answers.");
        }
        (Some(gateway), false) => {
            let _ =
                write!(text, "\nIt goes through {gateway}, which does not answer at the moment.");
        }
        (None, _) => {}
    }
    text.push('\n');
    text
}

/// `17:30` today, `Tue 17:30` on another day.
fn clock(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let format = if at.date() == now.date() { "%H:%M" } else { "%a %H:%M" };
    at.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::{ControllerView, DropView};

    fn now() -> Timestamp {
        "2026-03-02T09:00:00Z".parse().unwrap()
    }

    fn session() -> SessionView {
        SessionView {
            segment: "council".parse().unwrap(),
            title: "Council network".to_owned(),
            user: "alice@council".parse().unwrap(),
            ends_at: "2026-03-02T17:30:00Z".parse().unwrap(),
        }
    }

    fn view() -> StatusView {
        StatusView {
            agent: "device/desk-1".parse().unwrap(),
            controller: ControllerView {
                address: "controller:8443".to_owned(),
                connected: true,
                trouble: None,
                clock_skew_s: Some(0),
            },
            segment: Some("council".parse().unwrap()),
            generation: None,
            valid_until: Some("2026-03-03T09:00:00Z".parse().unwrap()),
            enforced: true,
            session: Some(session()),
            idle: None,
            segments: Vec::new(),
            live_peers: 1,
            peers: Vec::new(),
            drops: [(
                "no-rule".to_owned(),
                DropView { packets: 3, meaning: "No rule.".to_owned() },
            )]
            .into(),
            flow_records_lost: 0,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_signed_in_person_reads_where_and_until_when() {
        let text = status(&view(), now(), &TimeZone::UTC);
        assert_eq!(
            text,
            "You are signed in to Council network as alice@council until 17:30.\nThe network answers.\n"
        );
    }

    #[test]
    fn a_controller_that_is_away_is_told_with_the_limit() {
        let mut view = view();
        view.controller.connected = false;
        let text = status(&view, now(), &TimeZone::UTC);
        assert!(text.contains("goes on without it until Tue 09:00"), "{text}");
    }

    #[test]
    fn a_verdict_names_the_policy_version_where_policy_decided() {
        let view = WhyView {
            allowed: false,
            rule: None,
            policy: Some(7),
            policy_of: Some("council".parse().unwrap()),
            drop: Some("no-rule".to_owned()),
            meaning: Some("No rule allows the flow.".to_owned()),
            gateway: Some("gateway/gw-1".parse().unwrap()),
            connected: true,
        };
        assert_eq!(
            why("10.1.0.10:22", &view),
            "10.1.0.10:22 is blocked.\nno-rule: No rule allows the flow.\n\
             That is version 7 of the council's policy.\n\
             It goes through gateway/gw-1, which answers.\n"
        );
        let silent = why("10.1.0.10:22", &WhyView { policy: None, policy_of: None, ..view });
        assert!(!silent.contains("version"), "{silent}");
    }

    #[test]
    fn drops_come_with_their_meaning() {
        assert!(drops(&view()).contains("         3  no-rule: No rule.\n"));
    }
}
