//! TLS to the controller: 1.3 only, hybrid post-quantum key exchange preferred, one trusted CA.
//!
//! No system trust store is consulted, ever. At enrolment the CA is known by the fingerprint in the
//! code; afterwards by the certificate that was recorded then.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate is not usable as a CA.
    #[error("the controller's CA certificate is not usable")]
    Ca(#[source] rustls::Error),
    /// The protocol versions or the provider do not fit together.
    #[error("TLS 1.3 is not available")]
    Version(#[source] rustls::Error),
}

/// Which CA is trusted.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The one recorded at enrolment.
    Ca(CertificateDer<'static>),
    /// The one with this SHA-256, and it is kept in the cell once it has been seen and verified.
    Fingerprint([u8; 32], Arc<OnceLock<CertificateDer<'static>>>),
}

impl Trust {
    /// A rustls config that trusts exactly this.
    ///
    /// # Errors
    /// A certificate that is not usable as a CA.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Version)?;
        Ok(match self {
            Self::Ca(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.clone()).map_err(TlsError::Ca)?;
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Self::Fingerprint(fingerprint, seen) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned {
                    fingerprint: *fingerprint,
                    seen: seen.clone(),
                    provider,
                }))
                .with_no_client_auth(),
        })
    }
}

/// Accepts a chain that holds the CA with the fingerprint and whose leaf that very CA has signed for
/// the name that was called.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    seen: Arc<OnceLock<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned = |der: &&CertificateDer<'_>| *Sha256::digest(der) == self.fingerprint;
        let ca = intermediates
            .iter()
            .find(is_pinned)
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        // A second connection of the same enrolment finds the cell filled with the same certificate.
        let _ = self.seen.set(ca.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::Pki;

    fn verify(pki: &Pki, fingerprint: [u8; 32], name: &str) -> Result<(), rustls::Error> {
        let pinned = Pinned {
            fingerprint,
            seen: Arc::default(),
            provider: Arc::new(aws_lc_rs::default_provider()),
        };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let chain = pki.chain();
        pinned.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())?;
        assert_eq!(pinned.seen.get(), Some(&pki.ca()));
        Ok(())
    }

    #[test]
    fn only_the_ca_with_the_fingerprint_and_the_right_name_will_do() {
        let pki = Pki::new("127.0.0.1");
        verify(&pki, pki.fingerprint(), "127.0.0.1").unwrap();
        assert!(verify(&pki, [0; 32], "127.0.0.1").is_err(), "a wrong fingerprint was accepted");
        assert!(verify(&pki, pki.fingerprint(), "127.0.0.2").is_err(), "a wrong name was accepted");
    }

    #[test]
    fn showing_the_pinned_ca_beside_a_leaf_of_another_is_no_way_in() {
        let right = Pki::new("127.0.0.1");
        let wrong = Pki::new("127.0.0.1");
        let mixed = wrong.with_ca_of(&right);
        assert!(verify(&mixed, right.fingerprint(), "127.0.0.1").is_err());
    }

    #[test]
    fn the_hybrid_key_exchange_is_offered_first() {
        let provider = aws_lc_rs::default_provider();
        assert_eq!(provider.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
