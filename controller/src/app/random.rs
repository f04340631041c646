//! Random bytes for keys, tokens and names, from the kernel alone.

use data_encoding::HEXLOWER;
use rand::RngCore as _;
use rand::rngs::OsRng;

/// `N` fresh random bytes.
pub(super) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// A fresh name: `prefix` and 64 random bits in hex.
pub(super) fn name(prefix: &str) -> String {
    format!("{prefix}{}", HEXLOWER.encode(&bytes::<8>()))
}
