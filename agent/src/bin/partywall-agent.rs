//! `partywall-agent`, the daemon on devices and gateways. Logs go to stderr and hold no secret.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use partywall_agent::cli::AgentArgs;
use tracing_subscriber::EnvFilter;

/// What is logged unless `PARTYWALL_LOG` says otherwise.
const LOG: &str = "info";

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("PARTYWALL_LOG").unwrap_or_else(|_| EnvFilter::new(LOG));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
    match AgentArgs::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "partywall-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
