//! The controller's own CA: made once, at `init`.
//!
//! Its certificate outlives every agent that pins it; its key signs nothing but the controller's own
//! server certificates.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::files::{read, read_certificates, write_public, write_secret};
use super::{CA_FILE, CA_KEY_FILE, PkiError, SERVER_FILE};

/// Longer than the building's network equipment lives: agents pin this certificate.
const CA_LIFETIME_DAYS: i64 = 25 * 365;
/// Short enough that renewal is exercised, long enough to survive a forgotten machine.
const SERVER_LIFETIME_DAYS: i64 = 397;
/// A clock that is wrong by less than this still accepts a fresh certificate.
const BACKDATE_DAYS: i64 = 2;

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Makes a CA called `name` and writes its two files into `directory`.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn create(directory: &Path, name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&format!("{name} Partywall CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, now, CA_LIFETIME_DAYS);
        let certificate = params.self_signed(&key)?;
        write_secret(&directory.join(CA_KEY_FILE), key.serialize_pem().as_bytes())?;
        write_public(&directory.join(CA_FILE), certificate.pem().as_bytes())?;
        let certificate = certificate.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Takes up the CA in `directory`; none where its key is not there because the CA is
    /// somebody else's.
    ///
    /// # Errors
    /// Files that cannot be read or hold something else.
    pub fn load(directory: &Path) -> Result<Option<Self>, PkiError> {
        let key_path = directory.join(CA_KEY_FILE);
        if !key_path.exists() {
            return Ok(None);
        }
        let pem = zeroize::Zeroizing::new(read(&key_path)?);
        let no_key = || PkiError::Pem { path: key_path.clone(), expected: "private key" };
        let pem = std::str::from_utf8(&pem).map_err(|_| no_key())?;
        let key = KeyPair::from_pem(pem).map_err(|_| no_key())?;
        let certificate = Self::certificate_in(directory)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Some(Self { issuer, certificate }))
    }

    /// The CA certificate in `directory`, whoever holds its key.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate.
    pub fn certificate_in(directory: &Path) -> Result<CertificateDer<'static>, PkiError> {
        Ok(read_certificates(&directory.join(CA_FILE))?.swap_remove(0))
    }

    /// What agents pin: SHA-256 of a certificate in DER.
    pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
        Sha256::digest(certificate).into()
    }

    /// Makes a server certificate for `names` (DNS names and IP addresses) with a key of its own and
    /// writes key and chain into `directory`, the CA's certificate at the chain's end.
    ///
    /// # Errors
    /// A name that is neither, or whatever the file system says.
    pub fn issue_server(
        &self,
        directory: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Result<(), PkiError> {
        let mut params = CertificateParams::new(Vec::new())?;
        for name in names {
            let one = CertificateParams::new(vec![name.clone()])
                .ok()
                .filter(|_| rustls::pki_types::ServerName::try_from(name.as_str()).is_ok())
                .ok_or_else(|| PkiError::Name { name: name.clone() })?;
            params.subject_alt_names.extend(one.subject_alt_names);
        }
        // RFC 6125 §6.4.4: names are matched in the alternative names alone, so this is a label.
        params.distinguished_name = distinguished_name("Partywall controller");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, now, SERVER_LIFETIME_DAYS);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let authority = std::fs::read_to_string(directory.join(CA_FILE))
            .map_err(|source| PkiError::Read { path: directory.join(CA_FILE), source })?;
        // One file for both: a crash between two writes would pair a new key with an old certificate.
        let content = format!("{}{}{authority}", key.serialize_pem(), certificate.pem());
        write_secret(&directory.join(SERVER_FILE), zeroize::Zeroizing::new(content).as_bytes())
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // RFC 5280 appendix A: a common name holds at most 64 characters.
    name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    name
}

fn valid_for(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let date = |offset_days: i64| {
        let date =
            now.to_zoned(TimeZone::UTC).date().saturating_add(jiff::Span::new().days(offset_days));
        let part = |number: i8| u8::try_from(number).expect("months and days are positive");
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = date(-BACKDATE_DAYS);
    params.not_after = date(days);
}
