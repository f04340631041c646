//! Hours of the week as clocks on the wall show them.
//!
//! Time zones come from the data that is built in and not from the machine: every controller must
//! read the same hours in the same policy.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::civil::{DateTime, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};
use partywall_proto::admin::{Day, Hours};

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;

/// The time zone of that name; none if there is no such zone.
pub(super) fn zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

/// A day of the week and the minute of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime {
    day: Day,
    minute: u16,
}

impl LocalTime {
    /// The first minute of the week.
    pub const MONDAY: Self = Self { day: Day::Mon, minute: 0 };

    /// As a clock and a calendar show it.
    pub fn of(shown: DateTime) -> Self {
        let minute = i32::from(shown.hour()) * 60 + i32::from(shown.minute());
        // Hours are 0 to 23 and minutes 0 to 59.
        let minute = u16::try_from(minute).unwrap_or_default();
        Self { day: day_of(shown.weekday()), minute }
    }

    /// At `now` in `zone`.
    pub(super) fn at(now: Timestamp, zone: &TimeZone) -> Self {
        Self::of(zone.to_datetime(now))
    }

    /// Whether it is one of `hours`.
    pub fn within(self, hours: &[Hours]) -> bool {
        hours.iter().any(|it| {
            let span = it.from.minutes()..it.until.minutes();
            it.days.contains(&self.day) && span.contains(&self.minute)
        })
    }
}

impl std::fmt::Display for LocalTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:02}:{:02}", self.day, self.minute / 60, self.minute % 60)
    }
}

/// Whether `hours` mean anything: some day, and an end after the beginning.
pub(super) fn are_sound(hours: &[Hours]) -> bool {
    !hours.is_empty() && hours.iter().all(|it| !it.days.is_empty() && it.from < it.until)
}

/// When `hours` begin and end.
pub(super) fn edges(hours: &[Hours]) -> impl Iterator<Item = LocalTime> {
    hours.iter().flat_map(|it| {
        it.days.iter().flat_map(|&day| {
            [it.from, it.until].map(|edge| match edge.minutes() < DAY_MINUTES {
                true => LocalTime { day, minute: edge.minutes() },
                false => LocalTime { day: next_day(day), minute: 0 },
            })
        })
    })
}

/// The week, from Monday to Monday, that `now` lies in by the clocks of `zone`.
pub(super) fn week_of(now: Timestamp, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let today = zone.to_datetime(now).date();
    let past = i64::from(today.weekday().to_monday_zero_offset());
    let on = |days: i64| {
        let date = today.checked_add(Span::new().days(days)).ok()?;
        Some(date.to_zoned(zone.clone()).ok()?.timestamp())
    };
    Some((on(-past)?, on(7 - past)?))
}

/// The first instant after `now` at which one of `edges` is passed, or at which `zone` puts its clocks
/// forward or back, for that may pass one too. None without edges.
pub(super) fn next_edge(
    edges: &BTreeSet<LocalTime>,
    zone: &TimeZone,
    now: Timestamp,
) -> Option<Timestamp> {
    if edges.is_empty() {
        return None;
    }
    let today = zone.to_datetime(now).date();
    let on_day = |ahead: i64| {
        let date = today.checked_add(Span::new().days(ahead)).ok()?;
        let day = day_of(date.weekday());
        let of_day = LocalTime { day, minute: 0 }..LocalTime { day, minute: DAY_MINUTES };
        let instants = edges.range(of_day).flat_map(|edge| {
            // Both fit: an hour is at most 23, a minute at most 59.
            let (hour, minute) = (edge.minute / 60, edge.minute % 60);
            let shown = date.at(hour.try_into().unwrap_or(0), minute.try_into().unwrap_or(0), 0, 0);
            let twice = zone.to_ambiguous_timestamp(shown);
            [twice.earlier(), twice.later()]
        });
        instants.flatten().filter(|instant| *instant > now).min()
    };
    // The eighth day is today's weekday again, for an edge that has passed today.
    let edge = (0..=7).find_map(on_day);
    let moved = zone.following(now).next().map(|transition| transition.timestamp());
    edge.into_iter().chain(moved).min()
}

fn day_of(weekday: Weekday) -> Day {
    match weekday {
        Weekday::Monday => Day::Mon,
        Weekday::Tuesday => Day::Tue,
        Weekday::Wednesday => Day::Wed,
        Weekday::Thursday => Day::Thu,
        Weekday::Friday => Day::Fri,
        Weekday::Saturday => Day::Sat,
        Weekday::Sunday => Day::Sun,
    }
}

fn next_day(day: Day) -> Day {
    match day {
        Day::Mon => Day::Tue,
        Day::Tue => Day::Wed,
        Day::Wed => Day::Thu,
        Day::Thu => Day::Fri,
        Day::Fri => Day::Sat,
        Day::Sat => Day::Sun,
        Day::Sun => Day::Mon,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Vec<Hours> {
        serde_json::from_str(text).unwrap()
    }

    fn next(hours: &[Hours], now: &str) -> String {
        let edges = edges(hours).collect();
        let zone = zone("Europe/London").unwrap();
        next_edge(&edges, &zone, now.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn hours_begin_with_their_first_minute_and_end_before_their_last() {
        let office = hours(r#"[{"days": ["mon", "sun"], "from": "08:00", "until": "24:00"}]"#);
        for (at, within) in [
            ("2026-03-02T07:59", false),
            ("2026-03-02T08:00", true),
            ("2026-03-02T23:59:59", true),
            ("2026-03-03T08:00", false),
            ("2026-03-08T12:00", true),
        ] {
            assert_eq!(LocalTime::of(at.parse().unwrap()).within(&office), within, "{at}");
        }
    }

    #[test]
    fn the_next_edge_is_found_over_weekends_midnights_and_the_change_of_clocks() {
        let office = hours(r#"[{"days": ["mon", "fri"], "from": "08:00", "until": "18:00"}]"#);
        assert_eq!(next(&office, "2026-03-02T07:00:00Z"), "2026-03-02T08:00:00Z");
        assert_eq!(next(&office, "2026-03-02T08:00:00Z"), "2026-03-02T18:00:00Z");
        assert_eq!(next(&office, "2026-03-06T18:00:00Z"), "2026-03-09T08:00:00Z");
        // Clocks go forward at 01:00 UTC on 29 March; from then on eight o'clock is seven in UTC.
        assert_eq!(next(&office, "2026-03-27T18:00:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(next(&office, "2026-03-29T01:00:00Z"), "2026-03-30T07:00:00Z");
        // An hour that there is twice begins twice.
        let night = hours(r#"[{"days": ["sun"], "from": "01:30", "until": "24:00"}]"#);
        assert_eq!(next(&night, "2026-10-25T00:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next(&night, "2026-10-25T00:30:00Z"), "2026-10-25T01:00:00Z");
        assert_eq!(next(&night, "2026-10-25T01:00:00Z"), "2026-10-25T01:30:00Z");
        assert_eq!(next(&night, "2026-10-25T01:30:00Z"), "2026-10-26T00:00:00Z");
    }

    #[test]
    fn zones_are_known_by_name_whatever_the_machine_has() {
        assert!(zone("Europe/London").is_some() && zone("UTC").is_some());
        assert!(zone("Europe/Rotherham").is_none() && zone("").is_none());
    }
}
