//! Reading and writing PEM files.
//!
//! A key file is never readable by others, not even for the moment between its creation and a
//! `chmod`, and a reader finds the old content or the new, never half of it.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{CA_FILE, PkiError};

/// Writes `content` so that only the owner reads it (0600), in one step, durably. Replaces what was there.
///
/// # Errors
/// Whatever the file system says.
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write_atomically(path, content, 0o600, Existing::Replace)
}

/// Like [`write_secret`], but refuses to replace a file that is there.
///
/// # Errors
/// Whatever the file system says, and a file of that name.
pub fn write_new(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write_atomically(path, content, 0o600, Existing::Refuse)
}

/// Writes something that everybody may read (0644), in one step, durably.
pub(super) fn write_public(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write_atomically(path, content, 0o644, Existing::Replace)
}

/// Puts somebody else's CA `certificate` into `directory`, for agents to pin.
///
/// # Errors
/// Whatever the file system says.
pub fn write_ca(directory: &Path, certificate: &CertificateDer<'_>) -> Result<(), PkiError> {
    let body = data_encoding::BASE64.encode(certificate);
    // RFC 7468 §2: lines of 64 characters.
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    write_public(&directory.join(CA_FILE), pem.as_bytes())
}

/// All certificates in a PEM file, in their order.
///
/// # Errors
/// A file that cannot be read, or that holds no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let bytes = read(path)?;
    let expected = || PkiError::Pem { path: path.to_owned(), expected: "certificate" };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|_| expected())?;
    match chain.is_empty() {
        true => Err(expected()),
        false => Ok(chain),
    }
}

/// The private key in a PEM file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PkiError> {
    let bytes = zeroize::Zeroizing::new(read(path)?);
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| PkiError::Pem { path: path.to_owned(), expected: "private key" })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(path).map_err(|source| PkiError::Read { path: path.to_owned(), source })
}

#[derive(Clone, Copy)]
enum Existing {
    Replace,
    Refuse,
}

fn write_atomically(
    path: &Path,
    content: &[u8],
    mode: u32,
    existing: Existing,
) -> Result<(), PkiError> {
    let failed = |source| PkiError::Write { path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".partial-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
        .map_err(failed)?;
    // The umask took bits away from what the builder asked for.
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match existing {
        Existing::Replace => file.persist(path).map_err(|error| failed(error.error))?,
        Existing::Refuse => file.persist_noclobber(path).map_err(|error| failed(error.error))?,
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write_secret(&path, b"one").unwrap();
        write_secret(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a partial file was left");
    }

    #[test]
    fn a_new_file_never_replaces_one_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        write_new(&path, b"one").unwrap();
        write_new(&path, b"two").unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.pem");
        std::fs::write(&path, "not PEM").unwrap();
        let refused = read_certificates(&path).unwrap_err().to_string();
        assert!(refused.contains("chain.pem") && refused.contains("certificate"), "{refused}");
    }
}
