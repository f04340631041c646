//! The people of a rule.
//!
//! `everyone` is a word of its own and never the meaning of an empty list.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::{GroupId, UserId};

/// The people of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "WhoForm")]
pub enum Who {
    /// Everybody who has a session in the segment.
    Everyone,
    /// Any of these.
    Members(Members),
}

/// Some people: any of the users, and members of any of the groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// Of the policy or of the organisation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupId>,
    /// Of the organisation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserId>,
}

impl Members {
    /// Whether nobody is named.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.users.is_empty()
    }
}

/// How [`Who`] is written.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
enum WhoForm {
    Everyone(Everyone),
    Members(Members),
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
enum Everyone {
    Everyone,
}

impl From<Who> for WhoForm {
    fn from(who: Who) -> Self {
        match who {
            Who::Everyone => Self::Everyone(Everyone::Everyone),
            Who::Members(members) => Self::Members(members),
        }
    }
}

crate::openapi::schema_of!(Who = WhoForm);

// An untagged enum would lose the position of what is wrong, and say nothing about it.
impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Who;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`everyone` or `{ groups: [...], users: [...] }`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Who, E> {
                match word {
                    "everyone" => Ok(Who::Everyone),
                    other => Err(E::unknown_variant(other, &["everyone"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Who, A::Error> {
                Members::deserialize(MapAccessDeserializer::new(map)).map(Who::Members)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_a_word_and_members_are_lists() {
        for (text, who) in [
            (r#""everyone""#, Who::Everyone),
            (
                r#"{"groups":["staff"],"users":["bob@council"]}"#,
                Who::Members(Members {
                    groups: vec!["staff".parse().unwrap()],
                    users: vec!["bob@council".parse().unwrap()],
                }),
            ),
        ] {
            assert_eq!(serde_json::from_str::<Who>(text).unwrap(), who);
            assert_eq!(serde_json::to_string(&who).unwrap(), text);
        }
        for bad in [r#""nobody""#, "[]", "null", r#"{"group":["staff"]}"#] {
            assert!(serde_json::from_str::<Who>(bad).is_err(), "{bad} was taken");
        }
    }
}
