//! The name of one file of flow records: the hour that its flows are of, and a count within it.
//!
//! Names sort as their hours do, and a name alone says whether a file can hold what is asked for: that is
//! all the index there is.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const HOUR_S: i64 = 3600;
const SUFFIX: &str = ".jsonl";

/// As in `2026-11-22T19-0003.jsonl`, the hour in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// Hours since 1970.
    hour: i64,
    pub(super) number: u32,
}

impl Part {
    /// The first part of the hour that `at` is in.
    pub(super) fn first_of(at: Timestamp) -> Self {
        Self { hour: at.as_second().div_euclid(HOUR_S), number: 0 }
    }

    /// The next part of the same hour.
    pub(super) fn next(self) -> Self {
        Self { number: self.number.saturating_add(1), ..self }
    }

    /// All parts of the same hour.
    pub(super) fn siblings(self) -> std::ops::RangeInclusive<Self> {
        Self { number: 0, ..self }..=Self { number: u32::MAX, ..self }
    }

    /// Whether all of its hour is before `at`.
    pub(super) fn is_before(self, at: Timestamp) -> bool {
        (self.hour + 1).saturating_mul(HOUR_S) <= at.as_second()
    }

    /// Whether none of its hour is before `at`.
    pub(super) fn is_from(self, at: Timestamp) -> bool {
        at <= Self::second(self.hour)
    }

    fn second(hour: i64) -> Timestamp {
        // An hour comes from a timestamp or a date, so that it is in range.
        Timestamp::from_second(hour.saturating_mul(HOUR_S)).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hour = Self::second(self.hour).strftime("%Y-%m-%dT%H");
        write!(f, "{hour}-{:04}{SUFFIX}", self.number)
    }
}

/// A text is not the name of a file of flow records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAPart;

impl FromStr for Part {
    type Err = NotAPart;

    fn from_str(text: &str) -> Result<Self, NotAPart> {
        let (hour, number) =
            text.strip_suffix(SUFFIX).and_then(|stem| stem.rsplit_once('-')).ok_or(NotAPart)?;
        let hour = DateTime::strptime("%Y-%m-%dT%H", hour).map_err(|_| NotAPart)?;
        let hour = hour.to_zoned(TimeZone::UTC).map_err(|_| NotAPart)?;
        let number = number.parse().map_err(|_| NotAPart)?;
        let part = Self { number, ..Self::first_of(hour.timestamp()) };
        // One name for each part: `-3` and `-0003` would be two files.
        if part.to_string() == text { Ok(part) } else { Err(NotAPart) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_and_sorts_by_time() {
        let at: Timestamp = "2026-11-22T19:59:59.999Z".parse().unwrap();
        let part = Part::first_of(at).next();
        assert_eq!(part.to_string(), "2026-11-22T19-0001.jsonl");
        assert_eq!(part.to_string().parse(), Ok(part));
        assert!(
            part < part.next()
                && part.next() < Part::first_of("2026-11-22T20:00:00Z".parse().unwrap())
        );
        for bad in
            ["", "x", "2026-11-22T19-1.jsonl", "2026-11-22T25-0001.jsonl", "../../etc/passwd"]
        {
            assert_eq!(bad.parse::<Part>(), Err(NotAPart), "{bad}");
        }
    }

    #[test]
    fn an_hour_is_before_or_from_a_moment_or_around_it() {
        let part: Part = "2026-11-22T19-0000.jsonl".parse().unwrap();
        let is =
            |at: &str| (part.is_before(at.parse().unwrap()), part.is_from(at.parse().unwrap()));
        assert_eq!(is("2026-11-22T18:59:59Z"), (false, true));
        assert_eq!(is("2026-11-22T19:00:00Z"), (false, true));
        assert_eq!(is("2026-11-22T19:00:01Z"), (false, false));
        assert_eq!(is("2026-11-22T20:00:00Z"), (true, false));
    }
}
