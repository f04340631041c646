//! Revisions as entity tags: `ETag` on the way out, `If-Match` and `If-None-Match` on the way in.
//!
//! A precondition that is not understood refuses the request; ignoring it would overwrite what
//! the asker wanted to protect.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use partywall_proto::admin::Versioned;
use serde::Serialize;

use super::Edge;
use super::problem::Refusal;

/// The revision that a write builds on: `If-Match: "7"`, or `If-None-Match: *` for 0, "only if new".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected(pub(super) Option<u64>);

impl FromRequestParts<Edge> for Expected {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Edge) -> Result<Self, Refusal> {
        expected(&parts.headers)
    }
}

fn expected(headers: &HeaderMap) -> Result<Expected, Refusal> {
    match (one(headers, &IF_MATCH)?, one(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Expected(None)),
        (Some(tag), None) => tag
            .strip_prefix('"')
            .and_then(|tag| tag.strip_suffix('"'))
            .and_then(|revision| revision.parse().ok())
            .map(|revision| Expected(Some(revision)))
            .ok_or_else(|| {
                Refusal::bad_request(
                    "If-Match takes the one ETag that a GET of this resource answered, as in \"7\"",
                )
            }),
        (None, Some("*")) => Ok(Expected(Some(0))),
        (None, Some(_)) => {
            Err(Refusal::bad_request("If-None-Match takes `*` alone: write only if new"))
        }
        (Some(_), Some(_)) => {
            Err(Refusal::bad_request("If-Match and If-None-Match exclude each other; send one"))
        }
    }
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(|value| Some(value.trim()))
            .map_err(|_| Refusal::bad_request(format!("{name} is not readable"))),
        (Some(_), Some(_)) => Err(Refusal::bad_request(format!("send {name} once"))),
    }
}

/// A resource with its revision as `ETag`.
pub(super) struct Tagged<K> {
    pub(super) status: StatusCode,
    pub(super) resource: Versioned<K>,
}

impl<K: Serialize> IntoResponse for Tagged<K> {
    fn into_response(self) -> Response {
        let tag = HeaderValue::from_str(&format!("\"{}\"", self.resource.revision))
            .expect("digits in quotes are a header value");
        (self.status, [(ETAG, tag)], Json(self.resource)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_is_understood_or_refused() {
        let read = |pairs: &[(&HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            expected(&headers).ok()
        };
        assert_eq!(read(&[]), Some(Expected(None)));
        assert_eq!(read(&[(&IF_MATCH, "\"7\"")]), Some(Expected(Some(7))));
        assert_eq!(read(&[(&IF_NONE_MATCH, "*")]), Some(Expected(Some(0))));
        for bad in ["7", "*", "W/\"7\"", "\"x\"", "\"7\", \"8\"", "", "\"-1\""] {
            assert_eq!(read(&[(&IF_MATCH, bad)]), None, "{bad}");
        }
        assert_eq!(read(&[(&IF_NONE_MATCH, "\"7\"")]), None);
        assert_eq!(read(&[(&IF_MATCH, "\"7\""), (&IF_NONE_MATCH, "*")]), None);
        assert_eq!(read(&[(&IF_MATCH, "\"7\""), (&IF_MATCH, "\"8\"")]), None);
    }
}
