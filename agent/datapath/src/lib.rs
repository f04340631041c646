//! Partywall's data path: bytes and a clock reading in, bytes and verdicts out.
//!
//! There is no I/O, no clock, no thread and no logging in here. Whoever holds a [`shard::Shard`]
//! feeds it and flushes its [`shard::Outbox`]; everything else follows from the bytes and `now`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod counters;
pub mod filter;
pub mod offload;
mod pace;
pub mod packet;
mod peers;
mod settings;
pub mod shard;
#[cfg(test)]
mod testing;
mod tunnel;

pub use filter::{DropReason, RuleTable};
