//! The conditions of a rule.
//!
//! A condition that is left out holds always; one that is there and lists nothing never does, and is
//! refused before it can.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::BuildingId;

/// Conditions; those that are stated hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The device stands in one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buildings: Option<Vec<BuildingId>>,
    /// The device is of one of these classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<DeviceClass>>,
    /// The person signed in at least as strongly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<SignInStrength>,
    /// It is one of these hours, in the policy's time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Vec<Hours>>,
}

/// How far an organisation can trust a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DeviceClass {
    /// Set up and looked after by the person's own organisation.
    Managed,
    /// A person's own, with our agent on it.
    Personal,
    /// Anybody may sit down at it.
    SharedDesk,
    /// A stock WireGuard client: it has no filter and no leak guard of ours.
    Agentless,
}

impl DeviceClass {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Managed, Self::Personal, Self::SharedDesk, Self::Agentless];
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Managed => "managed",
            Self::Personal => "personal",
            Self::SharedDesk => "shared-desk",
            Self::Agentless => "agentless",
        })
    }
}

/// How a person proved who they are, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SignInStrength {
    /// Not at all.
    None,
    /// By a password alone.
    Password,
    /// By a password and a one-time code.
    Code,
}

impl SignInStrength {
    /// Every strength, the weakest first.
    pub const ALL: [Self; 3] = [Self::None, Self::Password, Self::Code];
}

impl fmt::Display for SignInStrength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Code => "code",
        })
    }
}

/// Part of some days of each week.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// Never empty.
    pub days: Vec<Day>,
    /// Included.
    pub from: TimeOfDay,
    /// Not included any more; later than `from`.
    pub until: TimeOfDay,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time of day to the minute, written `08:00`; `24:00` is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// Minutes since midnight, 0 to 1440.
    pub fn minutes(self) -> u16 {
        self.0
    }
}

/// A text is no time of day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time of day; write \"08:00\" to \"24:00\", in quotes")]
pub struct TimeOfDayError(String);

impl FromStr for TimeOfDay {
    type Err = TimeOfDayError;

    fn from_str(text: &str) -> Result<Self, TimeOfDayError> {
        let refuse = || TimeOfDayError(text.chars().take(20).collect());
        let two_digits = |part: &str| {
            let plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u16>().ok().filter(|_| plain).ok_or_else(refuse)
        };
        let (hour, minute) = text.split_once(':').ok_or_else(refuse)?;
        let (hour, minute) = (two_digits(hour)?, two_digits(minute)?);
        match minute < 60 && (hour < 24 || (hour, minute) == (24, 0)) {
            true => Ok(Self(hour * 60 + minute)),
            false => Err(refuse()),
        }
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = TimeOfDayError;

    fn try_from(text: String) -> Result<Self, TimeOfDayError> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> String {
        time.to_string()
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

crate::openapi::text_schema!(TimeOfDay);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_two_digits_twice_and_ends_at_midnight() {
        for (good, minutes) in [("00:00", 0), ("08:30", 510), ("23:59", 1439), ("24:00", 1440)] {
            let time: TimeOfDay = good.parse().unwrap();
            assert_eq!((time.minutes(), time.to_string().as_str()), (minutes, good));
        }
        for bad in
            ["", "8:00", "08:0", "24:01", "25:00", "08:60", "08", "+8:00", "08:00:00", "é:00"]
        {
            assert!(bad.parse::<TimeOfDay>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_stronger_sign_in_is_greater() {
        assert!(SignInStrength::ALL.is_sorted());
    }
}
