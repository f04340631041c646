//! Errors as they travel: problem details for HTTP APIs (RFC 9457), over REST and over the agent's
//! stream alike.

use serde::{Deserialize, Serialize};

/// Media type of a problem (RFC 9457 §3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Stable name of the kind of problem, for programs: `urn:partywall:problem:NAME`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// This occurrence, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Where it was found, one entry each, where there are several (a manifest, a policy).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Finding>,
}

/// One of several things that are wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// What is concerned, as a path: `segments/council/pools`.
    pub at: String,
    /// What is wrong with it and what to do.
    pub detail: String,
    /// The line of the text that was sent, from 1, where it was a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl Finding {
    /// A finding about `at`, which stands in no text.
    pub fn new(at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { at: at.into(), detail: detail.into(), line: None, column: None }
    }
}

/// `4:5: segments/council/pools: what is wrong`, the position where there is one.
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}: ")?;
        }
        write!(f, "{}: {}", self.at, self.detail)
    }
}

impl Problem {
    /// A problem named `name`, a short word in kebab case.
    pub fn new(
        status: u16,
        name: &str,
        title: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!("urn:partywall:problem:{name}"),
            title: title.into(),
            status,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// The short word of the kind, for matching.
    pub fn name(&self) -> &str {
        self.kind.rsplit(':').next().unwrap_or_default()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.title)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        for finding in &self.errors {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        let mut problem = Problem::new(422, "bad-manifest", "The manifest is refused", "Mend it.");
        for at in ["segments/council/pools", "users/alice@council"] {
            problem.errors.push(Finding::new(at, "overlaps"));
        }
        problem.errors[1].line = Some(4);
        problem.errors[1].column = Some(5);
        problem
    }

    #[test]
    fn a_problem_shows_its_title_detail_and_every_finding() {
        assert_eq!(
            problem().to_string(),
            "The manifest is refused: Mend it.\n  segments/council/pools: overlaps\n  4:5: users/alice@council: overlaps"
        );
        assert_eq!(
            Problem::new(404, "no-such-route", "No such route", "").to_string(),
            "No such route"
        );
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_a_stable_name() {
        let value = serde_json::to_value(problem()).unwrap();
        assert_eq!(value["type"], "urn:partywall:problem:bad-manifest");
        assert_eq!((value["status"].as_u64(), value["title"].is_string()), (Some(422), true));
        let read: Problem = serde_json::from_value(value).unwrap();
        assert_eq!((read.name(), &read), ("bad-manifest", &problem()));
    }

    #[test]
    fn a_problem_from_elsewhere_is_read_with_the_members_it_has() {
        let text = r#"{"type":"about:blank","title":"Bad Gateway","status":502,"instance":"/x"}"#;
        let read: Problem = serde_json::from_str(text).unwrap();
        assert_eq!((read.name(), read.to_string()), ("blank", "Bad Gateway".to_owned()));
    }
}
