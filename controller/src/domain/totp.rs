//! One-time codes (RFC 6238): what a user holds, as an authenticator app or a token.
//!
//! A code is good once. [`TotpSecret::check`] answers the step that it used up; whoever does not
//! store that step lets the code be replayed.

use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use partywall_proto::ids::UserId;
use partywall_proto::keys::Secret;
use serde::{Deserialize, Serialize};
use totp_rs::{Algorithm, Builder, Totp};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a secret: the length of an SHA-1 output, as RFC 4226 §4 recommends.
pub const TOTP_SECRET_BYTES: usize = 20;
const DIGITS: u8 = 6;
/// Steps before and after the current one that are accepted, for a token whose clock drifts.
const WINDOW_STEPS: u16 = 1;

/// Why a code is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeRefusal {
    /// It is none of the codes of this time.
    #[error("the one-time code is not valid now")]
    Wrong,
    /// It, or a later one, has been used.
    #[error("the one-time code has been used; wait for the next one")]
    Replayed,
}

/// The secret that a user's token and the controller share.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TotpSecret([u8; TOTP_SECRET_BYTES]);

impl TotpSecret {
    /// A secret of random bytes.
    pub fn from_bytes(bytes: [u8; TOTP_SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// What an authenticator app reads, by hand or as a QR code: `otpauth://totp/…`.
    pub fn otpauth_uri(&self, user: &UserId, issuer: &str, step_s: u32) -> Secret {
        // The URI's label is "issuer:account", so the issuer cannot hold a colon of its own.
        let issuer = issuer.replace(':', " ");
        let totp = self
            .builder(step_s)
            .with_issuer(Some(issuer))
            .with_account_name(user.to_string())
            .build_noncompliant();
        Secret::from(totp.to_url().expect("user names have no colon"))
    }

    /// Accepts the code of the current step or one beside it, if neither it nor a later one was
    /// used before, and answers its step.
    ///
    /// # Errors
    /// A code of another time, or one that was used.
    pub fn check(
        &self,
        code: &str,
        step_s: u32,
        now: Timestamp,
        last_used: Option<u64>,
    ) -> Result<u64, CodeRefusal> {
        let now_s = u64::try_from(now.as_second()).map_err(|_| CodeRefusal::Wrong)?;
        let step = self.totp(step_s).check(code.trim(), now_s).ok_or(CodeRefusal::Wrong)?;
        if last_used.is_some_and(|used| step <= used) {
            return Err(CodeRefusal::Replayed);
        }
        Ok(step)
    }

    fn totp(&self, step_s: u32) -> Totp {
        self.builder(step_s).build_noncompliant()
    }

    fn builder(&self, step_s: u32) -> Builder {
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_skew(WINDOW_STEPS)
            .with_step_duration(u64::from(step_s.max(1)))
            .with_secret(self.0)
    }
}

impl std::fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TotpSecret(redacted)")
    }
}

/// A stored secret is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a one-time-code secret is {TOTP_SECRET_BYTES} bytes in base32")]
pub struct TotpSecretError;

impl FromStr for TotpSecret {
    type Err = TotpSecretError;

    fn from_str(text: &str) -> Result<Self, TotpSecretError> {
        let bytes = BASE32_NOPAD.decode(text.as_bytes()).map_err(|_| TotpSecretError)?;
        bytes.try_into().map(Self).map_err(|_| TotpSecretError)
    }
}

impl TryFrom<String> for TotpSecret {
    type Error = TotpSecretError;

    fn try_from(text: String) -> Result<Self, TotpSecretError> {
        text.parse()
    }
}

impl From<TotpSecret> for String {
    fn from(secret: TotpSecret) -> String {
        BASE32_NOPAD.encode(&secret.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 6238 Appendix B.
    fn rfc() -> TotpSecret {
        TotpSecret::from_bytes(*b"12345678901234567890")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, SHA-1, the last six of its eight digits.
        for (second, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
        ] {
            let step = rfc().check(code, 30, at(second), None).unwrap();
            assert_eq!(step, u64::try_from(second).unwrap() / 30);
        }
    }

    #[test]
    fn a_token_that_drifts_by_one_step_is_accepted_and_by_two_is_not() {
        let code_at_59 = "287082";
        for (second, ok) in [(29, true), (89, true), (119, false)] {
            assert_eq!(rfc().check(code_at_59, 30, at(second), None).is_ok(), ok, "at {second}");
        }
    }

    #[test]
    fn a_code_is_good_once_and_none_before_it_is_good_after_it() {
        let used = rfc().check("287082", 30, at(59), None).unwrap();
        assert_eq!(rfc().check("287082", 30, at(59), Some(used)), Err(CodeRefusal::Replayed));
        assert_eq!(rfc().check("287082", 30, at(59), Some(used + 1)), Err(CodeRefusal::Replayed));
    }

    #[test]
    fn the_step_may_be_eight_seconds() {
        let code = rfc().totp(8).generate(800).to_string();
        assert_eq!(rfc().check(&code, 8, at(807), None), Ok(100));
        assert_eq!(rfc().check(&code, 8, at(816), None), Err(CodeRefusal::Wrong));
    }

    #[test]
    fn what_is_no_code_is_wrong_and_no_more() {
        for bad in ["", "28708", "2870820", "28708a", "٢٨٧٠٨٢", &"1".repeat(100_000)] {
            assert_eq!(rfc().check(bad, 30, at(59), None), Err(CodeRefusal::Wrong));
        }
    }

    #[test]
    fn the_uri_tells_an_app_all_it_needs() {
        let user = "alice@council".parse().unwrap();
        let uri = rfc().otpauth_uri(&user, "Old Town: Council", 8);
        let uri = uri.expose();
        assert!(
            uri.starts_with("otpauth://totp/Old%20Town%20%20Council:alice%40council?"),
            "{uri}"
        );
        assert!(uri.contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"), "{uri}");
        assert!(uri.contains("period=8"), "{uri}");
    }
}
