//! Passwords: Argon2id, as a PHC string that carries its own parameters.
//!
//! Hashing takes tens of milliseconds of a core by design: never call it where other work waits.

use argon2::password_hash::{PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use partywall_proto::keys::Secret;
use serde::{Deserialize, Serialize};

/// Shortest password in bytes.
pub const PASSWORD_MIN_BYTES: usize = 12;
/// Longest password in bytes: a bound on what a stranger can make us hash.
pub const PASSWORD_MAX_BYTES: usize = 1024;

/// Memory in KiB, passes and lanes: the first of OWASP's recommended settings for Argon2id.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has {PASSWORD_MIN_BYTES} to {PASSWORD_MAX_BYTES} characters")]
pub struct PasswordError;

/// What is stored of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Hashes a new password with a salt that was drawn for it alone.
    ///
    /// # Errors
    /// A password that is too short or too long.
    pub fn make(password: &Secret, salt: [u8; 16]) -> Result<Self, PasswordError> {
        let bytes = password.expose().as_bytes();
        if !(PASSWORD_MIN_BYTES..=PASSWORD_MAX_BYTES).contains(&bytes.len()) {
            return Err(PasswordError);
        }
        let salt = SaltString::encode_b64(&salt).map_err(|_| PasswordError)?;
        let hash = argon2().hash_password(bytes, &salt).map_err(|_| PasswordError)?;
        Ok(Self(hash.to_string()))
    }

    /// Whether this is the password. Takes as long for a wrong one.
    pub fn fits(&self, password: &Secret) -> bool {
        if password.expose().len() > PASSWORD_MAX_BYTES {
            return false;
        }
        argon2::PasswordHash::new(&self.0)
            .is_ok_and(|hash| argon2().verify_password(password.expose().as_bytes(), &hash).is_ok())
    }

    /// A hash that no password is known to fit. Verifying against it for an unknown user takes as
    /// long as for a known one, so that the time of a refusal does not tell which names exist.
    pub fn decoy() -> Self {
        // The output is 32 zero bytes; the parameters are those of `argon2()`.
        Self(format!(
            "$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$AAAAAAAAAAAAAAAAAAAAAA$\
             AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        ))
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(redacted)")
    }
}

fn argon2() -> Argon2<'static> {
    let params =
        Params::new(MEMORY_KIB, PASSES, LANES, None).expect("constants within Argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn only_the_right_password_fits() {
        let hash = PasswordHash::make(&secret("correct horse battery"), [7; 16]).unwrap();
        assert!(hash.fits(&secret("correct horse battery")));
        assert!(!hash.fits(&secret("correct horse batterz")));
        assert!(!hash.fits(&secret("")));
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[test]
    fn a_password_has_bounds() {
        assert!(PasswordHash::make(&secret("elevenchars"), [0; 16]).is_err());
        assert!(PasswordHash::make(&secret("twelve chars"), [0; 16]).is_ok());
        assert!(PasswordHash::make(&secret(&"x".repeat(1025)), [0; 16]).is_err());
    }

    #[test]
    fn the_decoy_is_a_real_hash_of_the_same_cost_that_nothing_fits() {
        let decoy = PasswordHash::decoy();
        let parsed = argon2::PasswordHash::new(&decoy.0).unwrap();
        let real = PasswordHash::make(&secret("correct horse battery"), [7; 16]).unwrap();
        let real = argon2::PasswordHash::new(&real.0).unwrap();
        assert_eq!((parsed.algorithm, &parsed.params), (real.algorithm, &real.params));
        assert_eq!(parsed.hash.map(|hash| hash.len()), real.hash.map(|hash| hash.len()));
        assert!(!decoy.fits(&secret("correct horse battery")));
    }
}
