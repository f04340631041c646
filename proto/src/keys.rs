//! Keys as they travel: public halves in the open, secrets that neither print nor linger in memory.
//!
//! No private key has a type here: private keys stay where they were made.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes in an X25519 or Ed25519 public key and in a WireGuard preshared key.
pub const KEY_BYTES: usize = 32;

/// A text that is no key. The text itself is left out: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected 32 bytes in base64 (44 characters)")]
pub struct KeyError {
    /// Which key was expected.
    pub kind: &'static str,
}

fn decode(kind: &'static str, text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    // A longer text is refused before it is decoded, so that memory stays bounded.
    if text.len() != BASE64.encode_len(KEY_BYTES) {
        return Err(KeyError { kind });
    }
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| KeyError { kind })?;
    bytes.try_into().map_err(|_| KeyError { kind })
}

macro_rules! base64_text {
    ($name:ident, $kind:literal) => {
        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                decode($kind, text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = KeyError;

            fn try_from(text: String) -> Result<Self, KeyError> {
                text.parse()
            }
        }
    };
}

macro_rules! public_keys {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; KEY_BYTES]);

        base64_text!($name, $kind);

        impl $name {
            /// The key's bytes.
            pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }
        }

        impl From<[u8; KEY_BYTES]> for $name {
            fn from(bytes: [u8; KEY_BYTES]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for String {
            fn from(key: $name) -> String {
                key.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE64.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}

public_keys! {
    /// A device's or gateway's WireGuard public key (X25519), in the text form of `wg(8)`.
    WireguardKey = "WireGuard public key";
    /// The public half of an agent's identity (Ed25519).
    IdentityKey = "identity public key";
    /// The public half of a segment's signing key (Ed25519).
    SegmentKey = "segment public key";
}

impl SegmentKey {
    /// The id under which an envelope names this key: the first 8 bytes of its SHA-256, in hex.
    pub fn id(&self) -> KeyId {
        KeyId(HEXLOWER.encode(&Sha256::digest(self.0)[..8]))
    }
}

/// Names a segment's signing key inside an envelope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A WireGuard preshared key. Prints as `PresharedKey(redacted)`; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PresharedKey([u8; KEY_BYTES]);

base64_text!(PresharedKey, "preshared key");

impl PresharedKey {
    /// The secret bytes, for the tunnel that uses them.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl From<[u8; KEY_BYTES]> for PresharedKey {
    fn from(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }
}

impl From<PresharedKey> for String {
    fn from(key: PresharedKey) -> String {
        BASE64.encode(&key.0)
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

/// A secret text that a person typed or that is shown once: a password, a one-time code, a token.
/// Prints as `Secret(redacted)`; wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let key = PresharedKey::from([7; 32]);
        let text = String::from(key.clone());
        assert!(!format!("{key:?}").contains(&text));
        assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "Secret(redacted)");
        let refused = text[..43].parse::<PresharedKey>().unwrap_err();
        assert!(!refused.to_string().contains(&text[..8]));
    }

    #[test]
    fn a_key_is_44_characters_of_base64() {
        let key = WireguardKey::from([255; 32]);
        assert_eq!(key.to_string().parse::<WireguardKey>().unwrap(), key);
        for bad in ["", "AAAA", &"A".repeat(44), &"A".repeat(100_000)] {
            assert!(bad.parse::<WireguardKey>().is_err());
        }
    }

    #[test]
    fn a_key_id_follows_from_the_key() {
        assert_eq!(SegmentKey::from([1; 32]).id(), SegmentKey::from([1; 32]).id());
        assert_ne!(SegmentKey::from([1; 32]).id(), SegmentKey::from([2; 32]).id());
    }
}
