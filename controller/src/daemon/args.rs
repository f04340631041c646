//! What can be said to `partywall-controller`.

use clap::{Parser, Subcommand};

use super::{InitRequest, ServeRequest};

/// Partywall's controller.
#[derive(Debug, Parser)]
#[command(name = "partywall-controller", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What the daemon can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make the data directory: CA, server certificate, first administrator
    Init(InitRequest),
    /// Run
    Serve(ServeRequest),
}
