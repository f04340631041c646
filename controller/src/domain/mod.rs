//! What Partywall knows and decides, apart from where it is kept and how it travels.
//!
//! Pure and synchronous: no I/O, no clock, no randomness. Time and random bytes come in as arguments.

pub mod addresses;
pub mod audit;
pub mod authority;
pub mod catalogue;
mod checks;
mod flow_checks;
pub mod flow_filter;
pub mod group_key;
pub mod overlay;
pub mod password;
pub mod policy;
pub mod policy_diff;
pub mod principal;
pub mod prover;
pub mod resource;
pub mod scope;
pub mod session;
#[cfg(test)]
mod testing;
pub mod throttle;
pub mod totp;
pub mod what_if;
pub mod why;
