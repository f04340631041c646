//! What the server shows at the TLS handshake: a chain that ends in the CA that agents pin, and its key.
//!
//! The chain always carries the pinned CA certificate itself, because an agent that knows only a
//! fingerprint finds its trust anchor there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::{read_certificates, read_key};
use super::{Authority, CA_FILE, PkiError, SERVER_FILE, tls};

/// Renewed this long before the end; a controller that runs on looks once a day.
const RENEW_BEFORE_DAYS: i64 = 60;

/// A chain and its key, known to stand under the pinned CA.
pub struct ServerIdentity {
    /// The server's certificate first, the pinned CA's last.
    pub chain: Vec<CertificateDer<'static>>,
    /// The server's key.
    pub key: PrivateKeyDer<'static>,
}

impl ServerIdentity {
    /// The identity in the data directory; its certificate is renewed first where its end is near.
    ///
    /// # Errors
    /// Files that cannot be read or written, or a CA whose key is elsewhere.
    pub fn from_directory(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let path = directory.join(SERVER_FILE);
        let Some(authority) = Authority::load(directory)? else {
            return Err(PkiError::NoCertificate { directory: directory.to_owned() });
        };
        let facts = Facts::of(&read_certificates(&path)?[0], &path)?;
        let renew_at_s = facts.ends_at_s - RENEW_BEFORE_DAYS * 24 * 3600;
        if now.as_second() >= renew_at_s {
            authority.issue_server(directory, &facts.names, now)?;
            tracing::info!(names = ?facts.names, "server certificate renewed");
        }
        Self::checked(directory, &path, &path, now)
    }

    /// The administrator's own certificate and key.
    ///
    /// # Errors
    /// Files that cannot be read, or a chain that does not stand under the pinned CA.
    pub fn from_files(
        directory: &Path,
        certificate: &Path,
        key: &Path,
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        Self::checked(directory, certificate, key, now)
    }

    fn checked(
        directory: &Path,
        chain_path: &Path,
        key_path: &Path,
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        let mut chain = read_certificates(chain_path)?;
        let key = read_key(key_path)?;
        let authority = Authority::certificate_in(directory)?;
        let refused = |reason: String| PkiError::Chain {
            path: chain_path.to_owned(),
            ca: directory.join(CA_FILE),
            reason,
        };
        let facts = Facts::of(&chain[0], chain_path)?;
        let name = facts.names.first().ok_or_else(|| refused("it names no server".to_owned()))?;
        let name = ServerName::try_from(name.trim_start_matches("*."))
            .map_err(|_| refused(format!("it names {name:?}")))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
                .build()
                .map_err(|error| refused(error.to_string()))?;
        let now = std::time::Duration::from_secs(now.as_second().try_into().unwrap_or(0));
        let wild = facts.names[0].starts_with("*.");
        let checked_name = match wild {
            true => ServerName::try_from(format!("x.{}", name.to_str()))
                .map_err(|_| refused(format!("it names {:?}", facts.names[0])))?,
            false => name.to_owned(),
        };
        verifier
            .verify_server_cert(
                &chain[0],
                &chain[1..],
                &checked_name,
                &[],
                UnixTime::since_unix_epoch(now),
            )
            .map_err(|error| refused(error.to_string()))?;
        if !chain.contains(&authority) {
            chain.push(authority);
        }
        Ok(Self { chain, key })
    }
}

/// What renewal and checks need to know of a certificate.
struct Facts {
    names: Vec<String>,
    ends_at_s: i64,
}

impl Facts {
    fn of(certificate: &CertificateDer<'_>, path: &Path) -> Result<Self, PkiError> {
        let unreadable = || PkiError::Certificate { path: PathBuf::from(path) };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| unreadable())?
            .map(|extension| extension.value.general_names.iter().filter_map(name_of).collect())
            .unwrap_or_default();
        Ok(Self { names, ends_at_s: parsed.validity().not_after.timestamp() })
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "servers are reached by DNS name or address; other kinds of name do not concern TLS"
)]
fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(four) => Some(std::net::IpAddr::from(four).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|sixteen| std::net::IpAddr::from(sixteen).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn initialised() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let names = ["controller.example".to_owned(), "192.0.2.7".to_owned()];
        Authority::create(directory.path(), "Old Town Hall", start())
            .unwrap()
            .issue_server(directory.path(), &names, start())
            .unwrap();
        directory
    }

    #[test]
    fn the_served_chain_ends_in_the_pinned_ca() {
        let directory = initialised();
        let identity = ServerIdentity::from_directory(directory.path(), start()).unwrap();
        let authority = Authority::certificate_in(directory.path()).unwrap();
        assert_eq!(identity.chain.len(), 2);
        assert_eq!(
            Authority::fingerprint(identity.chain.last().unwrap()),
            Authority::fingerprint(&authority)
        );
        tls::server_config(identity).unwrap();
    }

    #[test]
    fn a_certificate_near_its_end_is_renewed_under_the_same_ca_for_the_same_names() {
        let directory = initialised();
        let at = |days: i64| {
            let now = start() + jiff::SignedDuration::from_hours(24 * days);
            ServerIdentity::from_directory(directory.path(), now).unwrap().chain
        };
        let first = at(0);
        assert_eq!(at(300), first, "renewed too early");
        let renewed = at(350);
        assert_ne!(renewed[0], first[0]);
        assert_eq!(renewed[1], first[1], "the pinned CA changed");
        let facts = Facts::of(&renewed[0], Path::new("server.pem")).unwrap();
        assert_eq!(facts.names, ["controller.example", "192.0.2.7"]);
        // Long after its end, a controller that was off for years still comes up.
        at(3000);
    }

    #[test]
    fn a_chain_under_another_ca_is_refused_before_agents_would_refuse_it() {
        let (ours, theirs) = (initialised(), initialised());
        let foreign = theirs.path().join(SERVER_FILE);
        let refused = ServerIdentity::from_files(ours.path(), &foreign, &foreign, start());
        assert!(matches!(refused.err().unwrap(), PkiError::Chain { .. }));
        let own = ours.path().join(SERVER_FILE);
        ServerIdentity::from_files(ours.path(), &own, &own, start()).unwrap();
    }

    #[test]
    fn without_the_ca_key_a_certificate_must_be_given() {
        let directory = initialised();
        std::fs::remove_file(directory.path().join(super::super::CA_KEY_FILE)).unwrap();
        let refused = ServerIdentity::from_directory(directory.path(), start()).err().unwrap();
        assert!(refused.to_string().contains("--cert"), "{refused}");
    }

    #[test]
    fn names_that_no_certificate_can_carry_are_refused() {
        let directory = initialised();
        let authority = Authority::load(directory.path()).unwrap().unwrap();
        for bad in ["", "a b", "desk_1!", "http://x", "ü"] {
            let refused = authority.issue_server(directory.path(), &[bad.to_owned()], start());
            assert!(matches!(refused, Err(PkiError::Name { .. })), "{bad:?}");
        }
    }
}
