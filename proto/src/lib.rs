//! What crosses a process in Partywall: ids, keys, nets, rules, the signed overlay config, the agent
//! API and the admin API.
//!
//! Everything here is pure: no I/O, no clock. A value that exists is valid; text and bytes become
//! values through `FromStr`, `TryFrom` or serde, and nowhere else.
#![warn(missing_docs)]

pub mod admin;
pub mod agent_api;
pub mod enrolment;
pub mod envelope;
pub mod flows;
pub mod ids;
pub mod keys;
pub mod nets;
mod openapi;
pub mod overlay;
pub mod problem;
pub mod rules;
