//! The controller's TLS identity: its own CA, the server certificate under it, and TLS settings for both ends.
//!
//! Agents pin the CA certificate's fingerprint at enrolment, so `ca.pem` never changes in the life of
//! a data directory; only the server certificate below it is renewed.

mod authority;
mod files;
mod identity;
mod tls;

use std::path::PathBuf;

pub use authority::Authority;
pub use files::{read_certificates, write_ca, write_new, write_secret};
pub use identity::ServerIdentity;
pub use tls::{client_config, server_config};

/// The CA certificate's file in the data directory.
pub const CA_FILE: &str = "ca.pem";
/// The CA key's file; absent where the CA is somebody else's.
pub const CA_KEY_FILE: &str = "ca-key.pem";
/// The server's key and chain: its own certificate, then the CA's.
pub const SERVER_FILE: &str = "server.pem";

/// Why the controller's TLS identity cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no PEM of the kind that it should.
    #[error("{path} holds no usable {expected} in PEM form")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A name is neither a DNS name nor an IP address.
    #[error(
        "{name:?} is neither a DNS name nor an IP address; certificates are made for one of these"
    )]
    Name {
        /// The refused name.
        name: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Issue(#[from] rcgen::Error),
    /// A certificate cannot be read.
    #[error("the certificate in {path} cannot be understood")]
    Certificate {
        /// Which file.
        path: PathBuf,
    },
    /// The served certificate does not stand under the CA that agents pin.
    #[error(
        "the certificate in {path} is not valid under {ca}, which agents pin: {reason}; \
         give a chain that this CA signed, or initialise with `--ca` for another CA"
    )]
    Chain {
        /// The served chain.
        path: PathBuf,
        /// The pinned CA.
        ca: PathBuf,
        /// What the check says.
        reason: String,
    },
    /// The CA is somebody else's, so the server certificate must be given.
    #[error(
        "the CA's key is not in {directory}, so no server certificate can be made; \
         give one with `--cert` and `--key`"
    )]
    NoCertificate {
        /// The data directory.
        directory: PathBuf,
    },
    /// Certificate and key do not fit, or hold what TLS cannot use.
    #[error("the certificate and its key cannot be used for TLS")]
    Tls(#[from] rustls::Error),
}
