//! Partywall's agent: everything around the pure data path.

pub mod cli;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod ipc;
pub mod os;
pub mod state;
mod sys;
