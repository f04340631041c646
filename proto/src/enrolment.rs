//! The enrolment code: one line of text that lets a new machine find the controller, trust it and be
//! admitted once.
//!
//! Layout after `pw1-` and base64url: 16 bytes of token, 32 bytes of CA fingerprint (SHA-256 of the
//! certificate in DER), the address as `host:port`, 4 bytes of SHA-256 over all before. The check
//! bytes tell a slip of the keyboard from a wrong code.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

const MARK: &str = "pw1-";
const TOKEN_BYTES: usize = 16;
const FINGERPRINT_BYTES: usize = 32;
const CHECK_BYTES: usize = 4;
/// A DNS name (255) and a port.
const ADDRESS_MAX_BYTES: usize = 261;
const CODE_MAX_CHARS: usize = 512;

/// Why a text is no enrolment code. The code itself is not repeated: its token is a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentCodeError {
    /// It does not begin with the mark of a code.
    #[error(
        "an enrolment code begins with {MARK:?}; copy the whole line that `partywallctl enrol-code` printed"
    )]
    Mark,
    /// Characters are wrong, missing or too many.
    #[error("the enrolment code is damaged or cut short; copy the whole line again")]
    Damaged,
    /// The address inside is not `host:port`.
    #[error("the enrolment code carries no usable controller address; ask for a new code")]
    Address,
}

/// A single-use, expiring invitation. Its text is a secret until it is used.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct EnrolmentCode {
    token: [u8; TOKEN_BYTES],
    ca_fingerprint: [u8; FINGERPRINT_BYTES],
    address: String,
}

impl EnrolmentCode {
    /// A code for the controller at `address` (`host:port`).
    ///
    /// # Errors
    /// An address that is not `host:port`.
    pub fn new(
        token: [u8; TOKEN_BYTES],
        ca_fingerprint: [u8; FINGERPRINT_BYTES],
        address: &str,
    ) -> Result<Self, EnrolmentCodeError> {
        if !is_host_and_port(address) {
            return Err(EnrolmentCodeError::Address);
        }
        Ok(Self { token, ca_fingerprint, address: address.to_owned() })
    }

    /// What the controller checks; only its hash is stored there.
    pub fn token(&self) -> &[u8; TOKEN_BYTES] {
        &self.token
    }

    /// SHA-256 of the controller's CA certificate in DER.
    pub fn ca_fingerprint(&self) -> &[u8; FINGERPRINT_BYTES] {
        &self.ca_fingerprint
    }

    /// The controller, `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The line to hand over.
    pub fn to_text(&self) -> String {
        let mut bytes = [&self.token[..], &self.ca_fingerprint, self.address.as_bytes()].concat();
        bytes.extend_from_slice(&Sha256::digest(&bytes)[..CHECK_BYTES]);
        format!("{MARK}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_ok = match in_brackets {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(plain)
        }
    };
    // `parse` alone would take `+1`.
    let port_ok =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse().is_ok_and(|p: u16| p > 0);
    host_ok && port_ok && text.len() <= ADDRESS_MAX_BYTES
}

impl FromStr for EnrolmentCode {
    type Err = EnrolmentCodeError;

    fn from_str(text: &str) -> Result<Self, EnrolmentCodeError> {
        let body = text.trim().strip_prefix(MARK).ok_or(EnrolmentCodeError::Mark)?;
        if body.len() > CODE_MAX_CHARS {
            return Err(EnrolmentCodeError::Damaged);
        }
        let bytes =
            BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| EnrolmentCodeError::Damaged)?;
        let damaged = || EnrolmentCodeError::Damaged;
        let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or_else(damaged)?;
        if Sha256::digest(content)[..CHECK_BYTES] != *check {
            return Err(EnrolmentCodeError::Damaged);
        }
        let (token, rest) = content.split_first_chunk().ok_or_else(damaged)?;
        let (fingerprint, address) = rest.split_first_chunk().ok_or_else(damaged)?;
        let address = std::str::from_utf8(address).map_err(|_| EnrolmentCodeError::Address)?;
        Self::new(*token, *fingerprint, address)
    }
}

impl fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentCode({}, redacted)", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> EnrolmentCode {
        EnrolmentCode::new([1; 16], [2; 32], "controller.example:8443").unwrap()
    }

    #[test]
    fn a_code_survives_being_written_and_read() {
        assert_eq!(code().to_text().parse::<EnrolmentCode>().unwrap(), code());
        assert_eq!(format!("  {}\n", code().to_text()).parse::<EnrolmentCode>().unwrap(), code());
        EnrolmentCode::new([0; 16], [0; 32], "[fd00::1]:8443").unwrap();
    }

    #[test]
    fn every_single_slip_is_noticed() {
        let text = code().to_text();
        for at in MARK.len()..text.len() {
            let mut slip = text.clone().into_bytes();
            slip[at] = if slip[at] == b'A' { b'B' } else { b'A' };
            let slip = String::from_utf8(slip).unwrap();
            assert!(slip.parse::<EnrolmentCode>().is_err(), "slip at {at} went unnoticed");
            assert!(text[..at].parse::<EnrolmentCode>().is_err(), "cut at {at} went unnoticed");
        }
    }

    #[test]
    fn an_address_is_host_and_port() {
        let long = format!("{}:1", "a".repeat(ADDRESS_MAX_BYTES));
        for bad in [
            "",
            "host",
            "host:",
            ":1",
            "host:99999",
            "host:0",
            "host:+1",
            "fd00::1:8443",
            "h st:1",
            "h/x:1",
            "[]:1",
            "[host]:1",
            "h[x:1",
            "[fd00::1:1",
            &long,
        ] {
            assert!(EnrolmentCode::new([0; 16], [0; 32], bad).is_err(), "{bad:?}");
        }
        for good in ["host:1", "127.0.0.1:65535", "a-b.c_d:8443", "[::1]:8443"] {
            EnrolmentCode::new([0; 16], [0; 32], good).unwrap();
        }
    }

    #[test]
    fn a_code_does_not_print_its_token() {
        assert!(!format!("{:?}", code()).contains(&code().to_text()[4..20]));
    }
}
