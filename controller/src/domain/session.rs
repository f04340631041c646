//! A user's time-limited membership of one segment on one device, as the controller keeps it.

use std::net::IpAddr;

use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use partywall_proto::admin::{SessionView, SignInStrength};
use partywall_proto::ids::{DeviceId, GatewayId, SegmentId, SessionId, UserId};
use partywall_proto::keys::PresharedKey;
use partywall_proto::overlay::Session;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Keeps a key derived here from being one derived elsewhere from the same secret.
const PSK_CONTEXT: &[u8] = b"partywall session psk v1\0";

/// A secret of 32 random bytes from which preshared keys are derived, one for each gateway.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PskSecret([u8; 32]);

impl PskSecret {
    /// A secret of random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The preshared key between the device and `gateway`: HMAC-SHA256 (RFC 2104) of the gateway's
    /// name, so that no gateway learns what another one uses.
    pub fn psk(&self, gateway: &GatewayId) -> PresharedKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key length");
        mac.update(PSK_CONTEXT);
        mac.update(gateway.as_str().as_bytes());
        PresharedKey::from(<[u8; 32]>::from(mac.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for PskSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PskSecret(redacted)")
    }
}

/// A stored secret is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session's secret is 32 bytes in base64")]
pub struct PskSecretError;

impl TryFrom<String> for PskSecret {
    type Error = PskSecretError;

    fn try_from(text: String) -> Result<Self, PskSecretError> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| PskSecretError)?;
        bytes.try_into().map(Self).map_err(|_| PskSecretError)
    }
}

impl From<PskSecret> for String {
    fn from(secret: PskSecret) -> String {
        BASE64.encode(&secret.0)
    }
}

fn code() -> SignInStrength {
    SignInStrength::Code
}

/// A session with all that its configs are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its name.
    pub id: SessionId,
    /// Who signed in.
    pub user: UserId,
    /// Where. A device has at most one session.
    pub device: DeviceId,
    /// Where to.
    pub segment: SegmentId,
    /// The device's overlay addresses in this segment.
    pub addresses: Vec<IpAddr>,
    /// How the person signed in. Sessions from before this was kept began with password and code.
    #[serde(default = "code")]
    pub sign_in: SignInStrength,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ends.
    pub ends_at: Timestamp,
    /// Fresh for each session.
    pub secret: PskSecret,
}

impl SessionRecord {
    /// As agents are told.
    pub fn session(&self) -> Session {
        Session { id: self.id.clone(), user: self.user.clone(), ends_at: self.ends_at }
    }

    /// As admins are shown.
    pub fn view(&self) -> SessionView {
        SessionView {
            id: self.id.clone(),
            user: self.user.clone(),
            device: self.device.clone(),
            segment: self.segment.clone(),
            addresses: self.addresses.clone(),
            began_at: self.began_at,
            ends_at: self.ends_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gateway_and_each_session_has_a_key_of_its_own() {
        let (one, two) = (PskSecret::from_bytes([1; 32]), PskSecret::from_bytes([2; 32]));
        let (a, b): (GatewayId, GatewayId) = ("gw-a".parse().unwrap(), "gw-b".parse().unwrap());
        assert_eq!(one.psk(&a), one.psk(&a));
        assert_ne!(one.psk(&a), one.psk(&b));
        assert_ne!(one.psk(&a), two.psk(&a));
    }

    #[test]
    fn a_secret_survives_the_store_and_never_prints() {
        let secret = PskSecret::from_bytes([9; 32]);
        let text = String::from(secret.clone());
        assert!(!format!("{secret:?}").contains(&text));
        assert_eq!(PskSecret::try_from(text), Ok(secret));
        assert_eq!(PskSecret::try_from("AAAA".to_owned()), Err(PskSecretError));
    }
}
