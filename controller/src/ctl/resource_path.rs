//! One thing that admins set up, named as `partywallctl diff` names it: `devices/desk-1`.

use std::fmt::{self, Display};
use std::str::FromStr;

/// A kind and a name, and where the API has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourcePath {
    shown: String,
    parts: Vec<String>,
}

impl ResourcePath {
    /// The parts of its path in the API, below the version.
    pub(super) fn parts(&self) -> Vec<&str> {
        self.parts.iter().map(String::as_str).collect()
    }
}

impl FromStr for ResourcePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "{text:?} names nothing that is set up; write it as `partywallctl diff` does: \
                 devices/desk-1, groups/council/staff, policies/council"
            )
        };
        let words: Vec<&str> = text.split('/').collect();
        if words.iter().any(|word| word.is_empty()) {
            return Err(refused());
        }
        let parts = match words[..] {
            ["groups", organisation, name] => vec!["organisations", organisation, "groups", name],
            ["flow-settings", organisation] => {
                vec!["organisations", organisation, "flow-settings"]
            }
            [
                kind @ ("organisations" | "buildings" | "segments" | "gateways" | "devices"
                | "users" | "policies"),
                name,
            ] => vec![kind, name],
            _ => return Err(refused()),
        };
        let parts = parts.into_iter().map(str::to_owned).collect();
        Ok(Self { shown: text.to_owned(), parts })
    }
}

impl Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_diff_names_has_a_place_in_the_api() {
        for (text, place) in [
            ("devices/desk-1", "devices/desk-1"),
            ("users/alice@council", "users/alice@council"),
            ("groups/council/staff", "organisations/council/groups/staff"),
            ("policies/council", "policies/council"),
        ] {
            let path: ResourcePath = text.parse().unwrap();
            assert_eq!((path.parts().join("/").as_str(), path.to_string().as_str()), (place, text));
        }
        for bad in
            ["", "desk-1", "device/desk-1", "devices/", "devices/a/b", "groups/staff", "tokens/t"]
        {
            assert!(bad.parse::<ResourcePath>().is_err(), "{bad:?}");
        }
    }
}
