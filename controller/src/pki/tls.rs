//! TLS settings of the controller and of its command line: TLS 1.3 alone, hybrid post-quantum key
//! exchange first.
//!
//! Enrolment tokens, passwords and preshared keys cross these connections, so what is recorded today
//! must stay sealed when X25519 falls: X25519MLKEM768 is offered first by both ends.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{PkiError, ServerIdentity};

/// For a server that shows `identity`.
///
/// # Errors
/// A key that does not fit the certificate.
pub fn server_config(identity: ServerIdentity) -> Result<ServerConfig, PkiError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)?;
    // HTTP/1.1 alone: a WebSocket upgrade needs it, and nothing here gains from streams.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// For a client that trusts exactly `authorities`: not the system's, which any public CA could use.
///
/// # Errors
/// A certificate that cannot be a trust anchor.
pub fn client_config(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, PkiError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// aws-lc-rs with X25519MLKEM768 in front (the `prefer-post-quantum` feature of rustls).
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_is_offered_first() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
