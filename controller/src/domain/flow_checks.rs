//! What must hold in an organisation's settings about flow records.
//!
//! A sink is where the controller itself connects to or writes: what is taken here is all that an
//! organisation may say about it, and a path of a file is not among it.

use std::collections::BTreeSet;

use partywall_proto::admin::{FlowSettingsSpec, FlowSink};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::catalogue::Catalogue;
use super::checks::{Findings, no_such};
use super::resource::Resource;

/// Bounds of the retention in days.
const RETENTION_DAYS: std::ops::RangeInclusive<u32> = 1..=400;
/// Each sink of an organisation holds a queue in the controller's memory.
const SINKS_MAX: usize = 4;
/// Room for a few CA certificates.
const CA_MAX_BYTES: usize = 64 << 10;
/// Longest DNS name (RFC 1035 §2.3.4) and a port.
const SERVER_MAX_BYTES: usize = 255 + 6;

impl Catalogue {
    pub(super) fn check_flow_settings(&self, spec: &FlowSettingsSpec, found: &mut Findings) {
        let at = |field: &str| format!("{}/{field}", spec.path());
        if !self.organisations.contains_key(&spec.organisation) {
            found.add(at("organisation"), no_such("organisation", &spec.organisation));
        }
        found.range(at("retention_days"), &spec.retention_days, &RETENTION_DAYS);
        if spec.sinks.len() > SINKS_MAX {
            found.add(at("sinks"), format!("at most {SINKS_MAX}; let one of them pass records on"));
        }
        let mut names = BTreeSet::new();
        for sink in &spec.sinks {
            let at = |field: &str| format!("{}/sinks/{}/{field}", spec.path(), sink.name());
            if !names.insert(sink.name()) {
                found.add(at("name"), "another sink has this name; choose another");
            }
            match sink {
                FlowSink::File { .. } => {}
                FlowSink::Syslog { server, ca, .. } => {
                    if !is_host_and_port(server) {
                        let detail = "write host:port, as in siem.example.org:6514";
                        found.add(at("server"), detail);
                    }
                    check_ca(&at("ca"), ca, found);
                }
                FlowSink::Otlp { url, ca, .. } => {
                    if !is_https(url) {
                        let detail = "write https://host:port/v1/logs; records are personal data \
                                      and travel by TLS only";
                        found.add(at("url"), detail);
                    }
                    check_ca(&at("ca"), ca, found);
                }
            }
        }
    }
}

fn check_ca(at: &str, ca: &str, found: &mut Findings) {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca.as_bytes()).collect();
    if ca.len() > CA_MAX_BYTES {
        found.add(at, format!("at most {CA_MAX_BYTES} bytes of certificates"));
    } else if certificates.is_ok_and(|all| !all.is_empty()) {
        // As it should be.
    } else {
        found.add(at, "write the CA's certificate in PEM, from -----BEGIN CERTIFICATE----- on");
    }
}

/// Whether `text` is a name or an address (IPv6 in brackets), and a port.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let six = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match six {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(named),
    };
    text.len() <= SERVER_MAX_BYTES
        && host_fits
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Whether `url` is `https://host[:port]/path`, without a person, a query or a fragment.
fn is_https(url: &str) -> bool {
    let Some((server, path)) = url.strip_prefix("https://").and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let path_fits = path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
    let with_port = is_host_and_port(server) || is_host_and_port(&format!("{server}:443"));
    with_port && path_fits && path.len() <= SERVER_MAX_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for good in ["siem.example.org:6514", "192.0.2.1:6514", "[2001:db8::1]:6514"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in
            ["", "siem", "siem:", "siem:0", "siem:65536", ":6514", "2001:db8::1", "a b:1", "a/b:1"]
        {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }

    #[test]
    fn an_address_for_otlp_is_https_and_carries_no_password() {
        for good in ["https://otel.example.org/v1/logs", "https://[2001:db8::1]:4318/v1/logs"] {
            assert!(is_https(good), "{good}");
        }
        for bad in [
            "http://otel.example.org/v1/logs",
            "https://otel.example.org",
            "https://me:secret@otel.example.org/v1/logs",
            "https://otel.example.org/v1/logs?key=secret",
            "file:///etc/passwd",
            "https:///v1/logs",
        ] {
            assert!(!is_https(bad), "{bad}");
        }
    }

    #[test]
    fn settings_that_cannot_be_meant_are_found() {
        let check = |spec: serde_json::Value| {
            let spec: FlowSettingsSpec = serde_json::from_value(spec).unwrap();
            let mut found = Findings(Vec::new());
            Catalogue::default().check_flow_settings(&spec, &mut found);
            found.0.into_iter().map(|finding| finding.at).collect::<Vec<_>>()
        };
        let at = check(serde_json::json!({
            "organisation": "council", "retention_days": 401,
            "sinks": [
                {"to": "syslog", "name": "siem", "server": "siem", "ca": "none"},
                {"to": "otlp", "name": "siem", "url": "http://x/", "ca": ""},
                {"to": "file", "name": "a"}, {"to": "file", "name": "b"}, {"to": "file", "name": "c"},
            ],
        }));
        assert_eq!(
            at,
            [
                "flow-settings/council/organisation",
                "flow-settings/council/retention_days",
                "flow-settings/council/sinks",
                "flow-settings/council/sinks/siem/server",
                "flow-settings/council/sinks/siem/ca",
                "flow-settings/council/sinks/siem/name",
                "flow-settings/council/sinks/siem/url",
                "flow-settings/council/sinks/siem/ca",
            ]
        );
    }
}
