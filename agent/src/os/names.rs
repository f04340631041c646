//! Whom a session asks for names. What is no domain gets no further than this.

use std::net::IpAddr;

use partywall_proto::ids::SegmentId;
use partywall_proto::overlay::{Dns, TunnelMode};

/// Resolvers and search domains of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) segment: SegmentId,
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    /// Every name is asked of the segment, not those under its domains alone.
    pub(super) everything: bool,
}

impl Names {
    /// None where the segment has no resolvers. What is no domain is left out: it would end up in a
    /// file and on a command line.
    pub(super) fn for_session(dns: &Dns, tunnel: TunnelMode, segment: &SegmentId) -> Option<Self> {
        let search: Vec<String> =
            dns.search.iter().filter(|name| is_domain(name)).cloned().collect();
        if search.len() < dns.search.len() {
            tracing::warn!(%segment, "a search domain of the segment is not a domain name and is left out");
        }
        let everything = match tunnel {
            TunnelMode::Full => true,
            TunnelMode::Split => search.is_empty(),
        };
        let segment = segment.clone();
        (!dns.servers.is_empty()).then(|| Self {
            segment,
            servers: dns.servers.clone(),
            search,
            everything,
        })
    }
}

/// Letters, digits, '-', '_' and dots, as RFC 1035 §2.3.1 and common use have it.
fn is_domain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |text: &str| {
        !text.is_empty() && text.len() <= 63 && !text.starts_with('-') && text.bytes().all(plain)
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_domain_never_reaches_a_file_or_a_command() {
        for bad in
            ["", "-x", "a b", "a\nnameserver 192.0.2.1", "a..b", "~.", "--help", &"a".repeat(64)]
        {
            assert!(!is_domain(bad), "{bad:?}");
        }
        assert!(is_domain("council.example") && is_domain("x_y.example."));
    }

    #[test]
    fn a_segment_without_resolvers_leaves_names_alone() {
        let segment = "council".parse().unwrap();
        assert_eq!(Names::for_session(&Dns::default(), TunnelMode::Full, &segment), None);
    }
}
