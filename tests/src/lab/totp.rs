//! An authenticator app: one-time codes from an `otpauth` URI (RFC 6238, HMAC-SHA-1).
//!
//! Written apart from the controller's code on purpose: a mistake that both share would not show.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha1::Sha1;

/// A token as an authenticator app holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Authenticator {
    secret: Vec<u8>,
    step_s: u64,
    digits: u32,
    last_step: u64,
}

impl Authenticator {
    /// Reads an `otpauth://totp/…` URI, with the defaults that authenticator apps use.
    ///
    /// # Errors
    /// Not such a URI, or an algorithm other than SHA-1.
    pub fn from_uri(uri: &str) -> Result<Self> {
        ensure!(uri.starts_with("otpauth://totp/"), "not an otpauth URI for time-based codes");
        let query = uri.split_once('?').context("the otpauth URI has no parameters")?.1;
        let field = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let secret = field("secret").context("the otpauth URI has no secret")?;
        let algorithm = field("algorithm").unwrap_or("SHA1");
        ensure!(algorithm.eq_ignore_ascii_case("SHA1"), "unknown algorithm {algorithm}");
        Ok(Self {
            secret: BASE32_NOPAD.decode(secret.trim_end_matches('=').as_bytes())?,
            step_s: field("period").unwrap_or("30").parse().context("period")?,
            digits: field("digits").unwrap_or("6").parse().context("digits")?,
            last_step: 0,
        })
    }

    /// A code that this token has not given before: where one was given in this step, waits for the
    /// next step, as a person would, because the controller refuses a code that it has seen.
    pub fn fresh_code(&mut self) -> String {
        loop {
            let now = now();
            let step = now.as_secs() / self.step_s;
            if step > self.last_step {
                self.last_step = step;
                return self.code_at(now.as_secs());
            }
            std::thread::sleep(Duration::from_secs((step + 1) * self.step_s).saturating_sub(now));
        }
    }

    /// The code at a time in seconds since the Unix epoch.
    pub fn code_at(&self, time_s: u64) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.secret).expect("HMAC takes any key");
        mac.update(&(time_s / self.step_s).to_be_bytes());
        let digest = mac.finalize().into_bytes();
        // Dynamic truncation, RFC 4226 §5.3.
        let offset = usize::from(digest[19] & 0x0f);
        let word = [digest[offset], digest[offset + 1], digest[offset + 2], digest[offset + 3]];
        let number = u32::from_be_bytes(word) & 0x7fff_ffff;
        let digits = self.digits as usize;
        format!("{:0digits$}", number % 10u32.pow(self.digits))
    }

    /// How long a code lasts, in seconds.
    pub fn step_s(&self) -> u64 {
        self.step_s
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_rfc_6238_appendix_b() {
        let secret = BASE32_NOPAD.encode(b"12345678901234567890");
        let uri = format!("otpauth://totp/Partywall:a?secret={secret}&digits=8&period=30");
        let token = Authenticator::from_uri(&uri).unwrap();
        for (time_s, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(token.code_at(time_s), code);
        }
    }

    #[test]
    fn a_uri_that_is_not_understood_is_refused() {
        for uri in [
            "https://example.test",
            "otpauth://totp/a",
            "otpauth://totp/a?secret=GEZA&algorithm=SHA512",
            "otpauth://totp/a?secret=1",
        ] {
            assert!(Authenticator::from_uri(uri).is_err(), "{uri}");
        }
    }
}
