//! What Partywall knows and decides, apart from where it is kept and how it travels.
//!
//! Pure and synchronous: no I/O, no clock, no randomness. Time and random bytes come in as arguments.

pub mod catalogue;
pub mod principal;
pub mod resource;
