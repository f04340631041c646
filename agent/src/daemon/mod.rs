//! The daemon: a pure state machine of what is to be carried, and the shell that makes it so.
//!
//! `membership` decides and touches nothing; `shell` and its parts `conversation` (the controller)
//! and `calls` (the people at the machine) do, through an [`Enforcer`].

mod calls;
mod conversation;
mod enforcer;
mod login;
mod machine;
mod membership;
mod refusal;
mod requests;
mod shell;
mod skew;
mod step;

pub use enforcer::{EnforceError, Enforcer};
pub use machine::{Machine, Tuning};
pub use membership::{Idle, Membership};
pub use refusal::Refusal;
pub use shell::{Daemon, DaemonError};
pub use skew::{ClockSkew, WARN_S};
pub use step::Step;

#[cfg(test)]
pub(crate) mod testing;

/// An error and its causes on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
