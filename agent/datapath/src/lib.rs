//! Partywall's data path: bytes and a clock reading in, bytes and verdicts out.
//!
//! There is no I/O, no clock, no thread and no logging in here. Whoever holds a [`shard::Shard`]
//! feeds it and flushes its [`shard::Outbox`]; everything else follows from the bytes and `now`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod filter;
pub mod shard;

pub use filter::{DropReason, RuleTable};
