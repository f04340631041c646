//! The machine's two private keys: X25519 for WireGuard and Ed25519 for its identity.
//!
//! They are made here, on this machine, and no function hands them to anything that writes to a
//! network or a log: what leaves is the public half or a signature (promise 6).

use std::fmt;

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use partywall_proto::agent_api::IdentityProof;
use partywall_proto::keys::WireguardKey;
use rand::RngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::{StateDir, StateError};

const WIREGUARD: &str = "wireguard.key";
const IDENTITY: &str = "identity.key";
const KEY_BYTES: usize = 32;

/// Both private keys. Prints the public halves only; wiped when dropped.
pub struct Keys {
    wireguard: Zeroizing<[u8; KEY_BYTES]>,
    identity: SigningKey,
}

impl Keys {
    /// The keys in the state directory, made now where they are missing.
    ///
    /// # Errors
    /// What the file system says, or a key file that holds no key.
    pub fn open(state: &StateDir) -> Result<Self, StateError> {
        let wireguard = read_or_make(state, WIREGUARD)?;
        let identity = SigningKey::from_bytes(&*read_or_make(state, IDENTITY)?);
        Ok(Self { wireguard, identity })
    }

    /// The WireGuard public key.
    pub fn wireguard_key(&self) -> WireguardKey {
        let private = x25519_dalek::StaticSecret::from(*self.wireguard);
        x25519_dalek::PublicKey::from(&private).to_bytes().into()
    }

    /// The WireGuard private key, for the data path of this very process.
    pub fn expose_wireguard(&self) -> &[u8; KEY_BYTES] {
        &self.wireguard
    }

    /// Proves to a controller that this machine holds the identity key.
    pub fn prove(&self, nonce: &str) -> IdentityProof {
        IdentityProof::sign(nonce, &self.identity)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, redacted)", self.wireguard_key())
    }
}

fn read_or_make(state: &StateDir, name: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, StateError> {
    if let Some(text) = state.read(name)?.map(Zeroizing::new) {
        return parse(&text).ok_or_else(|| {
            let detail = "it holds no private key; restore it, or remove the whole directory and enrol this machine again";
            state.damaged(name, detail.to_owned())
        });
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    OsRng.fill_bytes(&mut *key);
    let mut text = Zeroizing::new(BASE64.encode(&*key));
    text.push('\n');
    state.write(name, text.as_bytes())?;
    Ok(key)
}

fn parse(text: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let bytes = Zeroizing::new(BASE64.decode(text.trim_ascii()).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_only_root_may_read_them() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        let first = Keys::open(&state).unwrap();
        let again = Keys::open(&state).unwrap();
        assert_eq!(first.wireguard_key(), again.wireguard_key());
        assert_eq!(first.prove("n"), again.prove("n"));
        for name in [WIREGUARD, IDENTITY] {
            let mode = std::fs::metadata(root.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_key_is_neither_used_nor_replaced_nor_shown() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path()).unwrap();
        state.write(IDENTITY, b"c2VjcmV0\n").unwrap();
        let refused = Keys::open(&state).unwrap_err();
        assert!(!refused.to_string().contains("c2Vj"), "{refused}");
        assert_eq!(state.read(IDENTITY).unwrap().unwrap(), b"c2VjcmV0\n");
    }

    #[test]
    fn private_keys_do_not_print() {
        let root = tempfile::tempdir().unwrap();
        let keys = Keys::open(&StateDir::open(root.path()).unwrap()).unwrap();
        let printed = format!("{keys:?}");
        assert!(!printed.contains(&BASE64.encode(keys.expose_wireguard())), "{printed}");
        assert!(!printed.contains(&BASE64.encode(keys.identity.as_bytes())), "{printed}");
    }
}
