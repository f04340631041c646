//! `partywallctl`: the admin command line.
//!
//! It knows the controller by its REST API alone: whatever it does, a program of the admin's own
//! could do too. What a script may want to read goes to standard output, everything else to standard error.

mod access;
mod args;
mod client;
mod diff;
mod flows;
mod manifest_file;
mod policy;
mod policy_effect;
mod prompt;
mod resource_path;
mod setup;
mod tables;
mod why;

use std::io::Write;
use std::path::PathBuf;

use partywall_proto::problem::Problem;

pub use args::Arguments;
use args::{AuditVerb, TokenVerb, Verb};
use client::Client;
use flows::FlowsVerb;

/// Why a verb did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Something that the verb needs was not said.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The CA file is of no use.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    /// A manifest file is not one.
    #[error("{0}")]
    Manifest(String),
    /// A policy is refused, for these reasons.
    #[error("the policy is refused; the version in force stays\n{0}")]
    Policy(String),
    /// Nobody answers there, or not as the controller would.
    #[error("{0}")]
    Connection(String),
    /// The controller refuses.
    #[error("{0}")]
    Refused(#[from] Problem),
    /// A chain of the audit trail does not hold.
    #[error(
        "{broken} of {all} audit chains do not hold; keep a copy of the data directory and find out why"
    )]
    AuditBroken {
        /// Chains that do not hold.
        broken: usize,
        /// Chains that were checked.
        all: usize,
    },
    /// Standard output is gone, or the terminal cannot be read.
    #[error("cannot talk to the terminal: {0}")]
    Terminal(#[from] std::io::Error),
}

/// Does what `arguments` ask for and writes its result to `out`.
///
/// # Errors
/// One error that says what to do; nothing has then been changed unless it says so.
pub async fn run(arguments: Arguments, out: &mut (dyn Write + Send)) -> Result<(), CtlError> {
    let client = Client::new(&arguments.connection)?;
    let json = arguments.json;
    match arguments.verb {
        Verb::Apply { files } => setup::apply(&client, &files, json, out).await,
        Verb::Diff { files } => setup::diff(&client, &files, json, out).await,
        Verb::Export => setup::export(&client, json, out).await,
        Verb::Delete { resource } => setup::delete(&client, &resource, json, out).await,
        Verb::EnrolCode { agent, lifetime } => {
            access::enrol_code(&client, agent, lifetime, json, out).await
        }
        Verb::Token { verb: TokenVerb::Create { role, organisation, holder, lifetime } } => {
            let role = args::token_role(role, organisation)?;
            access::create_token(&client, role, holder, lifetime, json, out).await
        }
        Verb::Token { verb: TokenVerb::List } => access::tokens(&client, json, out).await,
        Verb::Token { verb: TokenVerb::Revoke { token } } => {
            access::revoke_token(&client, &token, json, out).await
        }
        Verb::Credentials { user } => access::credentials(&client, &user, json, out).await,
        Verb::Sessions => access::sessions(&client, json, out).await,
        Verb::Revoke { session } => access::revoke_session(&client, &session, json, out).await,
        Verb::SignIn { device, segment, user } => {
            access::sign_in(&client, device, segment, user, json, out).await
        }
        Verb::StockConfig { device, segment } => {
            access::stock_config(&client, &device, &segment, json, out).await
        }
        Verb::Flows { verb: None, asked } => flows::list(&client, &asked, json, out).await,
        Verb::Flows { verb: Some(FlowsVerb::Status), asked: _ } => {
            flows::status(&client, json, out).await
        }
        Verb::Why(asked) => why::run(&client, &asked, json, out).await,
        Verb::Policy(asked) => policy::run(&client, &asked, json, out).await,
        Verb::Audit { verb: None, chain } => {
            setup::audit(&client, chain.as_deref(), json, out).await
        }
        Verb::Audit { verb: Some(AuditVerb::Verify), chain: _ } => {
            setup::audit_verify(&client, json, out).await
        }
    }
}

/// Says that something is done: as JSON to programs, in a line to people.
fn done(
    json: bool,
    out: &mut dyn Write,
    for_programs: &serde_json::Value,
    for_people: &str,
) -> Result<(), CtlError> {
    match json {
        true => write_json(out, for_programs),
        false => Ok(writeln!(out, "{for_people}")?),
    }
}

/// Writes `value` as JSON, indented, for programs.
fn write_json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), CtlError> {
    let text = serde_json::to_string_pretty(value).expect("answers of the API have a JSON form");
    Ok(writeln!(out, "{text}")?)
}

/// A line for the person at the terminal, out of the way of what a script reads.
fn hint(text: std::fmt::Arguments<'_>) {
    // A closed standard error must not fail a verb that did its work.
    let _closed = writeln!(std::io::stderr(), "{text}");
}
