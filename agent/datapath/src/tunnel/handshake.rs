//! The handshake itself (WireGuard paper §5.4.2 and §5.4.3): what is mixed in and sealed, and in which order.
//!
//! What a message says is believed when its last part has opened, and not before. A shared secret that is
//! all zeros, which any key of low order brings about, ends the handshake, as in Linux.

use partywall_proto::keys::{PresharedKey, WireguardKey};
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};

use super::message::{
    INITIATION_BYTES, RESPONSE_BYTES, RESPONSE_RECEIVER, SENDER, word, write_initiation,
    write_response,
};
use super::noise::{Noise, Secret};
use super::stamp::Stamp;

const NO_PRESHARED_KEY: [u8; 32] = [0; 32];

/// This end's own static keys.
pub(super) struct Keys {
    pub(super) secret: StaticSecret,
    pub(super) public: PublicKey,
}

/// What a tunnel's handshakes have in common.
pub(super) struct Parties<'a> {
    pub(super) own: &'a Keys,
    pub(super) peer: &'a PublicKey,
    /// Of both static keys.
    pub(super) shared: &'a SharedSecret,
    pub(super) preshared: Option<&'a PresharedKey>,
}

impl Parties<'_> {
    fn preshared(&self) -> &[u8; 32] {
        self.preshared.map_or(&NO_PRESHARED_KEY, PresharedKey::expose)
    }
}

/// What a handshake comes to.
pub(super) struct Agreed {
    /// This end's receiver index.
    pub(super) local: u32,
    /// The other end's.
    pub(super) remote: u32,
    pub(super) seals_with: Secret,
    pub(super) opens_with: Secret,
}

/// A call that was not answered yet. Its keys are wiped when it is dropped.
pub(super) struct Call {
    local: u32,
    ephemeral: StaticSecret,
    noise: Noise,
}

impl Call {
    /// Calls: writes an initiation, but for its codes.
    pub(super) fn place(
        parties: &Parties<'_>,
        stamp: Stamp,
        local: u32,
        message: &mut [u8; INITIATION_BYTES],
    ) -> Option<Self> {
        let Parties { own, peer, shared, .. } = *parties;
        let ephemeral = StaticSecret::random();
        let ephemeral_public = PublicKey::from(&ephemeral);
        let mut noise = Noise::towards(peer);
        write_initiation(message, local);
        message[8..40].copy_from_slice(ephemeral_public.as_bytes());
        noise.mix_ephemeral(&ephemeral_public);
        noise.mix_shared(&proper(ephemeral.diffie_hellman(peer))?);
        noise.seal(own.public.as_bytes(), &mut message[40..88]);
        noise.mix_shared(shared);
        noise.seal(stamp.bytes(), &mut message[88..116]);
        Some(Self { local, ephemeral, noise })
    }

    /// This end's receiver index, by which an answer is known.
    pub(super) fn local(&self) -> u32 {
        self.local
    }

    /// Takes the answer; none if it does not hold. The call stays as it was: a forged answer must not end it.
    pub(super) fn answered(
        &self,
        parties: &Parties<'_>,
        message: &[u8; RESPONSE_BYTES],
    ) -> Option<Agreed> {
        let mut noise = self.noise.clone();
        let remote = word(message, SENDER.start)?;
        let ephemeral = key(&message[12..44])?;
        noise.mix_ephemeral(&ephemeral);
        noise.mix_shared(&proper(self.ephemeral.diffie_hellman(&ephemeral))?);
        noise.mix_shared(&proper(parties.own.secret.diffie_hellman(&ephemeral))?);
        noise.mix_preshared(parties.preshared());
        noise.open(&message[44..60], &mut [])?;
        let [seals_with, opens_with] = noise.split();
        Some(Agreed { local: self.local, remote, seals_with, opens_with })
    }
}

/// The receiver index that a response names.
pub(super) fn answered_call(message: &[u8; RESPONSE_BYTES]) -> Option<u32> {
    word(message, RESPONSE_RECEIVER.start)
}

/// Somebody who calls: read as far as it takes to know whom it claims to be.
pub(crate) struct Caller {
    key: WireguardKey,
    remote: u32,
    ephemeral: PublicKey,
    noise: Noise,
    sealed_stamp: [u8; Stamp::BYTES + partywall_aead::TAG_BYTES],
}

impl Caller {
    /// Reads an initiation; none if it does not open with our key.
    pub(super) fn read(own: &Keys, message: &[u8]) -> Option<Self> {
        let message: &[u8; INITIATION_BYTES] = message.try_into().ok()?;
        let ephemeral = key(&message[8..40])?;
        let mut noise = Noise::towards(&own.public);
        noise.mix_ephemeral(&ephemeral);
        noise.mix_shared(&proper(own.secret.diffie_hellman(&ephemeral))?);
        let mut claimed = [0; 32];
        noise.open(&message[40..88], &mut claimed)?;
        Some(Self {
            key: WireguardKey::from(claimed),
            remote: word(message, SENDER.start)?,
            ephemeral,
            noise,
            sealed_stamp: *message[88..].first_chunk()?,
        })
    }

    /// Whom it claims to be.
    pub(crate) fn key(&self) -> WireguardKey {
        self.key
    }

    /// Whom it is: none if it does not hold the key that it claims, or this is not whom it claims to be.
    pub(super) fn prove(mut self, parties: &Parties<'_>) -> Option<Proven> {
        if self.key.as_bytes() != parties.peer.as_bytes() {
            return None;
        }
        self.noise.mix_shared(parties.shared);
        let mut stamp = [0; Stamp::BYTES];
        self.noise.open(&self.sealed_stamp, &mut stamp)?;
        let Self { remote, ephemeral, noise, .. } = self;
        Some(Proven { stamp: Stamp::read(stamp), remote, ephemeral, noise })
    }
}

/// The peer calls, or somebody repeats an old call of its: the stamp tells.
pub(super) struct Proven {
    stamp: Stamp,
    remote: u32,
    ephemeral: PublicKey,
    noise: Noise,
}

impl Proven {
    /// When it says that it called.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Answers: writes a response, but for its codes.
    pub(super) fn answer(
        self,
        parties: &Parties<'_>,
        local: u32,
        message: &mut [u8; RESPONSE_BYTES],
    ) -> Option<Agreed> {
        let Self { remote, ephemeral: theirs, mut noise, .. } = self;
        let ephemeral = StaticSecret::random();
        let ephemeral_public = PublicKey::from(&ephemeral);
        write_response(message, local, remote);
        message[12..44].copy_from_slice(ephemeral_public.as_bytes());
        noise.mix_ephemeral(&ephemeral_public);
        noise.mix_shared(&proper(ephemeral.diffie_hellman(&theirs))?);
        noise.mix_shared(&proper(ephemeral.diffie_hellman(parties.peer))?);
        noise.mix_preshared(parties.preshared());
        noise.seal(&[], &mut message[44..60]);
        let [opens_with, seals_with] = noise.split();
        Some(Agreed { local, remote, seals_with, opens_with })
    }
}

fn key(bytes: &[u8]) -> Option<PublicKey> {
    <[u8; 32]>::try_from(bytes).ok().map(PublicKey::from)
}

/// None for what anybody could work out.
pub(super) fn proper(shared: SharedSecret) -> Option<SharedSecret> {
    shared.was_contributory().then_some(shared)
}
